"""Predicted against seen: real runs of a recommended setting and its neighbours, on seeds that nothing was tuned on.

First the update at which each seed meets the target; then each run again, undisturbed by evaluations, for the seconds
that so many updates take: all runs of all settings in turn, several times, so that a slow moment hits all alike. So the
seconds are those of updates alone, as in the prediction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..advance import Engine
from ..clock import Duration, Target
from ..compare.critical import Interval
from ..compare.spread import Workers
from ..compare.trainings import Trainings, Unit
from ..compare.tune import tune
from ..config import Job
from ..nonfinite import NotFinite
from ..stretch import Data
from .search import Search, Sized
from .target import with_target
from .timing import of_batch_size
from .wishes import Wish, one_run, times, wishes_of

_LEAST_ROUNDS, _MOST_ROUNDS = 2, 7
_LEAST_TIMES = 2.0  # a run has at least so many times the updates that it should need
UPDATES_FACTOR, SECONDS_FACTOR = 1.3, 1.5  # seen within these of predicted counts as agreeing


@dataclass(frozen=True)
class Confirmed:
    """One setting, as predicted and as seen.

    Attributes:
        batch_size: M.
        every: the cadence as text.
        learning_rate: γ.
        predicted_updates: of one run, with its interval.
        predicted_seconds: likewise.
        updates: of each run; None for one that did not meet the target.
        seconds: of each run's updates; None likewise.
    """

    batch_size: int
    every: str
    learning_rate: float
    predicted_updates: Interval
    predicted_seconds: Interval
    updates: tuple[int | None, ...]
    seconds: tuple[float | None, ...]

    @property
    def reached(self) -> bool:
        """Whether every run met the target."""
        return bool(self.updates) and None not in self.updates

    @property
    def median_updates(self) -> float:
        """Updates seen, the median; infinite where a run did not meet the target."""
        return float(np.median([u for u in self.updates if u is not None])) if self.reached else math.inf

    @property
    def median_seconds(self) -> float:
        """Seconds seen, the median; infinite likewise."""
        return float(np.median([s for s in self.seconds if s is not None])) if self.reached else math.inf

    @property
    def agrees(self) -> bool:
        """Whether the medians seen are within a factor 1.3 of the updates predicted and 1.5 of the seconds."""
        return within(self.median_updates, self.predicted_updates.value, UPDATES_FACTOR) and within(
            self.median_seconds, self.predicted_seconds.value, SECONDS_FACTOR
        )

    def record(self) -> dict[str, Any]:
        """Returns it as plain numbers and text."""
        return {
            "batch_size": self.batch_size, "every": self.every, "learning_rate": self.learning_rate,
            "predicted_updates": vars(self.predicted_updates), "predicted_seconds": vars(self.predicted_seconds),
            "seen_updates": self.updates, "seen_seconds": self.seconds, "agrees": self.agrees,
        }  # fmt: skip


def within(seen: float, predicted: float, factor: float) -> bool:
    """Returns whether two amounts are at most a factor apart.

    Example:
        >>> within(120, 100, 1.3), within(70, 100, 1.3), within(float("inf"), 100, 1.3)
        (True, False, False)
    """
    return predicted / factor <= seen <= predicted * factor


class Confirmation:
    """Runs the setting that should finish first and its neighbours for real, until the quickest one has been run so.

    What is seen counts: its updates join those of the search, and its seconds take the place of those of the curve.

    Attributes:
        confirmed: batch size -> what was predicted and seen.
    """

    def __init__(
        self,
        search: Search,
        workers: Workers,
        seconds: Callable[[int], Interval],
        seeds: range,
        note: Callable[..., None],
        progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        """Makes one in which nothing has been run yet.

        Args:
            search: the sizes measured.
            workers: where the runs are made that find the update; all are timed in this process.
            seconds: batch size -> seconds per update as timed, with the range of the rounds.
            seeds: which of the search's jobs are run, none that anything was tuned on.
            note: takes down what is found.
            progress: is told the share that is done.
        """
        self.search, self.workers, self.timed, self.seeds = search, workers, seconds, seeds
        self.note, self.progress = note, progress
        self.confirmed: dict[int, Confirmed] = {}
        self._per_update: dict[int, Interval] = {}

    def seconds(self, m: int) -> Interval:
        """Returns the seconds of an update, as seen in real runs where there were some, else as timed."""
        return self._per_update.get(m) or self.timed(m)

    @property
    def sizes(self) -> list[Sized]:
        """What is known of each size, real runs included."""
        return [self._with_runs(size) for _, size in sorted(self.search.sizes.items())]

    def wishes(self) -> dict[str, Wish]:
        """Returns what serves each wish, by what is known so far."""
        job = self.search.jobs[0]
        return wishes_of(self.sizes, self.seconds, job.n_train, job.settings.short_batch)

    def carry_out(self, left: Callable[[], float]) -> dict[str, Wish]:
        """Returns the wishes after real runs.

        Args:
            left: gives the seconds that are left for them.
        """
        wishes = self.wishes()
        while wishes:
            best = wishes["finish_first"].batch_size
            near = [m for m in self.search.beside(best) if m in self.search.sizes and self.search.sizes[m].reached]
            todo = [m for m in (best, *near) if m not in self.confirmed]
            if not todo or (self.confirmed and left() <= 0):
                break
            self._run(todo, left)
            self._time(left())
            for m in todo:
                self.note("confirmed", **self.confirmed[m].record())
            wishes = self.wishes()
        return wishes

    def _with_runs(self, size: Sized) -> Sized:
        found = self.confirmed.get(size.batch_size)
        return size if found is None else replace(size, updates=(*size.updates, *found.updates))

    def _run(self, sizes: Sequence[int], left: Callable[[], float]) -> None:
        """Finds out at which update runs of some sizes meet the target, in half of the time that is left."""
        known = {m: one_run(self.search.sizes[m], list(self.search.sizes.values())) for m in sizes}
        units = []
        for m in sizes:
            t, n_runs = self.seconds(m).value, len(self.seeds)
            work = partial(
                met, m=m, seeds=self.seeds, learning_rate=self.search.sizes[m].learning_rate, alone=t,
                target=self.search.jobs[0].stopping.target, least=_LEAST_TIMES * known[m].high * t * n_runs,
            )  # fmt: skip
            units.append(Unit(f"confirming {m:,} examples an update", str(m), work))
        found = self.workers.each(
            units,
            lambda waiting, at_once: at_once * left() / (2 * waiting),
            lambda _, share: self.progress(share * len(sizes) / (len(sizes) + 1)),
        )
        for m, seen in zip(sizes, found, strict=True):
            t, cadence = self.seconds(m), self.search.of_size(m, slice(0, 1))[0].plan.cadence
            self.confirmed[m] = Confirmed(
                m, str(cadence), self.search.sizes[m].learning_rate, known[m],
                times(known[m], t.value, t.low, t.high), seen, (None,) * len(seen),
            )  # fmt: skip

    def _jobs(self, m: int) -> list[Job]:
        """Returns the jobs that are run, with a size."""
        return [of_batch_size(self.search.jobs[seed], m) for seed in self.seeds]

    def _time(self, seconds: float) -> None:
        """Times all runs that met the target, of all sizes in turn, undisturbed by evaluations."""
        runs = [
            (one.batch_size, k, replace(job, learning_rate=one.learning_rate) if job.optimizer.tunable else job, n)
            for one in self.confirmed.values()
            for k, (job, n) in enumerate(zip(self._jobs(one.batch_size), one.updates, strict=True))
            if n is not None
        ]
        if not runs:
            return
        seen = in_rounds([(job, n) for *_, job, n in runs], self.workers.trainings.data, seconds)
        for m, one in self.confirmed.items():
            of_size = [place for place, run in enumerate(runs) if run[0] == m]
            taken: list[float | None] = [None] * len(one.updates)
            for place in of_size:
                taken[runs[place][1]] = float(np.median(seen[place]))
            self.confirmed[m] = replace(one, seconds=tuple(taken))
            if of_size and np.isfinite(seen[of_size]).all():
                each = seen[of_size].sum(axis=0) / sum(runs[place][3] for place in of_size)
                self._per_update[m] = Interval(float(np.median(each)), float(each.min()), float(each.max()))


def met(
    trainings: Trainings, *, m: int, seeds: Sequence[int], learning_rate: float, target: Target | None, alone: float,
    least: float, seconds: float, crowd: float, progress: Callable[[float], None],
) -> tuple[int | None, ...]:  # fmt: skip
    """Returns at which update each run of a size meets the target: a unit of the confirmation.

    Args:
        trainings: what the runs have in common.
        m: the size.
        seeds: of the runs.
        learning_rate: γ.
        target: what they are to reach.
        alone: seconds per update of a single run.
        least: seconds that the runs have in any case, so that one that falls short does so by itself.
        seconds: that they may take.
        crowd: by how much an update takes longer meanwhile.
        progress: is told the share that is done.
    """
    assert target is not None, "advice has a target, given or measured"
    jobs = [with_target(of_batch_size(trainings.job(seed), m), target) for seed in seeds]
    found = tune(
        jobs, trainings.data, [learning_rate], target=target, seconds=max(seconds, least * crowd),
        seconds_alone=alone * crowd, widen=False, progress=progress,
    )  # fmt: skip
    return found.best.updates_to_target


def in_rounds(runs: Sequence[tuple[Job, int]], data: Data, seconds: float) -> np.ndarray:
    """Returns the seconds of each run's first updates, `[runs, rounds]`, without evaluation and compilation.

    The runs are made in turn, round after round, every second round backwards; infinite where one diverges.

    Args:
        runs: jobs, with how many updates to make.
        data: on the device.
        seconds: how long it may take; two rounds are made in any case, seven at most.
    """
    end, made = time.perf_counter() + seconds, np.zeros((len(runs), _MOST_ROUNDS))
    for turn in range(_MOST_ROUNDS):
        began = time.perf_counter()
        for place in range(len(runs)) if turn % 2 == 0 else reversed(range(len(runs))):
            made[place, turn] = alone_for(*runs[place], data)
        if turn + 1 >= _LEAST_ROUNDS and 2 * time.perf_counter() - began > end:
            return made[:, : turn + 1]
    return made


def alone_for(job: Job, n: int, data: Data) -> float:
    """Returns the seconds of a run's first `n` updates, without evaluation and compilation; infinite if it diverges.

    Args:
        job: what is trained.
        n: how many updates.
        data: on the device.
    """
    engine = Engine(job, data)
    engine.compile()
    try:
        while engine.clock.updates < n:
            engine.advance([Duration(float(n), "updates")])
    except NotFinite:  # it went on to the target before, by another form of the program
        return math.inf
    return engine.update_seconds
