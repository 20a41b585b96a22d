"""Flax NNX modules: split into a graph and its variables, merged again inside the traced function."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import SettingsError
from .adapted import Adapted, Parts, Read, Weights, adapted, digest
from .refusal import changes, mixes
from .source import Source, needed


def nnx_model(source: Source) -> Adapted:
    """Returns the model of a Flax NNX module; its weights, all `nnx.Param`, are named by their path.

    Other variables (statistics, a custom kind for frozen weights) stay as they are. Training uses the module as it is,
    so `deterministic=True` of a dropout layer switches it off; evaluation sets `deterministic` and
    `use_running_average` of all layers. Random streams start from the example's own key.

    Raises:
        SettingsError: a module that changes its variables in training, as batch normalisation does.
    """
    nnx = needed("flax.nnx", "a Flax NNX model")
    module = source.first
    name = source.name or f"Flax NNX {type(module).__name__}"
    _refuse(nnx, module, name)
    evaluation = nnx.clone(module)
    evaluation.set_attributes(deterministic=True, use_running_average=True, raise_if_not_found=False)
    modes = {True: _split(nnx, module), False: _split(nnx, evaluation)}

    def run(params: Weights, x: Array, key: Array, training: bool) -> Any:
        graph, weights, streams, rest = modes[training]
        weights = [(path, variable.replace(params[_named(path)])) for path, variable in weights]
        given = [*weights, *_started(nnx, streams, key), *rest]
        # copied, since a variable of another trace must not be changed in this one
        merged = nnx.merge(graph, nnx.from_flat_state(given), copy=True)
        out = merged(x)
        _refuse_changes(nnx, name, given, merged)
        return out

    mode = re.sub(r" at 0x[0-9a-f]+", "", repr(modes[True][0]))  # functions by name: a factory makes them anew

    def write(one: Any, params: Weights) -> Any:
        return _write(nnx, one, params)

    only_if = "where its deterministic is False"
    return adapted(source, Parts(name, lambda one: _read(nnx, one), run, write, mode, only_if))


def _split(nnx: Any, module: Any) -> tuple:
    """Returns the graph and flat states (path, variable) of the weights, of random streams and of all the rest."""
    graph, *states = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graph, *(list(nnx.to_flat_state(state)) for state in states)


def _named(path: tuple) -> str:
    return "/".join(map(str, path))


def _started(nnx: Any, streams: list, key: Array) -> list:
    """Returns random streams that start from an example's key, each differently."""
    made = []
    for place, (path, variable) in enumerate(streams):
        if isinstance(variable, nnx.RngKey):
            own = jax.random.fold_in(key, place)
            value = jax.random.split(own, variable[...].shape) if variable[...].shape else own
        else:
            value = jnp.zeros_like(variable[...])
        made.append((path, variable.replace(value)))
    return made


def _refuse(nnx: Any, module: Any, name: str) -> None:
    for path, layer in nnx.iter_modules(module):
        if isinstance(layer, nnx.BatchNorm) and not layer.use_running_average:
            frozen = "set its use_running_average=True"
            raise SettingsError(mixes(name, f"{_named(path)} (BatchNorm)", frozen, "nnx.GroupNorm or nnx.LayerNorm"))


def _refuse_changes(nnx: Any, name: str, given: list, merged: Any) -> None:
    """Refuses a module that wrote to variables: they would be lost. Random streams move on, as they must."""
    now = dict(nnx.to_flat_state(nnx.state(merged)))
    for path, variable in given:
        if path in now and now[path][...] is not variable[...] and not isinstance(variable, nnx.RngState):
            raise SettingsError(changes(name, f"{_named(path)} ({type(variable).__name__})"))


def _read(nnx: Any, module: Any) -> Read:
    _, weights, _, rest = _split(nnx, module)
    return Read(
        {_named(path): jnp.asarray(variable[...]) for path, variable in weights},
        digest((_named(path), np.asarray(variable[...])) for path, variable in rest),
    )


def _write(nnx: Any, module: Any, params: Weights) -> Any:
    _, weights, *_ = _split(nnx, module)
    trained = [(path, variable.replace(jnp.asarray(params[_named(path)]))) for path, variable in weights]
    nnx.update(module, nnx.from_flat_state(trained))
    return module
