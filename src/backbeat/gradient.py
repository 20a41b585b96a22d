"""The gradient of a batch: ∇L_B = Σ w ∇ℓ / Σ w, in one piece or in any number of blocks, and the gradients it averages.

What is carried from block to block is (Σ w ∇ℓ, Σ w ℓ, Σ w); it is divided once. So cutting a batch never changes the
update, beyond the rounding of the sums, and no mean of means is ever taken.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

from .errors import SettingsError
from .losses import ExampleLosses, Loss, loss_for
from .models import Model, forward, model_for, theta
from .types import PerExample, PerExampleGradients, Scalar, Theta


class Parts(NamedTuple):
    """The sums over a batch, or over a block of it, from which everything is divided once.

    Attributes:
        gradient: Σ w ∇ℓ, in the shapes of the parameters.
        loss: Σ w ℓ.
        weight: Σ w: examples times their weights and counted elements.
    """

    gradient: Any
    loss: Scalar
    weight: Scalar


class Gradient(NamedTuple):
    """The mean gradient of a batch and what it is made of.

    Attributes:
        mean: Σ w ∇ℓ / Σ w, in the shapes of the parameters.
        loss_mean: Σ w ℓ / Σ w.
        parts: the sums.
    """

    mean: Any
    loss_mean: Scalar
    parts: Parts


def weigh(losses: ExampleLosses, weight: PerExample | None) -> tuple[Scalar, Scalar]:
    """Returns (Σ w ℓ, Σ w) of a batch, where w is the example's weight times what the loss counted in it."""
    total, count = losses
    if weight is None:
        size = jnp.asarray(total.shape[0], total.dtype)
        return total.sum(), size if count is None else count.sum()
    return (total * weight).sum(), (weight if count is None else count * weight).sum()


def divide(total: Scalar, weight: Scalar) -> Scalar:
    """Returns total / weight; 0 where nothing counts, so that a batch of ignored labels moves nothing."""
    return total / jnp.where(weight > 0, weight, 1)


def loss_and_weight(
    model: Model, loss: Loss, params: Any, x: Array, y: Array, weight: PerExample | None, keys: Array | None = None
) -> tuple[Array, tuple]:
    """Returns (Σ w ℓ, (Σ w, predictions)) of a batch: the function that back-propagation is applied to."""
    prediction = forward(model, params, x, keys)
    total, count = weigh(loss(prediction, y), weight)
    return total, (count, prediction)


def block_parts(
    model: Model,
    loss: Loss,
    params: Any,
    x: Array,
    y: Array,
    weight: PerExample | None = None,
    keys: Array | None = None,
) -> Parts:
    """Returns the sums over one block, by one pass of back-propagation.

    Args:
        model: f_θ.
        loss: ℓ.
        params: θ.
        x: `[block, ...]`.
        y: `[block, ...]`.
        weight: `[block]`, None for 1 each.
        keys: `[block]` random keys of a network with dropout in training; None for the network without it.
    """
    function = jax.value_and_grad(partial(loss_and_weight, model, loss), has_aux=True)
    (total, (count, _)), gradient = function(params, x, y, weight, keys)
    return Parts(gradient, total, count)


def add_parts(one: Parts, other: Parts) -> Parts:
    """Returns the sums over two blocks together."""
    return Parts(*jax.tree.map(jnp.add, tuple(one), tuple(other)))


def no_parts(params: Any) -> Parts:
    """Returns the sums over no examples."""
    return Parts(jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(()))


def mean_of(parts: Parts) -> Any:
    """Returns the mean gradient, divided once."""
    weight = jnp.where(parts.weight > 0, parts.weight, 1)
    return jax.tree.map(lambda g: g / weight.astype(g.dtype), parts.gradient)


@partial(jax.jit, static_argnums=(0, 1, 6))
def _batch_parts(
    model: Model, loss: Loss, params: Any, x: Array, y: Array, weight: PerExample | None, block: int
) -> Parts:
    n = x.shape[0]
    if block >= n:
        return block_parts(model, loss, params, x, y, weight)
    weight = jnp.ones(n) if weight is None else weight

    def add(parts: Parts, start: Array) -> tuple[Parts, None]:
        first = jnp.minimum(start, n - block)  # the last block reaches back over examples that counted before: weight 0
        x_block, y_block, w_block = (lax.dynamic_slice_in_dim(a, first, block) for a in (x, y, weight))
        w_block = jnp.where(first + jnp.arange(block) >= start, w_block, 0)
        return add_parts(parts, block_parts(model, loss, params, x_block, y_block, w_block)), None

    return lax.scan(add, no_parts(params), jnp.arange(0, n, block))[0]


