"""One network, the digits, 64-32-10: from five frameworks and built in, the same weights after the same updates."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

from backbeat.models import mlp
from backbeat.run import fit

SIZES = (64, 32, 10)
Weights = list[tuple[np.ndarray, np.ndarray]]  # [inputs, outputs] and [outputs] of each layer


def weights() -> Weights:
    rng = np.random.default_rng(0)
    return [
        (rng.normal(0, (2 / m) ** 0.5, (m, n)).astype(np.float32), rng.normal(0, 0.1, n).astype(np.float32))
        for m, n in pairwise(SIZES)
    ]


def trained(model: Any, params: Any = None) -> Any:
    settings: Any = {"every": 32, "learning_rate": 0.1, "duration": "100 updates", "order": "shuffled once", "seed": 3}
    return fit(model, "digits", params=params, prepare="none", **settings)


def from_torch(start: Weights) -> Weights:
    import torch  # pyright: ignore[reportMissingImports]  # apart from the lock

    net: Any = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    with torch.no_grad():
        for layer, (weight, bias) in zip((net[0], net[2]), start, strict=True):
            layer.weight.copy_(torch.from_numpy(weight.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias))
    run = trained(torch.nn.Sequential(torch.nn.Flatten(), net))
    run.job.model.trained(run.params)
    return [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in (net[0], net[2])]


def from_nnx(start: Weights) -> Weights:
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.one, self.two = nnx.Linear(64, 32, rngs=rngs), nnx.Linear(32, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.two(nnx.relu(self.one(x.reshape(len(x), -1))))

    net = Net(nnx.Rngs(0))
    for layer, (weight, bias) in zip((net.one, net.two), start, strict=True):
        layer.kernel[...], layer.bias[...] = jnp.asarray(weight), jnp.asarray(bias)  # pyright: ignore[reportOptionalSubscript]
    run = trained(net)
    run.job.model.trained(run.params)
    return [(np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])) for layer in (net.one, net.two)]  # pyright: ignore[reportOptionalSubscript]


def from_equinox(start: Weights) -> Weights:
    class Net(eqx.Module):
        layers: list[eqx.nn.Linear]

        def __call__(self, x: Any) -> Any:
            return self.layers[1](jax.nn.relu(self.layers[0](x.reshape(-1))))

    layers = []
    for weight, bias in start:
        layer = eqx.nn.Linear(*weight.shape, key=jax.random.key(0))
        new = (jnp.asarray(weight.T), jnp.asarray(bias))
        layers.append(eqx.tree_at(lambda one: (one.weight, one.bias), layer, new))
    run = trained(Net(layers))
    return [(np.asarray(layer.weight).T, np.asarray(layer.bias)) for layer in run.job.model.trained(run.params).layers]


def from_keras(start: Weights) -> Weights:
    dense: Any = [keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)]
    net = keras.Sequential([keras.layers.Input((8, 8)), keras.layers.Flatten(), *dense])
    for layer, pair in zip(dense, start, strict=True):
        layer.set_weights(pair)
    run = trained(net)
    run.job.model.trained(run.params)
    return [(np.asarray(layer.kernel.value), np.asarray(layer.bias.value)) for layer in dense]


def from_functions(start: Weights) -> Weights:
    def apply(params: Any, x: Any) -> Any:
        (first, one), (second, two) = params
        return jax.nn.relu(x.reshape(len(x), -1) @ first + one) @ second + two

    return trained((lambda key: jax.tree.map(jnp.asarray, start), apply)).params


def built_in(start: Weights) -> Weights:
    named = {f"dense_{k}": {"weight": weight, "bias": bias} for k, (weight, bias) in enumerate(start)}
    params = trained(mlp(hidden=(32,)), named).params
    return [(layer["weight"], layer["bias"]) for layer in params.values()]


@pytest.fixture(scope="module")
def of_built_in() -> Weights:
    return built_in(weights())


def same(found: Weights, expected: Weights) -> None:
    """100 updates carry rounding on: 1e-7 of each, which a ReLU near 0 or another order of sums can make 1e-5."""
    for own, theirs, start in zip(expected, found, weights(), strict=True):
        for one, other, before in zip(own, theirs, start, strict=True):
            np.testing.assert_allclose(other, one, atol=2e-5)
            assert np.abs(np.asarray(one) - before).max() > 0.01  # it was trained


@pytest.mark.parametrize("of_framework", [from_nnx, from_equinox, from_keras, from_functions])
@pytest.mark.sample(2)
def test_a_framework_gives_the_weights_of_the_built_in(of_framework: Callable, of_built_in: Weights):
    same(of_framework(weights()), of_built_in)


def test_torch_gives_the_weights_of_the_built_in(torch: Any, of_built_in: Weights):
    same(from_torch(weights()), of_built_in)
