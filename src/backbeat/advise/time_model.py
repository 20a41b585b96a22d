"""The time to the target over the batch size, T(M) = S_min (1 + B_crit / M)(α + β M): its minimum and how flat it is.

S is the updates to the target (McCandlish et al. 2018, arXiv:1812.06162), α + β M the seconds of an update. Multiplied
out, T(M) / S_min = α + β B_crit + β M + α B_crit / M, so it is least at B_time = √(B_crit α / β), and k times as large
or as small a batch takes at most (2 + k + 1/k) / 4 times as long: twice off costs 12.5 % at most, four times 56 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TimeModel:
    """Four numbers, and what follows from them.

    Attributes:
        s_min: the least updates, S_min.
        b_crit: the critical batch size, B_crit.
        alpha: α, seconds of an update however few examples it has.
        beta: β, seconds that each example adds.

    Example:
        >>> model = TimeModel(s_min=100, b_crit=64, alpha=1e-5, beta=1e-6)
        >>> round(model.b_time, 1), round(model.seconds(32) / model.seconds(model.b_time), 2)
        (25.3, 1.01)
    """

    s_min: float
    b_crit: float
    alpha: float
    beta: float

    def updates(self, batch_size: float) -> float:
        """Returns S(M)."""
        return self.s_min * (1 + self.b_crit / batch_size)

    def seconds(self, batch_size: float) -> float:
        """Returns T(M)."""
        return self.updates(batch_size) * (self.alpha + self.beta * batch_size)

    @property
    def b_time(self) -> float:
        """The batch size with the least time; infinite where further examples cost nothing."""
        return math.sqrt(self.b_crit * self.alpha / self.beta) if self.beta else math.inf

    def flat(self, more: float = 0.1) -> tuple[float, float]:
        """Returns the batch sizes between which the time is at most a share `more` above its least.

        Example:
            >>> low, high = TimeModel(100, 64, 1e-5, 1e-6).flat(0.1)
            >>> round(low), round(high)
            (13, 50)
        """
        if not self.alpha or not self.beta:  # T only rises, or only falls: least at one example, or without bound
            end = more * self.b_crit if not self.alpha else self.b_crit / more if more else math.inf
            return (0.0, end) if not self.alpha else (end, math.inf)
        # β M + α B_crit / M = c
        cross = 2 * math.sqrt(self.alpha * self.beta * self.b_crit)
        c = cross + more * (cross + self.alpha + self.beta * self.b_crit)
        root = math.sqrt(max(0.0, c * c - cross * cross))
        return (c - root) / (2 * self.beta), (c + root) / (2 * self.beta)

    @property
    def regimes(self) -> tuple[float, float]:
        """The batch sizes between which S(M) bends: below, twice the batch halves the updates, above it hardly helps.

        The slope of log S over log M, −B_crit / (B_crit + M), goes from −0.8 to −0.2 between them.
        """
        return self.b_crit / 4, self.b_crit * 4

    def record(self, sizes: Iterable[int]) -> dict[str, Any]:
        """Returns what follows as plain numbers.

        Args:
            sizes: batch sizes to give the time of.
        """
        low, high = self.flat()
        return {
            "s_min": self.s_min, "b_crit": self.b_crit, "alpha": self.alpha, "beta": self.beta, "b_time": self.b_time,
            "flat_low": low, "flat_high": high, "bend_low": self.regimes[0], "bend_high": self.regimes[1],
            "rows": [{"batch_size": m, "updates": self.updates(m), "seconds": self.seconds(m)} for m in sorted(sizes)],
        }  # fmt: skip
