"""Values that a person gives as arrays: what NumPy makes of them, what numbers and labels may be, what is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from ...errors import DataError

LONGEST_LABEL = 1000  # characters: a longer one is a text, not the name of a class


def array_of(value: Any, what: str) -> Any:
    """Returns a value as an array, its numbers not yet looked at: a NumPy array, a masked one, or a sparse matrix.

    Args:
        value: a NumPy array, nested lists, anything with `__array__` or `__dlpack__`, a matrix of `scipy.sparse`.
        what: what it is, for the sentence of an error: "arrays: inputs".

    Raises:
        DataError: rows of different lengths, or what NumPy cannot make an array of.

    Example:
        >>> array_of([[1, 2], [3, 4]], "inputs").shape
        (2, 2)
    """
    if isinstance(value, np.ndarray):
        return value
    if is_sparse(value):
        return value.tocsr() if len(value.shape) == 2 else value.toarray()
    try:
        if hasattr(value, "detach"):  # PyTorch
            value = value.detach().cpu()
            value = value.to_dense() if getattr(value, "is_sparse", False) else value
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
            return np.asarray(value)
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except Exception as error:
        if isinstance(value, (list, tuple)) and (uneven := _first_uneven(value)):
            raise DataError(f"{what} have rows of different lengths: {uneven}; give all the same shape.") from None
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{what} cannot be made an array of ({reason}); give NumPy arrays of numbers.") from None


def numbers_of(array: Any, what: str, notes: list[str]) -> np.ndarray:
    """Returns numbers in this machine's own byte order; missing ones of a masked array as NaN, which a note counts.

    Raises:
        DataError: complex numbers, Python objects, fields, dates.

    Example:
        >>> numbers_of(np.ma.masked_equal([1, -9], -9), "inputs", notes := []).tolist()
        [1.0, nan]
        >>> notes
        ['inputs: 1 masked value is missing.']
    """
    if is_sparse(array):
        array = array.toarray()
    if array.dtype.names:
        raise DataError(
            f"{what} have the fields {', '.join(array.dtype.names)}; give one array of numbers, or save the fields as "
            "the columns of a Parquet file."
        )
    if array.dtype.kind == "O":
        raise DataError(f"{what} are of the type object{_first_object(array)}; give numbers, such as x.astype(float).")
    if array.dtype.kind == "V" and array.dtype.itemsize <= 2:  # bfloat16 and the 8-bit floats of ml_dtypes
        with suppress(TypeError, ValueError):
            array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} are of the type {array.dtype}; give numbers.")
    if isinstance(array, np.ma.MaskedArray):
        if n := int(np.ma.count_masked(array)):
            array = np.ma.filled(array.astype(np.promote_types(array.dtype, np.float32)), np.nan)
            notes.append(f"{what}: {n} masked {'value is' if n == 1 else 'values are'} missing.")
        array = np.asarray(array)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def labels_of(array: Any, what: str) -> np.ndarray:
    """Returns labels: numbers, or texts that are names of classes.

    Raises:
        DataError: missing labels, a mixture of texts and numbers, texts that are too long for a name.

    Example:
        >>> labels_of(np.array(["a", "b"], object), "labels").tolist()
        ['a', 'b']
    """
    if isinstance(array, np.ma.MaskedArray) and (n := int(np.ma.count_masked(array))):
        first = int(np.argwhere(np.ma.getmaskarray(array))[0][0])
        raise DataError(f"{what} are masked for {n} examples, the first at {first}; leave these out or fill them in.")
    array = np.asarray(array)
    if array.dtype.kind == "O":
        array = _objects_as_labels(array, what)
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{what} are bytes that are not UTF-8 ({error.reason}); give texts or numbers.") from None
    if array.dtype.kind not in "UT":
        return numbers_of(array, what, [])
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.size and int((lengths := np.strings.str_len(array)).max()) > LONGEST_LABEL:
        raise DataError(
            f"{what} hold a text of {lengths.max()} characters at {int(lengths.argmax())}; the name of a class has at "
            f"most {LONGEST_LABEL}."
        )
    return array


def _objects_as_labels(array: np.ndarray, what: str) -> np.ndarray:
    """Returns an array of objects as texts, if all are, or as numbers."""
    flat = array.reshape(-1).tolist()
    longest = max((len(value) for value in flat if isinstance(value, str)), default=0)
    if flat and all(isinstance(value, str) for value in flat):
        if longest <= LONGEST_LABEL:
            return array.astype(str)
        at = next(i for i, value in enumerate(flat) if len(value) == longest)
        raise DataError(
            f"{what} hold a text of {longest} characters at {at}; the name of a class has at most {LONGEST_LABEL}."
        )
    if flat and all(isinstance(value, (bool, int, float)) for value in flat):
        return np.asarray(flat).reshape(array.shape)
    kind = str if longest else (bool, int, float)
    at = next((i for i, value in enumerate(flat) if not isinstance(value, kind)), 0)
    raise DataError(
        f"{what} hold {flat[at]!r:.60} at {at}, of the type {type(flat[at]).__name__}; give all as texts, or all as "
        "numbers."
    )


def is_sparse(value: Any) -> bool:
    """Whether a value is a matrix of `scipy.sparse`, which is not imported to tell."""
    return type(value).__module__.startswith("scipy.sparse")


def is_pixels(x: np.ndarray) -> bool:
    """Whether numbers are of the kind that images have: 8 bits, `[n, height, width]` or with channels."""
    return x.dtype == np.uint8 and x.ndim in (3, 4)


def _first_uneven(rows: Any) -> str:
    """Returns where nested lists change their length, "" if they do not at the first two levels."""
    lengths = [len(row) if hasattr(row, "__len__") else None for row in rows]
    for i, length in enumerate(lengths):
        if length != lengths[0]:
            return f"the first has {_numbers(lengths[0])}, that at {i} has {_numbers(length)}"
    return ""


def _numbers(length: int | None) -> str:
    return "no length" if length is None else f"{length} number{'s' * (length != 1)}"


def _first_object(array: np.ndarray) -> str:
    """Returns " (at [1, 0] is 'a')" for the first value that is no number."""
    for at, value in np.ndenumerate(array):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f" (at {list(at)} is {value!r:.40})"
    return ""
