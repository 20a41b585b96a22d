"""What a person changed while a run went on, as text from which the run is repeated to the same bits.

"learning_rate 0.05 after 1234 updates" and "stop after 5678 updates"; where the run had gone back after it diverged,
"... after 300 updates and 1 divergence": updates with the same number are then made once more, and these are meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .errors import SettingsError

RATE, STOP, PAUSE, GO_ON = "learning_rate", "stop", "pause", "go_on"
STOPPED = "stopped"  # why a run is over that a person stopped
_LEAST, _GREATEST = 1e-37, 1e38  # of float32, beyond which a rate becomes 0 or infinite
_EXAMPLE = '"learning_rate 0.05 after 1234 updates" or "stop after 5678 updates"'
_CHANGE = re.compile(
    r"\s*(?:(learning_rate)\s+(\S+)|(stop))\s+after\s+([0-9][0-9_,]*)\s+updates?"
    r"(?:\s+and\s+([0-9]+)\s+divergences?)?\s*"
)


@dataclass(frozen=True)
class Change:
    """A change of a run between two updates.

    Attributes:
        what: "learning_rate" or "stop".
        value: γ from there on, before any schedule; None of a stop.
        after: how many updates had been made.
        divergences: how often the run had gone back after it diverged.

    Example:
        >>> change = Change.parse("learning_rate 5e-2 after 1,234 updates")
        >>> change.value, change.after, str(change)
        (0.05, 1234, 'learning_rate 0.05 after 1234 updates')
    """

    what: str
    value: float | None
    after: int
    divergences: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """Where in a run it belongs: places are in the order in which they come."""
        return self.divergences, self.after

    @classmethod
    def parse(cls, text: Any) -> Change:
        """Returns the change that a text names.

        Raises:
            SettingsError: it names none.
        """
        match = _CHANGE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise SettingsError(f"changes: {text!r} is not understood; write {_EXAMPLE}.")
        _, rate, stop, after, divergences = match.groups()
        value = None if stop else _rate(rate, text)
        return cls(stop or RATE, value, int(re.sub("[_,]", "", after)), int(divergences or 0))

    def __str__(self) -> str:
        what = self.what if self.value is None else f"{self.what} {self.value!r}"
        text = f"{what} after {self.after} update{'s' * (self.after != 1)}"
        n = self.divergences
        return f"{text} and {n} divergence{'s' * (n != 1)}" if n else text


def _rate(text: str, change: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_rate(value):
        raise SettingsError(f"changes: {change!r} names no learning rate above 0; write {_EXAMPLE}.")
    return value


def is_rate(value: float) -> bool:
    """Returns whether a number can be a learning rate: above 0, and finite, as float32 has it too.

    Example:
        >>> [is_rate(value) for value in (0.05, 0, -1, 1e39, 10**400, float("nan"))]
        [True, False, False, False, False, False]
    """
    return _LEAST <= value <= _GREATEST


def changes_of(given: Any) -> tuple[Change, ...]:
    """Returns the changes that a setting names: a list of texts, or one text; in the order in which they are made.

    Raises:
        SettingsError: a text that names none, or a list that is not in order.

    Example:
        >>> [change.after for change in changes_of(["learning_rate 0.05 after 100 updates", "stop after 200 updates"])]
        [100, 200]
    """
    if given is None:
        return ()
    if not isinstance(given, (str, list, tuple)):
        raise SettingsError(f"changes={given!r} is not a list of texts; write {_EXAMPLE}.")
    changes = tuple(Change.parse(text) for text in ([given] if isinstance(given, str) else given))
    for one, other in pairwise(changes):
        if other.place < one.place:
            raise SettingsError(f"changes: {str(other)!r} comes after {str(one)!r}; put the earlier one first.")
    return changes


def with_change(changes: Sequence[Change], new: Change) -> tuple[Change, ...]:
    """Returns changes with one more, which comes after those of the same place.

    Example:
        >>> [str(c) for c in with_change(changes_of("stop after 20 updates"), Change("learning_rate", 0.5, 1))]
        ['learning_rate 0.5 after 1 update', 'stop after 20 updates']
    """
    before = [change for change in changes if change.place <= new.place]
    return (*before, new, *changes[len(before) :])


def as_texts(changes: Sequence[Change]) -> list[str] | None:
    """Returns changes as a setting has them; None for none.

    Example:
        >>> as_texts(changes_of("stop after 1 update")), as_texts(())
        (['stop after 1 update'], None)
    """
    return [str(change) for change in changes] or None
