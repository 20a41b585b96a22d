"""What a model is: a pure pair (init, apply), and what makes one once the shape of the data is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jax import Array


@runtime_checkable
class Model(Protocol):
    """A network f_θ as two pure functions; values of it are hashable, so that compiled programs can be reused."""

    def init(self, key: Array) -> Any:
        """Returns initial parameters for a random key."""
        ...

    def apply(self, params: Any, x: Array) -> Array:
        """Returns the predictions of a batch `[batch, ...]`."""
        ...


@runtime_checkable
class RandomModel(Protocol):
    """A network that draws random numbers in training (dropout); `apply` is what it gives without them.

    Each example has a key of its own, made from its index in the data and the update's number, so that neither the
    place of an example in a batch nor the way in which the batch is cut changes what is drawn for it.
    """

    def apply_random(self, params: Any, x: Array, keys: Array) -> Array:
        """Returns the predictions of a batch `[batch, ...]` in training, with a random key for each example."""
        ...


def forward(model: Model, params: Any, x: Array, keys: Array | None) -> Array:
    """Returns the predictions of a batch in training; `keys` are `[batch]`, None where nothing is random."""
    if keys is None:
        return model.apply(params, x)
    assert isinstance(model, RandomModel)
    return model.apply_random(params, x, keys)


@runtime_checkable
class Architecture(Protocol):
    """A network whose first and last width come from the data; `build` gives the model."""

    def build(self, input_shape: tuple[int, ...], n_outputs: int) -> Model:
        """Returns the model for examples of this shape and this many outputs."""
        ...


@dataclass(frozen=True)
class Functions:
    """A user's own (init, apply) pair: `init(key) -> params`, `apply(params, x[batch, ...]) -> predictions`.

    Example:
        >>> import jax.numpy as jnp
        >>> line = Functions(lambda key: {"slope": jnp.zeros(())}, lambda params, x: params["slope"] * x[:, 0])
        >>> line.apply({"slope": jnp.float32(2)}, jnp.ones((3, 1))).tolist()
        [2.0, 2.0, 2.0]
    """

    init_function: Callable[[Array], Any]
    apply_function: Callable[[Any, Array], Array]

    def init(self, key: Array) -> Any:
        """Returns initial parameters for a random key."""
        return self.init_function(key)

    def apply(self, params: Any, x: Array) -> Array:
        """Returns the predictions of a batch."""
        return self.apply_function(params, x)

    def __str__(self) -> str:
        return f"functions {getattr(self.apply_function, '__name__', 'apply')}"
