"""Many runs of one cadence that differ in learning rate and seed: vectorised, or each by itself.

Which of the two is faster depends on the network and the batch; `sweep` measures the first, is told the time of a
single run, and takes the faster one. Measurements: docs/decisions/0008-sweeps-in-two-threads.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..advance import Engine
from ..clock import Clock, Duration
from ..config import Job
from ..cores import in_threads, n_cores
from ..data import foreseen
from ..evaluate import block_for, evaluator, scores, sweep_evaluator
from ..nonfinite import NotFinite
from ..plan import Cursor
from ..stretch import Data, Rows, fetches, form_for, rows_for, sweep_program

_ROWS, _INDICES = 1 << 13, 1 << 17  # a call's buffers stay small, since evaluations cut the stretches short
_BLOCK = 512  # examples at once: what all the runs keep of them stays nearer than of a whole large batch
_CALL_SECONDS = 0.25  # a call is not longer, as far as it is known, so that an interrupt is heard
_TRIALS, _TRIAL_SECONDS, _MOST_TRIAL_SECONDS = 3, 0.04, 0.5  # how often, about how long each, and together


def parted(n: int) -> list[slice]:
    """Returns the parts of `n` learning rates that run at the same time: two halves of one length.

    Of an odd number the middle one is in both, so that both are of one shape and share one program. The parts do not
    depend on the number of cores, and so neither does any result.

    Example:
        >>> [list(range(5))[part] for part in parted(5)]
        [[0, 1, 2], [2, 3, 4]]
    """
    half = -(-n // 2)
    return [slice(0, half), slice(n - half, n)] if n > 1 else [slice(0, 1)]


class Together:
    """Runs `[seeds, rates]` as two vectorised programs in two threads, half the rates in each; all at the same update.

    Attributes:
        clock: of all runs.
        diverged_at: `[seeds, rates]`, the update after which the loss was not finite, 0 where it still is.
        seconds: spent in updates so far.
    """

    def __init__(self, jobs: Sequence[Job], rates: Sequence[float], data: Data, *, watch: bool = False) -> None:
        self.jobs, self.data, self.n_rates = jobs, data, len(rates)
        self.parts = parted(len(rates))
        self.rates = [jnp.asarray(rates, jnp.float32)[part] for part in self.parts]
        job, n_runs = jobs[0], len(jobs) * len(self.rates[0])
        size = job.plan.cadence.batch_sizes(job.n_train)[0]
        form = partial(
            form_for, size, job.example_floats * n_runs, plain=job.plain, short=job.plan.has_short_batches(size),
            whole=size == job.n_train and job.plan.order.kind != "with replacement", watch=watch,
            rows=max(16, min(_ROWS, _INDICES // size)), input_floats=math.prod(job.dataset.input_shape) * len(jobs),
        )  # fmt: skip
        self.form = form(block=job.settings.block)
        if job.settings.block is None and self.form.block > _BLOCK:
            self.form = form(block=_BLOCK)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(job.initial_state() for job in jobs))
        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], len(self.rates[0]), axis=1), stacked)
        self.states = [repeated for _ in self.parts]
        self._program = sweep_program(self.form, job.model, job.loss, job.optimizer)
        self._evaluate = sweep_evaluator(job.model, job.loss, block_for(job.example_floats * n_runs))
        self.cursor, self.clock, self.seconds = Cursor(), Clock(), 0.0
        self.diverged_at = np.zeros((len(jobs), len(rates)), np.int64)
        self._longest = self.form.rows
        self._run(0, self.planned(0)[0])  # compiles

    def clocks(self) -> list[list[Clock]]:
        """Returns the clock of each run, `[seeds][rates]`."""
        return [[self.clock] * self.n_rates for _ in self.jobs]

    def advance(self, updates: int) -> np.ndarray | None:
        """Moves all runs on to this many updates; returns their gradient norms `[seeds, rates, n]` where watched."""
        norms = []
        while self.clock.updates < updates:
            n = min(self._longest, updates - self.clock.updates)
            start = time.perf_counter()
            rows, end = self.planned(n)
            made = in_threads(partial(self._run, rows=rows), range(len(self.parts)))
            seconds = time.perf_counter() - start
            self.states, self.cursor, self.clock = [state for state, _ in made], end, self.jobs[0].plan.clock(end)
            self._note(self._joined([np.asarray(seen.loss) for _, seen in made])[..., :n])
            if self.form.watch:
                norms.append(self._joined([np.asarray(seen.gradient_norm) for _, seen in made])[..., :n])
            self.seconds += seconds
            self._longest = max(1, min(self.form.rows, int(_CALL_SECONDS * n / seconds)))
        return np.concatenate(norms, axis=-1) if norms else None

    def _note(self, loss: np.ndarray) -> None:
        """Notes which runs diverged in the newest updates, whose losses `[seeds, rates, n]` these are."""
        bad = ~np.isfinite(loss)
        first = np.maximum(self.clock.updates - loss.shape[-1] + np.argmax(bad, axis=-1), 1)
        self.diverged_at = np.where((self.diverged_at == 0) & bad.any(axis=-1), first, self.diverged_at)

    def _joined(self, of_parts: Sequence[np.ndarray]) -> np.ndarray:
        """Returns arrays `[seeds, rates of a part, ...]` as one `[seeds, rates, ...]`."""
        twice = sum(len(rates) for rates in self.rates) - self.n_rates  # 1 where the middle rate is in both parts
        return np.concatenate([of_parts[0], *(array[:, twice:] for array in of_parts[1:])], axis=1)

    def scores(self, parts: Sequence[str]) -> dict[str, list[list[dict[str, float]]]]:
        """Returns the scores of each run on each of the parts, `[seeds][rates]`; NaN for one that diverged."""
        indices = tuple(jnp.asarray(np.stack([getattr(job.split, part) for job in self.jobs])) for part in parts)
        found = in_threads(lambda s: jax.device_get(self._evaluate(s.params, self.data, indices)), self.states)
        sums = jax.tree.map(lambda *arrays: self._joined(arrays), *found)
        result = {}
        for part, of_part in zip(parts, sums, strict=True):
            result[part] = [
                [self._scores_of(part, of_part, seed, rate) for rate in range(self.n_rates)]
                for seed in range(len(self.jobs))
            ]
        return result

    def _scores_of(self, part: str, sums: Any, seed: int, rate: int) -> dict[str, float]:
        job = self.jobs[seed]
        of_run, y = jax.tree.map(lambda a: a[seed, rate], sums), job.dataset.y[getattr(job.split, part)]
        values = scores(job.loss, of_run, y, job.dataset.label_scale)
        return values if _finite(values) and not self.diverged_at[seed, rate] else dict.fromkeys(values, math.nan)

    def planned(self, n: int) -> tuple[Rows, Cursor]:
        """Returns the next `n` updates of all seeds as a program takes them, and where the plan stands then."""
        stretches = [job.plan.stretch(self.cursor, max(1, n)) for job in self.jobs]
        rows = [
            rows_for(self.form, stretch, n, job.split.train, seed=int(job.settings.seed))
            for stretch, job in zip(stretches, self.jobs, strict=True)
        ]
        of_seeds = {name: np.stack([getattr(row, name) for row in rows]) for name in ("indices", "key")}
        return rows[0]._replace(**of_seeds), stretches[0].end

    def _run(self, part: int, rows: Rows) -> tuple[Any, Any]:
        """Returns the state of a part of the runs after these updates, and what was seen."""
        data = foreseen(self.data, fetches(self.form, rows))  # held while the program runs
        return jax.block_until_ready(self._program(self.states[part], data, rows, self.rates[part]))

    def time(self, n: int) -> float:
        """Returns seconds per update of all runs together; nothing is moved on."""
        rows, _ = self.planned(n)
        taken = []
        for _ in range(1 + _TRIALS):  # the first with data is not counted; of the others the least disturbed
            start = time.perf_counter()
            in_threads(partial(self._run, rows=rows), range(len(self.parts)))
            taken.append(time.perf_counter() - start)
            if sum(taken) > _MOST_TRIAL_SECONDS:
                break
        return min(taken[1:] or taken) / n


def _finite(values: dict[str, float]) -> bool:
    return math.isfinite(values["loss"])


class Apart:
    """Runs `[seeds, rates]` one after another, or as many at a time as there are cores; each has its own engine.

    Takes any cadence: repeated batches and changing batch sizes too. With `at_once=1`, the engines' own
    `update_seconds` are those of a single run.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        rates: Sequence[float],
        data: Data,
        *,
        watch: bool = False,
        at_once: int | None = None,
    ) -> None:
        self.jobs, self.rates, self.data, self.seconds = jobs, np.asarray(rates), data, 0.0
        self.engines = [
            [Engine(replace(job, learning_rate=float(rate), settings=watched), data) for rate in rates]
            for job in jobs
            for watched in [replace(job.settings, watch_gradient=watch)]
        ]
        self.diverged_at = np.zeros((len(jobs), len(rates)), np.int64)
        self.engines[0][0].compile()
        self._pool = ThreadPoolExecutor(at_once or n_cores())

    @property
    def clock(self) -> Clock:
        """The clock of the run that is furthest behind."""
        return min((clock for row in self.clocks() for clock in row), key=lambda clock: clock.updates)

    def clocks(self) -> list[list[Clock]]:
        """Returns the clock of each run, `[seeds][rates]`."""
        return [[engine.clock for engine in row] for row in self.engines]

    def advance(self, updates: int) -> np.ndarray | None:
        """Moves each run on to this many updates (to so many batches, where they are repeated)."""
        start = time.perf_counter()
        each = [(s, r) for s in range(len(self.jobs)) for r in range(len(self.rates)) if not self.diverged_at[s, r]]
        norms = dict(zip(each, self._pool.map(lambda at: self._advance_one(at[0], at[1], updates), each), strict=True))
        self.seconds += time.perf_counter() - start
        watched = {at: norm for at, norm in norms.items() if norm is not None}
        if not watched or len(watched) < len(norms):
            return None
        result = np.full((*self.diverged_at.shape, max(len(norm) for norm in watched.values())), np.nan)
        for (s, r), norm in watched.items():
            result[s, r, : len(norm)] = norm
        return result

    def _advance_one(self, s: int, r: int, updates: int) -> np.ndarray | None:
        engine, norms = self.engines[s][r], []
        limit = Duration(updates, "updates")
        if engine.job.plan.cadence.repeated is not None:  # an evaluation must not cut a repeat short
            size = engine.job.plan.cadence.batch_sizes(engine.job.n_train)[0]
            limit = Duration(updates * size / engine.job.n_train, "epochs")
        try:
            while getattr(engine.clock, limit.unit) < limit.amount - 1e-9:
                done = engine.advance([limit])
                norms.append(done.gradient_norms)
        except NotFinite as error:
            self.diverged_at[s, r] = max(1, error.update)
        return np.concatenate(norms) if norms and norms[0] is not None else np.zeros(0) if not norms else None

    def scores(self, parts: Sequence[str]) -> dict[str, list[list[dict[str, float]]]]:
        """Returns the scores of each run on each of the parts, `[seeds][rates]`; NaN for one that diverged."""
        result: dict[str, list[list[dict[str, float]]]] = {part: [] for part in parts}
        for s, row in enumerate(self.engines):
            job = self.jobs[s]
            run = evaluator(job.model, job.loss, block_for(job.example_floats))
            indices = tuple(jnp.asarray(getattr(job.split, part)) for part in parts)
            found = [jax.device_get(run(engine.state.params, self.data, indices)) for engine in row]
            for k, part in enumerate(parts):
                y = job.dataset.y[getattr(job.split, part)]
                values = [scores(job.loss, sums[k], y, job.dataset.label_scale) for sums in found]
                lost = self.diverged_at[s] > 0
                result[part].append([dict.fromkeys(v, math.nan) if lost[r] else v for r, v in enumerate(values)])
        return result


Sweep = Together | Apart


def sweep(
    jobs: Sequence[Job], rates: Sequence[float], data: Data, seconds_alone: float, *, watch: bool = False
) -> Sweep:
    """Returns a sweep at its beginning, in the form that is faster here.

    Args:
        jobs: one for each seed.
        rates: the learning rates.
        data: on the device.
        seconds_alone: seconds per update of a single run, as measured.
        watch: whether gradient norms are wanted.
    """
    cadence, n_runs = jobs[0].plan.cadence, len(jobs) * len(rates)
    if cadence.repeated is not None or len(cadence.phases) > 1 or not jobs[0].schedule.constant:
        return Apart(jobs, rates, data, watch=watch)
    together = Together(jobs, rates, data, watch=watch)
    if n_runs == 1 or seconds_alone <= 0:
        return together
    n = max(1, min(together.form.rows, int(_TRIAL_SECONDS / (seconds_alone * n_runs))))
    at_once = min(n_runs, 1 + 0.6 * (min(2, n_cores()) - 1))  # two single runs on two cores do not double
    if together.time(n) <= 1.1 * seconds_alone * n_runs / at_once:
        return together
    return Apart(jobs, rates, data, watch=watch)
