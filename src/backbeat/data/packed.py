"""Examples that lie in files: an array that is read where it is indexed, for data that is larger than the memory given.

The shards are ordinary `.npy` files. They are read, not mapped: a mapped page counts as memory of the process, and the
kernel maps up to 2 MiB around each example that is touched, so that a random order would soon hold the whole file.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError

_SLOW_SECONDS = 2e-5  # an example takes about 1 µs from the page cache, and more than 50 µs from a disk


class Packed:
    """An array `[n, ...]` in shards of equally many examples (the last may hold fewer), indexed along the first axis.

    What is indexed is read and returned as an ordinary array: `x[3]`, `x[10:20]`, `x[np.array([7, 2])]`.

    Attributes:
        shape: of the whole array.
        dtype: of its numbers.
        sha256: the hash that stands for the content.
        shards: the files.
        per_shard: how many examples each holds.
        divisor: what the numbers in the files are divided by when they are read: 255 for pixels in bytes; else None.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "0.npy", np.arange(6.0).reshape(3, 2))
        >>> Packed([folder / "0.npy"], (3, 2), np.float64, 3)[[2, 0]].tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    def __init__(
        self,
        shards: Sequence[Path],
        shape: Sequence[int],
        dtype: Any,
        per_shard: int,
        sha256: str = "",
        *,
        divisor: int | None = None,
    ) -> None:
        self.shape, self._stored, self.sha256 = tuple(int(n) for n in shape), np.dtype(dtype), sha256
        self.dtype = self._stored if divisor is None else np.dtype(np.float32)
        self.shards, self.per_shard, self.divisor = tuple(shards), int(per_shard), divisor
        self._example = math.prod(self.shape[1:]) * self._stored.itemsize  # bytes
        self._slow = False  # whether the newest read waited for a disk
        files: list[int] = []
        weakref.finalize(self, _close, files)
        try:
            for shard in self.shards:
                files.append(os.open(shard, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
            self._files = files
            self._headers = [_header_bytes(shard) for shard in self.shards]
        except OSError as error:
            raise DataError(_cannot_read(error)) from error

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes the numbers take."""
        return self.size * self.dtype.itemsize

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise DataError(
            f"data of {self.nbytes / 1e9:.3g} GB lies in files because it is larger than the memory given, so it is "
            "not made one array; take parts of it, or give more memory."
        )

    def __getitem__(self, key: Any) -> np.ndarray:
        """Returns the examples at a number, a slice, an array of numbers or a mask."""
        n = len(self)
        if isinstance(key, slice):
            where = np.arange(*key.indices(n))
        else:
            where = np.asarray(key)
            if where.dtype == bool:
                if where.shape != (n,):
                    raise IndexError(f"a mask of the shape {list(where.shape)} for {n} examples")
                where = np.flatnonzero(where)
            where = where.astype(np.int64) if where.size == 0 else where
            if where.dtype.kind not in "iu":
                raise IndexError(f"{key!r} is no number of an example, slice, array of numbers or mask")
            if where.size and (where.min() < -n or where.max() >= n):
                raise IndexError(f"examples {where.min()} to {where.max()} of {n}")
            where = np.where(where < 0, where + n, where)
        out = np.empty((*where.shape, *self.shape[1:]), self.dtype)
        self.take(where, out)
        return out

    def take(self, where: np.ndarray, out: np.ndarray) -> None:
        """Reads the examples at `where` into `out` `[*where, *example]`, which is contiguous.

        A number out of range gives the nearest example, as in compiled programs. May be called from several threads.

        Raises:
            DataError: a file cannot be read, or is shorter than it was.
        """
        rows = np.clip(where.reshape(-1), 0, len(self) - 1)
        if not len(rows) or not self._example:
            return
        shard, place = np.divmod(rows, self.per_shard)
        first = np.flatnonzero(np.concatenate([[True], (np.diff(rows) != 1) | (place[1:] == 0)]))  # of each run
        n_bytes = np.diff(np.append(first, len(rows))) * self._example
        offset = np.asarray(self._headers)[shard[first]] + place[first].astype(np.int64) * self._example
        runs = (shard[first].tolist(), offset.tolist(), (first * self._example).tolist(), n_bytes.tolist())
        read = out if self.divisor is None else np.empty(out.shape, self._stored)
        try:
            self._read(runs, read.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise DataError(_cannot_read(error)) from error
        if self.divisor is not None:
            np.divide(read, np.float32(self.divisor), out=out)

    def _read(self, runs: tuple[list[int], ...], memory: memoryview) -> None:
        """Reads runs of (shard, offset, place in the memory, bytes)."""
        files = self._files
        for number, offset, place, n_bytes in zip(*runs, strict=True):
            done = _read_at(files[number], memory[place : place + n_bytes], offset)
            while done < n_bytes:
                more = _read_at(files[number], memory[place + done : place + n_bytes], offset + done)
                if not more:
                    raise OSError(f"{self.shards[number]} is shorter than it was")
                done += more


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _header_bytes(shard: Path) -> int:
    """Returns where the numbers of an `.npy` file begin."""
    with open(shard, "rb") as file:
        version = np.lib.format.read_magic(file)
        (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
        return file.tell()


def _cannot_read(error: OSError) -> str:
    return (
        f"packed data cannot be read any more ({' '.join(str(error).split())}); run again, which packs it anew where "
        "it is damaged."
    )


_seek = threading.Lock()


def _read_by_seeking(file: int, memory: memoryview, offset: int) -> int:
    """Reads as `os.preadv` does, for systems without it."""
    with _seek:
        os.lseek(file, offset, os.SEEK_SET)
        read = os.read(file, len(memory))
    memory[: len(read)] = read
    return len(read)


def _read_with_preadv(file: int, memory: memoryview, offset: int) -> int:
    return os.preadv(file, (memory,), offset)


_read_at: Callable[[int, memoryview, int], int] = _read_with_preadv if hasattr(os, "preadv") else _read_by_seeking
