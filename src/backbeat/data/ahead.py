"""Examples read ahead: while the device computes, a thread reads what a program will ask for next.

What a program fetches, and in which order, is known before it runs (`stretch.fetches`, `evaluate.fetches`). The thread
reads it into a bounded number of buffers; a fetch takes the one that holds exactly what it asks for, and reads for
itself where there is none. So the numbers never depend on what was foreseen, only the time does.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

AHEAD_BYTES = 1 << 25  # 32 MiB of buffers


class Ahead:
    """An array in files, from which one run of a program takes examples in the order that was foreseen.

    The thread ends when all is read, or when nobody holds this object any more.

    Attributes:
        array: the array that is read.
    """

    def __init__(self, array: Any, requests: Iterable[np.ndarray], n_bytes: int = AHEAD_BYTES) -> None:
        self.array, self._ring = array, _Ring(array, requests, n_bytes)
        weakref.finalize(self, self._ring.close)
        threading.Thread(target=self._ring.fill, name="backbeat reads ahead", daemon=True).start()

    def take(self, where: np.ndarray, out: np.ndarray) -> None:
        """Copies the examples at `where` into `out` `[*where, *example]`; from a buffer where they were read ahead."""
        if not self._ring.take(where, out):
            self.array.take(where, out)

    def close(self) -> None:
        """Ends the thread."""
        self._ring.close()


class _Read:
    """One request: what it asks for, the buffer it is read into, and whether it is there."""

    def __init__(self, where: np.ndarray, rows: np.ndarray) -> None:
        self.where, self.rows = where, rows
        self.done = self.failed = False


class _Spare:
    """Buffers that were used before: their pages are there already, which costs as much as reading into them."""

    def __init__(self) -> None:
        self.lock, self.buffers = threading.Lock(), deque()

    def take(self, n_bytes: int) -> np.ndarray:
        """Returns a buffer of so many bytes."""
        with self.lock:
            for number, buffer in enumerate(self.buffers):
                if buffer.nbytes == n_bytes:
                    del self.buffers[number]
                    return buffer
        return np.empty(n_bytes, np.uint8)

    def give(self, rows: np.ndarray) -> None:
        """Takes a buffer back; lets go of the oldest where there are too many."""
        with self.lock:
            self.buffers.append(rows.reshape(-1).view(np.uint8))
            while sum(buffer.nbytes for buffer in self.buffers) > AHEAD_BYTES:
                self.buffers.popleft()


_spare = _Spare()


class _Ring:
    """The buffers, and what is in them; apart from `Ahead`, so that the thread does not keep that alive."""

    def __init__(self, array: Any, requests: Iterable[np.ndarray], n_bytes: int) -> None:
        self.array, self.n_bytes = array, n_bytes
        self.changed = threading.Condition()
        self.requests = iter(requests)
        self.next: np.ndarray | None = None
        self._go_on()
        self.reads: deque[_Read] = deque()  # in the order of the requests: done, then one in work
        self.held, self.closed = 0, False

    def _go_on(self) -> None:
        """Takes the next request."""
        where = next(self.requests, None)
        self.next = None if where is None else np.ascontiguousarray(where).reshape(-1)

    def fill(self) -> None:
        """Reads one request after another, as long as there is room."""
        while (read := self._next()) is not None:
            try:
                self.array.take(read.where, read.rows)
            except Exception:  # whoever asks for it reads for itself, and meets the error where it can be told
                read.failed = True
            with self.changed:
                read.done = True
                self.changed.notify_all()

    def _next(self) -> _Read | None:
        """Returns the next request with a buffer, as soon as there is room; None where nothing is left to read."""
        with self.changed:
            while self.next is not None and not self.closed:
                shape = (len(self.next), *self.array.shape[1:])
                n_bytes = math.prod(shape) * self.array.dtype.itemsize
                if self.reads and self.held + n_bytes > self.n_bytes:
                    self.changed.wait()
                    continue
                self.held += n_bytes
                read = _Read(self.next, _spare.take(n_bytes).view(self.array.dtype).reshape(shape))
                self.reads.append(read)
                self._go_on()
                return read
        return None

    def take(self, where: np.ndarray, out: np.ndarray) -> bool:
        """Returns whether what is asked for was foreseen and could be read; then it is in `out`."""
        where = where.reshape(-1)
        with self.changed:
            read = next((read for read in self.reads if np.array_equal(read.where, where)), None)
            if read is None:
                if self.next is not None and np.array_equal(self.next, where):
                    self._go_on()  # the thread has not come to it yet, and goes on with what is after it
                return False
            while not (read.done or self.closed):
                self.changed.wait()
            if not read.done or read not in self.reads:  # ended meanwhile, or taken by another thread
                return False
            self.reads.remove(read)
        if not read.failed:
            np.copyto(out.reshape(read.rows.shape), read.rows)
        _spare.give(read.rows)
        with self.changed:
            self.held -= read.rows.nbytes
            self.changed.notify_all()
        return not read.failed

    def close(self) -> None:
        """Makes the thread end at its next request."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
