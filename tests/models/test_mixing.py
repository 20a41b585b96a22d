"""What mixes the examples of a batch is found, whichever way it mixes; what keeps them apart is not suspected."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.errors import SettingsError
from backbeat.losses import cross_entropy, loss_for, squared_error
from backbeat.models import Functions, cnn, mlp
from backbeat.models.mixing import check_examples_apart

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype(np.float32)
Y = RNG.normal(size=(6, 4)).astype(np.float32)


def applied(function: Any) -> Functions:
    return Functions(lambda key: jnp.ones(()), lambda params, x: params * function(x))


MIXES = {
    "mean": lambda x: x - x.mean(axis=0),
    "batch normalisation": lambda x: (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-3),
    "those before": lambda x: jnp.cumsum(x, axis=0),
    "those behind": lambda x: jnp.cumsum(x[::-1], axis=0)[::-1],
    "neighbour": lambda x: x + 1e-6 * jnp.roll(x, 1, axis=0),
    "softmax over the batch": lambda x: jax.nn.softmax(x, axis=0),
    "attention over the batch": lambda x: jax.nn.softmax(x @ x.T) @ x,
    "largest": lambda x: x / jnp.abs(x).max(),
}
APART = {
    "layer normalisation": lambda x: (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True),
    "softmax": lambda x: jax.nn.softmax(x, axis=1),
    "cumulative": lambda x: jnp.cumsum(x, axis=1),
    "not finite": lambda x: jnp.log(-jnp.abs(x)),
}


@pytest.mark.parametrize("how", MIXES)
def test_a_model_that_mixes_is_refused(how: str):
    with pytest.raises(SettingsError, match=r"^the model mixes the examples of a batch: [^\n]*\.$"):
        check_examples_apart(applied(MIXES[how]), squared_error(), jnp.ones(()), X, Y)


@pytest.mark.parametrize("how", APART)
def test_a_model_that_keeps_them_apart_is_not(how: str):
    check_examples_apart(applied(APART[how]), squared_error(), jnp.ones(()), X, Y)


def test_built_in_networks_keep_them_apart():
    images = RNG.normal(size=(5, 8, 8)).astype(np.float32)
    for network in (mlp((16,)), cnn((4,))):
        model = network.build((8, 8), 10)
        params = model.init(jax.random.key(0))
        check_examples_apart(model, cross_entropy(), params, images, np.arange(5, dtype=np.int32))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda p, y: ((p - y) ** 2).sum(axis=1) / jnp.abs(p).max(), id="scaled by the largest"),
        pytest.param(lambda p, y: jnp.full(len(p), ((p - y) ** 2).mean()), id="mean"),
        pytest.param(lambda p, y: -jnp.diag(jax.nn.log_softmax(p @ y.T)), id="contrastive"),
    ],
)
def test_a_loss_that_mixes_is_refused(function: Any):
    with pytest.raises(SettingsError, match=r"^the loss \S+ mixes the examples of a batch: [^\n]*\.$"):
        check_examples_apart(applied(lambda x: x), loss_for(function), jnp.ones(()), X, Y)


def test_tokens_stay_whole_numbers():
    table = RNG.normal(size=(11, 4)).astype(np.float32)
    tokens, y = RNG.integers(0, 11, (6, 5)).astype(np.int32), np.arange(6, dtype=np.int32) % 4
    model = Functions(lambda key: jnp.asarray(table), lambda params, x: params[x].mean(axis=1))
    check_examples_apart(model, cross_entropy(), jnp.asarray(table), tokens, y)
    mixed = Functions(model.init_function, lambda params, x: params[x].mean(axis=(0, 1)) + params[x].mean(axis=1))
    with pytest.raises(SettingsError, match="the model mixes"):
        check_examples_apart(mixed, cross_entropy(), jnp.asarray(table), tokens, y)


def test_few_or_equal_examples_are_enough_or_nothing_to_compare():
    mixes = applied(MIXES["mean"])
    check_examples_apart(mixes, squared_error(), jnp.ones(()), X[:1], Y[:1])  # a batch of one is all there is
    with pytest.raises(SettingsError, match="the model mixes"):
        check_examples_apart(mixes, squared_error(), jnp.ones(()), X[:2], Y[:2])
    with pytest.raises(SettingsError, match="the model mixes"):
        check_examples_apart(mixes, squared_error(), jnp.ones(()), X[[0, 1, 1, 1, 2]], Y[:5])


def test_the_first_axis_is_that_of_the_examples():
    for function in (lambda x: x.T, lambda x: x.reshape(-1), lambda x: x.sum()):
        with pytest.raises(SettingsError, match=r"for a batch of 3; the first axis must be that of the examples"):
            check_examples_apart(applied(function), squared_error(), jnp.ones(()), X, Y)


def test_what_cannot_be_applied_is_one_sentence():
    def decides(x: Any) -> Any:
        return x if x.sum() > 0 else -x

    with pytest.raises(SettingsError) as caught:
        check_examples_apart(applied(decides), squared_error(), jnp.ones(()), X, Y)
    sentence, line = str(caught.value), decides.__code__.co_firstlineno + 1
    assert sentence.startswith(
        f"the model decides by the values in an array while it runs (test_mixing.py, line {line})"
    )
    assert "\n" not in sentence
