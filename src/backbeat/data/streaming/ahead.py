"""What a program will ask a disk for next is announced to the system, while the program computes.

What a program fetches, and in which order, is known before it runs (`stretch.fetches`, `evaluate.fetches`). From the
page cache a fetch is read when it is asked for, by all cores, while nothing computes: a thread that read it before
would take its time from a computation that uses all cores too (docs/decisions/0014-fetched-by-all-cores.md). A disk
works beside them: where reads have waited for one, the system is told what comes next. So the numbers never depend on
what was foreseen, only the time does.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable

import numpy as np

from .packed import Packed

AHEAD_BYTES = 1 << 26  # announced and not asked for yet, 64 MiB


class Ahead:
    """An array in files, from which one run of a program takes examples in the order that was foreseen.

    Attributes:
        array: the array that is read.
    """

    def __init__(self, array: Packed, requests: Iterable[np.ndarray], n_bytes: int = AHEAD_BYTES) -> None:
        self.array, self._requests, self._n_bytes = array, iter(requests), n_bytes
        self._announced: deque[int] = deque()  # of the requests beyond the present one, the bytes of each
        self._lock = threading.Lock()

    def take(self, where: np.ndarray, out: np.ndarray) -> None:
        """Reads the examples at `where` into `out` `[*where, *example]`; announces what comes after, for a disk."""
        with self._lock:
            if self._announced:
                self._announced.popleft()
            else:
                next(self._requests, None)  # the present one
            if self.array.waited:
                self._announce()
        self.array.take(where, out)

    def _announce(self) -> None:
        while sum(self._announced) < self._n_bytes and (where := next(self._requests, None)) is not None:
            self.array.announce(where)
            self._announced.append(where.size * math.prod(self.array.shape[1:]) * self.array.dtype.itemsize)
