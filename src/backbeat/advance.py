"""A run's engine: state, cursor and compiled programs, moved on by one stretch at a time.

While the device computes a stretch, the plan of the next one is made, so that planning costs no time of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from .cadence import Cadence, Phase
from .clock import Clock, Duration
from .config import Job
from .data import Packed, foreseen
from .events import StretchDone
from .follow import Follower, most_updates
from .models import n_parameters
from .noise import NoiseSums
from .plan import Cursor, Plan, Stretch, start_of, whole_updates
from .repeat import Budget, Repeated, repeat_program
from .stretch import CHUNK_BYTES, STREAMED_CHUNK_BYTES, Data, Form, Rows, fetches, form_for, program, rows_for
from .update import State

STRETCH_SECONDS = 0.25

_TIMED = 16
_MOST = 2**31 - 1
_ENDLESS = Budget(np.int32(_MOST), np.int32(_MOST))


class NotFinite(Exception):
    """The loss or the parameters are no longer finite; the engine stands at the last finite state.

    Attributes:
        update: the number of the update after which it happened, from 1; 0 where it was so from the start.
        what: "the loss" or "the parameters".
    """

    def __init__(self, update: int, what: str) -> None:
        super().__init__(f"{what} at update {update}")
        self.update, self.what = update, what


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


def form_of(job: Job, size: int, n: int) -> Form:
    """Returns the form of the stretches that a job's batches of one size are computed in.

    Args:
        job: what is trained.
        size: M, one of its cadence's.
        n: N, how many parameters there are.
    """
    cadence = job.plan.cadence
    seconds = 1e-6 + size * n * 6 / 1e11  # a rough guess, which only bounds the buffers
    most = STRETCH_SECONDS / seconds
    for limit in job.stopping.durations.each if len(cadence.phases) == 1 else ():
        if limit.unit != "seconds":
            most = min(most, whole_updates(limit, size, job.n_train))
    if job.evaluate is not None and math.isfinite(job.evaluate.amount):
        most = min(most, whole_updates(job.evaluate, size, job.n_train))
    if cadence.follows:
        most = min(most, most_updates(size, job.n_train))
    whole = size == job.n_train and job.plan.order.kind != "with replacement" and len(cadence.phases) == 1
    return form_for(
        size, job.example_floats, plain=job.plain, short=job.plan.has_short_batches(size), whole=whole,
        scheduled=not job.schedule.constant, watch=job.settings.watch_gradient,
        noise=job.settings.watch_noise or cadence.follows, rows=max(1, math.ceil(most)),
        block=job.settings.block, input_floats=math.prod(job.dataset.input_shape),
        chunk_bytes=STREAMED_CHUNK_BYTES if isinstance(job.dataset.x, Packed) else CHUNK_BYTES,
    )  # fmt: skip


class Engine:
    """Moves a job on, stretch by stretch.

    Attributes:
        job: what is trained.
        state: parameters and optimizer state now.
        cursor: where the plan stands.
        clock: updates, examples and epochs so far (its seconds are kept by the caller).
        update_seconds: seconds spent in updates.
        follower: what decides M, where it follows the noise.
    """

    def __init__(self, job: Job, data: Data | None = None, state: State | None = None) -> None:
        self.job, self.data = job, job.device_data() if data is None else data
        self.state = job.initial_state() if state is None else jax.tree.map(jnp.asarray, state)
        self.cursor, self.clock, self.update_seconds = Cursor(), Clock(), 0.0
        self.index = None if len(job.split.train) == len(job.dataset) else job.split.train
        self.rate = jnp.float32(job.learning_rate)
        self.rest = jnp.asarray(self._rest())
        n = n_parameters(self.state.params)
        self._forms = {size: form_of(job, size, n) for size in job.plan.cadence.batch_sizes(job.n_train)}
        self._speed: dict[int, float] = {}  # measured seconds per update, by batch size
        self._ready: set[int] = set()  # batch sizes whose program is compiled
        self.follower = _follower(job)
        self.shared = job.team.shared(job, self.data)
        self._ahead: _Ahead | None = None
        self._reading: Any = None
        self._made: _Made | None = None  # the newest stretch: its last update may turn out to have been the bad one

    def compile(self) -> float:
        """Returns the seconds that compiling took: all programs, or that of the M which holds where others may never.

        Each is run for no updates, and timed.
        """
        return sum(self._compiled(size) for size in ([self.follower.size] if self.follower else self._forms))

    def make_ready(self) -> float:
        """Returns the seconds that compiling for an M took which holds for the first time, as it follows the noise."""
        return 0.0 if self.follower is None else self._compiled(self.follower.size)

    def _compiled(self, size: int) -> float:
        """Returns the seconds that compiling the program of a batch size took, and a first timing; 0 where it is."""
        if size in self._ready:
            return 0.0
        start, form = time.perf_counter(), self._forms[size]
        self._time(form, 0)
        if form.rows >= _TIMED:  # else the first stretch is short enough not to be timed before
            one = self._time(form, 1)
            if 1e-3 < one < STRETCH_SECONDS:  # a first call may wait for what is done once
                one = min(one, self._time(form, 1))
            self._speed[size] = one if one > 1e-3 else self._time(form, _TIMED) / _TIMED
        self._ready.add(size)
        return time.perf_counter() - start

    def program_bytes(self, size: int) -> int | None:
        """Returns the bytes that the program of a batch size takes beside its data; None where its compiler is silent.

        It is compiled and not run. Not for repeated batches.
        """
        form = self._forms[size]
        rows = self._rows(form, _stretch_of(form, 0), 0, np.ones(0) if form.scheduled else None)
        made: Any = program(form, self.job.model, self.job.loss, self.job.optimizer)
        plan = made.lower(self.state, foreseen(self.data, iter(())), rows, self.rate).compile().memory_analysis()
        return None if plan is None else int(plan.temp_size_in_bytes + plan.output_size_in_bytes)

    def _time(self, form: Form, n: int) -> float:
        """Returns the seconds that a call of `n` updates takes; its result is thrown away."""
        rows = self._rows(form, _stretch_of(form, n), n, np.ones(n) if form.scheduled else None)
        if self.job.plan.cadence.repeated is not None:
            rows = rows._replace(n_segments=np.int32(n))
        start = time.perf_counter()
        jax.block_until_ready(self._call(form, rows, self.state, _ENDLESS))
        return self.job.team.agree(time.perf_counter() - start)

    def advance(self, limits: Sequence[Duration], seconds_left: float = math.inf) -> StretchDone:
        """Returns what happened in the next stretch, which ends at the first limit that it reaches.

        Args:
            limits: amounts from the start of the run.
            seconds_left: how long the stretch may take, as far as its speed is known.

        Raises:
            NotFinite: the engine then stands at the last finite state.
        """
        self.make_ready()
        ahead = self._ahead or self._plan(self.cursor, limits, seconds_left)
        self._ahead = None
        if self.job.plan.cadence.repeated is not None:
            return self._repeat(ahead, limits)
        n, following = len(ahead.stretch), None
        made = _Made(ahead, self.state, self.cursor, self.clock, n)
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
            plan = _of_size(plan, self.follower.size)
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
        factor = self._factors(cursor, stretch)
        gain = 1.0 if self.follower is None else self.follower.factor
        return _Ahead(form, stretch, self._rows(form, stretch, len(stretch), factor), factor, gain)

    def _rows(self, form: Form, stretch: Stretch, n: int, factor: np.ndarray | None) -> Rows:
        return rows_for(form, stretch, n, self.index, factor, seed=int(self.job.settings.seed))

    def _factors(self, cursor: Cursor, stretch: Stretch) -> np.ndarray | None:
        schedule, n = self.job.schedule, len(stretch)
        if schedule.constant:
            return None
        updates = cursor.batches + np.arange(n + 1)
        examples = cursor.examples + np.concatenate([[0], np.cumsum(stretch.sizes)])
        here = self.job.plan.clock(cursor).epochs
        epochs = np.concatenate([[here], stretch.passed / self.job.n_train])
        clocks = {"updates": updates, "examples": examples, "epochs": epochs}
        return schedule.factors({k: v[:-1] for k, v in clocks.items()}, {k: v[1:] for k, v in clocks.items()})

    def _last_rate(self, ahead: _Ahead) -> float:
        return self.job.learning_rate * ahead.gain * (1.0 if ahead.factor is None else float(ahead.factor[-1]))

    def _call(
        self, form: Form, rows: Rows, state: State, budget: Budget = _ENDLESS, gain: float = 1.0
    ) -> tuple[State, Any]:
        job = self.job
        if job.plan.cadence.repeated is None:
            if self.shared is not None:
                return self.shared(form, state, rows, np.float32(float(self.rate) * gain))
            self._reading = foreseen(self.data, fetches(form, rows))  # held while the program runs
            rate: Any = self.rate if gain == 1.0 else np.float32(float(self.rate) * gain)
            return program(form, job.model, job.loss, job.optimizer)(state, self._reading, rows, rate)
        run = repeat_program(form, job.plan.cadence.repeated, job.model, job.loss, job.optimizer)
        rows = rows._replace(start=np.zeros(1, np.int32), full=np.zeros(1, np.int32), short=np.zeros(1, np.int32))
        return run(state, self.data, rows, self.rate, self.rest, budget)

    def _diverge(self, made: _Made, n: int, what: str) -> NoReturn:
        """Raises NotFinite, where after `n` updates of a stretch something is no longer finite.

        The engine then stands at the newest state that is finite and whose loss, where it was seen, is so too. Where
        it ends up does not depend on how the run was cut into stretches.
        """
        if n == 0 and self._made is not None:  # the last update of the stretch before did it
            made, n = self._made, self._made.n_updates
        keep = _most_finite(lambda k: finite(self._again(made, k)[0].params), max(0, n - 1))
        if keep < n - 1:  # parameters overflowed before a loss showed it
            n, what = keep + 1, "the parameters"
        self.state, self.cursor, self.clock = self._again(made, keep)
        self._ahead = self._made = None
        raise NotFinite(made.clock.updates + n, what)

    def _again(self, made: _Made, n: int) -> tuple[State, Cursor, Clock]:
        """Returns state, cursor and clock after the first `n` updates of a stretch, by the same program."""
        ahead = made.ahead
        if self.job.plan.cadence.repeated is not None:
            rows = ahead.rows._replace(n_segments=np.int32(len(ahead.stretch)), first=np.int32(made.clock.updates))
            state, out = self._call(ahead.form, rows, made.state, Budget(np.int32(n), np.int32(_MOST)))
            return (state, *self._counted(made, out))
        rows = self._rows(ahead.form, ahead.stretch, n, ahead.factor)
        cursor = start_of(made.cursor, ahead.stretch, n, self.job.n_train)
        state = self._call(ahead.form, rows, made.state, gain=ahead.gain)[0]
        return state, cursor, self.job.plan.clock(cursor)

    def _repeat(self, ahead: _Ahead, limits: Sequence[Duration]) -> StretchDone:
        """Returns what happened in a stretch of repeated batches; counts updates and examples as they were made."""
        left = {"updates": float(_MOST), "examples": float(_MOST)}
        for limit in limits:
            if limit.unit in left:
                left[limit.unit] = min(left[limit.unit], limit.amount - getattr(self.clock, limit.unit))
        budget = Budget(np.int32(left["updates"]), np.int32(left["examples"]))
        rows = ahead.rows._replace(n_segments=np.int32(len(ahead.stretch)), first=np.int32(self.clock.updates))
        made = _Made(ahead, self.state, self.cursor, self.clock, 0)
        start = time.perf_counter()
        state, out = self._call(ahead.form, rows, self.state, budget)
        n, bad, made.n_updates = int(out.batches), int(out.bad), int(out.updates)
        seconds = time.perf_counter() - start
        if bad >= 0 or not finite(state.params):
            self._diverge(made, bad if bad >= 0 else made.n_updates, "the loss" if bad >= 0 else "the parameters")
        cursor, clock = self._counted(made, out)
        self._made, self.state = made if made.n_updates else self._made, state  # from here on together
        self.cursor, self.clock = cursor, clock
        self._speed[ahead.form.batch_size] = seconds / n
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
        clock, epochs = made.clock, self.job.plan.clock(cursor).epochs
        return cursor, Clock(clock.updates + int(out.updates), clock.examples + int(out.examples), epochs)


def _follower(job: Job) -> Follower | None:
    """Returns what decides a job's M before the first update; None where it is not the noise."""
    if not job.plan.cadence.follows:
        return None
    n_examples = None if job.plan.order.kind == "with replacement" else job.n_train
    return Follower.start(job.plan.cadence.batch_sizes(job.n_train), job.n_train, n_examples)


def _of_size(plan: Plan, size: int) -> Plan:
    """Returns the plan of a batch that follows the noise, as it is while M stays."""
    return replace(plan, cadence=Cadence((Phase(size),)))


def _stretch_of(form: Form, n: int) -> Stretch:
    """Returns a stretch of `n` full batches, all of the first example."""
    indices, sizes = np.zeros((1 if form.whole else n, form.batch_size), np.int32), np.full(n, form.batch_size)
    return Stretch(indices, sizes.astype(np.int32), sizes, sizes[:0], Cursor())


def _most_finite(is_finite: Callable[[int], bool], n: int) -> int:
    """Returns the most updates, up to `n`, after which all is finite: by bisection, for what overflowed stays so."""
    if n == 0 or is_finite(n):
        return n
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_finite(middle) else (low, middle)
    return low


def finite(params: Any) -> bool:
    """Returns whether every parameter is a finite number."""
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(params))
