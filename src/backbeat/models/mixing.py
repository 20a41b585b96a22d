"""Whether each example has a loss of its own: nothing in a batch may depend on which others are in it.

An update is the mean of the gradients of per-example losses. Where a layer or a loss mixes examples there are no such
losses: the gradient then depends on how a batch is cut, and "after each example" has no meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import BackbeatError, SettingsError
from .model import Model
from .refusal import explain

_LOOKED_AT = 16  # examples among which two different ones are searched


def check_examples_apart(model: Model, loss: Callable[[Any, Any], Any], params: Any, x: Any, y: Any) -> None:
    """Refuses a model or a loss in which an example's value depends on the others of its batch.

    An example is put between two others, [b, a, b], then between two different ones, [c, a, c]; one compiled program
    gives both, so that what a's row holds has the same bits unless the others have a part in it.

    Args:
        model: f_θ.
        loss: ℓ; its result's `total` is `[batch]`.
        params: θ.
        x: `[n, ...]` examples of the data, numbers or tokens; with fewer than two there is nothing to compare.
        y: `[n, ...]` their labels.

    Raises:
        SettingsError: examples are mixed, or the predictions' first axis is not that of the examples.

    Example:
        >>> from backbeat.losses import squared_error
        >>> from backbeat.models import Functions
        >>> centred = Functions(lambda key: {}, lambda params, x: x - x.mean(axis=0))
        >>> x = np.arange(3, dtype=np.float32)[:, None]
        >>> check_examples_apart(centred, squared_error(), {}, x, x)
        Traceback (most recent call last):
        ...
        backbeat.errors.SettingsError: the model mixes the examples of a batch: ...
    """
    x, y = np.asarray(x[:_LOOKED_AT]), np.asarray(y[:_LOOKED_AT])
    if len(x) < 2:
        return
    other = next((k for k in range(2, len(x)) if (x[k] != x[1]).any()), 0)

    compiled = _predictions_and_losses(model, loss)
    ones, others = (jax.device_get(compiled(params, x[[k, 0, k]], y[[k, 0, k]])) for k in (1, other))
    if not np.array_equal(ones[0][1], others[0][1], equal_nan=True):
        raise SettingsError(
            "the model mixes the examples of a batch: what it predicts for one changed when only the others did, so "
            "that there is no gradient of each example to average; normalise within an example (layer or group "
            "normalisation) and compute along all axes but the first."
        )
    if not np.array_equal(ones[1][1], others[1][1], equal_nan=True):
        raise SettingsError(
            f"the loss {getattr(loss, 'name', 'given')} mixes the examples of a batch: an example's loss changed when "
            "only the others did; compute each one from its own prediction and label, without a mean or a maximum "
            "over the first axis."
        )


@lru_cache(maxsize=32)
def _predictions_and_losses(model: Model, loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], tuple]:
    """Returns the compiled (params, x, y) -> (predictions, losses)."""

    def both(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
        try:
            prediction = model.apply(params, x)
        except BackbeatError:
            raise
        except Exception as error:
            raise SettingsError(explain(error, "the model", x.shape)) from error
        if jnp.shape(prediction)[:1] != x.shape[:1]:
            raise SettingsError(
                f"the model gives predictions of shape {list(jnp.shape(prediction))} for a batch of {x.shape[0]}; the "
                "first axis must be that of the examples, one row for each."
            )
        return prediction, loss(prediction, y).total

    return jax.jit(both)
