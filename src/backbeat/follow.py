"""A batch size that follows the noise: from what a run measured of its gradient to M and γ of the updates to come.

At points that only depend on how many examples were used, the noise scale B = tr Σ / |G|² of the newest updates is
found, and M becomes the lower bound times the power of two nearest to B: there an update's noise is as long as its
gradient, and half of what more examples could save in updates is saved (McCandlish et al. 2018, arXiv:1812.06162). What
was measured before counts half as much at each point.

The run's γ is meant for the lower bound. At M it is multiplied by √r, where r = (1 + B/low) / (1 + B/M) is AdaScale's
gain: how many updates of `low` examples one of M is worth (Johnson et al. 2020, arXiv:2007.05105). The root is what
Pollux (OSDI 2021) takes for Adam; here it is taken for plain SGD too, where r itself was measured to run into the limit
beyond which SGD is not stable, whatever M (docs/decisions/0013-a-batch-that-follows-the-noise.md).

Nothing here reads a clock: the same run chooses the same sizes, however it is cut into stretches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .cadence import Cadence
from .errors import SettingsError
from .noise import NoiseScale, NoiseSums, adascale_gain
from .norms import Lengths
from .optimizer import Optimizer

KEPT = 0.5  # of what was measured before a point counts at the next one
_LEAST_UPDATES, _SHARE = 16, 1 / 4
_STAY = 0.75  # powers of two: M is kept while B is nearer than that, so that it does not flutter between neighbours
_SHOWN = 8  # changes of M in a sentence
POWER = 0.5  # of the gain on the learning rate


@dataclass(frozen=True)
class Window:
    """What was measured since the newest point: kept update by update, so that where stretches end leaves no trace.

    Attributes:
        first: the number of its first update, from 0.
        measured: of each stretch.
        sizes: of each stretch, examples in each batch.
    """

    first: int = 0
    measured: tuple[Lengths, ...] = ()
    sizes: tuple[np.ndarray, ...] = ()

    def more(self, measured: Lengths, sizes: np.ndarray) -> Window:
        """Returns the window with another stretch."""
        return replace(self, measured=(*self.measured, measured), sizes=(*self.sizes, sizes))

    def sums(self, n_examples: int | None) -> NoiseSums:
        """Returns the sums over all its updates."""
        columns = Lengths(*(np.concatenate([np.asarray(c) for c in each]) for each in zip(*self.measured, strict=True)))
        return NoiseSums.of(columns, np.concatenate(self.sizes), self.first, n_examples)


@dataclass(frozen=True)
class Follower:
    """What decides a batch that follows the noise.

    Attributes:
        sizes: what M can be, ascending: a bound and its doubles.
        n_train: |D|: there is a point in each epoch at least, where an epoch has enough updates.
        n_examples: as in `noise.NoiseSums`.
        size: M now.
        factor: on γ now.
        point: how many examples have been used when M is next decided.
        sums: what was measured up to the newest point, the older the less.
        window: and since then.
        power: of the gain on the learning rate.
    """

    sizes: tuple[int, ...]
    n_train: int
    n_examples: int | None
    size: int
    factor: float = 1.0
    point: int = 0
    sums: NoiseSums | None = field(default=None, repr=False)
    window: Window = field(default=Window(), repr=False)
    power: float = POWER

    @classmethod
    def start(cls, sizes: Sequence[int], n_train: int, n_examples: int | None) -> Follower:
        """Returns the state before the first update: at the lower bound, with γ as it was given.

        Args:
            sizes: see `Follower`.
            n_train: see `Follower`.
            n_examples: see there.

        Example:
            >>> start = Follower.start((8, 16, 32), 1437, 1437)
            >>> start.size, start.factor, start.point
            (8, 1.0, 128)
        """
        first = cls(tuple(sizes), n_train, n_examples, sizes[0])
        return replace(first, point=next_point(0, sizes[0], n_train))

    def after(self, measured: Lengths, sizes: np.ndarray, updates: int, examples: int) -> Follower:
        """Returns the state after a stretch; M and the factor on γ are new where a point was reached.

        Args:
            measured: what its updates measured, columns `[n]`.
            sizes: `[n]`, examples in each batch.
            updates: of the run so far, the stretch included.
            examples: likewise.
        """
        window = self.window.more(measured, sizes)
        if examples < self.point:
            return replace(self, window=window)
        newest = window.sums(self.n_examples)
        sums = newest if self.sums is None else self.sums * KEPT + newest
        found = leading_scale(sums.scale(), self.size)
        size = self.size if found is None else chosen_size(found, self.size, self.sizes)
        factor = self.factor if found is None else rate_factor(found, size, self.sizes[0], self.power)
        point = next_point(examples, size, self.n_train)
        return replace(self, size=size, factor=factor, point=point, sums=sums, window=Window(updates))


def check_followed(cadence: Cadence, optimizer: Optimizer) -> None:
    """Refuses a batch that follows the noise with a rule whose learning rate cannot go with it.

    Raises:
        SettingsError: the optimizer holds its own learning rate.

    Example:
        >>> from backbeat.cadence import every
        >>> check_followed(every("noise"), Optimizer("sgd", len))
    """
    if cadence.follows and not optimizer.tunable:
        raise SettingsError(
            f"every={str(cadence)!r} changes the learning rate with the batch size, and optimizer is a transformation "
            "that holds its own; give the function that makes it, optax.adam and not optax.adam(0.1), or a constant "
            "batch size."
        )


def next_point(examples: int, size: int, n_train: int) -> int:
    """Returns after how many examples M is next decided, at M = `size` and so many examples used.

    16 updates later; where that is less, when a quarter more examples have been used, or an epoch: the noise changes
    slower and slower along a run, and what is not decided costs nothing.

    Example:
        >>> next_point(0, 8, 1437), next_point(1000, 8, 1437), next_point(100_000, 8, 1437)
        (128, 1250, 101437)
    """
    return examples + max(_LEAST_UPDATES * size, min(n_train, math.ceil(examples * _SHARE)))


def most_updates(size: int, n_train: int) -> int:
    """Returns the most updates between two points, which is what a program of that size has to hold.

    Example:
        >>> most_updates(8, 1437), most_updates(512, 1437)
        (180, 16)
    """
    return max(_LEAST_UPDATES, math.ceil(n_train / size))


def leading_scale(measured: NoiseScale, size: int) -> float | None:
    """Returns the noise scale that M is to follow; None where too little is known to change anything.

    Where only a lower end is known (with small batches the noise hides the gradient), it is that end, if it lies above
    M: then a larger batch is called for, however much larger.

    Example:
        >>> leading_scale(NoiseScale(-0.1, 30.0, float("nan"), 200.0, float("inf"), 20), size=8)
        200.0
        >>> leading_scale(NoiseScale(-0.1, 30.0, float("nan"), 4.0, float("inf"), 20), size=8) is None
        True
    """
    if measured.known:
        return measured.scale
    return measured.low if measured.low > size else None


def chosen_size(scale: float, size: int, sizes: Sequence[int]) -> int:
    """Returns which of the sizes is nearest to a noise scale, on a scale of powers; the one that holds if it is near.

    Example:
        >>> sizes = (8, 16, 32, 64)
        >>> [chosen_size(scale, 16, sizes) for scale in (0.0, 12.0, 26.0, 27.0, 40.0, 1e6)]
        [8, 16, 16, 32, 32, 64]
    """
    scale = min(max(scale, sizes[0]), sizes[-1])
    if abs(math.log2(scale / size)) < _STAY:
        return size
    return min(sizes, key=lambda candidate: abs(math.log2(scale / candidate)))


def rate_factor(scale: float, size: int, low: int, power: float = POWER) -> float:
    """Returns the factor on a learning rate for batches of `low` examples that suits those of `size`.

    Example:
        >>> rate_factor(24.0, 8, 8), rate_factor(24.0, 56, 8, 1.0), round(rate_factor(24.0, 56, 8), 3)
        (1.0, 2.8, 1.673)
    """
    return adascale_gain(1.0, scale, size, low) ** power


def sizes_in_words(updates: Sequence[int], sizes: Sequence[int]) -> str:
    """Returns the sizes that a run went through, as a sentence.

    Args:
        updates: at the end of each stretch.
        sizes: M of each stretch.

    Example:
        >>> sizes_in_words([16, 40, 90, 200], [8, 8, 32, 64])
        'The batch followed the noise: 8 examples, 32 from update 41, 64 from update 91.'
        >>> sizes_in_words([16, 40], [8, 8])
        'The batch followed the noise: 8 examples all along.'
    """
    changes = [k for k in range(1, len(sizes)) if sizes[k] != sizes[k - 1]]
    if not changes:
        return f"The batch followed the noise: {sizes[0]:,} examples all along."
    shown = changes if len(changes) <= _SHOWN else changes[: _SHOWN - 1]
    each = [f"{sizes[k]:,} from update {updates[k - 1] + 1:,}" for k in shown]
    left = len(changes) - len(shown)
    rest = f", {left} more changes between {min(sizes):,} and {max(sizes):,}, {sizes[-1]:,} at the end" if left else ""
    return f"The batch followed the noise: {sizes[0]:,} examples, {', '.join(each)}{rest}."
