"""A run's engine: state, cursor and compiled programs, moved on by one stretch at a time.

While the device computes a stretch, the plan of the next one is made, so that planning costs no time of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from .clock import Clock, Duration
from .config import Job
from .data import foreseen
from .events import StretchDone
from .forms import (
    STRETCH_SECONDS,
    fitting_block,
    follower_of,
    form_of,
    full_batches,
    of_size,
    schedule_factors,
    smaller_block,
)
from .models import n_parameters
from .noise import NoiseSums
from .nonfinite import NotFinite, blamed, finite, most_finite
from .plan import Cursor, Stretch, start_of
from .repeat import Budget, Carry, Repeated, repeat_program
from .snapshot import Snapshot
from .stretch import Data, Form, Rows, fetches, program, rows_for
from .update import State

_TIMED, _MOST = 16, 2**31 - 1
_PAUSE = 4096  # updates on one batch after which a first stretch ends


@dataclass
class _Ahead:
    """A stretch that is planned but not computed yet."""

    form: Form
    stretch: Stretch
    rows: Rows
    factor: np.ndarray | None
    gain: float  # on the learning rate, of a batch that follows the noise


@dataclass
class _Made:
    """A stretch that was computed, and where it began: so that it can be computed again up to any of its updates."""

    ahead: _Ahead
    state: State
    cursor: Cursor
    clock: Clock
    n_updates: int
    inside: Carry
    rate: Any  # γ then


class Engine:
    """Moves a job on, stretch by stretch.

    Attributes:
        job: what is trained.
        state: parameters and optimizer state now.
        cursor: where the plan stands.
        clock: updates, examples and epochs so far (its seconds are kept by the caller).
        update_seconds: seconds spent in updates.
        follower: what decides M, where it follows the noise.
        inside: where a repeated batch stands that the newest stretch left in the middle.
        block: the most examples that are computed at once, where memory was too short for what is set.
        rate_factor: on γ, after divergences that lowered it.
    """

    def __init__(self, job: Job, data: Data | None = None, state: State | None = None) -> None:
        self.job, self.data = job, job.device_data() if data is None else data
        self.state = job.initial_state() if state is None else jax.tree.map(jnp.asarray, state)
        self.cursor, self.clock, self.update_seconds = Cursor(), Clock(), 0.0
        self.index = None if len(job.split.train) == len(job.dataset) else job.split.train
        self.base_rate, self.rate, self.rate_factor = job.learning_rate, jnp.float32(job.learning_rate), 1.0
        self.inside = Carry()
        self.rest = jnp.asarray(self._rest())
        self._pause = _PAUSE
        self.follower = follower_of(job)
        self._shape(None)
        self.shared = job.team.shared(job, self.data)
        self._ahead: _Ahead | None = None
        self._reading: Any = None
        self._made: _Made | None = None  # the newest stretch: its last update may turn out to have been the bad one

    def _shape(self, block: int | None) -> None:
        """Chooses the forms of stretches, with as many examples at once; nothing is compiled for them yet."""
        self.block, sizes = block, self.job.plan.cadence.batch_sizes(self.job.n_train)
        n = n_parameters(self.state.params)
        self._forms = {size: form_of(self.job, size, n, block) for size in sizes}
        self._speed: dict[int, float] = {}  # measured seconds per update, by batch size
        self._ready: set[int] = set()  # batch sizes whose program is compiled

    def stand(self, at: Snapshot) -> None:
        """Goes to where a snapshot was taken; everything from there on is as it was then."""
        self.state = jax.tree.map(jnp.asarray, at.state)
        self.cursor, self.clock, self.update_seconds = at.cursor, at.clock, at.update_seconds
        self.follower, self.rate_factor = at.follower, at.rate_factor
        self.rate = jnp.float32(self.base_rate * at.rate_factor)
        self.inside = Carry() if at.inside is None else at.inside
        self._ahead = self._made = None
        if at.block != self.block:
            self._shape(at.block)

    def set_rate(self, rate: float) -> None:
        """Takes another γ, before schedule and factors, for the updates from here on."""
        if rate != self.base_rate:
            self.base_rate, self.rate = rate, jnp.float32(rate * self.rate_factor)

    def compile(self) -> float:
        """Returns the seconds that compiling and timing took: all programs, or where M follows the noise the first."""
        return sum(self._ready_for(size) for size in ([self.follower.size] if self.follower else list(self._forms)))

    def make_ready(self) -> float:
        """Returns the seconds that compiling for an M took which holds for the first time, as it follows the noise."""
        return self._ready_for(self.plan_size(self.cursor))

    def _ready_for(self, size: int) -> float:
        if size in self._ready:
            return 0.0
        start = time.perf_counter()
        while True:
            fitting = fitting_block(self._forms[size], self.job)
            if fitting < self._forms[size].block:
                self._shape(fitting)
            try:
                self._compiled(size)
                return time.perf_counter() - start
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                self._shape(smaller_block(error, self._forms[size].block, self.job.team))

    def plan_size(self, cursor: Cursor) -> int:
        """Returns M at a cursor."""
        return self.job.plan.phase(cursor)[0] if self.follower is None else self.follower.size

    def _compiled(self, size: int) -> None:
        """Compiles the program of a batch size, and times it."""
        form = self._forms[size]
        self._time(form, 0)
        if form.rows >= _TIMED:  # else the first stretch is short enough not to be timed before
            one = self._time(form, 1)
            if 1e-3 < one < STRETCH_SECONDS:  # a first call may wait for what is done once
                one = min(one, self._time(form, 1))
            self._speed[size] = one if one > 1e-3 else self._time(form, _TIMED) / _TIMED
        self._ready.add(size)

    def program_bytes(self, size: int) -> int | None:
        """Returns the bytes that the program of a batch size, not repeated, takes beside its data; it is not run.

        None where its compiler is silent.
        """
        form = self._forms[size]
        rows = self._rows(form, full_batches(form, 0), 0, np.ones(0) if form.scheduled else None)
        made: Any = program(form, self.job.model, self.job.loss, self.job.optimizer)
        plan = made.lower(self.state, foreseen(self.data, iter(())), rows, self.rate).compile().memory_analysis()
        return None if plan is None else int(plan.temp_size_in_bytes + plan.output_size_in_bytes)

    def _time(self, form: Form, n: int) -> float:
        """Returns the seconds that a call of `n` updates takes; its result is thrown away."""
        rows = self._rows(form, full_batches(form, n), n, np.ones(n) if form.scheduled else None)
        if self.job.plan.cadence.repeated is not None:
            rows = rows._replace(n_segments=np.int32(n))
        start = time.perf_counter()
        jax.block_until_ready(self._call(form, rows, self.state, _budget(pause=_TIMED)))
        return self.job.team.agree(time.perf_counter() - start)

    def advance(
        self, limits: Sequence[Duration], seconds_left: float = math.inf, pauses: Sequence[Duration] = ()
    ) -> StretchDone:
        """Returns what happened in the next stretch, which ends at the first limit that it reaches.

        Args:
            limits: amounts from the start of the run.
            seconds_left: how long the stretch may take, as far as its speed is known.
            pauses: amounts too, at which only the stretch ends: a limit also ends the updates on a repeated batch.

        Raises:
            NotFinite: the engine then stands at the last finite state.
        """
        while True:
            self.make_ready()
            try:
                return self._advance(limits, seconds_left, pauses)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                self._ahead = None
                block = self._forms[self.plan_size(self.cursor)].block
                self._shape(smaller_block(error, block, self.job.team))

    def _advance(self, limits: Sequence[Duration], seconds_left: float, pauses: Sequence[Duration]) -> StretchDone:
        ahead = self._ahead or self._plan(self.cursor, [*limits, *pauses], seconds_left)
        self._ahead = None
        if self.job.plan.cadence.repeated is not None:
            return self._repeat(ahead, limits, pauses)
        n, following = len(ahead.stretch), None
        made = _Made(ahead, self.state, self.cursor, self.clock, n, Carry(), self.rate)
        start = time.perf_counter()
        state, seen = self._call(ahead.form, ahead.rows, self.state, gain=ahead.gain)
        if self.look_ahead is not None and not self._decides(ahead.stretch.end):
            after = self.look_ahead(self.job.plan.clock(ahead.stretch.end))
            expected = n * self._speed.get(ahead.form.batch_size, 0.0)
            following = None if after is None else self._plan(ahead.stretch.end, after, seconds_left - expected)
        loss, weight, norm, noise = jax.tree.map(lambda column: np.asarray(column)[:n], seen)
        seconds = self.job.team.agree(time.perf_counter() - start)
        bad = np.flatnonzero(~np.isfinite(loss))
        if len(bad) or not finite(state.params):
            self._diverge(made, int(bad[0]) if len(bad) else n, "the loss" if len(bad) else "the parameters")
        self._speed[ahead.form.batch_size] = seconds / n
        # from here on together: an interrupt before leaves all as it was
        self._made, self.state, self._ahead = made, state, following
        self.update_seconds += seconds
        self.cursor, set_aside = ahead.stretch.end, len(ahead.stretch.set_aside)
        if self.follower is not None:
            self.follower = self.follower.after(noise, ahead.stretch.sizes, self.cursor.batches, self.cursor.examples)
        self.clock = self.job.plan.clock(self.cursor)
        with np.errstate(divide="ignore", invalid="ignore"):
            losses = loss / weight
        return StretchDone(
            self.clock, float(loss.sum(dtype=np.float64)), float(weight.sum(dtype=np.float64)), seconds, losses,
            ahead.stretch.sizes, self._last_rate(ahead), set_aside, norm if ahead.form.watch else None,
            noise=self._noise(noise, ahead.stretch.sizes, made.clock.updates),
            batch_size=ahead.form.batch_size,
        )  # fmt: skip

    def _decides(self, end: Cursor) -> bool:
        """Returns whether M is decided at a cursor, from what is not measured before: nothing is planned beyond it."""
        return self.follower is not None and end.examples >= self.follower.point

    def _noise(self, measured: Any, sizes: np.ndarray, first: int) -> NoiseSums | None:
        """Returns what consecutive updates measured of the noise, from update number `first` on."""
        if measured is None:
            return None
        order = self.job.plan.order
        return NoiseSums.of(measured, sizes, first, None if order.kind == "with replacement" else order.n_examples)

    def snapshot(self, clock: Clock) -> Snapshot:
        """Returns where the engine stands, with the caller's clock."""
        inside = self.inside if int(self.inside.made) else None
        return Snapshot(
            self.state, self.cursor, clock, update_seconds=self.update_seconds, follower=self.follower, inside=inside,
            block=self.block, rate_factor=self.rate_factor,
        )  # fmt: skip

    #: clock -> limits of the stretch after it, or None where that is not known yet; set by the caller
    look_ahead: Any = None

    def _rest(self) -> np.ndarray:
        repeat, train = self.job.plan.cadence.repeated, self.job.split.train
        if repeat is None or repeat.rest == "none":
            return train[:0]
        if repeat.rest == "all":
            return train
        keys = np.random.Generator(np.random.Philox(self.job.settings.seed))
        chosen = keys.permutation(len(train))[: int(repeat.rest)]
        return np.sort(train[chosen])

    def _plan(self, cursor: Cursor, limits: Sequence[Duration], seconds_left: float) -> _Ahead:
        plan = self.job.plan
        if self.follower is not None:
            plan = of_size(plan, self.follower.size)
            limits = [*limits, Duration(float(self.follower.point), "examples")]
        form = self._forms[plan.phase(cursor)[0]]
        speed = self._speed.get(form.batch_size)
        n = form.rows // 8 if speed is None else min(STRETCH_SECONDS, seconds_left) / speed
        if n > form.chunk:  # what a chunk holds beyond the end would be fetched in vain
            n = n // form.chunk * form.chunk
        if plan.cadence.repeated is not None:  # updates and examples are counted as they are made, not planned
            limits = [limit for limit in limits if limit.unit == "epochs"]
        stretch = plan.stretch(cursor, self.job.team.agree(int(min(max(1, n), form.rows))), limits)
        if not form.whole and len(stretch.indices) < len(stretch):
            stretch = replace(stretch, indices=np.repeat(stretch.indices, len(stretch), axis=0))
        factor = schedule_factors(self.job, cursor, stretch)
        gain = 1.0 if self.follower is None else self.follower.factor
        return _Ahead(form, stretch, self._rows(form, stretch, len(stretch), factor), factor, gain)

    def _rows(self, form: Form, stretch: Stretch, n: int, factor: np.ndarray | None) -> Rows:
        return rows_for(form, stretch, n, self.index, factor, seed=int(self.job.settings.seed))

    def _last_rate(self, ahead: _Ahead) -> float:
        if not self.job.optimizer.tunable:  # it holds its own
            return math.nan
        factor = 1.0 if ahead.factor is None else float(ahead.factor[-1])
        return self.base_rate * self.rate_factor * ahead.gain * factor

    def _call(
        self, form: Form, rows: Rows, state: State, budget: Budget | None = None, gain: float = 1.0,
        inside: Carry | None = None, rate: Any = None,
    ) -> tuple[State, Any]:  # fmt: skip
        job, rate = self.job, self.rate if rate is None else rate
        if job.plan.cadence.repeated is None:
            if self.shared is not None:
                return self.shared(form, state, rows, np.float32(float(rate) * gain))
            self._reading = foreseen(self.data, fetches(form, rows))  # held while the program runs
            rate = rate if gain == 1.0 else np.float32(float(rate) * gain)
            return program(form, job.model, job.loss, job.optimizer)(state, self._reading, rows, rate)
        run = repeat_program(form, job.plan.cadence.repeated, job.model, job.loss, job.optimizer)
        rows = rows._replace(start=np.zeros(1, np.int32), full=np.zeros(1, np.int32), short=np.zeros(1, np.int32))
        return run(state, self.data, rows, rate, self.rest, budget or _budget(), inside or Carry())

    def _diverge(self, made: _Made, n: int, what: str) -> NoReturn:
        """Raises NotFinite, where after `n` updates of a stretch something is no longer finite.

        The engine then stands at the newest state that is finite and whose loss, where it was seen, is so too. Where
        it ends up does not depend on how the run was cut into stretches.
        """
        if n == 0 and self._made is not None:  # the last update of the stretch before did it
            made, n = self._made, self._made.n_updates
        unsure = n == 0 and self.clock.updates > 0
        keep = most_finite(lambda k: finite(self._again(made, k)[0].params), max(0, n - 1))
        if keep < n - 1:  # parameters overflowed before a loss showed it
            n, what = keep + 1, "the parameters"
        self.state, self.cursor, self.clock = self._again(made, keep)
        self._ahead = self._made = None
        at = self._again(made, keep, pause=True)[1]
        update, batch = made.clock.updates + keep, self._batch_at(at)

        def after() -> tuple[State, np.ndarray]:
            state, cursor, _ = self._again(made, min(keep + 1, made.n_updates), pause=True)
            return state, self._batch_at(cursor)

        layer, batch = (None, batch) if unsure else blamed(self.job, self.state, batch, update, after)
        raise NotFinite(made.clock.updates + n, what, batch.tolist(), layer, unsure=unsure)

    def _batch_at(self, cursor: Cursor) -> np.ndarray:
        """Returns the examples of the batch at a cursor, as numbers into the data."""
        plan = self.job.plan if self.follower is None else of_size(self.job.plan, self.follower.size)
        stretch = plan.stretch(cursor, 1)
        return self.job.split.train[stretch.indices[0, : stretch.sizes[0]]]

    def _again(self, made: _Made, n: int, *, pause: bool = False) -> tuple[State, Cursor, Clock]:
        """Returns state, cursor and clock after the first `n` updates of a stretch, by the same program.

        With `pause` the cursor is that of the batch which the next update is made on, where batches are repeated.
        """
        ahead = made.ahead
        if self.job.plan.cadence.repeated is not None:
            rows = ahead.rows._replace(n_segments=np.int32(len(ahead.stretch)), first=np.int32(made.clock.updates))
            budget = _budget(pause=n) if pause else _budget(n)
            state, out = self._call(ahead.form, rows, made.state, budget, inside=made.inside, rate=made.rate)
            return (state, *self._counted(made, out))
        rows = self._rows(ahead.form, ahead.stretch, n, ahead.factor)
        cursor = start_of(made.cursor, ahead.stretch, n, self.job.n_train)
        state = self._call(ahead.form, rows, made.state, gain=ahead.gain, rate=made.rate)[0]
        return state, cursor, self.job.plan.clock(cursor)

    def _repeat(self, ahead: _Ahead, limits: Sequence[Duration], pauses: Sequence[Duration]) -> StretchDone:
        """Returns what happened in a stretch of repeated batches; counts updates and examples as they were made."""
        left = {"updates": float(_MOST), "examples": float(_MOST)}
        for limit in limits:
            if limit.unit in left:
                left[limit.unit] = min(left[limit.unit], limit.amount - getattr(self.clock, limit.unit))
        soft = [limit.amount - self.clock.updates for limit in pauses if limit.unit == "updates"]
        budget = _budget(left["updates"], left["examples"], min(self._pause, *map(int, soft), _MOST))
        rows = ahead.rows._replace(n_segments=np.int32(len(ahead.stretch)), first=np.int32(self.clock.updates))
        made = _Made(ahead, self.state, self.cursor, self.clock, 0, self.inside, self.rate)
        start = time.perf_counter()
        state, out = self._call(ahead.form, rows, self.state, budget, inside=self.inside)
        n, bad, made.n_updates = int(out.batches), int(out.bad), int(out.updates)
        seconds = time.perf_counter() - start
        if bad >= 0 or not finite(state.params):
            self._diverge(made, bad if bad >= 0 else made.n_updates, "the loss" if bad >= 0 else "the parameters")
        cursor, clock = self._counted(made, out)
        self._made, self.state = made if made.n_updates else self._made, state  # from here on together
        self.cursor, self.clock, self.inside = cursor, clock, Carry(*map(np.asarray, out.inside))
        self._speed[ahead.form.batch_size] = seconds / max(1, n)
        self._pause = max(1, int(STRETCH_SECONDS / seconds * max(1, made.n_updates)))
        self.update_seconds += seconds
        seen = type(out.seen)(*(np.asarray(column)[:n] for column in out.seen))
        repeats = {
            "updates": seen.updates, "batch_loss_before": seen.before, "batch_loss_after": seen.after,
            "rest_loss_before": seen.rest_before, "rest_loss_after": seen.rest_after,
        }  # fmt: skip
        return StretchDone(
            self.clock, float(seen.loss_sum.sum(dtype=np.float64)), float(seen.weight_sum.sum(dtype=np.float64)),
            seconds, seen.before, ahead.stretch.sizes[:n], self._last_rate(ahead), len(ahead.stretch.set_aside), None,
            repeats,
        )  # fmt: skip

    def _counted(self, made: _Made, out: Repeated) -> tuple[Cursor, Clock]:
        """Returns cursor and clock after a stretch of repeated batches."""
        cursor = start_of(made.cursor, made.ahead.stretch, int(out.batches), self.job.n_train)
        updates, examples = made.clock.updates + int(out.updates), made.clock.examples + int(out.examples)
        return cursor, Clock(updates, examples, self.job.plan.clock(cursor).epochs)


def _budget(updates: float = _MOST, examples: float = _MOST, pause: int = _MOST) -> Budget:
    return Budget(*(np.int32(min(amount, _MOST)) for amount in (updates, examples, pause)))
