"""A model of another framework as a pure pair: weights by name, and a forward pass that takes them.

An adapter says how to read the weights of the user's object, how to compute with them and how to put them back
(`Parts`); what is common to all stands here. Weights are a flat dict, named as the framework names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.interpreters.partial_eval import dce_jaxpr

from ..errors import BackbeatError, SettingsError
from .refusal import draws, explain
from .source import Source

Weights = dict[str, Any]  # name -> array


class Read(NamedTuple):
    """What is read from a user's object.

    Attributes:
        weights: those that are trained.
        constants: a digest of all else that a compiled program has as it is: frozen weights, statistics.
    """

    weights: Weights
    constants: str


class Parts(NamedTuple):
    """How to use the objects of one framework.

    Attributes:
        name: what a message or a record calls the model.
        read: an object -> its weights.
        run: (weights, x `[batch, ...]`, key, training) -> predictions `[batch, ...]` in training or evaluation mode.
        write: (object, weights) -> the object with these weights.
        mode: what else decides the compiled program: training or evaluation mode, settings of layers.
        only_if: when a layer may draw random numbers, in the framework's words.
    """

    name: str
    read: Callable[[Any], Read]
    run: Callable[[Weights, Array, Array, bool], Any]
    write: Callable[[Any, Weights], Any]
    mode: Hashable
    only_if: str


@dataclass(frozen=True, eq=False)
class Adapted:
    """A model of another framework; `adapted` makes one.

    Two are equal, and share compiled programs, if they come from the same object or factory and have the same
    constants and modes; the weights to start from may differ.

    Attributes:
        source: where the user's object comes from.
        parts: how to use it.
        start: its weights and constants as they were found.
    """

    source: Source = field(repr=False)
    parts: Parts = field(repr=False)
    start: Read = field(repr=False)

    def init(self, key: Array) -> Weights:
        """Returns the weights to start from: the object's own whatever the key, or new ones that a factory makes.

        The seed of a factory is that of the key: `jax.random.key(3)` gives what `torch.manual_seed(3)` gives.

        Raises:
            SettingsError: a factory whose frozen weights or statistics differ from seed to seed.
        """
        if not self.source.makes or isinstance(key, Tracer):  # traced, only the shapes count
            return dict(self.start.weights)
        made = self.parts.read(self.source.make(key))
        shapes = {name: jnp.shape(weight) for name, weight in made.weights.items()}
        if made.constants != self.start.constants or shapes != self._shapes():
            raise SettingsError(
                f"{self} has other frozen weights, statistics or shapes for another seed, but only trained weights "
                "may depend on it; draw the frozen ones from a seed of their own, or give one model instead of a "
                "function."
            )
        return made.weights

    def apply(self, params: Weights, x: Array) -> Array:
        """Returns the predictions of a batch in evaluation mode: without dropout."""
        return self.predictions(params, x, jax.random.key(0), training=False)  # it makes no difference which key

    def trained(self, params: Weights) -> Any:
        """Returns the user's own object with these weights in it; a new object where a factory or a file makes it.

        Raises:
            SettingsError: weights of another model.
        """
        given = {name: np.shape(weight) for name, weight in params.items()}
        if given != self._shapes():
            raise SettingsError(f"these weights are not of {self}: their names or shapes differ; give those of a run.")
        return self.parts.write(self.source.target(), params)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: jnp.shape(weight) for name, weight in self.start.weights.items()}

    def predictions(self, params: Weights, x: Array, key: Array, *, training: bool) -> Array:
        """Returns the predictions of a batch in training or evaluation mode.

        Raises:
            SettingsError: what the model does cannot be compiled, or it gives something else than a row an example.
        """
        try:
            prediction = self.parts.run(params, x, key, training)
        except BackbeatError:
            raise
        except Exception as error:
            raise SettingsError(explain(error, self, jnp.shape(x))) from error
        if not isinstance(prediction, Array):
            raise SettingsError(
                f"{self} gives {_kind(prediction)} instead of one array of predictions; return that array alone, of an "
                "LSTM or GRU for example output[:, -1]."
            )
        if prediction.shape[:1] != x.shape[:1]:
            raise SettingsError(
                f"{self} gives predictions of shape {list(prediction.shape)} for a batch of {x.shape[0]}; the first "
                "axis must be that of the examples, one row for each."
            )
        return prediction

    @property
    def _identity(self) -> Hashable:
        again = self.source
        shapes = tuple(sorted((name, *map(str, shape)) for name, shape in self._shapes().items()))
        return id(again.given), again.input_shape, again.n_outputs, self.start.constants, self.parts.mode, shapes

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __str__(self) -> str:
        return self.source.name or self.parts.name


class AdaptedRandom(Adapted):
    """A model of another framework whose training mode is not its evaluation mode: it has dropout."""

    def apply_random(self, params: Weights, x: Array, keys: Array) -> Array:
        """Returns the predictions of a batch in training mode, each example by itself with its own key."""

        def one(x: Array, key: Array) -> Array:
            return self.predictions(params, x[None], key, training=True)[0]

        return jax.vmap(one)(x, keys)


def adapted(source: Source, parts: Parts) -> Adapted:
    """Returns the model of a user's object; an `AdaptedRandom` where training and evaluation differ.

    Raises:
        SettingsError: what cannot be trained exactly.
    """
    start = parts.read(source.first)
    if not start.weights:
        raise SettingsError(f"{source.name or parts.name} has no weights to train: all are frozen, or there are none.")
    model = Adapted(source, parts, start)
    return AdaptedRandom(source, parts, start) if _differs_in_training(model) else model


def _differs_in_training(model: Adapted) -> bool:
    """Returns whether training mode computes something else than evaluation mode, found by tracing both.

    Inputs are numbers or, where the model refuses those, whole ones such as the numbers of tokens.
    """
    first: SettingsError | None = None
    for dtype in (jnp.float32, jnp.int32):
        x = jax.ShapeDtypeStruct((1, *model.source.input_shape), dtype)
        try:
            (trained, _), (evaluated, draws_too) = (_program(model, x, training=mode) for mode in (True, False))
        except SettingsError as error:
            if error.__cause__ is None:  # refused by us, whatever the inputs are
                raise
            first = first or error
        else:
            if draws_too:
                raise SettingsError(draws(model, model.parts.only_if))
            return trained != evaluated
    assert first is not None
    raise first


def _program(model: Adapted, x: Any, *, training: bool) -> tuple[str, bool]:
    """Returns what a mode computes, as text without what predictions do not depend on, and whether the key matters."""
    closed = jax.make_jaxpr(partial(model.predictions, training=training))(model.start.weights, x, jax.random.key(0))
    jaxpr, used = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return str(jaxpr), used[-1]


def digest(arrays: Iterable[tuple[str, Any]], *words: Any) -> str:
    """Returns the hash of named arrays and of words.

    Example:
        >>> digest([("mean", np.zeros(2))]) == digest([("mean", np.ones(2))])
        False
    """
    found = hashlib.sha256(repr(words).encode())
    for name, array in arrays:
        array = np.ascontiguousarray(array)
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def plain_attributes(thing: object) -> tuple:
    """Returns the attributes of an object that are numbers, text or switches, such as a rate or a mode.

    Example:
        >>> class Layer:
        ...     def __init__(self):
        ...         self.rate, self.weight = 0.5, np.zeros(3)
        >>> plain_attributes(Layer())
        (('rate', '0.5'),)
    """
    kinds = (bool, int, float, str, tuple, type(None))
    return tuple(sorted((name, repr(value)) for name, value in vars(thing).items() if isinstance(value, kinds)))


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list, dict)) else "")
