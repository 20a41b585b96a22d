"""Equinox modules: losses and gradients are eqx.filter_value_and_grad's, training is optax's on Equinox's own loop."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from backbeat.errors import SettingsError
from backbeat.models import RandomModel, model_for
from backbeat.run import fit

BATCH, UPDATES, RATE = 4, 6, 0.05


def dense(key: Any) -> eqx.Module:
    return eqx.nn.MLP(6, 3, 8, 1, activation=jnp.tanh, key=key)


class Convolutional(eqx.Module):
    conv: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    out: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        one, two = jax.random.split(key)
        self.conv, self.pool = eqx.nn.Conv2d(1, 4, 3, key=one), eqx.nn.MaxPool2d(2, 2)
        self.out = eqx.nn.Linear(36, 3, key=two)

    def __call__(self, x: Any) -> Any:
        return self.out(self.pool(jax.nn.relu(self.conv(x))).reshape(-1))


class Recurrent(eqx.Module):
    cell: eqx.nn.LSTMCell
    out: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        one, two = jax.random.split(key)
        self.cell, self.out = eqx.nn.LSTMCell(3, 7, key=one), eqx.nn.Linear(7, 3, key=two)

    def __call__(self, x: Any) -> Any:
        start = (jnp.zeros(7), jnp.zeros(7))
        (hidden, _), _ = jax.lax.scan(lambda state, each: (self.cell(each, state), None), start, x)
        return self.out(hidden)


class Transformer(eqx.Module):
    embed: eqx.nn.Embedding
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    out: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        one, two, three = jax.random.split(key, 3)
        self.embed, self.norm = eqx.nn.Embedding(11, 8, key=one), eqx.nn.LayerNorm(8)
        self.attention, self.out = eqx.nn.MultiheadAttention(2, 8, key=two), eqx.nn.Linear(8, 3, key=three)

    def __call__(self, x: Any) -> Any:
        x = jax.vmap(self.embed)(x)
        return self.out(jax.vmap(self.norm)(x + self.attention(x, x, x)).mean(axis=0))


KINDS = {"rows": dense, "images": Convolutional, "series": Recurrent, "tokens": Transformer}


def of(kind: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    return data[kind](channels_first=True) if kind == "images" else data[kind]()


def own_loss(module: Any, x: Any, y: Any) -> Any:
    logits = jax.vmap(module)(jnp.asarray(x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(y)).mean()


@eqx.filter_jit
def own_forward(module: Any, x: Any) -> Any:
    return jax.vmap(module)(x)


def by_name(module: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(module, eqx.is_inexact_array))
    return {
        "/".join(str(getattr(k, "name", getattr(k, "idx", None))) for k in path): np.asarray(a) for path, a in leaves
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(2)
def test_loss_and_gradient_are_those_of_equinox(kind: str, data: Any, agrees: Any):
    module = KINDS[kind](jax.random.key(0))
    x, y = of(kind, data)

    def own(x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        loss, gradients = eqx.filter_jit(eqx.filter_value_and_grad(own_loss))(module, x, y)
        return float(loss), by_name(gradients)

    agrees(type("Case", (), {"model": module, "x": x, "y": y, "own": staticmethod(own)}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(2)
def test_training_is_that_of_equinox(kind: str, data: Any, trains: Any):
    module = theirs = KINDS[kind](jax.random.key(0))
    x, y = of(kind, data)
    rule = optax.sgd(RATE)
    state, own_gradient = rule.init(eqx.filter(theirs, eqx.is_inexact_array)), eqx.filter_jit(eqx.filter_grad(own_loss))
    for update in range(UPDATES):
        part = slice(update * BATCH % len(x), update * BATCH % len(x) + BATCH)
        change, state = rule.update(own_gradient(theirs, x[part], y[part]), state)
        theirs = eqx.apply_updates(theirs, change)
    run = trains(module, x, y, by_name(theirs), own_forward)
    made: Any = run.job.model
    assert jax.tree.structure(made.trained(run.params)) == jax.tree.structure(module)


class Dropped(eqx.Module):
    weight: jax.Array
    drop: eqx.nn.Dropout

    def __init__(self) -> None:
        self.weight, self.drop = jnp.ones(()), eqx.nn.Dropout(0.5)

    def __call__(self, x: Any, key: Any = None) -> Any:
        return self.weight * self.drop(x, key=key)


def test_dropout_is_keyed_by_example(drops: Any, refused: Any):
    drops(Dropped())
    drops(Dropped)
    assert not isinstance(model_for(eqx.nn.inference_mode(Dropped()), (6,), 6), RandomModel)
    assert not isinstance(model_for(dense(jax.random.key(0)), (6,), 3), RandomModel)  # takes a key, needs none

    class Forgot(Dropped):
        def __call__(self, x: Any) -> Any:
            return self.weight * self.drop(x)

    forgot: Any = Forgot
    refused(forgot(), np.ones((2, 6), np.float32), "give its __call__ an argument key=None")


def test_what_has_a_state_or_draws_in_evaluation_is_refused(data: Any, refused: Any):
    class Normalised(eqx.Module):
        linear: eqx.nn.Linear
        norm: eqx.nn.BatchNorm

        def __init__(self, key: Any) -> None:
            self.linear = eqx.nn.Linear(6, 3, key=key)
            self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")

        def __call__(self, x: Any, state: Any) -> Any:
            return self.norm(self.linear(x), state)

    class Noisy(Dropped):
        def __call__(self, x: Any, key: Any = None) -> Any:
            return self.weight * x + jax.random.normal(key, x.shape)

    x, _ = data["rows"]()
    refused(Normalised(jax.random.key(0)), x, "has a layer with a state (BatchNorm)")
    refused(eqx.nn.make_with_state(Normalised)(jax.random.key(0))[0], x, "use equinox.nn.GroupNorm or LayerNorm")
    noisy: Any = Noisy
    refused(noisy(), x, "random numbers in evaluation mode too")
    refused(Transformer(jax.random.key(0)), x, "cannot be applied to inputs of shape [12, 6]: Indexer must have")


def test_a_factory_gets_the_seeds_key(data: Any):
    x, y = data["rows"]()
    model = model_for(dense, (6,), 3)
    weights = model.init(jax.random.key(5))
    np.testing.assert_array_equal(weights["layers/0/weight"], by_name(dense(jax.random.key(5)))["layers/0/weight"])
    assert np.abs(weights["layers/0/weight"] - model.init(jax.random.key(6))["layers/0/weight"]).max() > 0.01
    assert model == model_for(dense, (6,), 3)
    run = fit(lambda key: eqx.nn.MLP(6, 3, 8, 1, key=key), (x, y), every=3, held_out=0.0, duration="1 epoch")
    made: Any = run.job.model
    np.testing.assert_allclose(jax.vmap(made.trained(run.params))(jnp.asarray(x)), run.predict_raw(x), atol=1e-5)
    with pytest.raises(SettingsError, match=r"'in_size', which the data does not tell.*lambda: MLP"):
        model_for(eqx.nn.MLP, (6,), 3)


def test_whole_numbers_are_kept(data: Any):
    class Scaled(eqx.Module):
        linear: eqx.nn.Linear
        columns: jax.Array
        shift: np.ndarray

        def __call__(self, x: Any) -> Any:
            return self.linear(x[self.columns] + self.shift.astype(np.float32))

    x, y = data["rows"]()
    shift = np.arange(6)
    module = Scaled(eqx.nn.Linear(6, 3, key=jax.random.key(0)), jnp.arange(6)[::-1], shift)
    first = model_for(module, (6,), 3)
    assert first == model_for(module, (6,), 3)
    run = fit(module, (x, y), every=3, held_out=0.0, duration="1 epoch")
    assert sorted(run.params) == ["linear/bias", "linear/weight"]
    made: Any = run.job.model
    trained = made.trained(run.params)
    np.testing.assert_array_equal(trained.shift, shift)
    np.testing.assert_allclose(jax.vmap(trained)(jnp.asarray(x)), run.predict_raw(x), atol=1e-5)
    shift[0] = 7
    assert first != model_for(module, (6,), 3)
