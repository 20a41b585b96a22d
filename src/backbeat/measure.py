"""Seconds per update on this machine: one unvectorised run, a warm program, evaluation left out, cadences in turn.

These machines are noisy and drift, so the cadences are timed round after round and the median of the rounds is given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .advance import Engine
from .cadence import Cadence, Phase
from .clock import Duration
from .config import Job, with_cadence
from .errors import DivergedError
from .nonfinite import NotFinite
from .stretch import Data

ROUNDS, ROUND_SECONDS = 7, 0.03
_TINY = 1e-6


@dataclass(frozen=True)
class Spread:
    """A median and the range around it: of seeds, or of rounds of a timing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Spread:
        """Returns the median and the smallest and largest of the values.

        Example:
            >>> Spread.of([1.0, 5.0, 2.0])
            Spread(median=2.0, low=1.0, high=5.0)
        """
        return cls(float(np.median(values)), float(np.min(values)), float(np.max(values)))

    def overlaps(self, other: Spread) -> bool:
        """Returns whether the two ranges share a value: then neither is clearly ahead."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Timing:
    """What one cadence costs here.

    Attributes:
        phases: seconds per update over the rounds, of each batch size that the cadence goes through.
        compile_seconds: for the first run of its programs, which `phases` do not hold.
    """

    phases: tuple[Spread, ...]
    compile_seconds: float

    @property
    def seconds_per_update(self) -> Spread:
        """Seconds per update of the first phase, for most cadences the only one."""
        return self.phases[0]


def time_updates(
    jobs: Sequence[Job], data: Data, progress: Callable[[float], None] = lambda share: None
) -> list[Timing]:
    """Returns the timing of each job's update, the jobs taken in turn, round after round.

    Args:
        jobs: one for each cadence; their state is not changed.
        data: the data on the device, shared by all.
        progress: is told the share that is done.
    """
    timers = [[Timer(phase, data) for phase in _phases(job)] for job in jobs]
    seconds = iter(in_turn([timer for of_job in timers for timer in of_job], progress=progress))
    return [
        Timing(tuple(Spread.of(next(seconds)) for _ in of_job), sum(timer.compile_seconds for timer in of_job))
        for of_job in timers
    ]


def in_turn(
    timers: Sequence[Timer],
    rounds: int = ROUNDS,
    *,
    until: float = math.inf,
    least: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """Returns seconds per update `[timers, rounds]`, the timers taken in turn, round after round.

    Every second round goes backwards, so that none always follows the same other.

    Args:
        timers: what is timed.
        rounds: how many rounds.
        until: on the clock `time.perf_counter`: no round begins that would probably end later.
        least: rounds that are made in any case.
        progress: is told the share that is done.
    """
    made, longest = np.zeros((len(timers), rounds)), 0.0
    for turn in range(rounds):
        began = time.perf_counter()
        if turn >= least and began + longest > until:
            return made[:, :turn]
        places = range(len(timers)) if turn % 2 == 0 else reversed(range(len(timers)))
        for done, place in enumerate(places):
            made[place, turn] = timers[place].once()
            progress((turn * len(timers) + done + 1) / (rounds * len(timers)))
        longest = max(longest, time.perf_counter() - began)
    return made


def _phases(job: Job) -> list[Job]:
    """Returns a job of one batch size for each that the cadence goes through."""
    cadence = job.plan.cadence
    return [with_cadence(job, Cadence((Phase(phase.size),), cadence.repeated)) for phase in cadence.phases]


class Timer:
    """One job of one batch size, its program compiled and warm, to be timed again and again.

    Attributes:
        compile_seconds: what compiling took.
        updates: how many are made each time, so that it takes about `ROUND_SECONDS`.
        seconds: per update, roughly, as found on the way.
    """

    def __init__(self, job: Job, data: Data) -> None:
        # the time of an update does not depend on its size, and a tiny one cannot diverge
        self.job, self.data = replace(job, learning_rate=_TINY) if job.optimizer.tunable else job, data
        self.engine = Engine(self.job, data)
        self.compile_seconds = self.engine.compile()
        self.updates = 1
        while (seconds := self._least()) * self.updates < ROUND_SECONDS / 2 and self.updates < 1 << 16:
            self.updates *= min(8, max(2, round(ROUND_SECONDS / (seconds * self.updates))))  # this also warms up
        self.seconds = seconds

    def _least(self) -> float:
        """Returns the least seconds per update of three times, or of one that is long enough not to be a hiccup's."""
        first = self.once()
        return first if first * self.updates > 8 * ROUND_SECONDS else min(first, self.once(), self.once())

    def once(self) -> float:
        """Returns the seconds per update of some updates; repeats that are not needed cost time too."""
        made, seconds = 0, 0.0
        while made < self.updates:
            clock = self.engine.clock
            try:
                done = self.engine.advance([Duration(clock.updates + self.updates - made, "updates")])
            except NotFinite as error:  # its own learning rate is too high in the long run: begin again
                if made == 0 and clock.updates == 0:
                    raise DivergedError(
                        f"the optimizer's own learning rate diverges at update {error.update}."
                    ) from None
                self.engine, made, seconds = Engine(self.job, self.data), 0, 0.0
                continue
            made, seconds = made + done.clock.updates - clock.updates, seconds + done.update_seconds
            if done.clock.updates == clock.updates:  # every batch is satisfied: begin again, where they are not
                self.engine = Engine(self.job, self.data)
        return seconds / made