def gradient(
    model: Any, loss: Any, params: Any, x: Any, y: Any, weight: Any = None, *, block: int | None = None
) -> Gradient:
    """Returns the mean gradient of a batch, its mean loss, and the sums they come from.

    ∇L_B = Σ w ∇ℓ / Σ w. Memory beside the batch is bounded by one block's activations and two copies of the parameters.
    A network with dropout is taken without it.

    Args:
        model: a model, an architecture such as `mlp(...)`, or an (init, apply) pair.
        loss: a name ("cross_entropy"), a loss, or a function (prediction, label) -> `[batch]`.
        params: the parameters at which to differentiate.
        x: `[batch, ...]`.
        y: `[batch]` or `[batch, ...]`.
        weight: `[batch]`, 0 or more; None for 1 each.
        block: how many examples to compute at a time; None for the whole batch at once.

    Raises:
        SettingsError: lengths that differ, or a block below 1.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[1.0], [2.0]], np.float32), np.array([0.0, 0.0], np.float32)
        >>> params = {"dense_0": {"weight": np.ones((1, 1), np.float32)}}
        >>> from backbeat.models import linear
        >>> gradient(linear(bias=False), "squared_error", params, x, y, block=1).mean["dense_0"]["weight"].tolist()
        [[2.5]]
    """
    model, loss, x, y, weight = checked_batch(model, loss, params, x, y, weight)
    checked_block(block)
    parts = _batch_parts(model, loss, params, x, y, weight, block or x.shape[0])
    return Gradient(mean_of(parts), divide(parts.loss, parts.weight), parts)


def checked_block(block: Any) -> Any:
    """Returns the number of examples to compute at a time, or None; refuses what is neither.

    Raises:
        SettingsError: not a whole number of 1 or more.
    """
    if block is not None and (isinstance(block, bool) or not hasattr(block, "__index__") or block < 1):
        raise SettingsError(f"block={block!r} must be a whole number of examples, 1 or more, or None for what fits.")
    return block


def per_example_gradients(
    model: Any, loss: Any, params: Any, x: Any, y: Any, weight: Any = None
) -> PerExampleGradients:
    """Returns the gradient of each example's own loss as a vector of R^N: `[batch, N]`.

    Row i is ∇(w_i ℓ_i), where ℓ_i is summed over the example's counted elements; so the batch gradient is
    Σ rows / Σ w, the mean of the rows where every example counts 1.

    Args:
        model: as in `gradient`, likewise the others.
        loss: see there.
        params: see there.
        x: `[batch, ...]`.
        y: `[batch]` or `[batch, ...]`.
        weight: `[batch]`, None for 1 each.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[1.0], [2.0]], np.float32), np.array([0.0, 0.0], np.float32)
        >>> params = {"dense_0": {"weight": np.ones((1, 1), np.float32)}}
        >>> from backbeat.models import linear
        >>> per_example_gradients(linear(bias=False), "squared_error", params, x, y).tolist()
        [[1.0], [4.0]]
    """
    model, loss, x, y, weight = checked_batch(model, loss, params, x, y, weight)
    return _per_example(model, loss, params, x, y, jnp.ones(x.shape[0]) if weight is None else weight)


@partial(jax.jit, static_argnums=(0, 1))
def _per_example(model: Model, loss: Loss, params: Any, x: Array, y: Array, weight: PerExample) -> PerExampleGradients:
    def one(x_one: Array, y_one: Array, w_one: Scalar) -> Theta:
        return theta(block_parts(model, loss, params, x_one[None], y_one[None], w_one[None]).gradient)

    return jax.vmap(one)(x, y, weight)


def checked_batch(model: Any, loss: Any, params: Any, x: Any, y: Any, weight: Any) -> tuple:
    """Returns what a user gave, (model, loss, x, y, weight), as values of the right kinds.

    Raises:
        SettingsError: what does not fit.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    if x.ndim == 0 or x.shape[0] == 0 or y.shape[:1] != x.shape[:1]:
        raise SettingsError(
            f"x has the shape {list(x.shape)} and y {list(y.shape)}; both need the same number of examples first, at "
            "least 1."
        )
    if weight is not None:
        weight = jnp.asarray(weight, jnp.float32)
        if weight.shape != x.shape[:1]:
            raise SettingsError(
                f"weight has the shape {list(weight.shape)} but the batch has {x.shape[0]} examples; give one weight "
                "each."
            )
    last = jax.tree.leaves(params)[-1].shape
    model, loss = model_for(model, x.shape[1:], last[-1] if last else 1), loss_for(loss)
    if loss.kind == "classification" and jnp.issubdtype(y.dtype, jnp.integer) and not isinstance(y, Tracer):
        _check_labels(jax.eval_shape(model.apply, params, x[:1]).shape[-1], loss.ignore, np.asarray(y))
    return model, loss, x, y, weight


def _check_labels(n_classes: int, ignore: int | None, y: np.ndarray) -> None:
    """Refuses a label that is no class of the model's: its loss would be no loss of any class."""
    wrong = y[(y != ignore) & ((y < 0) | (y >= n_classes))]
    if wrong.size:
        raise SettingsError(
            f"y holds the label {wrong[0]}, but the model gives {n_classes} numbers for an example; labels run from "
            f"0 to {n_classes - 1}."
        )
