"""Flax NNX with Optax, the loop that one writes by hand: a jitted update, called once a batch.

The form is that of Flax's performance guide: the modules are split into a graph and a state once, and a pure function
of the state is compiled (`jax.jit`, its state donated), which leaves out what `nnx.jit` does in Python at every call.
The data is on the device; a batch's indices are given to the update, which gathers inside. Losses are kept.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .jax_networks import mean_loss, rule
from .task import CNN, HEADS, LAYERS, LENGTH, LOGISTIC, NORM_EPSILON, TRANSFORMER, VOCABULARY, WIDTH, Task, Weights


class Dense(nnx.Module):
    """Linear layers with a ReLU between."""

    def __init__(self, sizes: tuple[int, ...], rngs: nnx.Rngs) -> None:
        self.dense = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])

    def __call__(self, x: Any) -> Any:
        for layer in self.dense[:-1]:
            x = nnx.relu(layer(x))
        return self.dense[-1](x)


class Convolutional(nnx.Module):
    """Two convolutions of 3×3, each with a ReLU and a 2×2 maximum, then a linear layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.List([nnx.Conv(1, 8, (3, 3), rngs=rngs), nnx.Conv(8, 16, (3, 3), rngs=rngs)])
        self.dense = nnx.List([nnx.Linear(7 * 7 * 16, 10, rngs=rngs)])

    def __call__(self, x: Any) -> Any:
        x = x[..., None]
        for layer in self.conv:
            x = nnx.max_pool(nnx.relu(layer(x)), (2, 2), (2, 2))
        return self.dense[0](x.reshape(len(x), -1))


class Block(nnx.Module):
    """Attention to what came before, then two linear layers, each behind a norm."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.List([nnx.LayerNorm(WIDTH, epsilon=NORM_EPSILON, rngs=rngs) for _ in range(2)])
        self.qkv, self.out = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs), nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, h: Any) -> Any:
        parts = jnp.split(self.qkv(self.norm[0](h)), 3, axis=-1)
        q, k, v = (one.reshape(*one.shape[:2], HEADS, -1) for one in parts)
        h = h + self.out(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(h.shape))
        return h + self.down(nnx.gelu(self.up(self.norm[1](h))))


class Transformer(nnx.Module):
    """Characters in, logits of each next one out."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.token, self.position = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs), nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.block = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(WIDTH, epsilon=NORM_EPSILON, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VOCABULARY, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        h = self.token(x) + self.position(jnp.arange(LENGTH))
        for block in self.block:
            h = block(h)
        return self.head(self.norm(h))


def _module(task: Task) -> Any:
    rngs = nnx.Rngs(0)
    if task.network == TRANSFORMER:
        return Transformer(rngs)
    if task.network == CNN:
        return Convolutional(rngs)
    return Dense((64, 1) if task.network == LOGISTIC else task.sizes, rngs)


def _places(module: Any, names: Weights, path: str = "") -> dict[str, Any]:
    """Returns the layers that hold weights, by their names in the layout of the task."""
    made = {}
    for name, inside in names.items():
        if name == "embed":
            made |= {"embed/token": module.token, "embed/position": module.position}
            continue
        kind, _, number = name.partition("_")
        layer = getattr(module, kind)[int(number)] if number else getattr(module, name)
        leaves = all(isinstance(value, np.ndarray) for value in inside.values())
        made |= {path + name: layer} if leaves else _places(layer, inside, f"{path}{name}/")
    return made


_NAMES = {"weight": "kernel"}


class Loop:
    """The state of model and optimizer, and the compiled update."""

    def __init__(self, task: Task) -> None:
        self.task, self.module, self.generator = task, _module(task), np.random.default_rng(0)
        for path, layer in _places(self.module, task.weights()).items():
            inside = _inside(task.weights(), path)
            for name, value in inside.items() if isinstance(inside, dict) else {"embedding": inside}.items():
                getattr(layer, _NAMES.get(name, name))[...] = jnp.array(value)
        optimizer = nnx.Optimizer(self.module, rule(task), wrt=nnx.Param)
        self.graph, self.state = nnx.split((self.module, optimizer))
        self.x, self.y = map(jnp.asarray, task.data())
        self.order = np.arange(task.n_examples, dtype=np.int32)
        self.update = jax.jit(partial(_update, task, self.graph), donate_argnums=0)

    def train(self, n_updates: int) -> int:
        task, losses = self.task, []
        while len(losses) < n_updates:
            if task.shuffled and not task.whole:
                self.order = self.generator.permutation(task.n_examples).astype(np.int32)
            for row in self.order.reshape(-1, task.batch):
                self.state, loss = self.update(self.state, self.x, self.y, row)
                losses.append(loss)
                if len(losses) == n_updates:
                    break
        jax.block_until_ready(self.state)
        assert np.isfinite(losses[-1])
        return n_updates

    def weights(self) -> Weights:
        module, _ = nnx.merge(self.graph, self.state)
        layers = _places(module, self.task.weights())

        def taken(names: Weights, path: str) -> Weights:
            return {
                name: taken(value, f"{path}{name}/")
                if isinstance(value, dict)
                else _value(layers.get(path + name) or layers[path[:-1]], name)
                for name, value in names.items()
            }

        return taken(self.task.weights(), "")


def _value(layer: Any, name: str) -> np.ndarray:
    return np.array(layer.embedding if hasattr(layer, "embedding") else getattr(layer, _NAMES.get(name, name)))


def _inside(weights: Weights, path: str) -> Any:
    for name in path.split("/"):
        weights = weights[name]
    return weights


def _update(task: Task, graph: Any, state: Any, x: Any, y: Any, row: Any) -> tuple[Any, Any]:
    module, optimizer = nnx.merge(graph, state)
    batch = (x, y) if task.whole else (x[row], y[row])
    loss, gradient = nnx.value_and_grad(lambda m: mean_loss(task, m(batch[0]), batch[1]))(module)
    optimizer.update(module, gradient)
    return nnx.state((module, optimizer)), loss


def prepare(task: Task) -> Loop:
    """Returns the task made ready."""
    return Loop(task)
