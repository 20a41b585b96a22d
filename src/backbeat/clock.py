"""How long and until when: the three clocks of a run, durations ("20 epochs"), targets ("accuracy>=0.95"), patience.

A run is measured on three clocks at once: examples passed through back-propagation, updates of the weights, seconds.
`Stopping` is the one place that decides whether a run is over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import SettingsError, nearest

Unit = Literal["epochs", "updates", "examples", "seconds"]
Part = Literal["held_out", "train"]

_UNITS: dict[str, tuple[Unit, float]] = {
    **dict.fromkeys(("epoch", "epochs"), ("epochs", 1.0)),
    **dict.fromkeys(("update", "updates"), ("updates", 1.0)),
    **dict.fromkeys(("example", "examples"), ("examples", 1.0)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("seconds", 1.0)),
    **dict.fromkeys(("min", "minute", "minutes"), ("seconds", 60.0)),
    **dict.fromkeys(("h", "hour", "hours"), ("seconds", 3600.0)),
}
_AMOUNT = re.compile(r"\s*([-+]?[0-9][0-9_,]*(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?|\.[0-9]+)\s*([a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Clock:
    """How far a run is.

    Attributes:
        updates: times that the weights were changed.
        examples: examples passed through back-propagation; one that is repeated counts each time.
        epochs: passes over the training part, in parts of one; a repeated example counts once.
        seconds: seconds spent training and evaluating, compilation left out.
    """

    updates: int = 0
    examples: int = 0
    epochs: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Duration:
    """An amount of training: `amount` epochs, updates, examples or seconds.

    Example:
        >>> Duration.parse("20 epochs")
        Duration(amount=20.0, unit='epochs')
        >>> str(Duration.parse("2 min"))
        '120 seconds'
    """

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str | Duration, setting: str = "duration") -> Duration:
        """Returns the duration that a text names: "20 epochs", "5000 updates", "100_000 examples", "30 s", "2 min"."""
        if isinstance(text, Duration):
            return text
        match = _AMOUNT.fullmatch(str(text))
        allowed = '"20 epochs", "5000 updates", "100000 examples", "30 s" or "2 min"'
        if match is None:
            raise SettingsError(f"{setting}={text!r} is not a number with a unit; write for example {allowed}.")
        digits, name = match.groups()
        if name.lower() not in _UNITS:
            hint = nearest(name, ["epochs", "updates", "examples", "s", "min", "h"]) if name else f"write {allowed}."
            raise SettingsError(f"{setting}={text!r} has {'an unknown' if name else 'no'} unit; {hint}")
        unit, factor = _UNITS[name.lower()]
        amount = float(digits.replace(",", "").replace("_", "")) * factor
        if not (amount > 0 and math.isfinite(amount)):
            raise SettingsError(f"{setting}={text!r} must be more than 0; write for example {allowed}.")
        if unit in ("updates", "examples") and amount != int(amount):
            raise SettingsError(
                f"{setting}={text!r}: {unit} are counted in whole numbers; write {math.ceil(amount)} {unit}."
            )
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount:.15g} {self.unit if self.amount != 1 else self.unit[:-1]}"


def next_multiple(interval: Duration, clock: Clock) -> Duration:
    """Returns the next multiple of an interval after a clock, as an amount from the start of a run.

    Example:
        >>> next_multiple(Duration(100.0, "updates"), Clock(updates=250))
        Duration(amount=300.0, unit='updates')
    """
    passed = math.floor(getattr(clock, interval.unit) / interval.amount + 1e-9)
    return Duration(float(passed + 1) * interval.amount, interval.unit)


def parse_seconds(text: str | int | float, setting: str) -> float:
    """Returns the seconds that a text such as "60 s" or "2 min" names; a plain number is taken as seconds.

    Example:
        >>> parse_seconds("2 min", "budget")
        120.0
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        text = f"{text} s"
    match = _AMOUNT.fullmatch(str(text))
    if match is None or (match.group(2).lower() in _UNITS and _UNITS[match.group(2).lower()][0] != "seconds"):
        raise SettingsError(
            f'{setting}={text!r} is not a time; write a number with its unit, for example "60 s" or "2 min".'
        )
    return Duration.parse(f"{text} s" if not match.group(2) else str(text), setting).amount


@dataclass(frozen=True)
class Durations:
    """One or several durations, of which the one that ends first counts: "20 epochs or 30 s".

    Example:
        >>> str(Durations.parse("20 epochs or 30 s"))
        '20 epochs or 30 seconds'
    """

    each: tuple[Duration, ...]

    @classmethod
    def parse(cls, text: str | Duration | Durations) -> Durations:
        """Returns the durations that a text names, separated by "or"."""
        if isinstance(text, Durations):
            return text
        if isinstance(text, Duration):
            return cls((text,))
        return cls(tuple(Duration.parse(piece) for piece in re.split(r"\s+or\s+", str(text).strip())))

    def amount(self, unit: Unit) -> float:
        """Returns the smallest amount given in this unit, or infinity where none is."""
        return min((d.amount for d in self.each if d.unit == unit), default=math.inf)

    def over(self, clock: Clock) -> bool:
        """Returns whether one of them has passed."""
        return any(getattr(clock, d.unit) >= d.amount for d in self.each)

    def __str__(self) -> str:
        return " or ".join(str(d) for d in self.each)


