"""Many short reads from files: in one call of the kernel where there is such a call, else one after another.

An example is some KB, and a batch in random order is as many reads. One by one, each costs Python 0.4 µs beside the
kernel's 1.1 µs, and takes and releases the interpreter's lock. On Linux `io_submit` takes them all at once; what it
reads lies in the page cache already, or is waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import threading
from functools import cache
from typing import Any, NamedTuple

import numpy as np

_MOST = 1024  # reads in one call
_NUMBERS = {"x86_64": (206, 208, 209), "aarch64": (0, 4, 2)}  # io_setup, io_getevents, io_submit
_IOCB = np.dtype({
    "names": ["op", "file", "memory", "n_bytes", "offset"], "formats": ["u2", "u4", "u8", "u8", "i8"],
    "offsets": [16, 20, 24, 32, 40], "itemsize": 64,
})  # fmt: skip
_EVENT = np.dtype([("data", "u8"), ("iocb", "u8"), ("result", "i8"), ("more", "i8")])


class Reads(NamedTuple):
    """What is read: so many bytes at an offset of an open file to a place in the memory, arrays of one entry a read."""

    files: np.ndarray
    offsets: np.ndarray
    places: np.ndarray
    n_bytes: np.ndarray


def read_all(reads: Reads, memory: np.ndarray) -> None:
    """Does all the reads, as many at a time as the system takes.

    Args:
        reads: any number.
        memory: `[bytes]` uint8, contiguous.

    Raises:
        OSError: a file cannot be read, or is shorter.
    """
    if len(reads.files) > 1 and (batch := _taken()) is not None:
        done = batch.read(reads, memory.ctypes.data)
        _free.append(batch)
        left = np.flatnonzero(done != reads.n_bytes)  # the end of a file, an error or a part: shows below which
        reads = Reads(*(column[left] for column in reads))
    view = memory.data
    for file, offset, place, size in zip(*(column.tolist() for column in reads), strict=True):
        done = 0
        while done < size:
            more = _read_at(file, view[place + done : place + size], offset + done)
            if not more:
                raise OSError("a file is shorter than it was")
            done += more


def announce(reads: Reads) -> None:
    """Tells the system what will be read, where it listens: so that a disk can work on all of it at the same time."""
    if hasattr(os, "posix_fadvise"):
        for file, offset, n_bytes in zip(
            reads.files.tolist(), reads.offsets.tolist(), reads.n_bytes.tolist(), strict=True
        ):
            os.posix_fadvise(file, offset, n_bytes, os.POSIX_FADV_WILLNEED)


class _Batch:
    """Reads in calls of `io_submit`, by one thread at a time."""

    def __init__(self, libc: Any, numbers: tuple[int, int, int]) -> None:
        self.libc, (setup, self.getevents, self.submit) = libc, numbers
        self.context = ctypes.c_ulong(0)
        if libc.syscall(setup, _MOST, ctypes.byref(self.context)):
            raise OSError(ctypes.get_errno(), "io_setup")
        self.iocbs, self.events = np.zeros(_MOST, _IOCB), np.zeros(_MOST, _EVENT)
        self.pointers = self.iocbs.ctypes.data + _IOCB.itemsize * np.arange(_MOST, dtype=np.uint64)

    def read(self, reads: Reads, address: int) -> np.ndarray:
        """Returns how many bytes each read gave; fewer than asked for, or negative, where it did not work."""
        given = np.full(len(reads.files), -1)
        for start in range(0, len(given), _MOST):
            part = Reads(*(column[start : start + _MOST] for column in reads))
            n = len(part.files)
            iocbs = self.iocbs[:n]
            iocbs["file"], iocbs["offset"], iocbs["n_bytes"] = part.files, part.offsets, part.n_bytes
            iocbs["memory"] = address + part.places
            taken = self.libc.syscall(self.submit, self.context, n, ctypes.c_void_p(self.pointers.ctypes.data))
            if taken <= 0:
                break
            events = ctypes.c_void_p(self.events.ctypes.data)
            while (got := self.libc.syscall(self.getevents, self.context, taken, taken, events, None)) < 0:
                pass  # interrupted by a signal: they are being written to, and have to be waited for
            which = (self.events["iocb"][:got] - np.uint64(self.iocbs.ctypes.data)) // np.uint64(_IOCB.itemsize)
            given[start + which.astype(np.int64)] = self.events["result"][:got]
        return given


_free: list[_Batch] = []  # not in use; appended to and popped from, which threads may do at the same time


def _taken() -> _Batch | None:
    """Returns what to read with, to be given back to `_free`; None where there is no such call."""
    with contextlib.suppress(IndexError):
        return _free.pop()
    numbers = _NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
    if numbers is None:
        return None
    try:
        return _Batch(_libc(), numbers)
    except (OSError, AttributeError):  # not allowed here, or no more of them
        return None


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


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


_read_at = _read_with_preadv if hasattr(os, "preadv") else _read_by_seeking
