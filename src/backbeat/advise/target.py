"""The target of advice where none is given and labels are no classes: a training loss that a short tuning reaches.

A loss has no scale of its own, so the level is measured: runs at a batch size in the middle, with rates a factor 2
apart, show how far the loss falls in a short time; the target is what is left after nine tenths of that fall. It is
said, and anything that is compared is compared at it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..clock import Target
from ..compare.sweep import sweep
from ..compare.tune import default_rates, evaluation_points
from ..config import Job
from ..errors import DivergedError
from ..stretch import Data

FALL = 0.9  # of the way from the first loss to the lowest seen


def with_target(job: Job, target: Target) -> Job:
    """Returns the job with another target.

    Args:
        job: any.
        target: what its runs are to reach.
    """
    return replace(job, stopping=replace(job.stopping, target=target))


def measured_target(jobs: Sequence[Job], data: Data, seconds_alone: float, seconds: float) -> Target:
    """Returns a training loss that runs of these jobs reach: 90 % of the way to the lowest that they see.

    Args:
        jobs: one for each seed, of one cadence.
        data: on the device.
        seconds_alone: seconds per update of a single run.
        seconds: how long the runs may take.

    Raises:
        DivergedError: every rate diverges at once.
    """
    job = jobs[0]
    rates = default_rates(job.optimizer.name) if job.optimizer.tunable else [1.0]
    runs = sweep(jobs, rates, data, seconds_alone)
    size = job.plan.cadence.batch_sizes(job.n_train)[0]
    first = _losses(runs)
    low, began = first.copy(), time.perf_counter()
    for point in evaluation_points(job.n_train, size, max(20, int(seconds / seconds_alone)), 1.3):
        runs.advance(point)
        low = np.fmin(low, _losses(runs))
        if time.perf_counter() - began > seconds or (runs.diverged_at > 0).all():
            break
    # the seed that falls least decides, so that every seed can reach it; of the rates the best
    start, best = float(np.nanmedian(first)), float(np.min(np.max(low, axis=0)))
    if not best < start:
        raise DivergedError(
            "no learning rate tried lowers the training loss, so there is no target to advise for; look at the data "
            "with `backbeat train`, or give a target."
        )
    return Target("loss", _rounded(start - FALL * (start - best)), "train")


def _losses(runs: object) -> np.ndarray:
    """Returns the training losses `[seeds, rates]`; infinite where a run diverged."""
    found = runs.scores(["train"])["train"]  # pyright: ignore[reportAttributeAccessIssue]
    losses = np.array([[scores["loss"] for scores in row] for row in found])
    return np.where(np.isfinite(losses), losses, math.inf)


def _rounded(value: float) -> float:
    """Returns a number in two figures, rounded up: what was reached stays reached."""
    digits = 1 - math.floor(math.log10(value))
    return math.ceil(value * 10**digits - 1e-9) / 10**digits
