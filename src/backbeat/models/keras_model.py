"""Keras 3 models on the JAX backend, called in a `StatelessScope`; Keras's own `fit` and optimizers are not used."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import SettingsError
from .adapted import Adapted, Parts, Read, Weights, adapted, digest, plain_attributes
from .refusal import changes, mixes
from .source import Source, needed

_LOSSES = (
    "adds losses of its own (a regulariser, add_loss), which backbeat would leave out; remove them, and give "
    "weight_decay= instead where that is meant."
)


def keras_model(source: Source) -> Adapted:
    """Returns the model of a Keras 3 model or layer; its weights are named by position, "0/kernel", "1/bias", ...

    It is built for the data's inputs if it was not. What is not trainable stays as it is. Training calls it with
    `training=True`, with its random numbers from the example's own key; evaluation with `training=False`.

    Raises:
        SettingsError: another backend than JAX, losses of its own, statistics that change in training, as those of
            batch normalisation do.
    """
    keras = needed("keras", "a Keras model")
    if keras.backend.backend() != "jax":
        raise SettingsError(
            f"Keras runs on {keras.backend.backend()}, but backbeat needs JAX; set KERAS_BACKEND=jax in the "
            "environment before keras is imported."
        )
    model = _built(source, source.first)
    name = source.name or f"Keras {type(model).__name__}"
    names = _names(model)
    others = model.non_trainable_variables
    seeds = [variable.name == "seed_generator_state" for variable in others]
    fixed = [jnp.array(variable.value) for variable in others]
    if model.losses:
        raise SettingsError(f"{name} {_LOSSES}")

    def run(params: Weights, x: Array, key: Array, training: bool) -> Any:
        weights = [params[one] for one in names]
        rest = [_seed(key, k) if seeds[k] else value for k, value in enumerate(fixed)]
        given = [*zip(model.trainable_variables, weights, strict=True), *zip(others, rest, strict=True)]
        scope = keras.StatelessScope(state_mapping=given, collect_losses=True)
        with jax.numpy_dtype_promotion("standard"), scope:  # as Keras's own operations promote
            out = model(x, training=training)
            losses = model.losses
        if losses:
            raise SettingsError(f"{name} {_LOSSES}")
        for variable, value, drawn in zip(others, rest, seeds, strict=True):
            if scope.get_current_value(variable) is not value and not drawn:
                _refuse_change(keras, model, name, variable)
        return out

    mode = tuple((type(layer).__qualname__, _settings(layer)) for layer in _layers(model))

    def write(one: Any, params: Weights) -> Any:
        return _write(_built(source, one), params)

    return adapted(source, Parts(name, lambda one: _read(_built(source, one)), run, write, mode, "if training"))


def _built(source: Source, model: Any) -> Any:
    """Returns a model that has its weights: one that was never called is called once, on zeros."""
    if not model.built:
        with jax.numpy_dtype_promotion("standard"):
            model(jnp.zeros((1, *source.input_shape)))
    return model


def _names(model: Any) -> list[str]:
    """Returns the names of the weights: Keras's own count up from model to model of one process."""
    return [f"{k}/{variable.name}" for k, variable in enumerate(model.trainable_variables)]


def _layers(model: Any) -> list[Any]:
    """Returns a model and all the layers inside it."""
    return list(model._flatten_layers())


def _settings(layer: Any) -> tuple:
    """Returns a layer's settings, such as a rate; without its name and what Keras notes of its use."""
    return tuple(pair for pair in plain_attributes(layer) if pair[0] != "name" and not pair[0].startswith("_"))


def _seed(key: Array, place: int) -> Array:
    """Returns the state of a random generator that starts from an example's key."""
    return jax.random.key_data(jax.random.fold_in(key, place)).reshape(-1)[-2:]


def _refuse_change(keras: Any, model: Any, name: str, changed: Any) -> None:
    """Refuses a model for a variable that it changed."""
    norms = [layer for layer in _layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        if any(changed is variable for variable in layer.non_trainable_variables):
            frozen, instead = "set its trainable=False", "keras.layers.GroupNormalization or LayerNormalization"
            raise SettingsError(mixes(name, f"{layer.name} (BatchNormalization)", frozen, instead))
    raise SettingsError(changes(name, changed.path))


def _read(model: Any) -> Read:
    weights = [jnp.array(variable.value) for variable in model.trainable_variables]
    rest = [v for v in model.non_trainable_variables if v.name != "seed_generator_state"]
    return Read(dict(zip(_names(model), weights, strict=True)), digest((v.name, np.asarray(v.value)) for v in rest))


def _write(model: Any, params: Weights) -> Any:
    for name, variable in zip(_names(model), model.trainable_variables, strict=True):
        variable.assign(jnp.asarray(params[name]))
    return model
