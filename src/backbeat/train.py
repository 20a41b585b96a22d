"""Training as a generator of events: started, stretches and evaluations, then finished or diverged.

Nothing here prints, draws or writes; whoever wants to, consumes the events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .advance import Engine
from .allowed import rate_fixed
from .changes import STOPPED
from .clock import Clock, Duration, next_multiple
from .config import Job, Settings, as_columns, resolve
from .control import Control
from .data import foreseen, reading_errors
from .errors import Terminated
from .evaluate import block_for, evaluator, fetches, scores
from .events import Diverged, Evaluated, Event, Finished, Noted, Started, StretchDone
from .forms import block_note, evaluation_note, smaller_block
from .mesh import ALONE
from .models import n_parameters
from .nonfinite import NotFinite
from .rate_range import with_rate
from .snapshot import Snapshot
from .update import State
from .way_back import WaysBack
from .wishes import Wishes

INTERRUPTED, TERMINATED = "interrupted", "terminated"
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

    def __init__(self, before: float = 0.0, agree: Callable[[float], float] = float) -> None:
        self._before, self._since = before, time.perf_counter()
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
        self.notes: list[str] = []  # what has to be said of the evaluations
        self.last: Clock | None = None
        self._before = 0.0  # seconds of the updates before the newest evaluation

    def stand(self, at: Snapshot) -> None:
        """Goes to where a snapshot was taken."""
        self.last, (self.spent, self._newest, self._before) = at.evaluated, at.spent

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Seconds of all evaluations, of the newest one, and of the updates before it."""
        return self.spent, self._newest, self._before

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
        return [next_multiple(self.interval, clock)]

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
        try:
            sums = jax.device_get(self._run(self.engine.state.params, data, parts, np.bool_(skip)))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            self._block = smaller_block(error, self._block, ALONE)  # each process evaluates by itself
            self._run = evaluator(self.job.model, self.job.loss, self._block)
            self.notes.append(evaluation_note(self._block))
            return self._sums(skip=skip)
        return sums if len(sums) == 2 else (*sums, None)


@dataclass(frozen=True)
class Resumed:
    """From where a run goes on.

    Attributes:
        snapshot: where it stands; None where it has to begin anew.
        notes: what has to be said about that, in sentences.
        earlier: how many older checkpoints to go back -> the snapshot there; None where there is none.
    """

    snapshot: Snapshot | None
    notes: tuple[str, ...] = ()
    earlier: Callable[[int], Snapshot | None] = lambda back: None


def events_of(
    job: Job, state: State | None = None, *, pauses: Duration | None = None, resumed: Resumed | None = None,
    wishes: Wishes | None = None,
) -> Iterator[Event]:  # fmt: skip
    """Returns the events of a job.

    Args:
        job: what to train.
        state: parameters and optimizer to begin with; None for the job's own.
        pauses: an interval at whose multiples a stretch ends, so that something can be done there.
        resumed: from where to go on; None to begin.
        wishes: where to look for what a person wishes; None for a run that is not controlled.
    """
    with reading_errors():
        engine = Engine(job, state=state)
        loop = _Loop(job, engine, pauses, resumed, Control(job, wishes))
        compile_seconds = engine.compile() + loop.evaluations.compile()
        about = {
            **as_columns(job),
            "settings": job.settings.as_text(),
            "every": str(job.plan.cadence),
            "seed": job.settings.seed,
        }
        about["learning_rate"] = job.learning_rate if job.optimizer.tunable else None
        about["schedule"] = str(job.schedule)
        about["rate_fixed"] = rate_fixed(job.optimizer, job.schedule)
        if job.rate_range is not None:
            about["rate_range"] = job.rate_range.as_dict()
        sizes = job.plan.cadence.batch_sizes(job.n_train)
        yield Started(
            about,
            n_parameters(engine.state.params),
            sizes,
            compile_seconds,
            resumed is not None and resumed.snapshot is not None,
        )
        try:
            with job.team.together():
                yield from loop.run()
        except KeyboardInterrupt as error:  # what was trained so far is not lost
            at = loop.standing
            yield Finished(at.clock, TERMINATED if isinstance(error, Terminated) else INTERRUPTED, None, at.state, at)


