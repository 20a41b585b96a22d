"""One update: the mean gradient of one batch, applied once, θ ← θ − γ∇L_B or any other rule."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .gradient import Parts, add_parts, block_parts, mean_of, no_parts
from .losses import Loss
from .models import Model, forward
from .norms import Lengths, Squares, add_squares, lengths, no_squares, watched_parts
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
    """What an update saw: its batch's sums *before* the update, and where watched the norm of the mean gradient.

    `noise` is what the noise of that gradient is found from, None where it is not watched.
    """

    loss: Array
    weight: Array
    gradient_norm: Array
    noise: Lengths | None = None


def start(model: Model, optimizer: Optimizer, key: Array) -> State:
    """Returns the state before the first update."""
    params = model.init(key)
    return State(params, optimizer.init(params))


def apply_parts(
    optimizer: Optimizer,
    state: State,
    parts: Parts,
    rate: Array,
    watch: bool,
    squares: Squares | None = None,
    *,
    divided: bool = False,
) -> tuple[State, Seen]:
    """Returns the state after the update that a batch's sums make, and what was seen.

    Args:
        optimizer: the rule.
        state: before the update.
        parts: the batch's sums; `divided`, the gradient among them is the mean already.
        rate: γ.
        watch: whether to measure the gradient's norm.
        squares: what the noise is measured from, None where it is not.
        divided: see `parts`.
    """
    mean = parts.gradient if divided else mean_of(parts)
    params, inner = optimizer.apply(mean, state.optimizer, state.params, rate)
    norm = global_norm(mean) if watch else jnp.zeros(())
    noise = None if squares is None else lengths(parts, squares, mean)
    return State(params, inner), Seen(parts.loss, parts.weight, norm, noise)


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
    model: Model,
    loss: Loss,
    optimizer: Optimizer,
    state: State,
    batch: tuple,
    rate: Array,
    *,
    plain: bool,
    watch: bool,
    noise: bool = False,
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
        noise: whether to measure the noise; the state that is returned is the same.
    """
    x, y, weight, keys = batch
    squares = None
    if noise:
        parts, squares = watched_parts(model, loss, state.params, x, y, weight, keys, mean=plain)
    elif plain:
        parts = unweighted_parts(model, loss, state.params, x, y, keys)
    else:
        parts = block_parts(model, loss, state.params, x, y, weight, keys)
    return apply_parts(optimizer, state, parts, rate, watch, squares, divided=plain)


def update_in_blocks(
    model: Model,
    loss: Loss,
    optimizer: Optimizer,
    state: State,
    take: Any,
    n_blocks: int,
    rate: Array,
    *,
    watch: bool,
    noise: bool = False,
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
        noise: see there.
    """

    def add(number: Array, sums: tuple[Parts, Squares | None]) -> tuple[Parts, Squares | None]:
        parts, squares = sums
        if squares is None:
            return add_parts(parts, block_parts(model, loss, state.params, *take(number))), None
        more, more_squares = watched_parts(model, loss, state.params, *take(number))
        return add_parts(parts, more), add_squares(squares, more_squares)

    nothing = (no_parts(state.params), no_squares() if noise else None)
    parts, squares = lax.fori_loop(0, n_blocks, add, nothing)
    return apply_parts(optimizer, state, parts, rate, watch, squares)
