"""Examples that lie in files: an array that is read where it is indexed, for data that is larger than the memory given.

The shards are ordinary `.npy` files. They are read, not mapped: a mapped page counts as memory of the process, and the
kernel maps up to 2 MiB around each example that is touched, so that a random order would soon hold the whole file.
"""

from __future__ import annotations

import copy
import math
import os
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...cores import in_threads, n_cores
from ...errors import DataError
from .reads import Reads, announce, read_all

# slower than this, a read has waited for a disk: from the page cache one takes about 1 µs and 0.2 s a GB
_READ_SECONDS, _BYTES_A_SECOND = 1e-5, 1e9
_PIECE_BYTES, _CACHED_BYTES = 1 << 24, 1 << 18
_LEAST_PART_BYTES = 1 << 17  # handing less than 128 KiB to another thread costs more than it saves


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
        waited: whether the newest read waited for a disk.

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
        self._near = np.empty((0, *self.shape[1:]), self._stored)  # the first examples, kept in memory
        self.waited = False
        self._example = math.prod(self.shape[1:]) * self._stored.itemsize  # bytes
        files: list[int] = []
        self._open = _Open(files)  # shared by what `as_type` returns
        try:
            for shard in self.shards:
                files.append(os.open(shard, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
            self._files = np.asarray(files)
            self._headers = np.asarray([_header_bytes(shard) for shard in self.shards])
        except OSError as error:
            raise DataError(_cannot_read(error)) from error

    def __copy__(self) -> Packed:
        other = object.__new__(Packed)
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the files itself, and keeps nothing of them in memory."""
        given = (self.shards, self.shape, self._stored, self.per_shard, self.sha256)
        return _reopened, (given, self.divisor, self.dtype)

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

    def keep(self, n_bytes: float) -> Packed:
        """Returns the same array, of which so many bytes stay in memory: its first examples, read now.

        In a random order an example comes from there in a third of the time that a read from the page cache takes.
        """
        n = int(min(max(0, n_bytes) // max(1, self._example), len(self)))
        other = copy.copy(self)
        other._near = np.empty((0, *self.shape[1:]), self._stored)
        near = np.empty((n, *self.shape[1:]), self._stored)
        for start in range(0, n, rows := max(1, _PIECE_BYTES // max(1, self._example))):
            other._take_stored(np.arange(start, min(n, start + rows)), near[start : start + rows])
        other._near = near
        return other

    @property
    def bytes_kept(self) -> int:
        """How many bytes stay in memory."""
        return self._near.nbytes

    @property
    def bytes_in_files(self) -> int:
        """How many bytes the files take."""
        return self.shape[0] * self._example

    def as_type(self, dtype: Any) -> Packed:
        """Returns the same numbers as another type, converted when they are read."""
        other = copy.copy(self)
        other.dtype = np.dtype(dtype)
        return other

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
        rows = self._rows(where)
        if not len(rows) or not self._example:
            return
        flat = out.reshape(-1, *self.shape[1:])
        n = max(1, min(n_cores(), len(rows) * self._example // _LEAST_PART_BYTES))
        cuts = [len(rows) * k // n for k in range(n + 1)]
        in_threads(lambda part: self._take(rows[part], flat[part]), map(slice, cuts, cuts[1:]), "reads")

    def announce(self, where: np.ndarray) -> None:
        """Tells the system which examples will be read, so that a disk can bring them meanwhile."""
        rows = self._rows(where)
        rows = rows[rows >= len(self._near)]
        if len(rows) and self._example:
            announce(self._reads(rows, np.arange(len(rows))))

    def _rows(self, where: np.ndarray) -> np.ndarray:
        return np.clip(where.reshape(-1), 0, len(self) - 1)

    def _take(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Takes examples `[rows, *example]` as numbers of `dtype`."""
        stored = out if self._stored == self.dtype else np.empty(out.shape, self._stored)
        self._take_stored(rows, stored)
        if self.divisor is not None and self.dtype == np.float32:
            np.divide(stored, np.float32(self.divisor), out=out)
        elif stored is not out:
            out[...] = stored

    def _take_stored(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Takes examples `[rows, *example]` as they are stored, from memory where they stay there, else from files."""
        near = rows < len(self._near)
        if near.all():
            np.take(self._near, rows, axis=0, out=out, mode="clip")
            return
        places = np.arange(len(rows))
        if near.any():
            kept = np.flatnonzero(near)
            few = np.empty((max(1, _CACHED_BYTES // self._example), *self.shape[1:]), self._stored)
            for start in range(0, len(kept), len(few)):
                part = kept[start : start + len(few)]
                out[part] = np.take(self._near, rows[part], axis=0, out=few[: len(part)], mode="clip")
            places, rows = places[~near], rows[~near]
        try:
            self._read(rows, places, out.reshape(-1).view(np.uint8))
        except OSError as error:
            raise DataError(_cannot_read(error)) from error

    def _reads(self, rows: np.ndarray, places: np.ndarray) -> Reads:
        """Returns the reads of examples to their places; neighbours in a file that stay so are one read."""
        shard, in_shard = np.divmod(rows, self.per_shard)
        apart = (np.diff(rows) != 1) | (np.diff(places) != 1) | (in_shard[1:] == 0)
        first = np.flatnonzero(np.concatenate([[True], apart]))
        n_bytes = np.diff(np.append(first, len(rows))) * self._example
        offsets = self._headers[shard[first]] + in_shard[first].astype(np.int64) * self._example
        return Reads(self._files[shard[first]], offsets, places[first] * self._example, n_bytes)

    def _read(self, rows: np.ndarray, places: np.ndarray, memory: np.ndarray) -> None:
        """Reads examples to their places in the memory."""
        reads = self._reads(rows, places)
        began = time.perf_counter()
        if self.waited:  # ask for everything at once: a disk answers many requests in the time of a few
            announce(reads)
        read_all(reads, memory)
        self.waited = (
            time.perf_counter() - began > _READ_SECONDS * len(reads.files) + reads.n_bytes.sum() / _BYTES_A_SECOND
        )


def _reopened(given: tuple[Any, ...], divisor: int | None, dtype: Any) -> Packed:
    return Packed(*given, divisor=divisor).as_type(dtype)


class _Open:
    """Open files, closed when nobody holds this any more."""

    def __init__(self, files: list[int]) -> None:
        weakref.finalize(self, _close, files)


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
