"""Compare cadences: time an update of each, tune its learning rate, then measure it on seeds unseen by the tuning."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..clock import Clock, Target, parse_seconds
from ..config import Job, Settings, checked_seed, resolve, with_cadence
from ..data import Reading, load, reading_errors
from ..folder import environment, plain, write_json
from ..losses import loss_for
from ..measure import Timing, time_updates
from ..models import n_parameters
from ..record import FORMAT, recorded_columns
from ..stretch import Data
from ..task import recognised_loss
from .answer import answer
from .asked import DEFAULT_CADENCES, cadences_of, check_seeds, left_out, plainly, rates_of, target_of
from .critical import CriticalFit, fit_critical
from .journal import Note, journal
from .result import CadenceResult, Comparison, MeasuredRun, Reached, at_equal
from .sweep import Apart, sweep
from .tune import Tuning, evaluation_points, growth_for, tune, tuning_score

_NOT_ASKED = (
    "duration",
    "evaluate",
    "learning_rate",
    "watch_gradient",
    "watch_noise",
    "on_divergence",
)  # a comparison decides these itself
# (when a stage is to end, the least that it gets in any case), as shares of the budget: what compiling, timing and
# wider grids took more, a later stage has less, down to its least
_TUNING, _MEASURING = (0.6, 0.1), (0.95, 0.2)
_LONGEST_RUN = 1.0  # seconds of one measured run, unless the target needs more
_PATIENCE = 4  # so many times as long, while a run has not met the target


@dataclass(frozen=True)
class Progress:
    """How far a comparison is.

    Attributes:
        stage: "timing", "tuning" or "measuring"; before, what is done where large data is packed.
        every: the cadence being worked on, as text.
        share: of the stage, from 0 to 1.
    """

    stage: str
    every: str
    share: float


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
    run: str | Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
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
        run: a folder to record the comparison in; None for none.
        on_progress: is told how far it is.

    Raises:
        SettingsError: a setting that cannot be used.
        DataError: data that cannot be used.

    Example:
        >>> import backbeat as bb
        >>> comparison = bb.compare(bb.linear(), "digits", every=[32, "dataset"], target="accuracy>=0.9", budget="60 s")
        >>> comparison.answer[-1]
        'The target is held-out accuracy>=0.9, with the learning rate tuned for each cadence.'
    """
    began = time.perf_counter()
    seconds = parse_seconds(budget, "budget")
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
        on_progress=lambda share, what: on_progress(Progress(what, "", share)),
    )
    target = target_of(target, loss_for(loss if loss != "auto" else recognised_loss(dataset)))
    base = replace(base, target=target)

    # every setting of every cadence is checked before the first is measured
    by_seed = [
        resolve(model, dataset, replace(base, every=cadences[0], seed=seed + k), params) for k in range(2 * seeds)
    ]
    too_large = left_out(cadences, by_seed[0].n_train)
    cadences = [cadence for cadence in cadences if cadence not in too_large]
    jobs = [[with_cadence(job, plainly(cadence)) for job in by_seed] for cadence in cadences]
    tuning_jobs, measuring_jobs = [of[:seeds] for of in jobs], [of[seeds:] for of in jobs]
    rates, widen = rates_of(learning_rates, tuning_jobs[0][0])
    given_rates = not (isinstance(learning_rates, str) and learning_rates == "auto")
    names = [str(cadence) for cadence in cadences]
    asked = {
        "every": ",".join(names), "target": "none" if target is None else str(target), "seeds": seeds,
        "budget": f"{seconds:g} s", "learning_rates": ",".join(map(str, rates)) if given_rates else "auto",
    }  # fmt: skip
    kept = {name: value for name, value in base.as_text().items() if name not in _NOT_ASKED}
    with journal(run, tuning_jobs[0][0], {**kept, **asked}) as (folder, note), reading_errors():
        work = _Work(names, tuning_jobs[0][0].device_data(), began, seconds, on_progress, note)
        timings = work.time([jobs[0] for jobs in tuning_jobs])
        tunings = work.tune(tuning_jobs, timings, rates, widen)
        results = work.measure(measuring_jobs, timings, tunings)
        comparison = _comparison(results, tuning_jobs[0][0], seeds, seconds, time.perf_counter() - began)
        if too_large:
            batches = ", ".join(map(str, too_large))
            comparison.record["notes"].append(
                f"Left out of the default cadences: {batches}, no less than the {by_seed[0].n_train} training examples."
            )
        note("finished", took_seconds=comparison.record["took_seconds"], answer=comparison.answer)
        if folder is not None:
            write_json(folder / "record.json", comparison.record)
            comparison.folder = folder
    return comparison


