"""One update: the mean gradient of one batch, applied once, θ ← θ − γ∇L_B or any other rule."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .gradient import Parts, add_parts, block_parts, mean_of, no_parts
from .losses import Loss
from .models import Model, forward
from .optimizer import Optimizer, global_norm


class State(NamedTuple):
    """What an update changes.

    Attributes:
        params: θ, as a tree of arrays.
        optimizer: the update rule's own state (momentum, Adam's averages and count).
    """

    params: Any
    optimizer: Any


class Seen(NamedTuple):
    """What an update saw: its batch's sums *before* the update, and the norm of the mean gradient where watched."""

    loss: Array
    weight: Array
    gradient_norm: Array


def start(model: Model, optimizer: Optimizer, key: Array) -> State:
    """Returns the state before the first update."""
    params = model.init(key)
    return State(params, optimizer.init(params))


def apply_parts(optimizer: Optimizer, state: State, parts: Parts, rate: Array, watch: bool) -> tuple[State, Seen]:
    """Returns the state after the update that a batch's sums make, and what was seen."""
    mean = mean_of(parts)
    params, inner = optimizer.apply(mean, state.optimizer, state.params, rate)
    norm = global_norm(mean) if watch else jnp.zeros(())
    return State(params, inner), Seen(parts.loss, parts.weight, norm)


def unweighted_parts(model: Model, loss: Loss, params: Any, x: Array, y: Array, keys: Array | None) -> Parts:
    """Returns the parts of a full batch of unit weights, with the division inside the differentiated function.

    It is the same mean; dividing before back-propagation rather than after saves a pass over the parameters, which a
    network as small as 64-32-10 notices at M = 1.
    """
    m = x.shape[0]

    def mean_loss(params: Any) -> Array:
        losses = loss(forward(model, params, x, keys), y)
        assert losses.count is None
        return losses.total.mean()

    value, gradient = jax.value_and_grad(mean_loss)(params)
    return Parts(gradient, value * m, jnp.asarray(float(m)))


def update(
    model: Model, loss: Loss, optimizer: Optimizer, state: State, batch: tuple, rate: Array, *, plain: bool, watch: bool
) -> tuple[State, Seen]:
    """Returns the state after one update on a batch `(x, y, weight, keys)` and what was seen.

    Args:
        model: f_θ.
        loss: ℓ.
        optimizer: the rule.
        state: before the update.
        batch: x `[M, ...]`, y `[M, ...]`, weight `[M]` or None, and random keys `[M]` or None where nothing is random.
        rate: γ.
        plain: whether every example counts 1, so that the unweighted form can be taken.
        watch: whether to measure the gradient's norm.
    """
    x, y, weight, keys = batch
    if not plain:
        return apply_parts(optimizer, state, block_parts(model, loss, state.params, x, y, weight, keys), rate, watch)
    parts = unweighted_parts(model, loss, state.params, x, y, keys)
    params, inner = optimizer.apply(parts.gradient, state.optimizer, state.params, rate)
    norm = global_norm(parts.gradient) if watch else jnp.zeros(())
    return State(params, inner), Seen(parts.loss, parts.weight, norm)


def update_in_blocks(
    model: Model, loss: Loss, optimizer: Optimizer, state: State, take: Any, n_blocks: int, rate: Array, *, watch: bool
) -> tuple[State, Seen]:
    """Returns the same as `update` for a batch that is fetched and computed block by block.

    Args:
        model: as in `update`, likewise the others.
        loss: see there.
        optimizer: see there.
        state: see there.
        take: block number -> (x, y, weight, keys) of that block.
        n_blocks: how many blocks the batch has.
        rate: γ.
        watch: see there.
    """

    def add(number: Array, parts: Parts) -> Parts:
        return add_parts(parts, block_parts(model, loss, state.params, *take(number)))

    parts = lax.fori_loop(0, n_blocks, add, no_parts(state.params))
    return apply_parts(optimizer, state, parts, rate, watch)
