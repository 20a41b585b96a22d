"""Equinox modules: a tree of arrays and a function of one example, as Equinox has it, mapped over the batch."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import SettingsError
from .adapted import Adapted, Parts, Read, Weights, adapted, digest
from .source import Source, needed


def equinox_model(source: Source) -> Adapted:
    """Returns the model of an Equinox module; its weights, all float arrays in it, are named by their path.

    The module is called with one example, and in training with its `key=` where it takes one; evaluation is
    `equinox.nn.inference_mode`. Arrays of whole numbers stay as they are.

    Raises:
        SettingsError: stateful layers, such as batch normalisation.
    """
    eqx = needed("equinox", "an Equinox model")
    module = source.first
    name = source.name or f"Equinox {type(module).__name__}"
    _refuse(eqx, module, name)
    weights, training = eqx.partition(module, eqx.is_inexact_array)
    modes = {True: training, False: eqx.nn.inference_mode(training)}
    names, structure = list(_leaves(weights)), jax.tree.structure(weights)
    takes_key = "key" in inspect.signature(type(module).__call__).parameters

    def run(params: Weights, x: Array, key: Array, training: bool) -> Any:
        whole = jax.tree.unflatten(structure, [params[name] for name in names])
        merged = eqx.combine(whole, modes[training])
        if not takes_key:
            return jax.vmap(merged)(x)
        return jax.vmap(lambda one: merged(one, key=key))(x)

    def write(one: Any, params: Weights) -> Any:
        whole = jax.tree.unflatten(structure, [jnp.asarray(params[name]) for name in names])
        return eqx.combine(whole, eqx.partition(one, eqx.is_inexact_array)[1])

    return adapted(source, Parts(name, lambda one: _read(eqx, one), run, write, (), "unless its inference is True"))


def _leaves(tree: Any) -> Weights:
    """Returns the arrays of a tree by the names of their paths, such as "layers/0/weight"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _refuse(eqx: Any, module: Any, name: str) -> None:
    def stateful(node: Any) -> bool:
        return isinstance(node, (eqx.nn.StateIndex, eqx.nn.StatefulLayer))

    found = [type(node).__name__ for node in jax.tree.leaves(module, is_leaf=stateful) if stateful(node)]
    if found:
        raise SettingsError(
            f"{name} has a layer with a state ({found[0]}), which no update would keep, and batch normalisation makes "
            "an example's loss depend on the others; use equinox.nn.GroupNorm or LayerNorm, or put the layer with its "
            "state into a module that calls it with equinox.nn.inference_mode, to keep the statistics that it has."
        )


def _read(eqx: Any, module: Any) -> Read:
    weights, rest = eqx.partition(module, eqx.is_inexact_array)
    arrays = eqx.filter(rest, eqx.is_array_like)
    return Read(_leaves(weights), digest((n, np.asarray(a)) for n, a in _leaves(arrays).items()))
