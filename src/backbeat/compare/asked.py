"""What a person asks of a comparison, read and checked: cadences, target, seeds, learning rates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..cadence import Cadence
from ..cadence import every as as_cadence
from ..config import Job, checked_rate
from ..errors import SettingsError
from ..losses import Loss
from .tune import default_rates

DEFAULT_CADENCES = (1, 32, 64, 128, 256, "dataset")
_MOST_SEEDS = 100


def check_seeds(seeds: Any) -> None:
    """Refuses a number of seeds that says nothing about the spread, or that leaves each run next to no time."""
    if isinstance(seeds, bool) or not hasattr(seeds, "__index__") or not 3 <= seeds <= _MOST_SEEDS:
        raise SettingsError(
            f"seeds={seeds!r} must be a whole number from 3 to {_MOST_SEEDS}: fewer say nothing about the spread, and "
            "more leave each run next to no time."
        )


def left_out(cadences: list[Cadence], n_examples: int) -> list[Cadence]:
    """Returns which of the default cadences are batches of no less than all examples; none of those a user gave."""
    if cadences != cadences_of(DEFAULT_CADENCES):
        return []
    sizes = [cadence.phases[0].size for cadence in cadences]
    return [of for of, size in zip(cadences, sizes, strict=True) if isinstance(size, int) and size >= n_examples > 1]


def cadences_of(every: Any) -> list[Cadence]:
    """Returns the cadences of a list or of a text with commas; refuses none, and the same one twice."""
    every = every.split(",") if isinstance(every, str) else every
    values = [every] if isinstance(every, int) or hasattr(every, "phases") else list(every)
    cadences = [as_cadence(value) for value in values]
    if not cadences:
        raise SettingsError("every is empty; give at least one cadence, for example every=[1, 32, 'dataset'].")
    for cadence in cadences:
        if cadence.follows:
            raise SettingsError(
                f"every={str(cadence)!r} has no batch size of its own to be compared by; give constant ones, such as "
                f"its bounds, and train with {str(cadence)!r} beside them."
            )
        if cadences.count(cadence) > 1:
            raise SettingsError(f"every names {cadence} twice; give each cadence once.")
    return cadences


def plainly(cadence: Cadence) -> Cadence:
    """Returns the cadence without the record of what repeats do to the rest: it would count as time of the update."""
    return cadence if cadence.repeated is None else replace(cadence, repeated=replace(cadence.repeated, rest="none"))


def target_of(target: Any, loss: Loss) -> Any:
    """Returns the target that is meant by "auto" and "none", and any other as it is."""
    if target == "auto":
        return "accuracy>=0.95" if loss.kind in ("classification", "binary") else None
    return None if target == "none" else target


def rates_of(given: Any, job: Job) -> tuple[list[float], bool]:
    """Returns the grid of learning rates, and whether it may be widened."""
    if not job.optimizer.tunable:
        return [1.0], False
    if isinstance(given, str) and given == "auto":
        return list(default_rates(job.optimizer.name)), True
    given = given.split(",") if isinstance(given, str) else given
    rates = sorted(
        {checked_rate(rate, "learning_rates") for rate in ([given] if isinstance(given, (int, float)) else given)}
    )
    if not rates:
        raise SettingsError('learning_rates is empty; give at least one, or "auto".')
    return rates, False


def target_text(job: Job) -> str | None:
    """Returns a job's target with the part of the data that it is scored on; None where there is none.

    Example:
        >>> from backbeat.config import Settings, resolve
        >>> target_text(resolve("linear", "iris", Settings(target="accuracy>=0.9")))
        'held-out accuracy>=0.9'
    """
    target = job.stopping.target
    if target is None:
        return None
    return str(target if target.part is not None else replace(target, part=job.scored_part))
