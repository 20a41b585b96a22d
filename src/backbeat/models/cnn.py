"""A small convolutional network for images: convolution, activation, 2×2 maximum, a few times, then a dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..errors import SettingsError, choose
from .dense import ACTIVATIONS, initial_weight


@dataclass(frozen=True)
class ConvolutionalNetwork:
    """A convolutional network with all shapes known.

    Its parameters are `{"conv_0": {"weight": [kernel, kernel, in, out], "bias": [out]}, ..., "dense_0": {...}}`.
    """

    image: tuple[int, int, int]  # height, width, channels
    channels: tuple[int, ...]
    kernel: int
    activation: str
    n_outputs: int

    def init(self, key: Array) -> dict[str, dict[str, Array]]:
        """Returns initial parameters."""
        keys = jax.random.split(key, len(self.channels) + 1)
        params, before = {}, self.image[2]
        for layer, width in enumerate(self.channels):
            fan_in = self.kernel**2 * before
            weight = initial_weight(keys[layer], (self.kernel, self.kernel, before, width), fan_in, self.activation)
            params[f"conv_{layer}"] = {"weight": weight, "bias": jnp.asarray(np.zeros(width, weight.dtype))}
            before = width
        height, width = (max(1, side // 2 ** len(self.channels)) for side in self.image[:2])
        flat = height * width * before
        weight = initial_weight(keys[-1], (flat, self.n_outputs), flat, "identity")
        params["dense_0"] = {"weight": weight, "bias": jnp.asarray(np.zeros(self.n_outputs, weight.dtype))}
        return params

    def apply(self, params: dict[str, dict[str, Array]], x: Array) -> Array:
        """Returns predictions `[batch, outputs]` of images `[batch, height, width]`, channels last if any."""
        x = x.reshape(x.shape[0], *self.image)
        for layer in range(len(self.channels)):
            conv = params[f"conv_{layer}"]
            x = lax.conv_general_dilated(x, conv["weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = ACTIVATIONS[self.activation](x + conv["bias"])
            if min(x.shape[1:3]) >= 2:
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        dense = params["dense_0"]
        return x.reshape(x.shape[0], -1) @ dense["weight"] + dense["bias"]

    def __str__(self) -> str:
        return f"cnn {self.image} {self.channels}"


@dataclass(frozen=True)
class Cnn:
    """A convolutional network whose image size and outputs come from the data; made by `cnn`."""

    channels: tuple[int, ...]
    kernel: int
    activation: str

    def build(self, input_shape: tuple[int, ...], n_outputs: int) -> ConvolutionalNetwork:
        """Returns the network for images of this shape and this many outputs."""
        if len(input_shape) not in (2, 3):
            raise SettingsError(
                f"cnn needs images [height, width] or [height, width, channels], but one example has the shape "
                f"{list(input_shape)}; reshape the inputs, or use mlp."
            )
        height, width, channels = (*input_shape, 1)[:3]
        if min(height, width) >> len(self.channels) < 1:
            raise SettingsError(
                f"cnn with {len(self.channels)} layers halves the image as many times, but it has only "
                f"{height}×{width} "
                "pixels; give fewer channels."
            )
        return ConvolutionalNetwork((height, width, channels), self.channels, self.kernel, self.activation, n_outputs)

    def __str__(self) -> str:
        name = f"cnn:{','.join(map(str, self.channels))}"
        name += f":{self.activation}" if self.activation != "relu" else ""
        return name if self.kernel == 3 else f"{name}:kernel{self.kernel}"


def cnn(channels: Sequence[int] = (16, 32), kernel: int = 3, activation: str = "relu") -> Any:
    """Returns a small convolutional network: for each entry of `channels` a convolution, an activation, a 2×2 maximum.

    Args:
        channels: how many feature maps each convolution has.
        kernel: the side of the convolutions' windows.
        activation: as in `mlp`.

    Raises:
        SettingsError: widths below 1, an unknown activation; later, examples that are not images.

    Example:
        >>> cnn((4,)).build((8, 8), 10).image
        (8, 8, 1)
    """
    choose("activation", activation, ACTIVATIONS)
    widths = (channels,) if isinstance(channels, int) else tuple(channels)
    if not widths or not all(isinstance(width, int) and width >= 1 for width in (*widths, kernel)):
        raise SettingsError(f"channels={channels!r} and kernel={kernel!r} must be whole numbers of 1 or more.")
    return Cnn(widths, kernel, activation)
