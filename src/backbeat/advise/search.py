"""The search for updates-to-target over batch size and learning rate, within a time.

Shallue et al. 2019 (JMLR 20(112)): the learning rate is tuned for every batch size, and what counts is the update at
which every seed has first met the target. The time goes where it narrows the answer most, in two rungs. First all
sizes a factor 4 apart, from one example to the whole data set, each with a few rates around what the sizes before it
suggest; then, with seeds that the first rung did not see, only the sizes around the quickest one, a factor 2 apart, and
rates √2 apart. A size whose single run would take more than its share of the time is named, and not measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compare.tune import Tried, Tuning, default_rates, tune
from ..config import Job
from ..report.style import duration
from ..stretch import Data
from .laws import RateLaw, fit_law
from .timing import of_batch_size

SEEDS = 3  # of each rung
_FIRST = 32  # the search begins with the size nearest to this
_WIDE = (0.25, 0.5, 1.0, 2.0, 4.0)  # rates around what a law suggests
_NARROW = (2**-0.5, 1.0, 2**0.5)
_TOGETHER = 1.0  # runs side by side cost about so much of one after another, evaluations included
_CONTENDER = 1.5  # a size within this factor of the quickest is looked at again


class Budget:
    """The time that is given: shares of it, counted from its beginning."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._began = seconds, time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    def left(self, end: float, least: float = 0.0) -> float:
        """Returns the seconds until a share of the time is over, and at least another share of it.

        Args:
            end: the share, from 0 to 1.
            least: the share that is given in any case.
        """
        return max(end * self.seconds - self.spent, least * self.seconds)


@dataclass(frozen=True)
class Sized:
    """What one batch size took to the target, at the best learning rate found for it.

    Attributes:
        batch_size: M.
        learning_rate: γ, NaN where nothing was measured.
        updates: to the target, of each seed at this rate; None for one that did not meet it.
        on_edge: whether γ is still the smallest or largest tried.
        tried: all rates of all rungs.
        why_not: why it was not measured, None where it was.
    """

    batch_size: int
    learning_rate: float
    updates: tuple[int | None, ...]
    on_edge: bool = False
    tried: tuple[Tried, ...] = ()
    why_not: str | None = None

    @property
    def reached(self) -> bool:
        """Whether every seed met the target."""
        return bool(self.updates) and None not in self.updates

    @property
    def seen(self) -> list[int]:
        """Updates of the seeds that met the target."""
        return [u for u in self.updates if u is not None]

    @property
    def median(self) -> float:
        """Updates to the target, the median of the seeds; infinite where one did not meet it."""
        return float(np.median(self.seen)) if self.reached else math.inf

    def record(self, n_examples: int, seconds_per_update: float) -> dict[str, Any]:
        """Returns it as a report shows it.

        Args:
            n_examples: |D|.
            seconds_per_update: of this size.
        """
        m = self.batch_size
        return {
            "batch_size": m, "every": "dataset" if m == n_examples else str(m), "learning_rate": self.learning_rate,
            "updates": self.updates, "reached": self.reached, "on_edge": self.on_edge, "why_not": self.why_not,
            "seconds_per_update": seconds_per_update, "updates_to_target": self.median,
            "seconds_to_target": self.median * seconds_per_update,
            "tuning": [{"learning_rate": r.learning_rate, "updates_to_target": r.updates_to_target, "score": r.score,
                        "diverged": r.diverged} for r in self.tried],
        }  # fmt: skip


def first_sizes(n_examples: int) -> list[int]:
    """Returns the sizes of the first rung: 1, 4, 16, … and all, the last two more than a factor 2 apart.

    Example:
        >>> first_sizes(1437), first_sizes(3)
        ([1, 4, 16, 64, 256, 1437], [1, 3])
    """
    powers = [4**k for k in range(32) if 4**k * 2 < n_examples]
    return [*(powers or [1][: n_examples - 1]), n_examples]


def outward(sizes: Sequence[int]) -> list[int]:
    """Returns sizes beginning with the one nearest to 32, then in turn above and below it.

    Example:
        >>> outward([1, 4, 16, 64, 256, 1437])
        [16, 64, 4, 256, 1, 1437]
    """
    place = min(range(len(sizes)), key=lambda k: (abs(math.log(sizes[k] / _FIRST)), k))
    order = sorted(range(len(sizes)), key=lambda k: (abs(k - place), -k))
    return [sizes[k] for k in order]


