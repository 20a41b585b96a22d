"""In which order the examples come: a pure function of (seed, epoch, position), the same on any machine.

A permutation of an epoch is made by sorting random keys. The keys are the raw words of the counter-based generator
Philox (Salmon et al. 2011), whose stream NumPy guarantees to stay the same between versions, and the low bits of each
key hold the index itself, so that no two keys are equal and any sorting method gives the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from .errors import choose

Kind = Literal["reshuffled", "shuffled once", "as given", "with replacement"]
KINDS: tuple[str, ...] = get_args(Kind)

_LARGE = 1 << 16  # from this many examples on, an epoch's order is made once and kept


@dataclass(frozen=True)
class Order:
    """The order of `n_examples` examples in every epoch.

    Attributes:
        kind: "reshuffled" (another permutation each epoch), "shuffled once" (the same one each epoch), "as given", or
            "with replacement" (|D| independent draws an epoch: some examples come twice, about 37 % not at all).
        seed: what decides the permutations, 0 or more.
        n_examples: |D|.

    Example:
        >>> Order("reshuffled", seed=0, n_examples=6).epochs(0, 2).shape
        (2, 6)
    """

    kind: str
    seed: int
    n_examples: int

    def __post_init__(self) -> None:
        choose("order", self.kind, KINDS)

    def epochs(self, first: int, n_epochs: int) -> np.ndarray:
        """Returns the example indices of whole epochs, `[n_epochs, n_examples]` int32; one takes about 20 ns."""
        if self.kind in ("as given", "shuffled once"):
            return np.broadcast_to(_one_epoch(self, 0), (n_epochs, self.n_examples))
        if self.n_examples < _LARGE:
            return self._make(first, n_epochs)
        return (
            _one_epoch(self, first)[None]
            if n_epochs == 1
            else np.stack([_one_epoch(self, first + e) for e in range(n_epochs)])
        )

    def _make(self, first: int, n_epochs: int) -> np.ndarray:
        n = self.n_examples
        if self.kind == "as given":
            return np.broadcast_to(np.arange(n, dtype=np.int32), (n_epochs, n))
        words = self._words(first, n_epochs)
        return _draws(words, n) if self.kind == "with replacement" else _permutations(words, n)

    def _words(self, first: int, n_epochs: int) -> np.ndarray:
        """Returns Philox's words `[n_epochs, n_examples]` of the epochs; every epoch starts at a counter of its own."""
        counters = -(-self.n_examples // 4)  # one counter gives four words
        bits = np.random.Philox(
            key=np.array([self.seed, 0x6F72646572], dtype=np.uint64)
        )  # the second word says "order"
        bits.advance(first * counters)
        return bits.random_raw(n_epochs * counters * 4).reshape(n_epochs, counters * 4)[:, : self.n_examples]


@lru_cache(maxsize=4)
def _one_epoch(order: Order, epoch: int) -> np.ndarray:
    """Returns one epoch's indices, kept because a long epoch is served in many stretches."""
    indices = order._make(epoch, 1)[0]
    indices.flags.writeable = False
    return indices


def _permutations(words: np.ndarray, n: int) -> np.ndarray:
    mask = np.uint64((1 << (n - 1).bit_length()) - 1)
    keys = (words & ~mask) | np.arange(n, dtype=np.uint64)
    keys.sort(axis=1)
    return (keys & mask).astype(np.int32)


def _draws(words: np.ndarray, n: int) -> np.ndarray:
    """Returns floor(u n) with u in [0, 1) of 52 bits, so that the product never rounds up to n."""
    return ((words >> np.uint64(12)).astype(np.float64) * 2.0**-52 * n).astype(np.int32)
