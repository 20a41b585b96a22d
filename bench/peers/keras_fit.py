"""Keras 3, `Model.fit` on arrays, on the backend that KERAS_BACKEND names.

`jit_compile` stays at "auto", which compiles the update on JAX and not on PyTorch. `steps_per_execution` is what its
documentation gives for small models: on JAX 32 updates are made in one call; on PyTorch, which compiles nothing, it
gains nothing and stays at 1. No progress bar, no callbacks, no validation.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from .task import (
    BETAS,
    CNN,
    EPSILON,
    HEADS,
    LAYERS,
    LENGTH,
    LOGISTIC,
    MOMENTUM,
    NORM_EPSILON,
    TRANSFORMER,
    VOCABULARY,
    WIDTH,
    Task,
    Weights,
    part,
)

_PER_CALL = 32


def _transformer() -> Any:
    layers = keras.layers
    x: Any = layers.Input((LENGTH,), dtype="int32")
    zero: Any = keras.ops.zeros_like(x)
    places = zero + keras.ops.arange(LENGTH, dtype="int32")
    h: Any = layers.Embedding(VOCABULARY, WIDTH, name="token")(x) + layers.Embedding(LENGTH, WIDTH, name="position")(
        places
    )
    for k in range(LAYERS):
        norm = layers.LayerNormalization(epsilon=NORM_EPSILON, name=f"block_{k}-norm_0")(h)
        attention = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"block_{k}-attention")
        h = h + attention(norm, norm, use_causal_mask=True)
        norm = layers.LayerNormalization(epsilon=NORM_EPSILON, name=f"block_{k}-norm_1")(h)
        up = layers.Dense(4 * WIDTH, _gelu, name=f"block_{k}-up")(norm)
        h = h + layers.Dense(WIDTH, name=f"block_{k}-down")(up)
    h = layers.LayerNormalization(epsilon=NORM_EPSILON, name="norm")(h)
    return keras.Model(x, layers.Dense(VOCABULARY, name="head")(h))


def _gelu(x: Any) -> Any:
    return keras.activations.gelu(x, approximate=True)


def _network(task: Task) -> Any:
    layers = keras.layers
    if task.network == TRANSFORMER:
        return _transformer()
    if task.network == CNN:
        made: list[Any] = [layers.Input((28, 28)), layers.Reshape((28, 28, 1))]
        for k, width in enumerate((8, 16)):
            made += [layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv_{k}")]
            made += [layers.MaxPooling2D(2)]
        return keras.Sequential([*made, layers.Flatten(), layers.Dense(10, name="dense_0")])
    inputs, *widths = (64, 1) if task.network == LOGISTIC else task.sizes
    made = [layers.Input((inputs,))]
    for k, width in enumerate(widths):
        made.append(layers.Dense(width, "relu" if k < len(widths) - 1 else None, name=f"dense_{k}"))
    return keras.Sequential(made)


def _rule(task: Task) -> Any:
    if task.optimizer == "adam":
        return keras.optimizers.Adam(task.gamma, *BETAS, epsilon=EPSILON)
    return keras.optimizers.SGD(task.gamma, momentum=MOMENTUM if task.optimizer == "momentum" else 0.0)


def _loss(task: Task) -> Any:
    if task.network == LOGISTIC:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Fit:
    """Calls of `Model.fit`, each going on where the one before ended."""

    def __init__(self, task: Task) -> None:
        self.task, self.model, (self.x, self.y) = task, _network(task), task.data()
        if task.network == LOGISTIC:
            self.y = self.y.astype(np.float32)[:, None]
        for name, weights in task.weights().items():
            self._set(name, weights)
        per_call = _PER_CALL if keras.backend.backend() == "jax" else 1
        self.model.compile(_rule(task), _loss(task), steps_per_execution=min(per_call, task.n_batches))

    def _set(self, name: str, weights: Weights) -> None:
        if name == "embed":
            for table, value in weights.items():
                self.model.get_layer(table).set_weights([value])
        elif not name.startswith("block"):
            self.model.get_layer(name).set_weights(list(weights.values()))
        else:
            heads = (WIDTH, HEADS, WIDTH // HEADS)
            kernels = [kernel.reshape(heads) for kernel in np.split(weights["qkv"]["weight"], 3, axis=1)]
            biases = [bias.reshape(heads[1:]) for bias in np.split(weights["qkv"]["bias"], 3)]
            out = [weights["out"]["weight"].reshape(HEADS, WIDTH // HEADS, WIDTH), weights["out"]["bias"]]
            pairs = [one for pair in zip(kernels, biases, strict=True) for one in pair]
            self.model.get_layer(f"{name}-attention").set_weights([*pairs, *out])
            for layer in ("norm_0", "norm_1", "up", "down"):
                self.model.get_layer(f"{name}-{layer}").set_weights(list(weights[layer].values()))

    def train(self, n_updates: int) -> int:
        task = self.task
        n, n_epochs = part(task, n_updates)
        shuffle = task.shuffled and not task.whole
        seen = self.model.fit(
            self.x[:n], self.y[:n], batch_size=task.batch, epochs=n_epochs, shuffle=shuffle, verbose=0
        )
        assert np.isfinite(seen.history["loss"]).all()
        return n // task.batch * n_epochs

    def weights(self) -> Weights:
        return {name: self._get(name, weights) for name, weights in self.task.weights().items()}

    def _get(self, name: str, weights: Weights) -> Weights:
        if name == "embed":
            return {table: self.model.get_layer(table).get_weights()[0] for table in weights}
        if not name.startswith("block"):
            return dict(zip(weights, self.model.get_layer(name).get_weights(), strict=True))
        *pairs, out, out_bias = self.model.get_layer(f"{name}-attention").get_weights()
        kernels = [kernel.reshape(WIDTH, WIDTH) for kernel in pairs[::2]]
        made: Weights = {
            "qkv": {
                "weight": np.concatenate(kernels, axis=1),
                "bias": np.concatenate([bias.reshape(-1) for bias in pairs[1::2]]),
            },
            "out": {"weight": out.reshape(WIDTH, WIDTH), "bias": out_bias},
        }
        for layer in ("norm_0", "norm_1", "up", "down"):
            made[layer] = dict(zip(weights[layer], self.model.get_layer(f"{name}-{layer}").get_weights(), strict=True))
        return made


def prepare(task: Task) -> Fit:
    """Returns the task made ready."""
    return Fit(task)
