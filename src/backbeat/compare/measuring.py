"""The runs of one cadence at its tuned rate, on seeds that the tuning did not see, with what they show on the way.

Seconds of an evaluation are its updates times what an update takes by itself, so that evaluations do not count; where
batches are repeated, they are those of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ..clock import Clock
from ..config import Job
from ..measure import Timing
from ..stretch import Data
from .result import MeasuredRun, Reached
from .sweep import Apart, sweep
from .tune import Tuning, evaluation_points, growth_for, tuning_score

_PATIENCE = 4  # so many times as long, while a run has not met the target


def measured(
    jobs: Sequence[Job],
    data: Data,
    tuning: Tuning,
    timing: Timing,
    longest: float,
    allowed: float,
    *,
    crowd: float,
    progress: Callable[[float], None],
) -> tuple[MeasuredRun, ...]:
    """Returns one run for each job, `longest` seconds of a single run long, or until the time allowed is over.

    As long as a run has not met the target, all go on, up to `_PATIENCE` times as long.

    Args:
        jobs: one for each measuring seed.
        data: on the device.
        tuning: what found the learning rate.
        timing: what an update takes by itself.
        longest: seconds of a single run.
        allowed: seconds that all of it may take.
        crowd: by how much an update takes longer meanwhile, since others compute too.
        progress: is told the share that is done.
    """
    job, alone, rate = jobs[0], timing.seconds_per_update.median, tuning.best.learning_rate
    size = job.plan.cadence.batch_sizes(job.n_train)[0]
    repeated = job.plan.cadence.repeated is not None
    runs = Apart(jobs, [rate], data, at_once=1) if repeated else sweep(jobs, [rate], data, alone * crowd, watch=True)
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
    return target is not None and not diverged_at and not any(target.reached(seen[score_column(job)]) for seen in row)


def score_column(job: Job) -> str:
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
        hits = np.flatnonzero([target.reached(value) for value in curve[score_column(job)]])
        if len(hits):
            row = kept[hits[0]]
            reached = Reached(int(row["updates"]), int(row["examples"]), row["epochs"], row["seconds"])
    return MeasuredRun(job.settings.seed, curve, reached, diverged_at or None)
