"""Which settings of a run do not go together: one sentence each, with what to do."""

from __future__ import annotations

from typing import Any

from .cadence import Cadence
from .changes import RATE, changes_of
from .clock import Duration
from .errors import SettingsError
from .mesh import Team, n_processes
from .optimizer import Optimizer
from .schedule import Schedule


def check_watched(settings: Any, cadence: Cadence, n_train: int) -> None:
    """Refuses to watch what is not there: with repeats an update has no batch of its own, one example no noise.

    Raises:
        SettingsError: it is asked for.
    """
    for name in ("watch_gradient", "watch_noise"):
        if getattr(settings, name) and cadence.repeated is not None:
            raise SettingsError(f"{name} is not measured where batches are repeated; leave one of the two out.")
    if settings.watch_noise and max(cadence.batch_sizes(n_train)) == 1:
        raise SettingsError(
            f"every={str(cadence)!r} and watch_noise=True: noise is how the gradients of one batch differ, which a "
            "batch of one example cannot show; leave watch_noise out, or update after 2 examples or more."
        )


def check_repeat(settings: Any, cadence: Cadence, schedule: Schedule, n_train: int, *, rate_asked: bool) -> None:
    """Refuses what would need to know beforehand how many updates a repeated batch takes.

    Args:
        settings: as they were given.
        cadence: after how many examples to update.
        schedule: of the learning rate.
        n_train: |D|.
        rate_asked: whether a range test is to find the learning rate.

    Raises:
        SettingsError: it is asked for.
    """
    if cadence.repeated is None:
        return
    changes = {phase.after.unit for phase in cadence.phases if phase.after is not None}
    if rate_asked:
        raise SettingsError(
            'learning_rate="auto" tries rates with one update a batch, which says nothing about repeated ones; give a '
            "learning rate, or leave the repeats out."
        )
    evaluated = set() if settings.evaluate in ("auto", "never", None) else {Duration.parse(settings.evaluate).unit}
    for name, units in (("a schedule", schedule.units), ("a change of batch size", changes), ("evaluate", evaluated)):
        if units - {"epochs"}:
            raise SettingsError(
                f"{name} must be given in epochs where batches are repeated: how many updates a batch takes is not "
                "known before."
            )
    rest = cadence.repeated.rest
    if not isinstance(rest, str) and rest > n_train:
        raise SettingsError(f"rest={rest} but there are {n_train} training examples; choose 1 to {n_train}, or 'all'.")


def check_shared(team: Team, cadence: Cadence) -> None:
    """Refuses to share repeated batches: whether another update is due would have to be asked of all devices each time.

    Raises:
        SettingsError: they are repeated, and there are several devices.

    Example:
        >>> from backbeat.cadence import every
        >>> check_shared(Team(), every(1).repeat(until="correct", at_most=5))
    """
    if cadence.repeated is not None and team.devices:
        raise SettingsError(
            f"every={str(cadence)!r} repeats batches, which one device does; leave devices and processes out "
            f"(here {len(team.devices)} devices of {n_processes()} processes), or the repeats."
        )


def rate_fixed(optimizer: Optimizer, schedule: Schedule) -> str | None:
    """Returns why the learning rate of a run cannot be changed on its way, as a sentence; None where it can.

    Example:
        >>> rate_fixed(Optimizer("sgd", len), Schedule()) is None
        True
    """
    if not optimizer.tunable:
        return "The optimizer is a transformation that holds its own learning rate, so it cannot be changed."
    if schedule.function is not None:
        return "The learning rate is a function of the updates, so it cannot be changed."
    return None


def check_changes(changes: Any, optimizer: Optimizer, schedule: Schedule) -> None:
    """Refuses changes that are not understood, and those of a learning rate that is not the run's to change.

    Raises:
        SettingsError: one of them.
    """
    fixed = rate_fixed(optimizer, schedule)
    change = next((change for change in changes_of(changes) if change.what == RATE), None)
    if change is not None and fixed is not None:
        raise SettingsError(f"changes: {str(change)!r} is not possible here. {fixed}")
