"""Three wishes, and the batch size that serves each: finish first, use the fewest examples, use the fewest updates.

From what was measured: S(M) updates to the target, M S(M) examples, S(M) t(M) seconds. Few examples and few updates
pull in opposite directions, and both curves are flat at their ends (McCandlish et al. 2018, arXiv:1812.06162). So among
the sizes that are within 10 % of the least, the one that costs least otherwise is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..compare.critical import Interval
from .search import Sized

NAMES = ("finish_first", "fewest_examples", "fewest_updates")
LEVEL = 1.1  # sizes within this factor of the least count as equal
_LEAST_SPREAD = 0.03  # of updates between seeds: they are counted at evaluations 6 % apart


@dataclass(frozen=True)
class Wish:
    """The setting that serves a wish, and what one run of it takes.

    Attributes:
        name: "finish_first", "fewest_examples" or "fewest_updates".
        batch_size: M.
        every: the cadence as text.
        learning_rate: γ.
        updates: to the target, with the 95 % interval of one run.
        examples: likewise.
        epochs: likewise.
        seconds: likewise, of updates alone on this machine.
        level: other sizes within 10 % of the least.
    """

    name: str
    batch_size: int
    every: str
    learning_rate: float
    updates: Interval
    examples: Interval
    epochs: Interval
    seconds: Interval
    level: tuple[int, ...]

    def record(self) -> dict[str, Any]:
        """Returns it as plain numbers and text."""
        return asdict(self)


def seed_spread(sizes: Sequence[Sized]) -> float:
    """Returns the standard deviation of log updates between the seeds of one size, of all sizes together.

    Example:
        >>> round(seed_spread([Sized(1, 0.1, (100, 110, 121)), Sized(2, 0.1, (50,))]), 3)
        0.095
    """
    logs = [np.log(s.seen) for s in sizes if len(s.seen) > 1 and min(s.seen) > 0]
    freedom = sum(len(values) - 1 for values in logs)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in logs)
    return max(_LEAST_SPREAD, math.sqrt(squares / freedom)) if freedom else _LEAST_SPREAD


def one_run(size: Sized, sizes: Sequence[Sized]) -> Interval:
    """Returns the updates that one more run of a size will take: the median of its seeds, with a 95 % interval.

    Student's t of log updates, with the spread between seeds of all sizes together.

    Args:
        size: which; every seed met the target.
        sizes: all, for the spread.
    """
    from scipy.stats import t

    freedom = max(1, sum(len(s.seen) - 1 for s in sizes if len(s.seen) > 1))
    width = float(t.ppf(0.975, freedom)) * seed_spread(sizes) * math.sqrt(1 + 1 / len(size.seen))
    return Interval(size.median, size.median * math.exp(-width), size.median * math.exp(width))


def times(one: Interval, factor: float, low: float | None = None, high: float | None = None) -> Interval:
    """Returns an interval times a factor, which may have an interval of its own.

    Example:
        >>> times(Interval(10, 8, 12), 2.0)
        Interval(value=20.0, low=16.0, high=24.0)
    """
    return Interval(
        one.value * factor, one.low * (factor if low is None else low), one.high * (factor if high is None else high)
    )


def examples_per_update(m: int, n_train: int, short_batch: str) -> float:
    """Returns how many examples an update sees on average over an epoch: fewer than M where its last batch is short.

    Example:
        >>> examples_per_update(64, 100, "keep"), examples_per_update(64, 100, "drop")
        (50.0, 64.0)
    """
    return n_train / math.ceil(n_train / m) if short_batch == "keep" else float(m)


def wishes_of(
    sizes: Sequence[Sized], seconds: Callable[[int], Interval], n_train: int, short_batch: str = "keep"
) -> dict[str, Wish]:
    """Returns the three wishes by name; nothing where no size met the target.

    Args:
        sizes: what was measured.
        seconds: batch size -> seconds per update, with the range of the rounds.
        n_train: |D|.
        short_batch: "keep", "drop" or "carry": what becomes of a last batch that is not full.
    """
    able = [size for size in sizes if size.reached]
    if not able:
        return {}
    cost: dict[str, Callable[[Sized], float]] = {
        "finish_first": lambda s: s.median * seconds(s.batch_size).value,
        "fewest_examples": lambda s: s.median * examples_per_update(s.batch_size, n_train, short_batch),
        "fewest_updates": lambda s: s.median,
    }
    otherwise = {"finish_first": "finish_first", "fewest_examples": "finish_first", "fewest_updates": "fewest_examples"}
    result = {}
    for name, of in cost.items():
        least = min(map(of, able))
        level = [s for s in able if of(s) <= (1.0 if name == "finish_first" else LEVEL) * least]
        best = min(level, key=cost[otherwise[name]])
        m, updates = best.batch_size, one_run(best, able)
        t, each = seconds(m), examples_per_update(m, n_train, short_batch)
        result[name] = Wish(
            name, m, "dataset" if m == n_train else str(m), best.learning_rate, updates, times(updates, each),
            times(updates, each / n_train), times(updates, t.value, t.low, t.high),
            tuple(s.batch_size for s in able if s is not best and of(s) <= LEVEL * least),
        )  # fmt: skip
    return result
