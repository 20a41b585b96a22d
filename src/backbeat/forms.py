"""The forms of a job's stretches: how many updates they have at most, and how many examples are computed at once."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .cadence import Cadence, Phase
from .config import Job
from .data import Packed
from .errors import SettingsError, out_of_memory
from .follow import Follower, most_updates
from .mesh import Team
from .plan import Cursor, Plan, Stretch, whole_updates
from .room import free_bytes
from .stretch import CHUNK_BYTES, STREAMED_CHUNK_BYTES, Form, form_for

STRETCH_SECONDS = 0.25
_FLOATS_AT_ONCE = 4  # forward and back, values and gradients: programs were seen to take 3 to 3.6 times the values


def form_of(job: Job, size: int, n: int, block: int | None = None) -> Form:
    """Returns the form of the stretches that a job's batches of one size are computed in.

    Args:
        job: what is trained.
        size: M, one of its cadence's.
        n: N, how many parameters there are.
        block: the most examples at once, where it is less than what is set.
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
        block=job.settings.block if block is None else block, input_floats=math.prod(job.dataset.input_shape),
        chunk_bytes=STREAMED_CHUNK_BYTES if isinstance(job.dataset.x, Packed) else CHUNK_BYTES,
    )  # fmt: skip


def fitting_block(form: Form, job: Job) -> int:
    """Returns how many examples to compute at once: as the form has it, or half, a quarter, ... where memory is short.

    It is a rough estimate, made beforehand since a system that runs out of memory may end the process without asking;
    `smaller_block` is for what it does not foresee.

    Args:
        form: of the stretches.
        job: what is trained.
    """
    free = None if job.team.deterministic else free_bytes()  # there the block decides nothing
    block, each = form.block, _FLOATS_AT_ONCE * 4 * job.example_floats
    while free is not None and block > 1 and block * each > free:
        block //= 2
    return job.team.agree(block)


def smaller_block(error: Exception, block: int, team: Team) -> int:
    """Returns how many examples to compute at once where memory was too short: half as many as before.

    Args:
        error: what happened; raised again where it is something else.
        block: how many were computed at once.
        team: whose devices share a batch.

    Raises:
        SettingsError: it cannot be less; or other processes wait for this one, in a sum that it is not part of; or the
            order of sums is fixed.

    Example:
        >>> smaller_block(MemoryError(), 64, Team())
        32
    """
    if not out_of_memory(error):
        raise error
    if team.deterministic:
        raise SettingsError(
            "memory is too short, and the fixed order of sums cuts a batch in one way only; give the run more memory, "
            "or leave --deterministic out."
        ) from None
    if not team.alone:
        raise SettingsError(
            f"memory is too short for {block:,} examples at once on one of the devices; give --block {block // 2 or 1} "
            "or less, or start fewer processes on a machine."
        ) from None
    if block == 1:
        raise SettingsError(
            "memory is too short for one example of this network; give it more memory, or a smaller network."
        ) from None
    return block // 2


def full_batches(form: Form, n: int) -> Stretch:
    """Returns a stretch of `n` full batches, all of the first example."""
    indices, sizes = np.zeros((1 if form.whole else n, form.batch_size), np.int32), np.full(n, form.batch_size)
    return Stretch(indices, sizes.astype(np.int32), sizes, sizes[:0], Cursor())


def block_note(block: int | None) -> str:
    """Returns the sentence for a block that became smaller.

    Example:
        >>> block_note(64)
        'memory was too short, so batches are computed 64 examples at a time from here on; each update is the same'
    """
    return (
        f"memory was too short, so batches are computed {block:,} example{'s' * (block != 1)} at a time from here on; "
        "each update is the same"
    )


def evaluation_note(block: int) -> str:
    """Returns the sentence for an evaluation whose block became smaller.

    Example:
        >>> evaluation_note(64)
        'memory was too short, so evaluations compute 64 examples at a time from here on'
    """
    return f"memory was too short, so evaluations compute {block:,} example{'s' * (block != 1)} at a time from here on"


def follower_of(job: Job) -> Follower | None:
    """Returns what decides a job's M before the first update; None where it is not the noise."""
    if not job.plan.cadence.follows:
        return None
    n_examples = None if job.plan.order.kind == "with replacement" else job.n_train
    return Follower.start(job.plan.cadence.batch_sizes(job.n_train), job.n_train, n_examples)


def of_size(plan: Plan, size: int) -> Plan:
    """Returns the plan of a batch that follows the noise, as it is while M stays."""
    return replace(plan, cadence=Cadence((Phase(size),)))


def schedule_factors(job: Job, cursor: Cursor, stretch: Stretch) -> np.ndarray | None:
    """Returns the schedule's factor on γ of each update of a stretch, `[n]`; None where it is constant.

    Args:
        job: what is trained.
        cursor: where the stretch begins.
        stretch: its batches.
    """
    schedule, n = job.schedule, len(stretch)
    if schedule.constant:
        return None
    updates = cursor.batches + np.arange(n + 1)
    examples = cursor.examples + np.concatenate([[0], np.cumsum(stretch.sizes)])
    here = job.plan.clock(cursor).epochs
    epochs = np.concatenate([[here], stretch.passed / job.n_train])
    clocks = {"updates": updates, "examples": examples, "epochs": epochs}
    return schedule.factors({k: v[:-1] for k, v in clocks.items()}, {k: v[1:] for k, v in clocks.items()})