@dataclass
class _Work:
    """The three stages of a comparison, each within its share of the budget, whose `seconds` count from `began` on."""

    cadences: list[str]
    data: Data
    began: float
    seconds: float
    on_progress: Callable[[Progress], None]
    note: Note

    def told(self, stage: str, number: int) -> Callable[[float], None]:
        """Returns a function that passes on the share done of one cadence as a share of the stage."""
        n = len(self.cadences)
        return lambda share: self.on_progress(Progress(stage, self.cadences[number], (number + min(share, 1.0)) / n))

    def share(self, end: float, least: float, number: int) -> float:
        """Returns the seconds of a stage for a cadence: of what is left, an equal part among the cadences to come."""
        left = self.began + end * self.seconds - time.perf_counter()
        return max(least * self.seconds / len(self.cadences), left / (len(self.cadences) - number))

    def time(self, jobs: Sequence[Job]) -> list[Timing]:
        """Returns seconds per update of each cadence, measured in turn."""
        timings = time_updates(jobs, self.data, lambda share: self.on_progress(Progress("timing", "all", share)))
        for every, timing in zip(self.cadences, timings, strict=True):
            self.note("timed", every=every, **asdict(timing))
        return timings

    def tune(
        self, jobs: Sequence[Sequence[Job]], timings: Sequence[Timing], rates: list[float], widen: bool
    ) -> list[Tuning]:
        """Returns the tuned learning rate of each cadence."""
        result = []
        for number, (of_cadence, timing) in enumerate(zip(jobs, timings, strict=True)):
            told, share = self.told("tuning", number), self.share(*_TUNING, number)
            result.append(
                tune(of_cadence, self.data, rates, target=of_cadence[0].stopping.target, seconds=share,
                     seconds_alone=timing.seconds_per_update.median, widen=widen, progress=told)
            )  # fmt: skip
            self.note("tuned", every=self.cadences[number], **asdict(result[-1]))
        return result

    def measure(
        self, jobs: Sequence[Sequence[Job]], timings: Sequence[Timing], tunings: Sequence[Tuning]
    ) -> list[CadenceResult]:
        """Returns the runs of each cadence at its tuned rate, all as long in their own seconds."""
        needed = [
            max(u for u in tuning.best.updates_to_target if u) * timing.seconds_per_update.median
            for tuning, timing in zip(tunings, timings, strict=True)
            if any(tuning.best.updates_to_target)
        ]
        enough = 2 * max(needed) if needed else _LONGEST_RUN
        result = []
        for number, (of_cadence, timing, tuning) in enumerate(zip(jobs, timings, tunings, strict=True)):
            # a cadence that was too slow in the tuning gets its chance
            longest = max(enough, _LONGEST_RUN) if None in tuning.best.updates_to_target else enough
            share, told = self.share(*_MEASURING, number), self.told("measuring", number)
            runs = _measured(of_cadence, self.data, tuning, timing, longest, share, told)
            job = of_cadence[0]
            size = job.plan.cadence.batch_sizes(job.n_train)[0]
            result.append(CadenceResult(self.cadences[number], size, job.n_train, tuning, timing, runs, _column(job)))
            ends = [{"seed": r.seed, "reached": r.reached and asdict(r.reached), "diverged_at": r.diverged_at,
                     "final": r.final()} for r in runs]  # fmt: skip
            self.note("measured", every=self.cadences[number], runs=ends)
        return result


