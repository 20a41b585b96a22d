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


class _Together:
    """Requests that are read in one go: the buffer they are read into, and whether they are there."""

    def __init__(self, requests: list[np.ndarray], buffer: np.ndarray) -> None:
        self.requests, self.buffer = requests, buffer
        self.done = self.failed = False
        self.left = len(requests)  # not taken yet


class _Read:
    """One request: what it asks for, and its part of the buffer of those that it is read with."""

    def __init__(self, where: np.ndarray, rows: np.ndarray, together: _Together) -> None:
        self.where, self.rows, self.together = where, rows, together


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
        self.reads: deque[_Read] = deque()  # in the order of the requests: those done, then those in work
        self.held, self.closed = 0, False
        self.at_once = n_bytes // 32  # bytes; little at first, so that the first request does not wait long

    def _go_on(self) -> None:
        """Takes the next request."""
        where = next(self.requests, None)
        self.next = None if where is None else np.ascontiguousarray(where).reshape(-1)

    def fill(self) -> None:
        """Reads one request after another, as long as there is room."""
        while (together := self._next()) is not None:
            try:
                self.array.take(np.concatenate(together.requests), together.buffer)
            except Exception:  # whoever asks for it reads for itself, and meets the error where it can be told
                together.failed = True
            with self.changed:
                together.done = True
                self.changed.notify_all()

    def _next(self) -> _Together | None:
        """Returns the next requests with a buffer, as soon as there is room; None where nothing is left to read."""
        with self.changed:
            while self.held and self.held + self.at_once > self.n_bytes and not self.closed:
                self.changed.wait()
            requests, n = [], 0
            while (
                self.next is not None and not self.closed and (not n or self._bytes(n + len(self.next)) <= self.at_once)
            ):
                requests.append(self.next)
                n += len(self.next)
                self._go_on()
            if not requests:
                return None
            buffer = _spare.take(self._bytes(n)).view(self.array.dtype).reshape(n, *self.array.shape[1:])
            together = _Together(requests, buffer)
            ends = np.cumsum([len(where) for where in requests]).tolist()
            rows = (buffer[end - len(where) : end] for where, end in zip(requests, ends, strict=True))
            self.reads.extend(_Read(where, part, together) for where, part in zip(requests, rows, strict=True))
            self.held += buffer.nbytes
            self.at_once = min(2 * self.at_once, self.n_bytes // 4)
            return together

    def _bytes(self, n: int) -> int:
        return n * math.prod(self.array.shape[1:]) * self.array.dtype.itemsize

    def take(self, where: np.ndarray, out: np.ndarray) -> bool:
        """Returns whether what is asked for was foreseen and could be read; then it is in `out`."""
        where = where.reshape(-1)
        with self.changed:
            read = next((read for read in self.reads if np.array_equal(read.where, where)), None)
            if read is None:
                if self.next is not None and np.array_equal(self.next, where):
                    self._go_on()  # the thread has not come to it yet, and goes on with what is after it
                return False
            together = read.together
            while not (together.done or self.closed):
                self.changed.wait()
            if not together.done or read not in self.reads:  # ended meanwhile, or taken by another thread
                return False
            self.reads.remove(read)
        if not together.failed:
            np.copyto(out.reshape(read.rows.shape), read.rows)
        with self.changed:
            together.left -= 1
            if not together.left:
                self.held -= together.buffer.nbytes
                _spare.give(together.buffer)
                self.changed.notify_all()
        return not together.failed

    def close(self) -> None:
        """Makes the thread end at its next request."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
