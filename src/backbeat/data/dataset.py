"""A data set in memory: examples, labels and weights as arrays, checked once, where data and settings first meet."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import DataError
from .held_out import Split
from .packed import Packed


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples, their labels and their weights.

    Attributes:
        x: `[n, ...]` float32, or int32 for inputs that are counts or tokens.
        y: `[n, ...]` int32 for classes, float32 for values and soft labels.
        weight: `[n]` float32, or None where every example counts 1.
        name: what it is called in reports.
        classes: the names of the classes where labels were not numbers from 0 on, else None.
        source: what `load` reads the same data from again, None for arrays.
        parts: which examples are trained on and which held out, where the data decides it; None for a share by seed.
        preparation: what made the inputs from what was read, and makes them of new data; None for inputs as they are.
        task: "classification", "labels" (several labels of 0 or 1) or "regression".
        notes: sentences on what was recognised, counted or set aside when it was read.
    """

    x: Any  # an array, or a `Packed` one that lies in files
    y: np.ndarray
    weight: np.ndarray | None = None
    name: str = "arrays"
    classes: tuple[str, ...] | None = None
    source: str | None = None
    parts: Split | None = None
    preparation: Any = None
    task: str = "auto"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.x.shape[1:]

    def as_whole(self) -> Dataset | None:
        """Returns the data with its inputs as int32; None where they were not whole numbers."""
        return None

    @cached_property
    def sha256(self) -> str:
        """The hash of inputs, labels and weights: what tells whether a run is repeated on the same data."""
        if isinstance(self.x, Packed):  # known by its content, labels and weights included
            return self.x.sha256
        digest = hashlib.sha256()
        for array in (self.x, self.y, self.weight):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def from_arrays(
    x: Any,
    y: Any,
    weight: Any = None,
    *,
    name: str = "arrays",
    source: str | None = None,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """Returns the data set of two or three arrays.

    Args:
        x: `[n, ...]` numbers; cast to float32 (whole numbers stay whole only where they index something: int32 is cast
            as well, since a dense network needs floats).
        y: `[n]` class numbers or names, or `[n, ...]` values.
        weight: `[n]`, 0 or more.
        name: what it is called in reports.
        source: see `Dataset`.
        classes: the names of all classes where `y` holds their numbers; None where `y` holds the names, or for values.

    Raises:
        DataError: no examples, lengths that differ, something that is not a number or not finite, with where it is.

    Example:
        >>> from_arrays([[0.0], [1.0]], ["cat", "dog"]).classes
        ('cat', 'dog')
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or len(x) == 0:
        raise DataError(
            f"{name}: there are no examples (the inputs have the shape {list(x.shape)}); give at least one."
        )
    if x.ndim == 1:
        raise DataError(
            f"{name}: the inputs have the shape {list(x.shape)}; give [examples, features], for one feature x[:, None]."
        )
    if y.shape[:1] != x.shape[:1]:
        raise DataError(
            f"{name}: {len(x)} inputs but {len(y) if y.ndim else 'no'} labels; give one label for each input."
        )
    x = _as_float(x, f"{name}: inputs")
    if y.dtype.kind in "USO":
        names, y = np.unique(y.astype(str), return_inverse=True)
        classes = tuple(str(label) for label in names)
    if y.dtype.kind in "iu" and y.size and (int(y.min()) < -(2**31) or int(y.max()) >= 2**31):
        raise DataError(f"{name}: labels run from {y.min()} to {y.max()}; number the classes from 0, or give floats.")
    y = y.astype(np.int32) if y.dtype.kind in "iub" else _as_float(y, f"{name}: labels")
    return Dataset(x, y, None if weight is None else _as_weight(weight, len(x), name), name, classes, source)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns an empty array that begins at a multiple of 64 bytes, which JAX takes on the CPU without a copy.

    NumPy's own large arrays begin 16 bytes into a page, so that a run holds them twice.

    Example:
        >>> aligned((3, 5), np.float32).ctypes.data % 64
        0
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def _as_float(array: np.ndarray, what: str) -> np.ndarray:
    """Returns the array as float32, without a copy where it already is; refuses what float32 cannot hold."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} are of the type {array.dtype}; give numbers.")
    if array.dtype != np.float32:
        cast = aligned(array.shape, np.float32)
        with np.errstate(over="ignore"):
            cast[...] = array
        array = cast
    if not np.isfinite(array.sum(dtype=np.float64)) and not (finite := np.isfinite(array)).all():
        where = [int(i) for i in np.argwhere(~finite)[0]]
        raise DataError(
            f"{what} hold {np.count_nonzero(~finite)} values that are not finite numbers, the first at {where}; "
            "remove or replace them."
        )
    return array


def _as_weight(weight: Any, n: int, name: str) -> np.ndarray | None:
    weight = _as_float(np.asarray(weight), f"{name}: weights")
    if weight.shape != (n,):
        raise DataError(
            f"{name}: the weights have the shape {list(weight.shape)} for {n} examples; give one number each."
        )
    if (weight < 0).any() or not weight.any():
        raise DataError(f"{name}: weights must be 0 or more, and more than 0 for at least one example.")
    return None if (weight == 1).all() else weight