class _Loop:
    """A run between its first event and its last: what the engine does not know of where it stands."""

    def __init__(
        self, job: Job, engine: Engine, pauses: Duration | None, resumed: Resumed | None, control: Control
    ) -> None:
        self.job, self.engine, self.evaluations, self.watch = job, engine, Evaluations(engine), Stopwatch()
        self.counted = [limit for limit in job.stopping.durations.each if limit.unit != "seconds"]
        self.allowed = job.stopping.durations.amount("seconds")
        self.pauses = pauses if pauses is not None and pauses.unit != "seconds" else None
        self.ways_back, self.control = WaysBack.of(job), control
        self.resumed, self.said_block = resumed, engine.block
        first = replace(engine.snapshot(Clock()), due=not self.evaluations.never)
        self.standing = replace(first, safe=first if self.ways_back else None)
        if resumed is not None and resumed.snapshot is not None:
            self._go_to(resumed.snapshot)
            self.said_block = engine.block

    def run(self) -> Iterator[Event]:
        """Yields all events but the first."""
        job, engine, watch = self.job, self.engine, self.watch
        engine.look_ahead = lambda after: (
            None if job.stopping.durations.over(after) else self._limits(after) + self._pauses(after)
        )
        self.watch = watch = Stopwatch(self.standing.clock.seconds, job.team.agree)
        for note in () if self.resumed is None else self.resumed.notes:
            yield from self._emit(Noted(self.standing.clock, note))
        while True:
            job.team.check()
            yield from self._controlled()
            at = self.standing
            if at.due:
                newest = self.evaluations.evaluate(at.clock)
                self.standing = at = self._scored(newest)
                yield from self._emit(replace(newest, snapshot=at))
                while self.evaluations.notes:
                    yield from self._emit(Noted(at.clock, self.evaluations.notes.pop(0)))
            scores_now = at.scores.get(job.scored_part, {})
            reason = job.stopping.reason(at.clock, scores_now, at.best_at) or _at_rest(job, at.clock, at.moved)
            reason = STOPPED if reason is None and self.control.stopping else reason
            if reason is not None:
                break
            late = engine.make_ready()
            watch.leave_out(late)
            engine.set_rate(self.control.rate(at.halved[0], at.clock.updates))
            try:
                done = engine.advance(self._limits(at.clock), self.allowed - watch.seconds, self._pauses(at.clock))
            except NotFinite as error:
                event = self._diverged(error)
                yield from self._emit(event)
                if isinstance(event, Diverged):
                    return
                continue
            clock = replace(done.clock, seconds=watch.seconds)
            self.standing = at = self._moved(done, clock)
            if engine.block != self.said_block:
                self.said_block = engine.block
                yield from self._emit(Noted(at.clock, block_note(engine.block)))
            yield from self._emit(replace(done, clock=clock, compile_seconds=late, snapshot=at))
        target = reason.startswith("reached") if job.stopping.target and reason != STOPPED else None
        yield Finished(at.clock, reason, target, engine.state, at)

    def _emit(self, event: Event) -> Iterator[Event]:
        self.watch.pause()
        yield event
        self.watch.go_on()

    def _controlled(self) -> Iterator[Event]:
        """Yields what a person changes here, and what a recorded change does; waits while the run is paused."""
        for at, event in self.control.between(self.standing, self.watch):
            self.standing = at
            yield from self._emit(event)
        if self.control.stopping and not self.standing.scores:  # it ends here, and with its scores
            self.standing = replace(self.standing, due=not self.evaluations.never)

    def _limits(self, clock: Clock) -> list[Duration]:
        """Returns where the stretch after a clock has to end at the latest."""
        return self.counted + self.evaluations.next(clock) + self.ways_back.next(clock)

    def _pauses(self, clock: Clock) -> list[Duration]:
        planned = self.control.next(self.standing.halved[0], clock)
        return planned if self.pauses is None else [*planned, next_multiple(self.pauses, clock)]

    def _moved(self, done: StretchDone, clock: Clock) -> Snapshot:
        """Returns where the run stands after a stretch."""
        before, now = self.standing, self.engine.snapshot(clock)
        noise = done.noise if before.noise is None else before.noise + done.noise
        over = self.job.stopping.durations.over(clock) and not self.evaluations.never
        at = replace(
            before, state=now.state, cursor=now.cursor, clock=clock, update_seconds=now.update_seconds, noise=noise,
            follower=now.follower, inside=now.inside, block=now.block, scores={},
            due=over or self.evaluations.due(before.clock, clock),
            moved=clock if clock.updates > before.clock.updates else before.moved,
        )  # fmt: skip
        return self.ways_back.passed(before.clock, at)

    def _scored(self, newest: Evaluated) -> Snapshot:
        """Returns where the run stands after an evaluation."""
        at, scores = self.standing, {"train": dict(newest.train), "held_out": dict(newest.held_out)}
        loss = scores[self.job.scored_part].get("loss", math.inf)
        better = {"best_loss": loss, "best_at": newest.clock} if loss < at.best_loss else {}
        evaluations = self.evaluations
        clock = replace(at.clock, seconds=self.watch.seconds) if at.clock.updates else at.clock
        if better:
            better["best_at"] = clock
        return replace(
            at, clock=clock, due=False, scores=scores, evaluated=evaluations.last, spent=evaluations.seconds, **better
        )

    def _go_to(self, at: Snapshot) -> None:
        self.standing = at
        self.engine.stand(at)
        self.evaluations.stand(at)

    def _diverged(self, error: NotFinite) -> Event:
        """Returns the end of a run that diverged, or the note that it goes on from an earlier state."""
        if error.unsure and self.resumed is not None:
            error = self._looked_for(error)
        clock = replace(self.engine.clock, seconds=self.watch.seconds)
        first = replace(beginning(self.job), due=not self.evaluations.never)
        rate = self.control.rate(self.standing.halved[0], self.standing.clock.updates)
        back = self.ways_back.after(self.standing, first, error, rate)
        if back is None:
            return Diverged(
                clock, error.update, f"diverged {error.sentence}", self.engine.state, error.batch, error.layer
            )
        at, note = back
        self._go_to(replace(at, clock=replace(at.clock, seconds=self.watch.seconds)))
        return Noted(self.standing.clock, note, back_to=at.clock.updates)

    def _looked_for(self, error: NotFinite) -> NotFinite:
        """Returns the error with the update at fault, where that was made before the run was resumed.

        What came before the checkpoint is done again from an older one, or from the beginning, without events.
        """
        assert self.resumed is not None
        back = 0
        while error.unsure:
            back += 1
            at = self.resumed.earlier(back)
            at = beginning(self.job) if at is None else at
            self.engine.stand(at)
            try:
                while (clock := self.engine.clock).updates <= self.standing.clock.updates:
                    self.engine.set_rate(self.control.rate(at.halved[0], clock.updates))
                    self.engine.advance(self._limits(clock), pauses=self.control.next(at.halved[0], clock))
            except NotFinite as found:
                error = found
            else:
                return error
        return error


def beginning(job: Job) -> Snapshot:
    """Returns where a run stands before its first update."""
    return Engine(job).snapshot(Clock())


def _at_rest(job: Job, clock: Clock, moved: Clock) -> str | None:
    """Returns why a run is over that would go on for ever: no repeated batch asked for an update in a whole epoch."""
    for_ever = job.plan.cadence.repeated is not None and math.isinf(job.stopping.durations.amount("epochs"))
    return SATISFIED if for_ever and clock.epochs - moved.epochs >= 1 else None