class Search:
    """The sizes measured so far, and what measures further ones.

    Attributes:
        sizes: batch size -> what it took.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        data: Data,
        seconds_per_update: Callable[[float], float],
        note: Callable[..., None],
        progress: Callable[[str, float], None],
    ) -> None:
        """Makes a search in which nothing is measured yet.

        Args:
            jobs: one for each seed, `2 SEEDS` or more, of any cadence; they hold the target.
            data: on the device.
            seconds_per_update: batch size -> t(M) of a single run.
            note: takes down what is found, as `compare.journal` does.
            progress: is told the size and the share that is done.
        """
        self.jobs, self.data, self.seconds_per_update = list(jobs), data, seconds_per_update
        self.note, self.progress = note, progress
        self.sizes: dict[int, Sized] = {}

    @property
    def optimizer(self) -> Any:
        """The rule that all runs have."""
        return self.jobs[0].optimizer

    @property
    def law(self) -> RateLaw | None:
        """How the tuned rates depend on the batch size so far; None where there is none to know."""
        rates = {m: s.learning_rate for m, s in self.sizes.items() if s.reached}
        return fit_law(self.optimizer.name, rates) if rates and self.optimizer.tunable else None

    def of_size(self, m: int, seeds: slice) -> list[Job]:
        """Returns the jobs of some seeds with a batch size."""
        return [of_batch_size(job, m) for job in self.jobs[seeds]]

    def to_target(self, m: int) -> float:
        """Returns the seconds to the target with a size that was measured; infinite where it was not met."""
        return self.sizes[m].median * self.seconds_per_update(m) if m in self.sizes else math.inf

    @property
    def quickest(self) -> int | None:
        """The size with the least time to the target, None where none has met it."""
        best = min(self.sizes, key=self.to_target, default=None)
        return best if best is not None and math.isfinite(self.to_target(best)) else None

    def first_rung(self, left: Callable[[], float]) -> None:
        """Measures sizes a factor 4 apart, in as many seconds as are left.

        Args:
            left: gives the seconds that are left for the rung.
        """
        sizes = outward(first_sizes(self.jobs[0].n_train))
        for number, m in enumerate(sizes):
            self.measure(m, left() / (len(sizes) - number), slice(0, SEEDS), _WIDE)
            self.progress(str(m), (number + 1) / len(sizes))

    def second_rung(self, left: Callable[[], float]) -> None:
        """Measures the sizes around the quickest, a factor 2 apart, until it has both its neighbours or time is over.

        Args:
            left: gives the seconds that are left for the rung.
        """
        again: set[int] = set()
        while (best := self.quickest) is not None and left() > 0:
            beside = [m for m in self.beside(best) if m not in self.sizes]
            close = [m for m in self.sizes if self.to_target(m) <= _CONTENDER * self.to_target(best)]
            close = sorted((m for m in close if m not in again), key=self.to_target)
            if not beside and not close:
                return
            m = beside[0] if beside else close[0]
            again.add(m)
            seeds = slice(0, SEEDS) if m not in self.sizes else slice(SEEDS, 2 * SEEDS)
            self.measure(m, left() / (len(beside) + len(close)), seeds, _WIDE if m not in self.sizes else _NARROW)
            self.progress(str(m), len(again) / (len(again) + len(beside) + len(close)))

    def beside(self, m: int) -> list[int]:
        """Returns the sizes a factor 2 from one, within the data.

        Args:
            m: the size.
        """
        n = self.jobs[0].n_train
        return sorted({max(1, m // 2), n if 2 * m > n / 1.5 else 2 * m} - {m})

    def measure(self, m: int, seconds: float, seeds: slice, factors: Sequence[float]) -> None:
        """Measures one size; with seeds that it was not measured with, what is known of it is added to or replaced.

        Args:
            m: the size.
            seconds: how long it may take.
            seeds: which of the jobs.
            factors: rates to try, as factors on what is expected to be best.
        """
        jobs, alone = self.of_size(m, seeds), self.seconds_per_update(m)
        rates, widen = self.rates_around(m, factors)
        single = self._expected(m) * alone
        n_rates, n_seeds = _affordable(single, seconds, len(rates), len(jobs))
        if not n_seeds:
            why = f"one run would take about {duration(single)}, more than the {duration(seconds)} left for it"
            if m not in self.sizes:
                self.sizes[m] = Sized(m, math.nan, (), why_not=why)
                self.note("not_measured", **self.sizes[m].record(jobs[0].n_train, alone))
            return
        skip = (len(rates) - n_rates) // 2
        job = jobs[0]
        found = tune(
            jobs[:n_seeds], self.data, rates[skip : skip + n_rates], target=job.stopping.target, seconds=seconds,
            seconds_alone=alone, widen=widen,
        )  # fmt: skip
        before = self.sizes.get(m)
        self.sizes[m] = _joined(m, before, found)
        self.note("tuned", **self.sizes[m].record(job.n_train, alone))

    def rates_around(self, m: int, factors: Sequence[float]) -> tuple[list[float], bool]:
        """Returns the rates to try for a size, and whether the grid may be widened.

        Args:
            m: the size.
            factors: on the rate that was best for it, or that the law of the sizes measured suggests.
        """
        if not self.optimizer.tunable:
            return [1.0], False
        known, law = self.sizes.get(m), self.law
        if known is not None and known.reached:
            return [known.learning_rate * factor for factor in factors], True
        if law is None:
            return list(default_rates(self.optimizer.name)), True
        return [law.start(m) * factor for factor in factors], True

    def _expected(self, m: int) -> float:
        """Returns about how many updates a run of a size may need; 0 where nothing is known.

        No more than the nearest measured size has, or than the same examples are: updates fall with the batch size, and
        examples rise.
        """
        known = [s for s in self.sizes.values() if s.reached]
        if not known:
            return 0.0
        near = min(known, key=lambda s: abs(math.log(s.batch_size / m)))
        return near.median * max(1.0, near.batch_size / m)


def _affordable(single: float, seconds: float, n_rates: int, n_seeds: int) -> tuple[int, int]:
    """Returns how many rates and seeds can be tried in a time, where one run takes `single` seconds; (0, 0): none."""
    for rates, seeds in ((n_rates, n_seeds), (min(3, n_rates), n_seeds), (min(3, n_rates), 1)):
        if single * rates * seeds * _TOGETHER <= seconds:
            return rates, seeds
    return 0, 0


def _joined(m: int, before: Sized | None, found: Tuning) -> Sized:
    """Returns what is known of a size from two rungs: the seeds of both where they chose one rate, else the newer."""
    best = found.best
    updates, tried = best.updates_to_target, found.tried
    if before is not None and before.why_not is None:
        if None in updates and before.reached:  # too little time for it; what was known stays
            return before
        same = math.isclose(before.learning_rate, best.learning_rate, rel_tol=1e-6)
        updates, tried = (*(before.updates if same else ()), *updates), (*before.tried, *tried)
    return Sized(m, best.learning_rate, updates, found.on_edge, tried)
