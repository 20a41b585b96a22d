"""Compare cadences: time an update of each, tune its learning rate, then measure it on seeds unseen by the tuning."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..cadence import Cadence
from ..clock import parse_seconds
from ..config import Job, Settings, checked_seed
from ..data import Reading, load, reading_errors
from ..folder import environment, plain, write_json
from ..logs import flat
from ..losses import loss_for
from ..measure import Timing, time_updates
from ..models import n_parameters
from ..record import FORMAT, recorded_columns
from ..task import recognised_loss
from .answer import answer
from .asked import DEFAULT_CADENCES, cadences_of, check_seeds, left_out, plainly, rates_of, target_of, target_text
from .critical import CriticalFit, fit_critical
from .journal import Note, Progress, Stages, journal
from .logged import ComparisonLog
from .measuring import measured, score_column
from .result import CadenceResult, Comparison, MeasuredRun, at_equal, timing_record, tuning_record
from .spread import Workers, check_place
from .trainings import Trainings, Unit
from .tune import Tuning, tune, tuning_score
from .where import where

_NOT_ASKED = (
    "duration",
    "evaluate",
    "learning_rate",
    "watch_gradient",
    "watch_noise",
    "on_divergence",
    "changes",
    "devices",
    "deterministic",
)  # a comparison decides these itself
# (when a stage is to end, the least that it gets in any case), as shares of the budget: what compiling, timing and
# wider grids took more, a later stage has less, down to its least
_TUNING, _MEASURING = (0.6, 0.1), (0.95, 0.2)
_LONGEST_RUN = 1.0  # seconds of one measured run, unless the target needs more
_STAGES = {"timing": 0.15, "tuning": 0.45, "measuring": 0.4}  # shares of the whole


def compare(
    model: Any,
    data: Any = None,
    *,
    every: Sequence[Any] = DEFAULT_CADENCES,
    target: Any = "auto",
    seeds: int = 3,
    budget: Any = "60 s",
    learning_rates: Any = "auto",
    loss: Any = "auto",
    optimizer: Any = "sgd",
    order: str = "reshuffled",
    short_batch: str = "keep",
    held_out: Any = 0.2,
    seed: int = 0,
    weight_decay: float = 0.0,
    clip: float | None = None,
    block: int | None = None,
    class_weight: Any = None,
    label: Any = None,
    inputs: Any = None,
    task: str = "auto",
    weight: str | None = None,
    prepare: Any = "auto",
    missing: str = "auto",
    skip_bad: bool = False,
    resize: str | None = None,
    memory: Any = None,
    params: Any = None,
    on: Any = None,
    run: str | Path | None = None,
    log: Any = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Comparison:
    """Measures what several cadences need to reach a target, on three clocks: on one model, data set and machine.

    The learning rate is tuned for every cadence (widening the grid while the best lies on its edge). Then each one
    runs at its rate with `seeds` seeds that the tuning did not see; all cadences of one seed have the same initial
    weights and the same split. Seconds are those of a single run on a warm program, without evaluation and compilation.

    Args:
        model: as in `backbeat.fit`.
        data: as in `backbeat.fit`.
        every: the cadences, as a list or as a text with commas.
        target: for example "accuracy>=0.95"; None for none; "auto": accuracy>=0.95 for classes, none otherwise.
        seeds: runs of each cadence, from 3 to 100.
        budget: how long the whole comparison may take, for example "60 s"; compiling and wider grids can add to it.
        learning_rates: the grid to tune on, as a list or as a text with commas, or "auto" for ten rates a factor 2
            apart that widen where needed.
        loss: as in `backbeat.fit`, likewise the others.
        optimizer: see there.
        order: see there.
        short_batch: see there.
        held_out: see there.
        seed: the first of the tuning seeds; the measuring seeds follow them.
        weight_decay: see there.
        clip: see there.
        block: see there.
        class_weight: see there.
        label: see there.
        inputs: see there.
        task: see there.
        weight: see there.
        prepare: see there; fitted once, on the training part of the first seed, which is that of all seeds then.
        missing: see there.
        skip_bad: see there.
        resize: see there.
        memory: see there.
        params: see there; None for random ones by seed.
        on: where the runs are made: None for this process; a number of processes of this machine, such as 4; "ray" for
            a Ray of this machine's own, "ray:auto" or "ray://host:port" for a cluster that runs. Seconds are measured
            in this process in any case, while nothing else computes.
        run: a folder to record the comparison in; None for none.
        log: as in `backbeat.fit`: each measured run lies below the comparison, by cadence and seed.
        on_progress: is told how far it is; None to show it in a notebook, and nothing elsewhere.

    Raises:
        SettingsError: a setting that cannot be used.
        DataError: data that cannot be used.
        WorkerError: a cadence has cost three workers.

    Example:
        >>> import backbeat as bb
        >>> comparison = bb.compare(bb.linear(), "digits", every=[32, "dataset"], target="accuracy>=0.9", budget="60 s")
        >>> comparison.answer[-1]
        'The target is held-out accuracy>=0.9, with the learning rate tuned for each cadence.'
    """
    began = time.perf_counter()
    seconds, place, stages = parse_seconds(budget, "budget"), where(on), Stages(_STAGES, on_progress, "comparison")
    check_seeds(seeds)
    cadences = cadences_of(every)
    base = Settings(
        loss=loss, optimizer=optimizer, order=order, short_batch=short_batch, held_out=held_out, seed=seed,
        weight_decay=weight_decay, clip=clip, block=block, class_weight=class_weight, label=label, inputs=inputs,
        task=task, weight=weight, prepare=prepare, missing=missing, skip_bad=skip_bad, resize=resize, memory=memory,
        duration="1000000000 updates", evaluate="1 epoch",
    )  # fmt: skip
    dataset = load(
        data,
        Reading.of(base),
        checked_seed(seed),
        on_progress=lambda share, what: stages.at(what, "", share),
    )
    target = target_of(target, loss_for(loss if loss != "auto" else recognised_loss(dataset)))
    base = replace(base, target=target)

    trainings = Trainings(model, dataset, replace(base, every=cadences[0]), params)
    check_place(place, trainings)
    # every setting of every cadence is checked before the first is measured
    of_seeds = [trainings.job(number) for number in range(2 * seeds)]
    too_large = left_out(cadences, of_seeds[0].n_train)
    cadences = [cadence for cadence in cadences if cadence not in too_large]
    jobs = [trainings.jobs(range(2 * seeds), plainly(cadence)) for cadence in cadences]
    first = jobs[0][0]
    rates, widen = rates_of(learning_rates, first)
    given_rates = not (isinstance(learning_rates, str) and learning_rates == "auto")
    asked = {
        "every": ",".join(map(str, cadences)), "target": "none" if target is None else str(target), "seeds": seeds,
        "budget": f"{seconds:g} s", "learning_rates": ",".join(map(str, rates)) if given_rates else "auto",
    }  # fmt: skip
    kept = {name: value for name, value in base.as_text().items() if name not in _NOT_ASKED}
    notes: list[str] = []
    with (
        journal(run, first, {**kept, **asked}) as (folder, note),
        reading_errors(),
        ComparisonLog(log, run) as logs,
        Workers(place, trainings, notes.append) as workers,
    ):
        stages.note = note
        logs.begin({**flat(recorded_columns(first)), **asked})
        note("target", target=target_text(first), score=tuning_score(first))
        work = _Work(cadences, seeds, workers, began, seconds, stages, note, logs)
        timings = work.time()
        tunings = work.tune(timings, rates, widen)
        results = work.measure(timings, tunings)
        comparison = _comparison(results, first, seeds, seconds, time.perf_counter() - began)
        if too_large:
            notes.append(_left_out_note(too_large, first.n_train))
        logs.finished(comparison.answer)
        logs.close()
        comparison.record["notes"] += [*workers.notes, *notes, *(f"{sentence}." for sentence in logs.notes)]
        note("finished", took_seconds=comparison.record["took_seconds"], answer=comparison.answer)
        if folder is not None:
            write_json(folder / "record.json", comparison.record)
            comparison.folder = folder
    stages.over()
    return comparison


@dataclass
class _Work:
    """The three stages of a comparison, each within its share of the budget, whose `seconds` count from `began` on."""

    cadences: list[Cadence]
    n_seeds: int
    workers: Workers
    began: float
    seconds: float
    stages: Stages
    note: Note
    logs: ComparisonLog

    def told(self, stage: str) -> Callable[[str, float], None]:
        """Returns a function that passes on how far a stage is."""
        return lambda every, share: self.stages.at(stage, every, share)

    def share(self, end: float, least: float) -> Callable[[int, int], float]:
        """Returns what gives the next cadence its seconds: of what is left of a stage, an equal part, at least `least`.

        Where several are at work at once each may take as many times as long.
        """

        def seconds(waiting: int, at_once: int) -> float:
            left = self.began + end * self.seconds - time.perf_counter()
            return at_once * max(least * self.seconds / len(self.cadences), left / waiting)

        return seconds

    def time(self) -> list[Timing]:
        """Returns seconds per update of each cadence, measured in turn; here, where nothing else computes yet."""
        jobs = [self.workers.trainings.jobs([0], plainly(cadence))[0] for cadence in self.cadences]
        told = self.told("timing")
        timings = time_updates(jobs, self.workers.trainings.data, lambda share: told("all", share))
        for cadence, timing in zip(self.cadences, timings, strict=True):
            size = cadence.batch_sizes(jobs[0].n_train)[0]
            self.note("timed", every=str(cadence), batch_size=size, **timing_record(timing))
        return timings

    def tune(self, timings: Sequence[Timing], rates: list[float], widen: bool) -> list[Tuning]:
        """Returns the tuned learning rate of each cadence."""
        units = [
            Unit(f"tuning every {cadence}", str(cadence), partial(
                tuned, cadence=plainly(cadence), seeds=range(self.n_seeds), rates=rates, widen=widen,
                alone=timing.seconds_per_update.median,
            ))
            for cadence, timing in zip(self.cadences, timings, strict=True)
        ]  # fmt: skip
        return self.workers.each(
            units, self.share(*_TUNING), self.told("tuning"),
            lambda number, found: self.note("tuned", every=units[number].every, **tuning_record(found)),
        )  # fmt: skip

    def measure(self, timings: Sequence[Timing], tunings: Sequence[Tuning]) -> list[CadenceResult]:
        """Returns the runs of each cadence at its tuned rate, all as long in their own seconds."""
        needed = [
            max(u for u in tuning.best.updates_to_target if u) * timing.seconds_per_update.median
            for tuning, timing in zip(tunings, timings, strict=True)
            if any(tuning.best.updates_to_target)
        ]
        enough = 2 * max(needed) if needed else _LONGEST_RUN
        seeds = range(self.n_seeds, 2 * self.n_seeds)
        units = []
        for cadence, timing, tuning in zip(self.cadences, timings, tunings, strict=True):
            # a cadence that was too slow in the tuning gets its chance
            longest = max(enough, _LONGEST_RUN) if None in tuning.best.updates_to_target else enough
            work = partial(ran, cadence=plainly(cadence), seeds=seeds, tuning=tuning, timing=timing, longest=longest)
            units.append(Unit(f"measuring every {cadence}", str(cadence), work, timed=cadence.repeated is not None))

        job = self.workers.trainings.job(0)

        def result(number: int, runs: Sequence[MeasuredRun]) -> CadenceResult:
            cadence = self.cadences[number]
            size = cadence.batch_sizes(job.n_train)[0]
            of = tunings[number], timings[number]
            return CadenceResult(str(cadence), size, job.n_train, *of, tuple(runs), score_column(job))

        def note(number: int, runs: Sequence[MeasuredRun]) -> None:
            found = result(number, runs)
            self.note("measured", **found.record())
            self.logs.measured(found)

        found = self.workers.each(units, self.share(*_MEASURING), self.told("measuring"), note)
        return [result(number, runs) for number, runs in enumerate(found)]


def tuned(
    trainings: Trainings, *, cadence: Cadence, seeds: Sequence[int], rates: Sequence[float], widen: bool, alone: float,
    seconds: float, crowd: float, progress: Callable[[float], None],
) -> Tuning:  # fmt: skip
    """Returns the tuned learning rate of one cadence: a unit of the second stage."""
    jobs = trainings.jobs(seeds, cadence)
    return tune(
        jobs, trainings.data, rates, target=jobs[0].stopping.target, seconds=seconds, seconds_alone=alone * crowd,
        widen=widen, progress=progress,
    )  # fmt: skip


def ran(
    trainings: Trainings, *, cadence: Cadence, seeds: Sequence[int], tuning: Tuning, timing: Timing, longest: float,
    seconds: float, crowd: float, progress: Callable[[float], None],
) -> tuple[MeasuredRun, ...]:  # fmt: skip
    """Returns the measured runs of one cadence: a unit of the third stage."""
    jobs = trainings.jobs(seeds, cadence)
    return measured(jobs, trainings.data, tuning, timing, longest, seconds, crowd=crowd, progress=progress)


def _comparison(results: Sequence[CadenceResult], job: Job, seeds: int, budget: float, took: float) -> Comparison:
    text = target_text(job)
    fit: CriticalFit | None = None
    if text is not None:
        fit = fit_critical(
            {c.batch_size: [r.reached.updates for r in c.runs if r.reached] for c in results if c.reached_share == 1}
        )
    equal = at_equal(results)
    first = job.settings.seed
    record = plain({
        "kind": "comparison", "format": FORMAT, "backbeat": environment()["backbeat"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"), **recorded_columns(job),
        "n_parameters": n_parameters(job.initial_state().params), "target": text, "score": tuning_score(job),
        "tuning_seeds": list(range(first, first + seeds)), "seeds": list(range(first + seeds, first + 2 * seeds)),
        "budget_seconds": budget, "took_seconds": took,
        "answer": answer(results, text, fit, equal), "notes": _notes(results, job),
        "cadences": [result.record() for result in results], "equal": equal,
        "fit": fit.as_dict() if fit else None, "environment": environment(),
    })  # fmt: skip
    return Comparison(record, tuple(results))


def _left_out_note(cadences: Sequence[Cadence], n_train: int) -> str:
    batches = ", ".join(map(str, cadences))
    return f"Left out of the default cadences: {batches}, no less than the {n_train} training examples."


def _notes(results: Sequence[CadenceResult], job: Job) -> list[str]:
    notes = []
    for result in results:
        if result.tuning.on_edge:
            times = (
                f"after widening the grid {result.tuning.widened} times"
                if result.tuning.widened
                else "and the grid was given"
            )
            notes.append(
                f"every {result.every}: the best learning rate, {result.tuning.best.learning_rate:.3g}, lies on the "
                f"edge of those tried, {times}; a better one may lie beyond."
            )
    if not job.optimizer.tunable:
        notes.append("The optimizer holds its own learning rate, so it was not tuned.")
    return notes
