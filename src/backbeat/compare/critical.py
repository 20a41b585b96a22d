"""The fit S(M) = S_min (1 + B_crit / M) of the updates to a target against the batch size, and how sure it is.

McCandlish, Kaplan, Amodei et al. 2018 (arXiv:1812.06162, eq. 2.11 with E = S M): S_min updates are needed however large
the batch, E_min = S_min B_crit examples however small, so E(M) = E_min (1 + M / B_crit); at M = B_crit both are twice
their least. "Critical batch" here is this B_crit, of this optimizer, this target and rates tuned for each M. Others
call critical where a given share more examples is needed: the 20 % of Zhang et al. 2024 (arXiv:2410.21676) is at
0.2 B_crit.

The fit is a weighted least squares in log space over the medians of the seeds. The variance of a size's median is that
of its seeds (each size's own spread, shrunk to that of all sizes, so that a single seed has one too) plus τ² for the
curve itself, which is a model: measured optima scatter about it however many seeds there are, since rates are tuned on
a grid and the form holds only roughly. τ² makes the squared misfits add up to their degrees of freedom (Paule & Mandel
1982), with the weight of three earlier sizes that missed by 6 %, since three or four sizes alone cannot say what τ is.
Intervals are 95 % of the joint distribution of (log S_min, log B_crit), flat before the data and Student's t after it,
on a grid. Unlike a bootstrap of seeds it knows the misfit, stays honest with one seed, and is the same each time;
unlike the error at the minimum it opens on the side on which the sizes say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

DEFINITION = (
    "the batch size at which updates and examples are both twice their least (B_crit of McCandlish et al. 2018)"
)
_EARLIER, _EARLIER_MISFIT = 3.0, 0.06  # the weight, in sizes, of what is known of τ beforehand, and that τ
_SHRUNK = 4.0  # degrees of freedom with which a size's spread is drawn to that of all
_BEYOND = 7.0  # how far outside the measured sizes B_crit may lie, as a factor e^7
_PLACES, _OFFSETS = 161, 61


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval.

    Example:
        >>> str(Interval(48.3, 31.0, 75.2))
        '48.3 (31 to 75.2)'
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:,.3g} ({self.low:,.3g} to {self.high:,.3g})"


@dataclass(frozen=True)
class Rejected:
    """A batch size that the fit leaves out, and why."""

    batch_size: int
    why: str


@dataclass(frozen=True)
class CriticalFit:
    """The two parameters with their 95 % intervals.

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
        e_min: the least number of examples, S_min B_crit.
        e_min_low: lower end.
        e_min_high: upper end.
        misfit: τ, the standard deviation of log(seen / fitted) beyond what the seeds explain.
        seed_spread: standard deviation of log updates between the seeds of one size; 0 where each size has one.
        rejected: batch sizes that were left out, with the reason.
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
    e_min: float = 0.0
    e_min_low: float = 0.0
    e_min_high: float = 0.0
    misfit: float = 0.0
    seed_spread: float = 0.0
    rejected: tuple[Rejected, ...] = ()
    #: log S_min, log B_crit and the probability of each point of the grid, `[3, n]`; not part of the record
    _grid: np.ndarray = field(default_factory=lambda: np.zeros((3, 1)), repr=False, compare=False)

    @property
    def known(self) -> bool:
        """Whether it says something: B_crit inside, a residual below 0.35, an interval narrower than a factor 5."""
        return self.inside and self.residual < 0.35 and self.b_crit_high < 5 * self.b_crit_low

    def interval(self, of: Callable[[Any, Any], Any], *, scatter: float = 0.0) -> Interval:
        """Returns a positive quantity that follows from (S_min, B_crit), with its interval.

        Args:
            of: the quantity as a function of S_min and B_crit, numbers or arrays.
            scatter: standard deviation of the quantity's logarithm beside what is unsure of the two, itself an
                estimate: Student's t.
        """
        log_s, log_b, chance = self._grid
        logs = np.log(of(np.exp(log_s), np.exp(log_b)))
        if scatter:
            from scipy.special import stdtrit

            steps = scatter * stdtrit(_freedom(self.n_points), (np.arange(41) + 0.5) / 41)
            logs, chance = (logs[:, None] + steps).ravel(), np.repeat(chance / 41, 41)
        low, high = np.exp(_quantiles(logs, chance))
        return Interval(float(of(self.s_min, self.b_crit)), float(low), float(high))

    def predict(self, batch_size: float, *, one_run: bool = False) -> Interval:
        """Returns the updates to the target with a batch size, S(M).

        Args:
            batch_size: M.
            one_run: whether the interval is of what a single run will take, its own seed's luck included, and not of
                the curve. Where each size had one seed, the luck is part of the misfit, and the interval holds rather
                85 % than 95 %.
        """
        scatter = float(np.hypot(self.misfit, self.seed_spread)) if one_run else 0.0
        return self.interval(lambda s_min, b_crit: s_min * (1 + b_crit / batch_size), scatter=scatter)

    def predict_examples(self, batch_size: float, *, one_run: bool = False) -> Interval:
        """Returns the examples to the target with a batch size, E(M) = M S(M)."""
        updates = self.predict(batch_size, one_run=one_run)
        return Interval(*(batch_size * end for end in (updates.value, updates.low, updates.high)))

    def batch_for_more_examples(self, share: float = 0.2) -> Interval:
        """Returns the batch size that needs a given share more examples than the least: `share` B_crit.

        With 0.2 it is what Zhang et al. 2024 call the critical batch size.
        """
        return self.interval(lambda s_min, b_crit: share * b_crit)

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures by name."""
        figures = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("_")}
        rejected = [{"batch_size": r.batch_size, "why": r.why} for r in self.rejected]
        return {**figures, "rejected": rejected, "known": self.known, "definition": DEFINITION}


@dataclass(frozen=True)
class _Seen:
    """What the curve is fitted to, by batch size: medians of log updates, their variance by the seeds, lower bounds."""

    sizes: np.ndarray
    logs: np.ndarray
    variance: np.ndarray
    bound: np.ndarray  # True where `logs` is only what the updates are more than

    def misfits(self, log_s: Any, log_b: Any) -> np.ndarray:
        """Returns log(fitted / seen), `[..., sizes]`; 0 where a lower bound is kept."""
        log_s, log_b = np.asarray(log_s)[..., None], np.asarray(log_b)[..., None]
        off = log_s + np.logaddexp(0, log_b - np.log(self.sizes)) - self.logs
        return np.where(self.bound, np.minimum(off, 0), off)


def fit_critical(
    updates: Mapping[int, Sequence[float]],
    *,
    more_than: Mapping[int, float] | None = None,
    rejected: Mapping[int, str] | None = None,
) -> CriticalFit | None:
    """Returns the fit in log space, or None with fewer than three batch sizes.

    Args:
        updates: batch size -> updates to the target of each seed that reached it; one seed is enough.
        more_than: batch size -> updates within which its runs did *not* reach the target, though their rate was tuned:
            the curve has to lie above. These are listed as rejected.
        rejected: batch size -> why it is left out, for example that the best rate lay on the edge of those tried; these
            sizes are not fitted even where `updates` has them.

    Example:
        >>> seen = {m: [100 * (1 + 50 / m)] * 3 for m in (1, 32, 256, 1437)}
        >>> fit = fit_critical(seen)
        >>> round(fit.s_min), round(fit.b_crit), round(fit.predict(50).value)
        (100, 50, 200)
        >>> fit.b_crit_low < 50 < fit.b_crit_high
        True
    """
    why = {m: "a run met the target before its first update" for m, u in updates.items() if len(u) and min(u) <= 0}
    why |= rejected or {}
    bounds = {m: float(u) for m, u in (more_than or {}).items() if m not in why}
    kept = {
        m: np.log(np.asarray(u, float)) for m, u in sorted(updates.items()) if len(u) and m not in {**why, **bounds}
    }
    if len(kept) < 3:
        return None
    why |= {m: f"its runs did not reach the target within {u:,.0f} updates" for m, u in bounds.items()}
    pooled, variance = _by_seeds(list(kept.values()))
    seen = _Seen(
        np.array([*kept, *bounds], float),
        np.array([*(np.median(u) for u in kept.values()), *map(np.log, bounds.values())]),
        np.array([*variance, *[0.0] * len(bounds)]),
        np.arange(len(kept) + len(bounds)) >= len(kept),
    )
    tau, best = _balanced(seen)
    grid = _distribution(seen, tau, best)
    sizes, within = seen.sizes[: len(kept)], seen.misfits(*best)[: len(kept)]
    fit = CriticalFit(
        s_min=float(np.exp(best[0])), s_min_low=0.0, s_min_high=0.0,
        b_crit=float(np.exp(best[1])), b_crit_low=0.0, b_crit_high=0.0,
        residual=float(np.sqrt(np.mean(within**2))), n_points=len(kept),
        inside=bool(sizes[0] / 4 <= np.exp(best[1]) <= sizes[-1] * 4),
        misfit=tau, seed_spread=float(np.sqrt(pooled)), rejected=tuple(Rejected(m, why[m]) for m in sorted(why)),
        _grid=grid,
    )  # fmt: skip
    return _with_ends(fit)


def _with_ends(fit: CriticalFit) -> CriticalFit:
    s_min = fit.interval(lambda s_min, b_crit: s_min)
    b_crit = fit.interval(lambda s_min, b_crit: b_crit)
    e_min = fit.interval(lambda s_min, b_crit: s_min * b_crit)
    return replace(
        fit, s_min_low=s_min.low, s_min_high=s_min.high, b_crit_low=b_crit.low, b_crit_high=b_crit.high,
        e_min=e_min.value, e_min_low=e_min.low, e_min_high=e_min.high,
    )  # fmt: skip


def _by_seeds(logs: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
    """Returns the variance between seeds over all sizes, and that of each size's median.

    A size's own variance is drawn to that of all; the variance of a median of n is about (π/2) / (n + ½) of it.
    """
    free = np.array([len(u) - 1 for u in logs])
    squares = np.array([np.sum((u - np.mean(u)) ** 2) for u in logs])
    pooled = float(squares.sum() / free.sum()) if free.any() else 0.0
    own = (_SHRUNK * pooled + squares) / (_SHRUNK + free)
    return pooled, own * np.array([1.0 if len(u) == 1 else np.pi / 2 / (len(u) + 0.5) for u in logs])


def _least_squares(seen: _Seen, tau: float, near: np.ndarray | None = None) -> np.ndarray:
    """Returns (log S_min, log B_crit) with the least weighted squares, B_crit at most e^7 outside the sizes.

    `near`: where it is known to lie; None: looked for from three sides.
    """
    from scipy.optimize import least_squares

    spread = np.sqrt(seen.variance + tau**2)
    logs, sizes = seen.logs[~seen.bound], np.log(seen.sizes)
    bounds = ([-30.0, sizes.min() - _BEYOND], [80.0, sizes.max() + _BEYOND])
    starts = [near] if near is not None else [(logs.min(), b) for b in (sizes.min(), sizes.mean(), sizes.max())]
    found = [least_squares(lambda p: seen.misfits(*p) / spread, start, bounds=bounds) for start in starts]
    return min(found, key=lambda one: one.cost).x


def _balanced(seen: _Seen) -> tuple[float, np.ndarray]:
    """Returns τ at which the weighted squares add up to what is expected of them, and the fit with it."""
    free, near = _freedom(np.sum(~seen.bound)), _least_squares(seen, _EARLIER_MISFIT)

    def excess(log_tau: float) -> float:
        tau = float(np.exp(log_tau))
        off = seen.misfits(*_least_squares(seen, tau, near))
        squares = np.sum(off**2 / (seen.variance + tau**2))
        return float(_EARLIER * (_EARLIER_MISFIT / tau) ** 2 + squares - free)

    from scipy.optimize import brentq

    root: Any = brentq(excess, np.log(1e-3), np.log(30.0), xtol=1e-2)
    tau = float(np.exp(root))
    return tau, _least_squares(seen, tau)


def _distribution(seen: _Seen, tau: float, best: np.ndarray) -> np.ndarray:
    """Returns log S_min, log B_crit and the probability on a grid that covers what is possible, `[3, n]`."""
    spread = np.sqrt(seen.variance + tau**2)
    free = _freedom(np.sum(~seen.bound))
    weight = np.where(seen.bound, 0, spread**-2)

    def squares(log_s: Any, log_b: Any) -> Any:
        return np.sum((seen.misfits(log_s, log_b) / spread) ** 2, axis=-1)

    def middle(log_b: np.ndarray) -> np.ndarray:  # the best log S_min for each B_crit, but for the bounds
        return -np.sum(weight * seen.misfits(np.zeros_like(log_b), log_b), axis=-1) / weight.sum()

    sizes, least = np.log(seen.sizes), squares(*best)
    places = np.linspace(sizes.min() - _BEYOND, sizes.max() + _BEYOND, 1001)
    places = np.union1d(places, best[1] + np.linspace(-0.5, 0.5, 201))
    near = places[squares(middle(places), places) - least < free * (1e-4 ** (-2 / (free + 2)) - 1)]
    log_b = np.linspace(near[0], near[-1], _PLACES)
    widest = np.sqrt(1 + np.maximum(squares(middle(log_b), log_b) - least, 0) / free) / np.sqrt(weight.sum())
    log_s = middle(log_b)[:, None] + widest[:, None] * np.linspace(-8, 8, _OFFSETS)
    log_b = np.broadcast_to(log_b[:, None], log_s.shape)
    density = (1 + (squares(log_s, log_b) - least) / free) ** (-(free + 2) / 2) * widest[:, None]
    return np.stack([log_s.ravel(), log_b.ravel(), density.ravel() / density.sum()])


def _freedom(n_sizes: Any) -> float:
    """Returns the degrees of freedom with which τ is known."""
    return float(_EARLIER + n_sizes - 2)


def _quantiles(values: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Returns the values that 2.5 % and 97.5 % of the probability lie below."""
    order = np.argsort(values)
    below = np.cumsum(chance[order]) - chance[order] / 2
    return np.interp([0.025, 0.975], below, values[order])
