"""Where data comes from: arrays, an `.npz` file, or the handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .dataset import Dataset, aligned, from_arrays
from .raw import Reading


def load(data: Any = None, reading: Reading | None = None, seed: int = 0) -> Dataset:
    """Returns the data set that a user's value stands for.

    Args:
        data: None or "digits" for scikit-learn's 1,797 handwritten digits (8×8 pixels, scaled to 0..1); a pair (x, y)
            or a triple (x, y, weight) of arrays; the path of an `.npz` file that holds them under these names; or a
            `Dataset`.

    Raises:
        DataError: anything else, a file that is not there or cannot be read, or arrays that cannot be used.

    Example:
        >>> load("digits").x.shape
        (1797, 8, 8)
    """
    if isinstance(data, Dataset):
        return data
    if data is None or (isinstance(data, str) and data == "digits"):
        return digits()
    if isinstance(data, (str, os.PathLike)):
        return _read_npz(Path(data))
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        return from_arrays(*data)
    raise DataError(
        f"data of the type {type(data).__name__} is not understood; give (x, y) or (x, y, weight) arrays, "
        'the path of an .npz file, or "digits".'
    )


def digits() -> Dataset:
    """Returns scikit-learn's copy of the UCI optical digits: 1,797 images of 8×8 pixels, scaled to 0..1."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    x, y = (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int32)
    return from_arrays(x, y, name="digits", source="digits")


def _read_npz(path: Path) -> Dataset:
    if path.suffix != ".npz":
        raise DataError(
            f'{path} is not a kind of file that is read yet; give an .npz file with the arrays x and y, or "digits".'
        )
    if not path.is_file():
        raise DataError(f"{path} is not there; check the path, or leave it out to use the handwritten digits.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            missing = [name for name in ("x", "y") if name not in names]
            if missing:
                raise DataError(
                    f"{path} has no array {missing[0]!r}, only {', '.join(sorted(names)) or 'none'}; save it with "
                    "np.savez(path, x=..., y=...)."
                )
            arrays = [_read_array(archive, name) if name in names else None for name in ("x", "y", "weight")]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} cannot be read as an .npz file ({error}); save it again with np.savez(path, x=..., y=...)."
        ) from None
    return from_arrays(*arrays, name=path.name, source=str(path.resolve()))


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Returns one array, read straight into memory that JAX takes without a copy; never an array of objects.

    `np.load` would read it into memory that has to be copied once more, and leaves a damaged file open.
    """
    opened: Any = archive.open(f"{name}.npy")
    with opened as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"the array {name!r} has the unknown format {version}")
        one = version == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
        shape, columns_first, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError(f"the array {name!r} holds Python objects, which are not read")
        array = aligned(shape[::-1] if columns_first else shape, dtype)
        memory, done = array.reshape(-1).view(np.uint8).data, 0
        while done < len(memory) and (read := file.readinto(memory[done:])):
            done += read
        if done < len(memory) or file.read(1):  # reading on to the end also makes zipfile compare the checksum
            raise EOFError(f"the array {name!r} has another length than its header says")
    return array.T if columns_first else array
