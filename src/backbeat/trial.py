"""Whether model, loss and data fit together: found by tracing, before anything is computed or compiled."""

from __future__ import annotations

import math
from typing import Any

import jax

from .data import Dataset
from .errors import BackbeatError, SettingsError
from .losses import Loss
from .models import BUILT_IN, Model, RandomModel, check_examples_apart, explain, forward


def tried(model: Model, loss: Loss, dataset: Dataset, params: Any, n_outputs: int) -> tuple[Dataset, bool, int]:
    """Returns the data as the model takes it, and what `trial` says of it.

    Whole numbers as inputs are numbers to most networks, and numbers of tokens to one that begins with an embedding,
    which refuses any others: such a one gets them as they are.
    """
    try:
        return dataset, *trial(model, loss, dataset, params, n_outputs)
    except SettingsError:
        whole = dataset.as_whole()
        if whole is None:
            raise
        try:
            return whole, *trial(model, loss, whole, params, n_outputs)
        except SettingsError:
            pass
        raise


def check_apart(model: Model, loss: Loss, dataset: Dataset, params: Any, seed: int) -> None:
    """Refuses a model or a loss of the user's own that mixes the examples of a batch; those built in never do.

    Args:
        model: f_θ.
        loss: ℓ.
        dataset: whose first examples are looked at.
        params: θ, None for the initial ones of the seed.
        seed: see there.

    Raises:
        SettingsError: it does.
    """
    if not isinstance(model, BUILT_IN) or loss.kind == "other":
        params = model.init(jax.random.key(seed)) if params is None else params
        check_examples_apart(model, loss, params, dataset.x[:16], dataset.y[:16])


def trial(model: Model, loss: Loss, dataset: Dataset, params: Any, n_outputs: int) -> tuple[bool, int]:
    """Returns (every example counts exactly 1, numbers kept of one example), by tracing the loss without computing it.

    Whatever does not fit between model, data and loss shows here, before anything is compiled.
    """
    x, y = dataset.x[:2], dataset.y[:2]
    try:
        shapes = jax.eval_shape(model.init, jax.random.key(0)) if params is None else jax.eval_shape(lambda: params)
        keys = jax.random.split(jax.random.key(0), len(x)) if isinstance(model, RandomModel) else None
        found: dict[str, Any] = {}

        def losses(params: Any, x: Any, y: Any) -> Any:
            found["prediction"] = forward(model, params, x, keys)
            found["losses"] = loss(found["prediction"], y)
            return found["losses"].total

        jaxpr = jax.make_jaxpr(losses)(shapes, x, y)
    except BackbeatError:
        raise
    except Exception as error:  # a model or a loss of the user's own may raise anything
        raise SettingsError(explain(error, f"the model with the loss {loss}", (len(x), *x.shape[1:]))) from error
    classes = found["prediction"].shape[-1:]
    if loss.kind == "classification" and classes < (n_outputs,):
        raise SettingsError(
            f"the model gives {classes[0]} numbers for an example, but the labels run to {n_outputs - 1}; it needs "
            f"{n_outputs} outputs, one for each class."
        )
    kept = sum(
        math.prod(v.aval.shape)
        for eqn in jaxpr.eqns
        for v in eqn.outvars
        if getattr(v.aval, "shape", ())[:1] == (len(x),)
    )
    plain = found["losses"].count is None and dataset.weight is None
    return plain, max(1, (kept + x.size) // len(x))
