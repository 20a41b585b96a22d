"""The fit S(M) = S_min (1 + B_crit / M) of the updates to a target against the batch size.

McCandlish, Kaplan, Amodei et al. 2018 (arXiv:1812.06162, eq. 2.11 with E = S M): S_min updates are needed however large
the batch, E_min = S_min B_crit examples however small; at M = B_crit both are twice their least. "Critical batch" here
is this B_crit, of this optimizer, this target and rates tuned for each M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

_RESAMPLES = 200


@dataclass(frozen=True)
class CriticalFit:
    """The two parameters with their 95 % bootstrap intervals (seeds resampled within each batch size).

    Attributes:
        s_min: the least number of updates.
        s_min_low: lower end of its interval, likewise the others.
        s_min_high: upper end.
        b_crit: the critical batch size.
        b_crit_low: lower end.
        b_crit_high: upper end.
        residual: root mean square of log(seen / fitted) over the medians: 0.1 is about 10 %.
        n_points: how many batch sizes it rests on.
        inside: whether B_crit lies among the batch sizes measured, or within a factor 4 of them: beyond, it is a guess.
    """

    s_min: float
    s_min_low: float
    s_min_high: float
    b_crit: float
    b_crit_low: float
    b_crit_high: float
    residual: float
    n_points: int
    inside: bool

    @property
    def known(self) -> bool:
        """Whether it says something: B_crit inside, a residual below 0.35, an interval narrower than a factor 5."""
        return self.inside and self.residual < 0.35 and self.b_crit_high < 5 * self.b_crit_low

    def as_dict(self) -> dict[str, float | bool]:
        """Returns the figures by name."""
        return {**asdict(self), "known": self.known}


def fit_critical(updates: Mapping[int, Sequence[float]], seed: int = 0) -> CriticalFit | None:
    """Returns the fit in log space, or None with fewer than three batch sizes.

    Args:
        updates: batch size -> updates to the target of each seed that reached it.
        seed: of the bootstrap.

    Example:
        >>> seen = {m: [100 * (1 + 50 / m)] * 3 for m in (1, 32, 256, 1437)}
        >>> fit = fit_critical(seen)
        >>> round(fit.s_min), round(fit.b_crit)
        (100, 50)
    """
    seen = {m: np.asarray(u, float) for m, u in sorted(updates.items()) if len(u)}
    if len(seen) < 3:
        return None
    sizes = np.array(list(seen), float)
    medians = np.log([np.median(u) for u in seen.values()])
    s_min, b_crit = _least_squares(sizes, medians)
    rng = np.random.default_rng(seed)
    resampled = [np.log([np.median(rng.choice(u, len(u))) for u in seen.values()]) for _ in range(_RESAMPLES)]
    again = np.array([_least_squares(sizes, logs) for logs in resampled])
    low, high = np.percentile(again, [2.5, 97.5], axis=0)
    residual = float(np.sqrt(np.mean((medians - np.log(s_min * (1 + b_crit / sizes))) ** 2)))
    inside = bool(sizes[0] / 4 <= b_crit <= sizes[-1] * 4)
    return CriticalFit(
        s_min, float(low[0]), float(high[0]), b_crit, float(low[1]), float(high[1]), residual, len(seen), inside
    )


def _least_squares(sizes: np.ndarray, log_updates: np.ndarray) -> tuple[float, float]:
    from scipy.optimize import least_squares

    def misfit(p: np.ndarray) -> np.ndarray:
        return p[0] + np.logaddexp(0, p[1] - np.log(sizes)) - log_updates

    start = np.array([log_updates.min(), np.log(sizes).mean()])
    bounds = ([-20, np.log(sizes[0]) - 7], [60, np.log(sizes[-1]) + 7])
    log_s, log_b = least_squares(misfit, np.clip(start, *bounds), bounds=bounds).x
    return float(np.exp(log_s)), float(np.exp(log_b))
