"""A data set in memory: examples, labels and weights as arrays, checked once, where data and settings first meet."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import DataError
from .held_out import Split
from .streaming.packed import Packed

_EXACT = 1 << 24  # float32 holds every whole number up to here


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
        held_out_source: what reads the held-out part again where it came from elsewhere, else None.
        parts: which examples are trained on and which held out, where the data decides it; None for a share by seed.
        preparation: what made the inputs from what was read, and makes them of new data; None for inputs as they are.
        task: "classification", "labels" (several labels of 0 or 1) or "regression".
        notes: sentences on what was recognised, counted or set aside when it was read.
        whole: True where `x` holds whole numbers, each of them exactly; the array that was given where it holds some
            that float32 cannot tell apart; False for any other numbers.
    """

    x: Any  # an array, or a `Packed` one that lies in files
    y: np.ndarray
    weight: np.ndarray | None = None
    name: str = "arrays"
    classes: tuple[str, ...] | None = None
    source: str | None = None
    held_out_source: str | None = None
    parts: Split | None = None
    preparation: Any = None
    task: str = "auto"
    notes: tuple[str, ...] = ()
    whole: Any = False

    def __len__(self) -> int:
        return len(self.x)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.x.shape[1:]

    def as_whole(self) -> Dataset | None:
        """Returns the data with its inputs as int32; None where they were not whole numbers.

        Raises:
            DataError: whole numbers that int32 does not hold.

        Example:
            >>> from_arrays([[3, 1], [4, 1]], [0, 1]).as_whole().x.tolist()
            [[3, 1], [4, 1]]
        """
        if self.whole is False:
            return None
        if isinstance(self.x, Packed):
            return replace(self, x=self.x.as_type(np.int32))
        given = self.x if self.whole is True else self.whole
        if self.whole is not True and (int(given.min()) < -(2**31) or int(given.max()) >= 2**31):
            raise DataError(
                f"{self.name}: inputs that a network takes as numbers of tokens run from {given.min()} to "
                f"{given.max()}, beyond int32; number them from 0."
            )
        x = aligned(given.shape, np.int32)
        x[...] = given
        return replace(self, x=x, whole=True, notes=tuple(note for note in self.notes if note != _not_exact(self.name)))

    @property
    def label_scale(self) -> Any:
        """What values to predict were divided by for the training, `[outputs]`; 1 where they are as they were."""
        labels = getattr(self.preparation, "labels_are", None)
        return np.asarray(labels.scale) if labels is not None and labels.scale else 1.0

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
        x: `[n, ...]` numbers; cast to float32, whole ones too, since a dense network needs floats: for one that indexes
            with them there is `Dataset.as_whole`.
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
    whole = _whole(x)
    x = _as_float(x, f"{name}: inputs")
    if y.dtype.kind in "USO":
        names, y = np.unique(y.astype(str), return_inverse=True)
        classes = tuple(str(label) for label in names)
    if y.dtype.kind in "iu" and y.size and (int(y.min()) < -(2**31) or int(y.max()) >= 2**31):
        raise DataError(f"{name}: labels run from {y.min()} to {y.max()}; number the classes from 0, or give floats.")
    y = y.astype(np.int32) if y.dtype.kind in "iub" else _as_float(y, f"{name}: labels")
    weight = None if weight is None else _as_weight(weight, len(x), name)
    notes = () if isinstance(whole, bool) else (_not_exact(name),)
    return Dataset(x, y, weight, name, classes, source, notes=notes, whole=whole)


def _whole(x: np.ndarray) -> Any:
    """Returns `Dataset.whole` for inputs as they were given."""
    if x.dtype.kind not in "iu" or not x.size:
        return False
    exact = x.dtype.itemsize <= 2 or (int(x.min()) >= -_EXACT and int(x.max()) <= _EXACT)
    return True if exact else x


def _not_exact(name: str) -> str:
    return (
        f"{name}: inputs are whole numbers beyond {_EXACT:,}, which float32 cannot tell apart; where they are numbers "
        "of something, number that from 0."
    )


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
    with np.errstate(invalid="ignore"):  # infinity less infinity
        total = array.sum(dtype=np.float64)
    if not np.isfinite(total) and not (finite := np.isfinite(array)).all():
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
