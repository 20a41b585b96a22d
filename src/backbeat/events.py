"""What a run emits, in this order: started, then stretches, evaluations, notes, changes, then finished or diverged.

Console, history, record, checkpoint and page are consumers of these; none of them is known to the training itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .changes import GO_ON, PAUSE, RATE, STOP
from .clock import Clock


@dataclass(frozen=True)
class Started:
    """A run begins; its program is compiled.

    Attributes:
        about: what is trained on what, as text and numbers (data, model, loss, optimizer, settings).
        n_parameters: N.
        batch_sizes: M of each phase; what it can be, where the batch follows the noise.
        compile_seconds: what compiling took, which no clock counts.
        resumed: whether it goes on from where it had come to before.
    """

    about: Mapping[str, Any]
    n_parameters: int
    batch_sizes: tuple[int, ...]
    compile_seconds: float
    resumed: bool = False


@dataclass(frozen=True)
class StretchDone:
    """Some consecutive updates were made.

    Attributes:
        clock: at the end of the stretch.
        loss_sum: Σ w ℓ over its batches, each before its own update.
        weight_sum: Σ w.
        update_seconds: seconds spent in the updates alone.
        losses: mean loss of each batch before its update, `[n]`.
        batch_sizes: examples in each, `[n]`.
        learning_rate: of the last update.
        set_aside: how many examples a dropped short batch left out.
        gradient_norms: |∇L_B| of each update, `[n]`, where watched, else None.
        repeats: for repeated batches, columns of one entry a batch: updates, batch_loss_before, batch_loss_after,
            rest_loss_before, rest_loss_after; else None.
        noise: the stretch's `noise.NoiseSums`, where watched, else None.
        batch_size: M, the size of a full batch in all of it; None for repeated batches.
        compile_seconds: what compiling for a new batch size took, which no clock counts.
        snapshot: the `snapshot.Snapshot` from which the run can go on as it did.
    """

    clock: Clock
    loss_sum: float
    weight_sum: float
    update_seconds: float
    losses: Any
    batch_sizes: Any
    learning_rate: float
    set_aside: int = 0
    gradient_norms: Any = None
    repeats: Mapping[str, Any] | None = None
    noise: Any = None
    batch_size: int | None = None
    compile_seconds: float = 0.0
    snapshot: Any = field(default=None, repr=False)

    @property
    def loss_mean(self) -> float:
        """The mean loss over all examples of the stretch: a sum divided by a count, never a mean of means."""
        return self.loss_sum / self.weight_sum if self.weight_sum else float("nan")


@dataclass(frozen=True)
class Evaluated:
    """The parameters were evaluated.

    Attributes:
        clock: when.
        train: scores of the training part ("loss", "accuracy" or "r2" and "mse").
        held_out: scores of the held-out part, empty where there is none.
        seconds: what it took.
        snapshot: see `StretchDone`.
    """

    clock: Clock
    train: Mapping[str, float]
    held_out: Mapping[str, float]
    seconds: float
    snapshot: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Noted:
    """Something happened that is worth a sentence, and the run goes on.

    Attributes:
        clock: when.
        note: the sentence.
        back_to: how many updates still count, where the run went back; None where it did not.
    """

    clock: Clock
    note: str
    back_to: int | None = None


@dataclass(frozen=True)
class Changed:
    """A person changed how the run goes on; or a change that its settings name was made.

    Attributes:
        clock: when.
        what: "learning_rate", "stop", "pause" or "go_on".
        value: γ from here on, before any schedule; None for the others.
        changes: all of the run that a repetition needs, as `changes` of its settings has them; None for none.
        snapshot: see `StretchDone`.

    Example:
        >>> Changed(Clock(updates=1233), "learning_rate", 0.05).sentence
        'learning rate 0.05 from update 1,234 on'
    """

    clock: Clock
    what: str
    value: float | None = None
    changes: tuple[str, ...] | None = None
    snapshot: Any = field(default=None, repr=False)

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        return changed_in_words(self.what, self.value, self.clock.updates)


def changed_in_words(what: str, value: float | None, updates: int) -> str:
    """Returns what a change did, in words.

    Example:
        >>> changed_in_words("pause", None, 1234)
        'paused after 1,234 updates'
    """
    if what == RATE:
        return f"learning rate {value:.6g} from update {updates + 1:,} on"
    done = {STOP: "stopped", PAUSE: "paused", GO_ON: "went on"}[what]
    return f"{done} after {updates:,} update{'s' * (updates != 1)}"


@dataclass(frozen=True)
class Finished:
    """The run is over.

    Attributes:
        clock: at its end.
        reason: why, in words.
        reached: whether the target was reached, None where there was none.
        state: the final parameters and optimizer state.
        snapshot: see `StretchDone`.
    """

    clock: Clock
    reason: str
    reached: bool | None
    state: Any = field(repr=False)
    snapshot: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Diverged:
    """The loss or the parameters stopped being finite, and the run was stopped.

    Attributes:
        clock: at the last finite state.
        update: the number of the update, from 1, after which something was no longer finite.
        reason: what, in words.
        state: the last finite parameters and optimizer state.
        batch: the examples for which a value is first not finite, as numbers from 0 into the data: those of that
            update, or of the loss after it.
        layer: the parameter behind which the first value was not finite, such as "dense_1/weight"; None if not found.
    """

    clock: Clock
    update: int
    reason: str
    state: Any = field(repr=False)
    batch: tuple[int, ...] = ()
    layer: str | None = None


Event = Started | StretchDone | Evaluated | Noted | Changed | Finished | Diverged
