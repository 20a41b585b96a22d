"""Where a run stopped being finite: at which update, on which examples, behind which layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .config import Job
from .gradient import loss_and_weight
from .models import RandomModel
from .operations import operations, traced
from .record import parameter_names
from .stretch import example_keys
from .update import State

_AT_ONCE = 256  # examples that are looked through together, one operation after another
_NAMED = 6
INPUTS = "the inputs"


class NotFinite(Exception):
    """The loss or the parameters are no longer finite; the engine stands at the last finite state.

    Attributes:
        update: the number of the update after which it happened, from 1; 0 where it was so from the start.
        what: "the loss" or "the parameters".
        batch: the examples for which, as numbers from 0 into the data.
        layer: behind which parameter the first value is not finite; None where it is not found again.
        unsure: whether it may have been an update before the engine's beginning.
    """

    def __init__(
        self, update: int, what: str, batch: Sequence[int] = (), layer: str | None = None, *, unsure: bool = False
    ) -> None:
        super().__init__(f"{what} at update {update}")
        self.update, self.what, self.batch, self.layer, self.unsure = update, what, tuple(batch), layer, unsure

    @property
    def sentence(self) -> str:
        """What happened, in words.

        Example:
            >>> NotFinite(57, "the loss", [4, 9], "dense_1/weight").sentence
            'at update 57: the loss stopped being finite, first behind dense_1/weight, with the examples 4, 9'
        """
        where = "before the first update" if self.update == 0 else f"at update {self.update}"
        text = f"{where}: {self.what} stopped being finite"
        if self.layer is not None:
            text += f", first in {INPUTS}" if self.layer == INPUTS else f", first behind {self.layer}"
        if self.batch:
            shown = ", ".join(map(str, self.batch[:_NAMED]))
            more = len(self.batch) - _NAMED
            examples = "example" if len(self.batch) == 1 else "examples"
            text += f", with the {examples} {shown}{f' and {more:,} more' if more > 0 else ''}"
        return text


def finite(params: Any) -> bool:
    """Returns whether every parameter is a finite number.

    Example:
        >>> finite({"weight": np.ones(2)}), finite({"weight": np.array([1.0, np.inf])})
        (True, False)
    """
    return first_not_finite(params) is None


def first_not_finite(params: Any) -> str | None:
    """Returns the name of the first parameter that is not finite; None where all are.

    Example:
        >>> first_not_finite({"weight": np.array([1.0, np.inf])})
        'weight'
    """
    for name, leaf in zip(parameter_names(params), jax.tree.leaves(params), strict=True):
        if not np.isfinite(np.asarray(leaf)).all():
            return name
    return None


def most_finite(is_finite: Callable[[int], bool], n: int) -> int:
    """Returns the most updates, up to `n`, after which all is finite: by bisection, for what overflowed stays so.

    Example:
        >>> most_finite(lambda k: k < 6, 10)
        5
    """
    if n == 0 or is_finite(n):
        return n
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_finite(middle) else (low, middle)
    return low


def first_layer(job: Job, state: State, batch: np.ndarray, update: int) -> str | None:
    """Returns the parameter behind which a batch's loss or gradient is first not finite, operation by operation.

    Args:
        job: what is trained.
        state: at which to look.
        batch: examples, as numbers into the data.
        update: how many updates were made before (decides what dropout draws).

    Returns:
        The path of the parameter that was used last before it, "the inputs", or None where all is finite.
    """
    random = isinstance(job.model, RandomModel)
    function = jax.value_and_grad(lambda *given: loss_and_weight(job.model, job.loss, *given)[0])
    for start in range(0, len(batch), _AT_ONCE):
        rows = batch[start : start + _AT_ONCE]
        x, y = (jnp.asarray(part[rows]) for part in (job.dataset.x, job.dataset.y))
        weight = None if job.dataset.weight is None else jnp.asarray(job.dataset.weight[rows])
        key = jnp.array([0, int(job.settings.seed)], jnp.uint32)
        keys = example_keys(key, jnp.int32(update), jnp.asarray(rows)) if random else None
        if not _all_finite([x]):
            return INPUTS
        given = (state.params, x, y, weight, keys)
        for operation in operations(traced(function, *given), *given):
            if not _all_finite(operation.outputs) and _all_finite(operation.inputs):
                return operation.layer
    return None


def _all_finite(values: Sequence[Any]) -> bool:
    floats = (np.asarray(value) for value in values if jnp.issubdtype(getattr(value, "dtype", np.bool_), jnp.floating))
    return all(np.isfinite(value.astype(np.float64)).all() for value in floats)


def blamed(
    job: Job, before: State, batch: np.ndarray, update: int, after: Callable[[], tuple[State, np.ndarray]]
) -> tuple[str | None, np.ndarray]:
    """Returns behind which layer the first value is not finite around an update, and for which batch.

    Args:
        job: what is trained.
        before: the state before the update.
        batch: its examples.
        update: its number, from 0.
        after: the state after it and the examples of the next one.
    """
    look = partial(first_layer, job)
    found = look(before, batch, update)
    if found is not None:
        return found, batch
    state, following = after()
    found = first_not_finite(state.params)
    if found is not None:
        return found, batch
    found = look(state, following, update + 1)
    return found, batch if found is None else following
