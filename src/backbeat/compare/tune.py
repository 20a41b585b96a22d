"""The learning rate of each cadence, tuned for it alone: a logarithmic grid, widened while the best is on its edge.

The protocol is that of Shallue et al. 2019 (JMLR 20(112)): updates to first reach the target, an optimum on the grid's
edge is not accepted but the grid widened. The best rate is the one with which *every* seed has reached the target
soonest; without a target, or where no rate reaches it, the one with the best median score in the time given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..clock import Target
from ..config import Job
from ..stretch import Data
from ..task import scores_of
from .sweep import Sweep, sweep

WIDENINGS = 3
_GROWTH = 1.06  # evaluations are at least this far apart: the resolution of "updates to the target"
_EVALUATION_SHARE = 0.5  # of the time given may go into evaluations
_FIRST_RATE = {"sgd": -8, "adagrad": -8, "momentum": -11, "nesterov": -11}  # powers of two; Adam's relatives: -13
_N_RATES = 10


def default_rates(optimizer: str) -> tuple[float, ...]:
    """Returns ten learning rates, a factor 2 apart, around those that suit a rule.

    Example:
        >>> default_rates("sgd")[0], default_rates("sgd")[-1]
        (0.00390625, 2.0)
    """
    first = _FIRST_RATE.get(optimizer, -13)
    return tuple(2.0**power for power in range(first, first + _N_RATES))


def evaluation_points(n_examples: int, batch_size: int, most: int, growth: float = _GROWTH) -> list[int]:
    """Returns the update counts at which runs are evaluated: close together at first, then 6 % apart, or by `growth`.

    Example:
        >>> evaluation_points(1437, 1437, 20)
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    """
    points, point = [], max(1.0, n_examples / batch_size / 40)
    while point < most:
        points.append(round(point))
        point = max(point * growth, round(point) + 1)
    return [*points, most]


def growth_for(runs: Sweep, parts: Sequence[str], seconds: float, points: Sequence[int]) -> float:
    """Returns how far apart to evaluate so that evaluations take at most half of the time given.

    Args:
        runs: a sweep at its beginning.
        parts: what is evaluated.
        seconds: the time given.
        points: where evaluations would be at the finest.
    """
    runs.scores(parts)  # compiles
    start = time.perf_counter()
    runs.scores(parts)
    affordable = max(8.0, _EVALUATION_SHARE * seconds / (time.perf_counter() - start))
    return (
        max(_GROWTH, math.exp(math.log(points[-1] / points[0] + 1) / affordable))
        if affordable < len(points)
        else _GROWTH
    )


@dataclass(frozen=True)
class Tried:
    """What one learning rate did.

    Attributes:
        learning_rate: γ.
        updates_to_target: for each seed, None where the target was not reached in the time given.
        score: the median of the seeds' target score (the loss without a target) at the last common evaluation.
        diverged: how many seeds diverged.
        loss: the median of their losses then: among rates that are all far too small, the score may not have moved yet.
    """

    learning_rate: float
    updates_to_target: tuple[int | None, ...]
    score: float
    diverged: int
    loss: float = math.nan

    def rank(self, more_is_better: bool) -> tuple[float, ...]:
        """Returns what the best rate has least of: the slowest seed, the median, the score, the loss, the rate."""
        reached = [math.inf if u is None else u for u in self.updates_to_target]
        score = -self.score if more_is_better else self.score
        worst = math.inf if math.isnan(score) or self.diverged else score
        loss = math.inf if math.isnan(self.loss) or self.diverged else self.loss
        return max(reached), float(np.median(reached)), worst, loss, self.learning_rate


@dataclass(frozen=True)
class Tuning:
    """The outcome for one cadence.

    Attributes:
        tried: all learning rates, ascending.
        best: the chosen one.
        on_edge: whether it is still the smallest or largest tried.
        widened: how many times the grid was widened.
        seconds: spent in updates and evaluations.
    """

    tried: tuple[Tried, ...]
    best: Tried
    on_edge: bool
    widened: int
    seconds: float


def tune(
    jobs: Sequence[Job],
    data: Data,
    rates: Sequence[float],
    *,
    target: Target | None,
    seconds: float,
    seconds_alone: float,
    widen: bool = True,
    progress: Callable[[float], None] = lambda share: None,
) -> Tuning:
    """Returns the best learning rate of one cadence.

    Args:
        jobs: one for each tuning seed.
        data: on the device.
        rates: the first grid.
        target: what to reach; None: the loss of the scored part is compared when the time is over.
        seconds: how long the updates and evaluations of one grid may take.
        seconds_alone: measured seconds per update of a single run.
        widen: whether the grid may grow.
        progress: is told the share that is done.
    """
    tried: list[Tried] = []
    grid, widened, spent = sorted(rates), 0, 0.0
    more = target.more_is_better if target else False
    while True:
        before = min(tried, key=lambda t: t.rank(more)) if tried else None
        most = (
            None
            if before is None or None in before.updates_to_target
            else max(u for u in before.updates_to_target if u)
        )
        found, took = _race(jobs, data, grid, target, seconds, seconds_alone, most, progress)
        tried, spent = sorted([*tried, *found], key=lambda t: t.learning_rate), spent + took
        best = min(tried, key=lambda t: t.rank(more))
        place = tried.index(best)
        edge = len(tried) > 1 and place in (0, len(tried) - 1)
        if not (edge and widen and widened < WIDENINGS):
            return Tuning(tuple(tried), best, edge, widened, spent)
        widened += 1
        factor = tried[1].learning_rate / tried[0].learning_rate
        grid = [best.learning_rate * factor ** ((k + 1) * (1 if place else -1)) for k in range(len(rates))]


def _race(
    jobs: Sequence[Job], data: Data, rates: Sequence[float], target: Target | None, seconds: float,
    seconds_alone: float, most: int | None, progress: Callable[[float], None],
) -> tuple[list[Tried], float]:  # fmt: skip
    """Returns what each rate did, until one of them has brought every seed to the target or the time is over."""
    job, part = jobs[0], jobs[0].scored_part
    size = job.plan.cadence.batch_sizes(job.n_train)[0]
    runs = sweep(jobs, rates, data, seconds_alone)
    reached = np.zeros(runs.diverged_at.shape, np.int64)
    name = target.score if target else "loss"
    cap = most or max(20, int(seconds / seconds_alone))
    growth = growth_for(runs, [part], seconds, evaluation_points(job.n_train, size, cap))
    values = losses = np.full(reached.shape, np.nan)
    began = time.perf_counter()
    for point in evaluation_points(job.n_train, size, cap, growth):
        runs.advance(point)
        seen = runs.scores([part])[part]
        values, losses = (np.array([[found[score] for found in row] for row in seen]) for score in (name, "loss"))
        if target is not None:
            updates = np.array([[clock.updates for clock in row] for row in runs.clocks()])
            hit = (values >= target.value) if target.more_is_better else (values <= target.value)
            reached = np.where((reached == 0) & hit & (runs.diverged_at == 0), updates, reached)
        spent = time.perf_counter() - began
        progress(max(spent / seconds, point / cap))
        if (reached > 0).all(axis=0).any() or spent >= seconds or (runs.diverged_at > 0).all():
            break
    with np.errstate(all="ignore"):
        return [
            Tried(
                float(rate),
                tuple(int(u) or None for u in reached[:, r]),
                float(np.median(values[:, r])),
                int((runs.diverged_at[:, r] > 0).sum()),
                float(np.median(losses[:, r])),
            )
            for r, rate in enumerate(rates)
        ], time.perf_counter() - began


def tuning_score(job: Job) -> str:
    """Returns the score that is reported for a job: its target's, else the main one of its loss."""
    return job.stopping.target.score if job.stopping.target else scores_of(job.loss)[0]
