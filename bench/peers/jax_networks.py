"""The networks as plain functions of weights and inputs in JAX; the transformer is also what backbeat is given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from .task import BETAS, CNN, EPSILON, HEADS, LAYERS, LOGISTIC, MOMENTUM, NORM_EPSILON, TRANSFORMER, Task


def rule(task: Task) -> optax.GradientTransformation:
    """Returns the update rule of a task."""
    if task.optimizer == "adam":
        return optax.adam(task.gamma, *BETAS, eps=EPSILON)
    return optax.sgd(task.gamma, momentum=MOMENTUM if task.optimizer == "momentum" else None)


def outputs(task: Task, params: Any, x: Array) -> Array:
    """Returns what a task's network gives for a batch."""
    if task.network == TRANSFORMER:
        return transformer(params, x)
    return convolutional(params, x) if task.network == CNN else dense(params, x)


def mean_loss(task: Task, out: Array, y: Array) -> Array:
    """Returns the mean loss of a batch, by Optax."""
    if task.network == LOGISTIC:
        return optax.sigmoid_binary_cross_entropy(out[:, 0], y.astype(out.dtype)).mean()
    return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()


def dense(params: Any, x: Array) -> Array:
    """Returns x W + b, layer after layer, with a ReLU between."""
    for k in range(len(params)):
        x = x @ params[f"dense_{k}"]["weight"] + params[f"dense_{k}"]["bias"]
        x = jax.nn.relu(x) if k < len(params) - 1 else x
    return x


def convolutional(params: Any, x: Array) -> Array:
    """Returns two convolutions of 3×3, each with a ReLU and a 2×2 maximum, then a dense layer."""
    x = x[..., None]
    for layer in (params["conv_0"], params["conv_1"]):
        x = lax.conv_general_dilated(x, layer["weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + layer["bias"])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(len(x), -1) @ params["dense_0"]["weight"] + params["dense_0"]["bias"]


def transformer(params: Any, x: Array) -> Array:
    """Returns the logits of each next character, `[batch, length, vocabulary]`; norms come before, as in GPT-2."""
    h = params["embed"]["token"][x] + params["embed"]["position"]
    for k in range(LAYERS):
        block = params[f"block_{k}"]
        q, key, value = jnp.split(_linear(block["qkv"], _norm(block["norm_0"], h)), 3, axis=-1)
        q, key, value = (one.reshape(*one.shape[:2], HEADS, -1) for one in (q, key, value))
        mixed = jax.nn.dot_product_attention(q, key, value, is_causal=True)
        h = h + _linear(block["out"], mixed.reshape(h.shape))
        h = h + _linear(block["down"], jax.nn.gelu(_linear(block["up"], _norm(block["norm_1"], h))))
    return _linear(params["head"], _norm(params["norm"], h))


def _linear(layer: Any, x: Array) -> Array:
    return x @ layer["weight"] + layer["bias"]


def _norm(layer: Any, x: Array) -> Array:
    x = x - x.mean(axis=-1, keepdims=True)
    return x * lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + NORM_EPSILON) * layer["scale"] + layer["bias"]


def host(params: Any) -> Any:
    """Returns weights as NumPy arrays."""
    return jax.tree.map(np.asarray, params)
