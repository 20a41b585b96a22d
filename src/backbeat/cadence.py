"""When the weights change: after each example, after a batch of examples, or after the whole data set.

| cadence | batch size M | usual name |
|---|---|---|
| `every(1)` | 1 | stochastic gradient descent (SGD) |
| `every(32)` | 1 < M < |D| | mini-batch gradient descent |
| `every("dataset")` | |D| | gradient descent (GD), full batch |
| `every(1).repeat(until="loss<0.1", at_most=10)` | 1 | up to 10 updates on one example, then the next |
| `every("noise", low=8, high=512)` | 8, 16, ... 512 | a batch that follows the noise of the gradient, see `follow` |

A cadence is one value. Its text form, `str(cadence)`, is what `every` reads, so that it is the same in Python, on the
command line and in a run's settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from .clock import Duration
from .errors import SettingsError

_EXAMPLE = 'write a whole number such as 32, a share such as "10%", or "dataset"'
NOISE = "noise"
_LEAST_NOISE = 2  # a batch of one example does not show how examples differ


@dataclass(frozen=True)
class Repeat:
    """Up to `at_most` updates on the same batch until it is satisfied, before the next batch.

    Attributes:
        until: "loss<0.1" (the batch's mean loss, before the next update), "correct" (every example of the batch is
            classified rightly), or a function (predictions, labels, losses) -> true or false, of a batch, in JAX.
        at_most: the most updates on one batch, 1 or more.
        rest: on which other examples the effect is measured after each batch: "all", "none", or the number of a
            fixed random sample.
    """

    until: str | Callable
    at_most: int
    rest: int | Literal["all", "none"] = "all"

    def __post_init__(self) -> None:
        if isinstance(self.until, str) and self.until != "correct" and self.loss_below is None:
            raise SettingsError(
                f'until={self.until!r} is not understood; write "loss<0.1", "correct", or give a function.'
            )
        if not _is_whole(self.at_most) or self.at_most < 1:
            raise SettingsError(f"at_most={self.at_most!r} must be a whole number of updates, 1 or more.")
        if self.rest not in ("all", "none") and not (_is_whole(self.rest) and int(self.rest) >= 1):
            raise SettingsError(f'rest={self.rest!r} must be "all", "none" or a number of examples, 1 or more.')

    @property
    def loss_below(self) -> float | None:
        """The bound of "loss<0.1", None where `until` is something else."""
        match = (
            re.fullmatch(r"\s*loss\s*<=?\s*([0-9.]+(?:e[-+]?[0-9]+)?)\s*", self.until)
            if isinstance(self.until, str)
            else None
        )
        return float(match.group(1)) if match else None

    def __str__(self) -> str:
        until = self.until if isinstance(self.until, str) else getattr(self.until, "__name__", "a function")
        rest = "" if self.rest == "all" else f" rest {self.rest}"
        return f"repeat until {until} at most {self.at_most}{rest}"


@dataclass(frozen=True)
class Phase:
    """A batch size that holds from `after` (counted from the start of the run; None: the start) on."""

    size: int | str
    after: Duration | None = None


@dataclass(frozen=True)
class Cadence:
    """After how many examples the weights are updated; made by `every`.

    Attributes:
        phases: batch sizes in the order in which they hold; most cadences have one. Where the batch follows the noise,
            its two bounds.
        repeated: up to n updates on the same batch, None for one.
        follows: whether M is chosen along the run from the noise of the gradient: the lower bound times 1, 2, 4, ...
    """

    phases: tuple[Phase, ...]
    repeated: Repeat | None = None
    follows: bool = False

    def repeat(self, *, until: str | Callable, at_most: int, rest: int | Literal["all", "none"] = "all") -> Cadence:
        """Returns this cadence with up to `at_most` updates on the same batch until it is satisfied.

        Args:
            until: "loss<0.1", "correct", or a function (predictions, labels, losses) -> true or false.
            at_most: the most updates on one batch.
            rest: where the effect on the other examples is measured: "all" of them (costs one forward pass over the
                training part for each batch), "none", or the size of a fixed random sample.

        Raises:
            SettingsError: a condition that is not understood, or a bound below 1.

        Example:
            >>> str(every(1).repeat(until="loss<0.1", at_most=10))
            '1 repeat until loss<0.1 at most 10'
        """
        if self.follows:
            raise SettingsError(
                f"every={str(self)!r} cannot be repeated: the noise of repeated updates on one batch is not measured; "
                "repeat a constant batch size, or leave the repeats out."
            )
        return replace(self, repeated=Repeat(until, at_most, rest))

    def then(self, *, after: str | Duration, every: int | str) -> Cadence:
        """Returns this cadence with another batch size from `after` on (Smith et al. 2018, arXiv:1711.00489).

        Args:
            after: "10 epochs", "500 updates" or "20000 examples" from the start of the run.
            every: the batch size from then on.

        Raises:
            SettingsError: a duration in seconds (the update would depend on the machine's speed), or one that is not
                after the change before it.

        Example:
            >>> str(every(32).then(after="10 epochs", every=128))
            '32 then 128 after 10 epochs'
        """
        if self.follows or every == NOISE or str(every).startswith(f"{NOISE} "):
            raise SettingsError(
                'every: a batch that follows the noise does so from the first update to the last, so "noise" and '
                '"then" do not go together; leave one of them out.'
            )
        start = Duration.parse(after, "after")
        if start.unit == "seconds":
            raise SettingsError(
                f"after={after!r}: a change of batch size is given in epochs, updates or examples, not in seconds."
            )
        before = self.phases[-1].after
        if before is not None and before.unit == start.unit and before.amount >= start.amount:
            raise SettingsError(
                f"after={str(start)!r} does not come after the change before it, after {before}; give them in order."
            )
        return replace(self, phases=(*self.phases, Phase(_parse_size(every), start)))

    @property
    def size(self) -> int | str:
        """The first batch size as it was given: a number, a share such as "10%", or "dataset"."""
        return self.phases[0].size

    def batch_sizes(self, n_examples: int) -> tuple[int, ...]:
        """Returns M of every phase for a training part of `n_examples`; all that it can be where it follows the noise.

        Raises:
            SettingsError: a batch larger than the data, a share of it that is not even one example, or bounds between
                which there is nothing to choose.

        Example:
            >>> every("10%").batch_sizes(1797)
            (180,)
            >>> every("noise 8 to 100").batch_sizes(1797)
            (8, 16, 32, 64)
        """
        if self.follows:
            low, high = (_resolve_size(phase.size, n_examples) for phase in self.phases)
            return _between(low, high, str(self))
        return tuple(_resolve_size(phase.size, n_examples) for phase in self.phases)

    def __str__(self) -> str:
        if self.follows:
            return f"{NOISE} {self.phases[0].size} to {self.phases[1].size}"
        text = str(self.phases[0].size)
        if self.repeated is not None:
            text += f" {self.repeated}"
        return text + "".join(f" then {phase.size} after {phase.after}" for phase in self.phases[1:])


def every(when: int | str | Cadence, *, low: int | str | None = None, high: int | str | None = None) -> Cadence:
    """Returns the cadence that updates the weights after every `when` examples.

    Args:
        when: a number of examples, a share of the training part ("10%"), "dataset", a text form with repeats or
            phases ("1 repeat until correct at most 5", "32 then 128 after 10 epochs"), or a cadence; or "noise"
            ("noise 8 to 512"): M is `low`, 2 `low`, 4 `low`, ... up to `high`, whichever the noise of the gradient
            asks for along the run.
        low: of "noise", the least M, 2 or more; None for 2.
        high: of "noise", the most; None for all the examples.

    Raises:
        SettingsError: anything else, with what is allowed.

    Example:
        >>> str(every(32))
        '32'
        >>> every("dataset").batch_sizes(1797)
        (1797,)
        >>> every("1 repeat until correct at most 5").repeated.at_most
        5
        >>> str(every("noise", low=8, high=512))
        'noise 8 to 512'
    """
    if (low is not None or high is not None) and when != NOISE:
        raise SettingsError(
            f'every={when!r} takes no bounds; low and high belong to "noise", as in every("noise", low=8, high=512).'
        )
    if isinstance(when, Cadence):
        return when
    if not isinstance(when, str):
        return Cadence((Phase(_parse_size(when)),))
    first, *later = re.split(r"\s+then\s+", when.strip())
    if re.match(rf"{NOISE}\b", first, re.IGNORECASE):
        return _following(when, first, later, low, high)
    match = re.fullmatch(r"(\S+)(?:\s+repeat\s+until\s+(.+?)\s+at\s+most\s+(\S+?)(?:\s+rest\s+(\S+))?)?", first)
    if match is None:
        raise SettingsError(f"every={when!r} is not understood; {_EXAMPLE}.")
    size, until, at_most, rest = match.groups()
    cadence = Cadence((Phase(_parse_size(size)),))
    if until is not None:
        cadence = cadence.repeat(until=until, at_most=_whole(at_most), rest=_whole(rest or "all"))
    for piece in later:
        phase = re.fullmatch(r"(\S+)\s+after\s+(.+)", piece)
        if phase is None:
            raise SettingsError(
                f'every={when!r}: what follows "then" is not understood; '
                'write for example "32 then 128 after 10 epochs".'
            )
        cadence = cadence.then(every=phase.group(1), after=phase.group(2))
    return cadence


def _following(when: str, first: str, later: list[str], low: Any, high: Any) -> Cadence:
    """Returns the cadence of "noise" with its bounds."""
    match = re.fullmatch(rf"{NOISE}(?:\s+(\S+)\s+to\s+(\S+))?(\s+repeat\s.+)?", first, re.IGNORECASE)
    if match is None:
        raise SettingsError(f'every={when!r} is not understood; write "noise", or with bounds "noise 8 to 512".')
    bounds = (match.group(1) or (_LEAST_NOISE if low is None else low), match.group(2) or high or "dataset")
    cadence = Cadence(tuple(Phase(_parse_size(bound)) for bound in bounds), follows=True)
    least, most = (phase.size for phase in cadence.phases)
    if isinstance(least, int) and (isinstance(most, int) or least < _LEAST_NOISE):
        _between(least, most if isinstance(most, int) else 2 * least, str(cadence))
    if match.group(3):
        return cadence.repeat(until="correct", at_most=1)  # which says that it does not go
    return cadence.then(after="1 epoch", every=1) if later else cadence  # likewise


def _between(low: int, high: int, text: str) -> tuple[int, ...]:
    """Returns `low` times 1, 2, 4, ... up to `high`; refuses bounds that leave nothing to choose."""
    if low < _LEAST_NOISE:
        raise SettingsError(
            f"every={text!r}: the noise is how the gradients of one batch differ, which a batch of one example cannot "
            f"show; begin at {_LEAST_NOISE} examples or more."
        )
    if high < 2 * low:
        raise SettingsError(
            f"every={text!r} leaves nothing to choose: batches have {low} examples, or {2 * low}, or more in powers of "
            f"two, up to {high}; give an upper bound of at least {2 * low}."
        )
    return tuple(low << k for k in range((high // low).bit_length()))


def _is_whole(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _whole(text: str) -> Any:
    """Returns the whole number that a text spells, or the text itself for its reader to refuse."""
    return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else text


def _parse_size(size: object) -> int | str:
    if isinstance(size, str):
        text = size.strip().lower()
        if text == "dataset":
            return text
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", text):
            if not 0 < float(text[:-1]) <= 100:
                raise SettingsError(f"every={size!r} must be more than 0% and at most 100% of the data.")
            return text
        size = _whole(text.replace("_", ""))
        if isinstance(size, str):
            hint = 'did you mean "dataset"?' if text[:1] in "adfw" else _EXAMPLE + "."
            raise SettingsError(f"every={size!r} is not a number of examples; {hint}")
    if not _is_whole(size):
        raise SettingsError(f"every={size!r} is not a number of examples; {_EXAMPLE}.")
    whole = int(size)  # pyright: ignore[reportArgumentType]  # __index__ was checked above
    if whole < 1:
        raise SettingsError(f"every={whole} must be 1 or more; {_EXAMPLE}.")
    return whole


def _resolve_size(size: int | str, n_examples: int) -> int:
    if size == "dataset":
        return n_examples
    if isinstance(size, str):
        batch = round(n_examples * float(size[:-1]) / 100)
        if batch < 1:
            raise SettingsError(f'every="{size}" of {n_examples} examples is not even one; give a larger share, or 1.')
        return batch
    if size > n_examples:
        raise SettingsError(
            f"every={size} but the data has {n_examples} training examples; choose 1 to {n_examples}, or 'dataset'."
        )
    return size
