"""Dense networks: x W + b, layer after layer, with an activation between; `linear` is the one without hidden layers.

Initial weights are normal with variance gain²/inputs, gain² = 2 after a ReLU-like activation (He et al. 2015,
arXiv:1502.01852) and 1 otherwise (LeCun et al. 1998, "Efficient BackProp"); biases are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import SettingsError, choose

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}
_LEAST_DRAW, _LARGE_DRAW = 1 << 13, 1 << 22  # numbers
_SQUARED_GAIN = {"relu": 2.0, "gelu": 2.0, "silu": 2.0}


def initial_weight(key: Array, shape: tuple[int, ...], fan_in: int, activation: str) -> Array:
    """Returns normal weights of variance gain²/fan_in for the activation that follows.

    They are the first of a draw of a power of two, which is the same as a draw of `shape`: a program for such a size
    compiles in a fraction of the time, and serves many shapes.
    """
    n = math.prod(shape)
    size = max(_LEAST_DRAW, 1 << (n - 1).bit_length()) if n <= _LARGE_DRAW else n
    gain = math.sqrt(_SQUARED_GAIN.get(activation, 1.0) / fan_in)
    return _first(jax.random.normal(key, (size,)), shape, gain)


@partial(jax.jit, static_argnums=1)
def _first(values: Array, shape: tuple[int, ...], gain: Any) -> Array:
    return values[: math.prod(shape)].reshape(shape) * gain


@dataclass(frozen=True)
class DenseNetwork:
    """A dense network with all widths known; `sizes` = (inputs, hidden..., outputs).

    Its parameters are `{"dense_0": {"weight": [inputs, outputs], "bias": [outputs]}, ...}`.
    """

    sizes: tuple[int, ...]
    activation: str = "relu"
    bias: bool = True

    def init(self, key: Array) -> dict[str, dict[str, Array]]:
        """Returns initial parameters."""
        params, last = {}, len(self.sizes) - 2
        for layer, key_of_layer in enumerate(jax.random.split(key, last + 1)):
            inputs, outputs = self.sizes[layer : layer + 2]
            activation = "identity" if layer == last else self.activation
            weight = initial_weight(key_of_layer, (inputs, outputs), inputs, activation)
            params[f"dense_{layer}"] = {"weight": weight}
            if self.bias:
                params[f"dense_{layer}"]["bias"] = jnp.asarray(np.zeros(outputs, weight.dtype))
        return params

    def apply(self, params: dict[str, dict[str, Array]], x: Array) -> Array:
        """Returns predictions `[batch, outputs]`; an example of any shape is flattened."""
        return self.apply_tapped(params, x, None)[0]

    def apply_tapped(
        self, params: dict[str, dict[str, Array]], x: Array, taps: list[Array] | None
    ) -> tuple[Array, list[Array]]:
        """Returns the predictions, and what each layer was given, `[batch, inputs]`.

        Args:
            params: θ.
            x: `[batch, ...]`.
            taps: what is added to each layer's x W + b, `[batch, outputs]`; of zeros, the gradient by them is that by
                x W + b itself, example by example. None for nothing.
        """
        x, given = x.reshape(x.shape[0], -1), []
        last = len(self.sizes) - 2
        for layer in range(last + 1):
            dense = params[f"dense_{layer}"]
            given.append(x)
            x = x @ dense["weight"]
            if self.bias:
                x = x + dense["bias"]
            if taps is not None:
                x = x + taps[layer]
            if layer < last:
                x = ACTIVATIONS[self.activation](x)
        return x, given

    def __str__(self) -> str:
        return "-".join(map(str, self.sizes))


@dataclass(frozen=True)
class Mlp:
    """A dense network whose first and last width come from the data; made by `mlp` and `linear`."""

    hidden: tuple[int, ...]
    activation: str = "relu"
    bias: bool = True

    def build(self, input_shape: tuple[int, ...], n_outputs: int) -> DenseNetwork:
        """Returns the network for examples of this shape and this many outputs."""
        return DenseNetwork((math.prod(input_shape), *self.hidden, n_outputs), self.activation, self.bias)

    def __str__(self) -> str:
        name = f"mlp:{','.join(map(str, self.hidden))}" if self.hidden else "linear"
        name += f":{self.activation}" if self.hidden and self.activation != "relu" else ""
        return name if self.bias else f"{name}:nobias"


def mlp(hidden: Sequence[int] = (128,), activation: str = "relu", bias: bool = True) -> Any:
    """Returns a dense network with these hidden layers (a multi-layer perceptron).

    Args:
        hidden: the width of each hidden layer.
        activation: "relu", "gelu", "silu", "tanh", "sigmoid" or "identity", after each hidden layer.
        bias: whether the layers have one.

    Raises:
        SettingsError: a width below 1, or an unknown activation.

    Example:
        >>> str(mlp(hidden=(32,)).build((8, 8), 10))
        '64-32-10'
    """
    choose("activation", activation, ACTIVATIONS)
    widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if not all(isinstance(width, int) and width >= 1 for width in widths):
        raise SettingsError(
            f"hidden={hidden!r} must be whole numbers of 1 or more, one for each hidden layer, for example (128, 64)."
        )
    return Mlp(widths, activation, bias)


def linear(bias: bool = True) -> Any:
    """Returns the network without hidden layers: linear regression, or logistic regression with a cross-entropy.

    Example:
        >>> str(linear().build((4,), 3))
        '4-3'
    """
    return Mlp((), "identity", bias)
