"""What a log is: runs by name, each with numbers along its updates, sentences and an end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

FINISHED, FAILED, KILLED = "finished", "failed", "killed"


@dataclass(frozen=True)
class Named:
    """A run as a log gets to know it.

    Attributes:
        name: of its folder, or what it was called.
        known: what is known of it beforehand: data, model and settings.
        began: when its clock stood at zero, in seconds since 1970.
        kept: under what the log had it before, for a run that goes on; else None.
        at: the updates after which it goes on; 0 for one that begins.
        parent: what the log called the comparison that it belongs to; else None.
    """

    name: str
    known: Mapping[str, Any]
    began: float
    kept: str | None = None
    at: int = 0
    parent: str | None = None


@runtime_checkable
class LoggedRun(Protocol):
    """A run in a log. Seconds are those of the run's clock.

    Attributes:
        kept: under what the log has it.
    """

    kept: str

    def numbers(self, updates: int, seconds: float, values: Mapping[str, float]) -> None:
        """Writes what was measured after so many updates, by name."""
        ...

    def say(self, updates: int, seconds: float, sentence: str) -> None:
        """Writes a sentence."""
        ...

    def back_to(self, updates: int) -> None:
        """What was written of later updates does not count: they are made again."""
        ...

    def end(self, state: str) -> None:
        """Closes the run: "finished", "failed" or "killed"."""
        ...


@runtime_checkable
class Log(Protocol):
    """Where runs are logged; open, and ready to be written."""

    def begin(self, run: Named) -> LoggedRun:
        """Returns a run to write into."""
        ...


_WHOLE = {
    "loss_mean": "loss/batches", "learning_rate": "update/learning_rate", "batch_size": "update/batch_size",
    "gradient_norm_mean": "gradient_norm/mean", "gradient_norm_sd": "gradient_norm/sd",
    "noise_scale": "noise/scale", "noise_scale_low": "noise/scale_low", "noise_scale_high": "noise/scale_high",
    "gradient_squared": "noise/gradient_squared", "gradient_trace": "noise/gradient_trace",
    "examples": "clock/examples", "epochs": "clock/epochs",
    "wall_seconds": "clock/seconds", "seconds": "clock/seconds",
}  # fmt: skip


def named(columns: Mapping[str, Any]) -> dict[str, float]:
    """Returns numbers under the names that logs have for them; without what is no number, or not known.

    Args:
        columns: by the names of a `History`.

    Example:
        >>> named({"updates": 10, "epochs": 0.5, "held_out_accuracy": 0.9, "train_loss_mean": float("nan")})
        {'clock/epochs': 0.5, 'accuracy/held_out': 0.9}
    """
    found: dict[str, float] = {}
    for column, value in columns.items():
        part = next((part for part in ("train", "held_out") if column.startswith(f"{part}_")), None)
        score = column.removeprefix(f"{part}_").removesuffix("_mean")
        name = _WHOLE.get(column) if part is None else f"{score}/{part}"
        if name is not None and isinstance(value, (int, float)) and math.isfinite(value):
            found[name] = float(value)
    return found


@dataclass
class Sentences:
    r"""Sentences as one text, for logs that keep one; the newest where not all of them fit.

    Example:
        >>> sentences = Sentences(30)
        >>> for text in ("paused after 3 updates", "went on after 3 updates"):
        ...     whole = sentences.with_one(text)
        >>> whole.split("\n")
        ['(1 before this)', 'went on after 3 updates']
    """

    longest: int
    each: list[str] = field(default_factory=list)
    left_out: int = 0

    def with_one(self, sentence: str) -> str:
        """Returns the text with one more."""
        self.each.append(sentence)
        while len(self.each) > 1 and len("\n".join(self.each)) > self.longest:
            self.each.pop(0)
            self.left_out += 1
        return "\n".join([f"({self.left_out} before this)"] * bool(self.left_out) + self.each)
