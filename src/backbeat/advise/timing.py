"""Measuring the hardware curve: batch sizes timed in turn, as training makes their updates, within a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ..cadence import every
from ..config import Job, with_cadence
from ..errors import SettingsError
from ..forms import form_of
from ..measure import ROUND_SECONDS, ROUNDS, Timer, in_turn
from ..models import n_parameters
from ..stretch import Data
from .hardware import HardwareCurve, Session

_KEPT_ROUNDS = 3  # compiling further sizes leaves time for so many rounds of what is compiled
_LEAST_ROUNDS = 2


def measure_hardware(
    job: Job,
    data: Data,
    sizes: Sequence[int],
    *,
    seconds: float,
    rounds: int = ROUNDS,
    progress: Callable[[float], None] = lambda share: None,
) -> HardwareCurve:
    """Returns seconds per update of some batch sizes, measured within a time that compiling counts in.

    Sizes far apart come first; those for which no time is left are named as not measured. A last batch that is not full
    is computed in the shape of a full one, so its time is one of M too.

    Args:
        job: its cadence, duration and evaluation do not matter; its state is not changed.
        data: the data on the device.
        sizes: batch sizes, two or more; see `with_neighbours` for what tells whether powers of two matter.
        seconds: how long it may take; two sizes and two rounds are taken in any case.
        rounds: the most rounds.
        progress: is told the share that is done.

    Raises:
        SettingsError: fewer than two sizes, or one that the data cannot give.

    Example:
        >>> import backbeat as bb
        >>> from backbeat.config import Settings, resolve
        >>> job = resolve(bb.linear(), "digits", Settings())
        >>> curve = measure_hardware(job, job.device_data(), [1, 64], seconds=5)
        >>> [point.batch_size for point in curve.points], 0 < curve.seconds(32) < 1
        ([1, 64], True)
    """
    wanted = _checked(sizes, job.n_train)
    if len(wanted) < 2:
        raise SettingsError(f"sizes={list(sizes)!r}: a hardware curve needs two batch sizes or more.")
    timed = _timed(job, data, far_apart_first(wanted), 2, seconds, rounds, progress)
    return HardwareCurve((timed,), _without(wanted, timed), _blocks(job, timed.seconds))


def extend(
    curve: HardwareCurve,
    job: Job,
    data: Data,
    sizes: Sequence[int],
    *,
    seconds: float,
    rounds: int = ROUNDS,
    progress: Callable[[float], None] = lambda share: None,
) -> HardwareCurve:
    """Returns the curve with further batch sizes, timed together with one of its own to see how the machine drifted.

    Args:
        curve: as measured before.
        job: as in `measure_hardware`, likewise the others.
        data: see there.
        sizes: batch sizes; those measured before are measured again.
        seconds: see there; one size more than before and two rounds are taken in any case.
        rounds: see there.
        progress: see there.

    Raises:
        SettingsError: a size that the data cannot give.
    """
    wanted = _checked(sizes, job.n_train)
    known = [m for m in wanted if m in curve.rounds]
    middle = float(np.median(wanted)) if wanted else 1.0
    anchors = known or [min(curve.rounds, key=lambda m: abs(math.log(m / middle)))]
    new = [m for m in wanted if m not in curve.rounds]
    timed = _timed(job, data, [*anchors, *new], len(anchors) + 1, seconds, rounds, progress)
    shared = [float(np.median(timed.seconds[m]) / np.median(curve.rounds[m])) for m in anchors]
    return replace(
        curve,
        sessions=(*curve.sessions, replace(timed, drift=float(np.exp(np.mean(np.log(shared)))))),
        left_out=tuple(sorted({*curve.left_out, *_without(new, timed)} - set(timed.seconds))),
        blocks={**curve.blocks, **_blocks(job, timed.seconds)},
    )


def far_apart_first(sizes: Sequence[int]) -> list[int]:
    """Returns sizes so that any number of first ones covers the whole range: the ends, then the widest gap's middle.

    Example:
        >>> far_apart_first([1, 2, 4, 8, 16])
        [1, 16, 4, 2, 8]
    """
    left = sorted(sizes)
    result = [left.pop(0)] if left else []
    while left:
        result.append(max(left, key=lambda m: min(abs(math.log(m / other)) for other in result)))
        left.remove(result[-1])
    return result


def of_batch_size(job: Job, m: int) -> Job:
    """Returns the job with batches of one size throughout."""
    return with_cadence(job, every("dataset" if m == job.n_train else m))


def _checked(sizes: Iterable[int], n_train: int) -> list[int]:
    """Returns batch sizes, rising, or says which of them the data cannot give."""
    for m in sizes:
        if isinstance(m, bool) or not hasattr(m, "__index__") or not 1 <= m <= n_train:
            raise SettingsError(f"batch size {m!r} cannot be timed; give whole numbers from 1 to {n_train:,}.")
    return sorted({int(m) for m in sizes})


def _timed(
    job: Job,
    data: Data,
    sizes: Sequence[int],
    least: int,
    seconds: float,
    rounds: int,
    progress: Callable[[float], None],
) -> Session:
    """Returns the rounds of as many sizes, in their order, as there is time for, the first `least` of them anyhow."""
    end = time.perf_counter() + seconds
    timers: dict[int, Timer] = {}
    longest = 0.0
    for m in sizes:
        began = time.perf_counter()
        a_round = sum(max(ROUND_SECONDS, timer.seconds) for timer in timers.values())
        if len(timers) >= least and began + longest + _KEPT_ROUNDS * (a_round + ROUND_SECONDS) > end:
            break
        timers[m] = Timer(of_batch_size(job, m), data)
        longest = max(longest, time.perf_counter() - began)
        progress(0.5 * len(timers) / len(sizes))
    made = in_turn(
        list(timers.values()), rounds, until=end, least=_LEAST_ROUNDS, progress=lambda share: progress(0.5 + share / 2)
    )
    by_size = dict(zip(timers, made, strict=True))
    return Session({m: tuple(map(float, by_size[m])) for m in sorted(by_size)})


def _without(wanted: Iterable[int], timed: Session) -> tuple[int, ...]:
    return tuple(m for m in wanted if m not in timed.seconds)


def _blocks(job: Job, sizes: Iterable[int]) -> dict[int, int]:
    """Returns batch size -> examples computed at once, of the sizes that are computed in blocks."""
    n = n_parameters(job.initial_state().params)
    forms = {m: form_of(of_batch_size(job, m), m, n) for m in sizes}
    return {m: form.block for m, form in forms.items() if form.in_blocks}
