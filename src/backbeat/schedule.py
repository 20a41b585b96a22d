"""How the learning rate changes along a run: warm-up, decay, or a function, measured in updates, epochs or examples.

A schedule is a factor on the learning rate, worked out for a whole stretch of updates at once from where each update
lies on the run's clocks, so that the same schedule means the same for any batch size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .clock import Duration, Durations
from .errors import SettingsError, nearest

_SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant": np.ones_like,
    "linear": lambda share: 1 - share,
    "cosine": lambda share: 0.5 * (1 + np.cos(math.pi * share)),  # Loshchilov & Hutter 2017, arXiv:1608.03983
}


@dataclass(frozen=True)
class Schedule:
    """A factor on the learning rate.

    Attributes:
        shape: "constant", "linear" (to 0) or "cosine" (to 0).
        over: how long the decay takes, from the start of the run; warm-up included.
        warm_up: how long the factor rises in a straight line to 1 (Goyal et al. 2017, arXiv:1706.02677).
        function: an Optax schedule, update count -> learning rate, in place of all these.
    """

    shape: str = "constant"
    over: Duration | None = None
    warm_up: Duration | None = None
    function: Callable | None = None

    @property
    def constant(self) -> bool:
        """Whether every update has the same learning rate."""
        return self.shape == "constant" and self.warm_up is None and self.function is None

    @property
    def units(self) -> set[str]:
        """The clocks that it reads."""
        if self.function is not None:
            return {"updates"}
        return {d.unit for d in (self.over, self.warm_up) if d is not None}

    def factors(self, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the factor of each update, `[n]` float32.

        Args:
            before: clocks at the start of each update: "updates", "epochs", "examples".
            after: the same at its end. Warm-up is read at the end (the first update is not lost), decay at the start.
        """
        if self.function is not None:
            import jax

            return np.asarray(jax.vmap(self.function)(before["updates"].astype(np.int32)), np.float32)
        n = len(before["updates"])
        factor = np.ones(n)
        if self.over is not None:
            start = self.warm_up.amount if self.warm_up and self.warm_up.unit == self.over.unit else 0.0
            share = (before[self.over.unit] - start) / max(self.over.amount - start, 1e-12)
            factor *= _SHAPES[self.shape](
                np.clip(share, 0, 1)
            )  # before its start and after its end a decay stands still
        if self.warm_up is not None:
            factor *= np.minimum(after[self.warm_up.unit] / self.warm_up.amount, 1)
        return factor.astype(np.float32)

    def __str__(self) -> str:
        if self.function is not None:
            return getattr(self.function, "__name__", "own function")
        text = self.shape if self.over is None else f"{self.shape} over {self.over}"
        return text if self.warm_up is None else f"{text}, warm-up {self.warm_up}"


def schedule_for(
    schedule: str | Schedule | Callable | None, warm_up: str | Duration | None, durations: Durations
) -> Schedule:
    """Returns the schedule that a user's values stand for.

    Args:
        schedule: "constant", "linear", "cosine", "cosine over 20 epochs", or an Optax schedule (update count -> rate).
            Without "over", a decay takes the run's duration.
        warm_up: "2 epochs", "500 updates" or "10000 examples"; None for none.
        durations: how long the run is.

    Raises:
        SettingsError: an unknown shape; times in seconds, which would make the updates depend on the machine.

    Example:
        >>> str(schedule_for("cosine", "2 epochs", Durations.parse("20 epochs")))
        'cosine over 20 epochs, warm-up 2 epochs'
    """
    if isinstance(schedule, Schedule):
        return schedule
    if callable(schedule):
        if warm_up is not None:
            raise SettingsError("warm_up cannot be added to a schedule function; let the function hold the warm-up.")
        return Schedule("own", function=schedule)
    warm = None if warm_up is None else _not_seconds(Duration.parse(warm_up, "warm_up"), "warm_up")
    match = re.fullmatch(r"\s*([a-z]+)(?:\s+over\s+(.+))?\s*", schedule or "constant")
    if match is None or match.group(1) not in _SHAPES:
        raise SettingsError(f"schedule={schedule!r} is not known; {nearest(schedule, _SHAPES)}")
    shape, over = match.groups()
    if shape == "constant":
        return Schedule(warm_up=warm)
    if over is not None:
        return Schedule(shape, _not_seconds(Duration.parse(over, "schedule"), "schedule"), warm)
    counted = [d for d in durations.each if d.unit != "seconds"]
    if not counted:
        raise SettingsError(
            f'schedule={shape!r} needs to know how long it takes; write for example "{shape} over 20 epochs".'
        )
    return Schedule(shape, counted[0], warm)


def _not_seconds(duration: Duration, setting: str) -> Duration:
    if duration.unit == "seconds":
        raise SettingsError(
            f"{setting}={str(duration)!r} is a time; give epochs, updates or examples, so that a run can be repeated."
        )
    return duration