def _measured(
    jobs: Sequence[Job],
    data: Data,
    tuning: Tuning,
    timing: Timing,
    longest: float,
    allowed: float,
    progress: Callable[[float], None],
) -> tuple[MeasuredRun, ...]:
    """Returns one run for each job, `longest` seconds of a single run long, or until the time allowed is over.

    As long as a run has not met the target, all go on, up to `_PATIENCE` times as long.
    """
    job, alone, rate = jobs[0], timing.seconds_per_update.median, tuning.best.learning_rate
    size = job.plan.cadence.batch_sizes(job.n_train)[0]
    repeated = job.plan.cadence.repeated is not None
    runs = Apart(jobs, [rate], data, at_once=1) if repeated else sweep(jobs, [rate], data, alone, watch=True)
    parts = ["train", "held_out"] if len(job.split.held_out) else ["train"]
    n = max(20, int(longest / alone))
    growth = growth_for(runs, parts, allowed, evaluation_points(job.n_train, size, n))
    later = [point for point in evaluation_points(job.n_train, size, _PATIENCE * n, growth) if point > n]
    rows: list[list[dict[str, float]]] = [[] for _ in jobs]
    norms, began = None, time.perf_counter()
    for point in [0, *evaluation_points(job.n_train, size, n, growth), *later]:
        if point:
            norms = runs.advance(point)
        found = runs.scores(parts)
        for s, row in enumerate(rows):
            clock = runs.clocks()[s][0]
            if row and clock.updates == row[-1]["updates"]:
                continue
            values = {"updates": clock.updates, "examples": clock.examples, "epochs": clock.epochs}
            if repeated and isinstance(runs, Apart):  # what an update costs changes as batches are satisfied
                values["seconds"] = runs.engines[s][0].update_seconds
            else:
                values["seconds"] = _seconds_at(job, timing, clock, row[-1] if row else None)
            for part in parts:
                values |= {f"{part}_{'loss_mean' if k == 'loss' else k}": v for k, v in found[part][s][0].items()}
            seen = norms[s, 0] if norms is not None else np.empty(0)
            values["gradient_norm_mean"] = float(seen.mean()) if seen.size else float("nan")
            values["gradient_norm_sd"] = float(seen.std()) if seen.size else float("nan")
            row.append(values)
        spent = time.perf_counter() - began
        progress(max(point / n, spent / allowed))
        over = point >= n and not any(
            _waits(job, row, lost) for row, lost in zip(rows, runs.diverged_at[:, 0].tolist(), strict=True)
        )
        if over or spent > allowed or (runs.diverged_at > 0).all():
            break
    return tuple(_run_of(jobs[s], rows[s], int(runs.diverged_at[s, 0])) for s in range(len(jobs)))


def _waits(job: Job, row: list[dict[str, float]], diverged_at: int) -> bool:
    """Returns whether a run, given its evaluations, has not met the target and still can."""
    target = job.stopping.target
    return target is not None and not diverged_at and not any(target.reached(seen[_column(job)]) for seen in row)


def _column(job: Job) -> str:
    """Returns the curve's column of the score that is reported for a job."""
    score = tuning_score(job)
    return f"{job.scored_part}_{'loss_mean' if score == 'loss' else score}"


def _seconds_at(job: Job, timing: Timing, clock: Clock, before: dict[str, float] | None) -> float:
    """Returns the seconds of a single run up to a clock: each update at the time of the batch size that held then.

    Where the batch size changes, it is taken to do so at the evaluation before.
    """
    if before is None:
        return 0.0
    phase = 0
    for number, later in enumerate(job.plan.cadence.phases[1:], start=1):
        if later.after is not None and before[later.after.unit] >= later.after.amount:
            phase = number
    return before["seconds"] + (clock.updates - before["updates"]) * timing.phases[phase].median


def _run_of(job: Job, rows: list[dict[str, float]], diverged_at: int) -> MeasuredRun:
    """Returns a run from its evaluations; those after it diverged are left out."""
    kept = [row for row in rows if not diverged_at or row["updates"] < diverged_at]
    curve = {name: np.array([row[name] for row in kept]) for name in kept[0]}
    target, reached = job.stopping.target, None
    if target is not None:
        hits = np.flatnonzero([target.reached(value) for value in curve[_column(job)]])
        if len(hits):
            row = kept[hits[0]]
            reached = Reached(int(row["updates"]), int(row["examples"]), row["epochs"], row["seconds"])
    return MeasuredRun(job.settings.seed, curve, reached, diverged_at or None)


def _comparison(results: Sequence[CadenceResult], job: Job, seeds: int, budget: float, took: float) -> Comparison:
    target = job.stopping.target
    text = None if target is None else str(Target(target.score, target.value, job.scored_part))  # pyright: ignore[reportArgumentType]
    fit: CriticalFit | None = None
    if target is not None:
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
