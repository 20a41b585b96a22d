"""|g_i|² of every example of a batch, beside the batch's own gradient: what the noise is measured from.

For a dense network by the product of norms: with a_i what a layer is given and δ_i the gradient of w_i ℓ_i by what it
gives, |∂/∂W|² = |a_i|² |δ_i|² and |∂/∂b|² = |δ_i|² (Goodfellow 2015, arXiv:1510.01799). All δ come from one backward
pass together with the batch's gradient, as the gradient by zeros that are added to x W + b. For any other model the
gradient of each example is made, some at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .gradient import Parts, checked_batch, checked_block, divide
from .losses import Loss
from .models import DenseNetwork, Model, forward, n_parameters
from .types import PerExample, Scalar

_HELD_FLOATS = 1 << 22  # of single examples' gradients at once, where each has to be made: 16 MiB


class Squares(NamedTuple):
    """Sums over a batch, or over a block of it, that stand beside its `Parts`.

    Attributes:
        examples: Σ |∇(w_i ℓ_i)|² / ω_i, which is Σ ω_i |h_i|².
        weights: Σ ω_i².
    """

    examples: Scalar
    weights: Scalar


class Lengths(NamedTuple):
    """What an update measures, and `unbiased_parts` takes.

    Attributes:
        examples: m, the mean of |g_i|².
        mean: n, |mean g_i|².
        share: Σ p_i²; 1/B where every example counts alike.
    """

    examples: Any
    mean: Any
    share: Any


def watched_parts(
    model: Model,
    loss: Loss,
    params: Any,
    x: Array,
    y: Array,
    weight: PerExample | None = None,
    keys: Array | None = None,
    *,
    mean: bool = False,
) -> tuple[Parts, Squares]:
    """Returns the sums over a block, as `gradient.block_parts` does, and the squares beside them.

    A dense network takes one backward pass for both. Of another model the gradient of each example
    is made as well, some at a time, but not added up: the update is the same whether it is watched or not.

    Args:
        model: as in `block_parts`, likewise the others.
        loss: see there.
        params: see there.
        x: see there.
        y: see there.
        weight: see there.
        keys: see there.
        mean: whether every example counts 1 and the gradient is to be divided already, inside back-propagation.
    """
    squares, omega, total, gradient = _measured(model, loss, params, x, y, weight, keys, mean)
    count = omega.sum()
    each = jnp.where(omega > 0, squares / jnp.where(omega > 0, omega, 1), 0)
    return Parts(gradient, total * count if mean else total, count), Squares(each.sum(), (omega * omega).sum())


def _measured(
    model: Model, loss: Loss, params: Any, x: Array, y: Array, weight: Any, keys: Any, mean: bool
) -> tuple[PerExample, PerExample, Scalar, Any]:
    """Returns (|∇(w_i ℓ_i)|², ω_i, Σ w ℓ or its mean, its gradient)."""

    def objective(prediction: Array) -> tuple[Scalar, PerExample]:
        total, count = loss(prediction, y)
        omega = jnp.ones_like(total) if count is None else count
        if mean:
            return total.mean(), omega
        return (total.sum(), omega) if weight is None else ((total * weight).sum(), omega * weight)

    if not isinstance(model, DenseNetwork):
        differentiate = jax.value_and_grad(lambda params: objective(forward(model, params, x, keys)), has_aux=True)
        (total, omega), gradient = differentiate(params)
        return _one_by_one(model, loss, params, x, y, weight, keys), omega, total, gradient

    def tapped(params: Any, taps: list[Array]) -> tuple[Scalar, Any]:
        prediction, given = model.apply_tapped(params, x, taps)
        total, omega = objective(prediction)
        return total, (omega, given)

    taps = [jnp.zeros((x.shape[0], width)) for width in model.sizes[1:]]
    (total, (omega, given)), (gradient, deltas) = jax.value_and_grad(tapped, (0, 1), has_aux=True)(params, taps)
    layers = zip(given, deltas, strict=True)
    squares = jnp.asarray(sum((_squared(a) + int(model.bias)) * _squared(delta) for a, delta in layers))
    return squares * x.shape[0] ** 2 if mean else squares, omega, total, gradient


def _squared(rows: Array) -> PerExample:
    return (rows * rows).sum(axis=1)


def _one_by_one(model: Model, loss: Loss, params: Any, x: Array, y: Array, weight: Any, keys: Any) -> PerExample:
    """Returns |∇(w_i ℓ_i)|² of any model, by the gradient of each example, as many at once as memory is meant for."""

    def one(example: tuple) -> Scalar:
        x, y, weight, key = example

        def own(params: Any) -> Scalar:
            total = loss(forward(model, params, x[None], None if key is None else key[None]), y[None]).total[0]
            return total if weight is None else total * weight

        return squared_length(jax.grad(own)(params))

    at_once = max(1, _HELD_FLOATS // n_parameters(params))
    return lax.map(one, (x, y, weight, keys), batch_size=min(at_once, x.shape[0]))


def squared_length(tree: Any) -> Scalar:
    """Returns |v|² of a vector held as a tree, as products of vectors, which a CPU adds up side by side."""
    flat = (leaf.reshape(-1) for leaf in jax.tree.leaves(tree))
    return jnp.asarray(sum(jnp.vdot(leaf, leaf) for leaf in flat))


def lengths(parts: Parts, squares: Squares, mean_gradient: Any) -> Lengths:
    """Returns what an update measures, from the sums over its batch and its mean gradient."""
    share = divide(squares.weights, parts.weight * parts.weight)
    return Lengths(divide(squares.examples, parts.weight), squared_length(mean_gradient), share)


def add_squares(one: Squares, other: Squares) -> Squares:
    """Returns the sums over two blocks together."""
    return Squares(one.examples + other.examples, one.weights + other.weights)


def no_squares() -> Squares:
    """Returns the sums over no examples."""
    return Squares(jnp.zeros(()), jnp.zeros(()))


def example_norms(
    model: Any,
    loss: Any,
    params: Any,
    x: Any,
    y: Any,
    weight: Any = None,
    keys: Any = None,
    *,
    block: int | None = None,
) -> PerExample:
    """Returns |g_i|² for each example of a batch: the squared length of each row of `per_example_gradients`.

    Args:
        model: as in `gradient`, likewise the others.
        loss: see there.
        params: see there.
        x: `[batch, ...]`.
        y: `[batch]` or `[batch, ...]`.
        weight: `[batch]`, None for 1 each.
        keys: `[batch]` random keys of a network with dropout in training; None for the network without it.
        block: how many examples to compute at a time; None for all at once.

    Raises:
        SettingsError: lengths that differ, or a block below 1.

    Example:
        >>> import numpy as np
        >>> from backbeat.models import linear
        >>> x, y = np.array([[1.0], [2.0]], np.float32), np.array([0.0, 0.0], np.float32)
        >>> params = {"dense_0": {"weight": np.ones((1, 1), np.float32)}}
        >>> example_norms(linear(bias=False), "squared_error", params, x, y).tolist()
        [1.0, 16.0]
    """
    model, loss, x, y, weight = checked_batch(model, loss, params, x, y, weight)
    checked_block(block)
    return _norms(model, loss, params, x, y, weight, keys, min(block or x.shape[0], x.shape[0]))


@partial(jax.jit, static_argnums=(0, 1, 7))
def _norms(model: Model, loss: Loss, params: Any, x: Array, y: Array, weight: Any, keys: Any, block: int) -> PerExample:
    n = x.shape[0]
    where = jnp.minimum(jnp.arange(-(-n // block) * block), n - 1).reshape(-1, block)

    def of_block(rows: Array) -> PerExample:
        w_block, k_block = (None if a is None else a[rows] for a in (weight, keys))
        return _measured(model, loss, params, x[rows], y[rows], w_block, k_block, False)[0]

    return lax.map(of_block, where).reshape(-1)[:n]
