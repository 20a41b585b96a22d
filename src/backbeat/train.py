"""Training as a generator of events: started, stretches and evaluations, then finished or diverged.

Nothing here prints, draws or writes; whoever wants to, consumes the events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .advance import Engine, NotFinite
from .clock import Clock, Duration
from .config import Job, Settings, as_columns, resolve
from .data import foreseen, reading_errors
from .evaluate import block_for, evaluator, fetches, scores
from .events import Diverged, Evaluated, Event, Finished, Started
from .models import n_parameters
from .rate_range import with_rate
from .update import State

INTERRUPTED = "interrupted"
SATISFIED = "every batch was satisfied for a whole epoch"
FREE_EVALUATION_SECONDS, EVALUATION_SHARE = 0.02, 0.02


def train(model: Any, data: Any = None, *, params: Any = None, **settings: Any) -> Iterator[Event]:
    """Returns the events of a run, which goes on as they are taken; `backbeat.fit` is this with a `Run` at its end.

    Args:
        model: as in `backbeat.fit`, likewise the others.
        data: see there.
        params: see there.
        settings: see there.

    Yields:
        `Started`; then `StretchDone` about four times a second and at every evaluation, and `Evaluated`; at the end
        `Finished`, or `Diverged` with the last finite state.

    Raises:
        SettingsError: at once, not at the first event.
        DataError: likewise.

    Example:
        >>> from backbeat.models import linear
        >>> events = train(linear(), "digits", every="dataset", duration="2 updates", evaluate="1 epoch")
        >>> [type(event).__name__ for event in events]
        ['Started', 'Evaluated', 'StretchDone', 'Evaluated', 'StretchDone', 'Evaluated', 'Finished']
    """
    return events_of(with_rate(resolve(model, data, Settings.given(settings), params)))


class Stopwatch:
    """Seconds that the run itself took: what the consumer of its events does is not counted."""

    def __init__(self, agree: Callable[[float], float] = float) -> None:
        self._before, self._since = 0.0, time.perf_counter()
        self._running, self._agree = True, agree

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        return self._agree(self._before + (time.perf_counter() - self._since if self._running else 0.0))

    def pause(self) -> None:
        """Stops counting until `go_on`."""
        self._before, self._running = self.seconds, False

    def leave_out(self, seconds: float) -> None:
        """Does not count seconds that have passed."""
        self._before -= seconds

    def go_on(self) -> None:
        """Counts again."""
        self._since, self._running = time.perf_counter(), True


class Evaluations:
    """When to evaluate, and how: at the run's interval, or as often as costs little.

    "As costs little": before the first update and after the last; and after each epoch, or a second of a long one, if
    all evaluations together then take at most 0.02 s and 2 % of the run. So a short run gets a point an epoch and a
    long one loses next to nothing. Parameters do not depend on it.
    """

    def __init__(self, engine: Engine) -> None:
        job = engine.job
        self.job, self.engine, self.interval = job, engine, job.evaluate
        self.spent, self._newest = 0.0, 0.0  # seconds of all evaluations, and of the newest one
        self._parts = tuple(jnp.asarray(part) for part in job.split)
        self._block = block_for(job.example_floats)
        self._run = evaluator(job.model, job.loss, self._block)
        self._labels = [job.dataset.y[part] for part in job.split]
        self.last: Clock | None = None
        self._before = 0.0  # seconds of the updates before the newest evaluation

    @property
    def never(self) -> bool:
        """Whether there are none."""
        return self.interval is not None and math.isinf(self.interval.amount)

    def compile(self) -> float:
        """Returns the seconds that compiling took, by running for no examples at all."""
        start = time.perf_counter()
        if not self.never:
            self._sums(skip=True)
        return time.perf_counter() - start

    def next(self, clock: Clock) -> list[Duration]:
        """Returns the limit at which the next stretch has to end for an evaluation, if there is one."""
        if self.interval is None:
            return [Duration(math.floor(clock.epochs + 1e-9) + 1.0, "epochs")] if self._affordable() else []
        if self.never:
            return []
        unit, every = self.interval.unit, self.interval.amount
        return [Duration(float(math.floor(getattr(clock, unit) / every + 1e-9) + 1) * every, unit)]

    def due(self, before: Clock, clock: Clock) -> bool:
        """Returns whether to evaluate after a stretch that went from one clock to another."""
        if self.interval is None:
            assert self.last is not None
            epochs, seconds = math.floor(self.last.epochs + 1e-9) + 1, self.engine.update_seconds - self._before
            return self._affordable() and (clock.epochs >= epochs - 1e-9 or seconds >= 1)
        return not self.never and any(getattr(clock, limit.unit) >= limit.amount - 1e-9 for limit in self.next(before))

    def _affordable(self) -> bool:
        return self.spent + self._newest <= FREE_EVALUATION_SECONDS + EVALUATION_SHARE * self.engine.update_seconds

    def evaluate(self, clock: Clock) -> Evaluated:
        """Returns the scores of both parts now."""
        start = time.perf_counter()
        each = [
            scores(self.job.loss, sums, y, self.job.dataset.label_scale) if len(y) else {}
            for sums, y in zip(self._sums(), self._labels, strict=True)
        ]
        each, seconds = self.job.team.agree([each, time.perf_counter() - start])
        self.spent, self._newest, self.last = self.spent + seconds, seconds, clock
        self._before = self.engine.update_seconds
        return Evaluated(clock, each[0], each[1], seconds)

    def _sums(self, *, skip: bool = False) -> Any:
        parts = self._parts if len(self._parts[1]) else self._parts[:1]
        data = foreseen(self.engine.data, () if skip else fetches(self._block, self.job.split))
        sums = jax.device_get(self._run(self.engine.state.params, data, parts, np.bool_(skip)))
        return sums if len(sums) == 2 else (*sums, None)


def events_of(job: Job, state: State | None = None) -> Iterator[Event]:
    """Returns the events of a job; it goes on from a state of parameters and optimizer where one is given."""
    with reading_errors():
        engine = Engine(job, state=state)
        evaluations = Evaluations(engine)
        compile_seconds = engine.compile() + evaluations.compile()
        about = {
            **as_columns(job),
            "settings": job.settings.as_text(),
            "every": str(job.plan.cadence),
            "seed": job.settings.seed,
        }
        about["learning_rate"], about["schedule"] = job.learning_rate, str(job.schedule)
        if job.rate_range is not None:
            about["rate_range"] = job.rate_range.as_dict()
        yield Started(
            about, n_parameters(engine.state.params), job.plan.cadence.batch_sizes(job.n_train), compile_seconds
        )
        watch = Stopwatch(job.team.agree)
        try:
            with job.team.together():
                yield from _loop(job, engine, evaluations, watch)
        except KeyboardInterrupt:  # what was trained so far is not lost
            yield Finished(_at(engine.clock, watch), INTERRUPTED, None, engine.state)


def _loop(job: Job, engine: Engine, evaluations: Evaluations, watch: Stopwatch) -> Iterator[Event]:
    counted = [limit for limit in job.stopping.durations.each if limit.unit != "seconds"]
    allowed = job.stopping.durations.amount("seconds")
    clock = Clock()
    best_loss, best_at = math.inf, None
    moved = clock  # when the weights were last changed
    engine.look_ahead = lambda after: None if job.stopping.durations.over(after) else counted + evaluations.next(after)
    newest: Evaluated | None = None

    def emit(event: Event) -> Iterator[Event]:
        watch.pause()
        yield event
        watch.go_on()

    if not evaluations.never:
        newest = evaluations.evaluate(clock)
        yield from emit(newest)
    while True:
        job.team.check()
        scores_now = {} if newest is None else getattr(newest, job.scored_part)
        if scores_now.get("loss", math.inf) < best_loss:
            best_loss, best_at = scores_now["loss"], clock
        reason = job.stopping.reason(clock, scores_now, best_at) or _at_rest(job, clock, moved)
        if reason is not None:
            break
        before, late = clock, engine.make_ready()
        watch.leave_out(late)
        try:
            done = engine.advance(counted + evaluations.next(clock), allowed - watch.seconds)
        except NotFinite as error:
            yield from emit(_diverged(error, engine, watch))
            return
        clock = _at(done.clock, watch)
        moved = clock if clock.updates > before.updates else moved
        yield from emit(replace(done, clock=clock, compile_seconds=late))
        newest = None
        last = job.stopping.durations.over(clock)
        if evaluations.due(before, clock) or (last and not evaluations.never):
            newest = evaluations.evaluate(clock)
            clock = _at(clock, watch)
            yield from emit(newest)
    yield Finished(clock, reason, reason.startswith("reached") if job.stopping.target else None, engine.state)


def _at_rest(job: Job, clock: Clock, moved: Clock) -> str | None:
    """Returns why a run is over that would go on for ever: no repeated batch asked for an update in a whole epoch."""
    for_ever = job.plan.cadence.repeated is not None and math.isinf(job.stopping.durations.amount("epochs"))
    return SATISFIED if for_ever and clock.epochs - moved.epochs >= 1 else None


def _at(clock: Clock, watch: Stopwatch) -> Clock:
    return Clock(clock.updates, clock.examples, clock.epochs, watch.seconds)


def _diverged(error: NotFinite, engine: Engine, watch: Stopwatch) -> Diverged:
    where = "before the first update" if error.update == 0 else f"at update {error.update}"
    return Diverged(
        _at(engine.clock, watch), error.update, f"diverged {where}: {error.what} stopped being finite", engine.state
    )
