"""Predicted against seen: real runs of a recommended setting and its neighbours, on seeds that nothing was tuned on.

First the update at which each seed meets the target; then each run again, undisturbed by evaluations, for the seconds
that so many updates take. So the seconds are those of updates alone, as in the prediction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..advance import Engine, NotFinite
from ..clock import Duration
from ..compare.critical import Interval
from ..compare.tune import tune
from ..config import Job
from ..stretch import Data

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


def confirm(
    jobs: Sequence[Job],
    data: Data,
    rate: float,
    updates: Interval,
    seconds: Interval,
    allowed: float,
    progress: Callable[[float], None] = lambda share: None,
) -> Confirmed:
    """Returns what runs of one setting took, beside what was predicted.

    Args:
        jobs: one for each seed, of the setting's cadence, with the target.
        data: on the device.
        rate: γ.
        updates: predicted.
        seconds: predicted.
        allowed: how many seconds it may take.
        progress: is told the share that is done.
    """
    job = jobs[0]
    m, alone = job.plan.cadence.batch_sizes(job.n_train)[0], seconds.value / updates.value
    end = time.perf_counter() + allowed
    found = tune(
        jobs, data, [rate], target=job.stopping.target, seconds=0.6 * allowed, seconds_alone=alone, widen=False,
        progress=progress,
    )  # fmt: skip
    seen = found.best.updates_to_target
    taken: list[float | None] = []
    for of_seed, n in zip(jobs, seen, strict=True):
        late = bool(taken) and time.perf_counter() > end
        taken.append(None if n is None else alone_for(of_seed, data, rate, n) if not late else None)
    kept = [k for k, (n, s) in enumerate(zip(seen, taken, strict=True)) if n is None or s is not None]
    return Confirmed(
        m, str(job.plan.cadence), rate, updates, seconds, tuple(seen[k] for k in kept), tuple(taken[k] for k in kept)
    )


def alone_for(job: Job, data: Data, rate: float, n: int) -> float:
    """Returns the seconds of a run's first `n` updates, without evaluation and compilation; the better of two times.

    Args:
        job: what is trained.
        data: on the device.
        rate: γ.
        n: how many updates.
    """
    best = math.inf
    for _ in range(2):
        engine = Engine(replace(job, learning_rate=rate) if job.optimizer.tunable else job, data)
        engine.compile()
        limit = [Duration(float(n), "updates")]
        try:
            while engine.clock.updates < n:
                engine.advance(limit)
        except NotFinite:  # it went on to the target before, by another form of the program
            return math.inf
        best = min(best, engine.update_seconds)
    return best