#: Scores that a target can name, and whether more of it is better.
SCORES: dict[str, bool] = {"accuracy": True, "r2": True, "loss": False, "mse": False}


@dataclass(frozen=True)
class Target:
    """A score to reach: "accuracy>=0.95", "train loss<=0.1", "held-out r2>=0.8".

    `part` is None where the text names none: then the held-out part counts where there is one, else the training part.

    Example:
        >>> target = Target.parse("accuracy>=0.95")
        >>> target.reached(0.96), target.reached(0.9)
        (True, False)
    """

    score: str
    value: float
    part: Part | None = None

    @classmethod
    def parse(cls, text: str | Target) -> Target:
        """Returns the target that a text names."""
        if isinstance(text, Target):
            return text
        match = re.fullmatch(
            r"\s*(?:(train(?:ing)?|held[-_ ]?out)\s+)?([a-z0-9_]+)\s*(>=|<=|>|<|=)?\s*([-+0-9.e]+)?(%?)\s*",
            str(text),
            re.I,
        )
        example = "for example accuracy>=0.95, loss<=0.1, r2>=0.8, or train loss<=0.1"
        if match is None:
            raise SettingsError(f"target={text!r} is not understood; write {example}.")
        part_name, score, comparison, number, percent = match.groups()
        score = score.lower()
        if score not in SCORES:
            raise SettingsError(f"target={text!r} names an unknown score; {nearest(score, SCORES)}")
        try:
            value = float(number or "") / (100 if percent else 1)
        except ValueError:
            raise SettingsError(f"target={text!r} has no number; write {example}.") from None
        target = cls(score, value, None if part_name is None else "train" if part_name[0] in "tT" else "held_out")
        target._check(text, comparison)
        return target

    def _check(self, text: object, comparison: str | None) -> None:
        right = ">=" if SCORES[self.score] else "<="
        if comparison is None or comparison[0] != right[0]:
            how = "from above" if right == "<=" else "from below"
            raise SettingsError(
                f"target={text!r}: {self.score} is reached {how}; write {self.score}{right}{self.value:g}."
            )
        if self.score == "accuracy" and not 0 < self.value <= 1:
            raise SettingsError(
                f"target={text!r} can never be reached: accuracy is a share from 0 to 1; write for example "
                "accuracy>=0.95."
            )
        if self.score == "r2" and self.value > 1:
            raise SettingsError(f"target={text!r} can never be reached: r2 is at most 1; write for example r2>=0.8.")
        if self.score in ("loss", "mse") and not self.value > 0:
            raise SettingsError(
                f"target={text!r} can never be reached: {self.score} stays above 0; write for example "
                f"{self.score}<=0.1."
            )

    @property
    def more_is_better(self) -> bool:
        """Whether the target is reached from below."""
        return SCORES[self.score]

    def reached(self, value: float) -> bool:
        """Returns whether a value of the score meets the target; a value that is not a number never does."""
        return bool(value >= self.value if self.more_is_better else value <= self.value)

    def __str__(self) -> str:
        part = {"train": "train ", "held_out": "held-out ", None: ""}[self.part]
        return f"{part}{self.score}{'>=' if self.more_is_better else '<='}{self.value:g}"


@dataclass(frozen=True)
class Patience:
    """Early stopping: end the run when the loss has not improved for this long (Prechelt 1998).

    Measured on the held-out part where there is one, else on the training part, at every evaluation.

    Example:
        >>> Patience.parse("5 epochs").duration.amount
        5.0
    """

    duration: Duration

    @classmethod
    def parse(cls, text: str | Duration | Patience) -> Patience:
        """Returns the patience that a text such as "5 epochs" names."""
        return text if isinstance(text, Patience) else cls(Duration.parse(text, "patience"))


@dataclass(frozen=True)
class Stopping:
    """The one resolver of "when does this run end": whichever of durations, target and patience comes first."""

    durations: Durations
    target: Target | None = None
    patience: Patience | None = None

    def reason(self, clock: Clock, scores: Mapping[str, float], best_at: Clock | None) -> str | None:
        """Returns why the run is over, or None.

        Args:
            clock: how far the run is.
            scores: the newest evaluation of the part that counts, empty where none was made now.
            best_at: the clock at the lowest loss so far, None where nothing was evaluated.
        """
        if self.target is not None and self.target.reached(scores.get(self.target.score, math.nan)):
            return f"reached {self.target}"
        if self.durations.over(clock):
            return f"ran for {self.durations}"
        if scores and self.patience is not None and best_at is not None:
            wait = self.patience.duration
            if getattr(clock, wait.unit) - getattr(best_at, wait.unit) >= wait.amount:
                return f"no better for {wait}"
        return None
