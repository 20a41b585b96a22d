"""Flax NNX modules: losses and gradients are nnx.value_and_grad's, training is plain gradient descent of Flax's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from backbeat.errors import SettingsError
from backbeat.models import RandomModel, model_for
from backbeat.run import fit

BATCH, UPDATES, RATE = 4, 6, 0.05


class Dense(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, n_outputs: int = 3) -> None:
        self.layers = nnx.List([nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, n_outputs, rngs=rngs)])

    def __call__(self, x: Any) -> Any:
        return self.layers[1](jnp.tanh(self.layers[0](x)))


class Convolutional(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.out = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), strides=(2, 2))
        return self.out(x.reshape(len(x), -1))


class Recurrent(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(11, 3, rngs=rngs)
        self.rnn = nnx.RNN(nnx.LSTMCell(3, 7, rngs=rngs), rngs=rngs)
        self.out = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(jnp.asarray(self.rnn(self.embed(x)))[:, -1])


KINDS = {"rows": Dense, "images": Convolutional, "tokens": Recurrent}


def of(kind: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    return data[kind](channels_first=False) if kind == "images" else data[kind]()


def own_loss(module: Any, x: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(module(jnp.asarray(x)), jnp.asarray(y)).mean()


@nnx.jit
def own_forward(module: Any, x: Any) -> Any:
    return module(x)


def by_name(state: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(2)
def test_loss_and_gradient_are_those_of_nnx(kind: str, data: Any, agrees: Any):
    module = KINDS[kind](nnx.Rngs(0))
    x, y = of(kind, data)

    def own(x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        loss, gradients = nnx.jit(nnx.value_and_grad(own_loss))(module, x, y)
        return float(loss), by_name(gradients)

    agrees(type("Case", (), {"model": module, "x": x, "y": y, "own": staticmethod(own)}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(2)
def test_training_is_that_of_nnx(kind: str, data: Any, trains: Any):
    module, theirs = KINDS[kind](nnx.Rngs(0)), KINDS[kind](nnx.Rngs(0))
    x, y = of(kind, data)
    rule, own_gradient = nnx.Optimizer(theirs, optax.sgd(RATE), wrt=nnx.Param), nnx.jit(nnx.grad(own_loss))
    for update in range(UPDATES):
        part = slice(update * BATCH % len(x), update * BATCH % len(x) + BATCH)
        rule.update(theirs, own_gradient(theirs, x[part], y[part]))
    expected = by_name(nnx.state(theirs, nnx.Param))
    run = trains(module, x, y, expected, own_forward)
    assert run.job.model.trained(run.params) is module


class Dropped(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(jnp.ones(()))
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.weight[...] * self.drop(x)


class Normalised(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(6, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.norm(self.linear(x))


class Counting(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(6, 3, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros(()))

    def __call__(self, x: Any) -> Any:
        self.calls[...] += 1
        return self.linear(x)


class Noisy(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear, self.rngs = nnx.Linear(6, 3, rngs=rngs), rngs

    def __call__(self, x: Any) -> Any:
        return self.linear(x + jax.random.normal(self.rngs.noise(), x.shape))


def test_dropout_is_keyed_by_example(drops: Any):
    module: Any = Dropped(nnx.Rngs(0))
    drops(module)
    assert int(module.drop.rngs.count[...]) == 0  # the user's own stream has not moved
    drops(Dropped)
    module.eval()
    assert not isinstance(model_for(module, (6,), 6), RandomModel)
    assert not isinstance(model_for(Dense, (6,), 3), RandomModel)
    assert not isinstance(model_for(Recurrent, (5,), 3), RandomModel)  # it draws a state of zeros


def test_batch_normalisation_is_refused_and_trained_with_frozen_statistics(data: Any, refused: Any):
    x, y = data["rows"]()
    module = Normalised(nnx.Rngs(0))
    assert "set its use_running_average=True" in refused(module, x, "norm (BatchNorm) normalises by the statistics")
    module(jnp.asarray(x))  # statistics that are not 0 and 1
    module.norm.use_running_average = True
    before = np.asarray(module.norm.mean[...])
    assert np.abs(before).max() > 0
    theirs = nnx.clone(module)
    gradients = nnx.grad(own_loss)(theirs, x, y)
    run = fit(module, (x, y), every="dataset", held_out=0.0, learning_rate=RATE, duration="1 updates")
    for name, gradient in by_name(gradients).items():
        start = by_name(nnx.state(module, nnx.Param))[name]
        np.testing.assert_allclose(run.params[name], start - RATE * gradient, rtol=2e-5, atol=2e-6)
    mine: Any = run.job.model
    np.testing.assert_array_equal(mine.trained(run.params).norm.mean[...], before)


def test_what_writes_to_its_variables_or_draws_in_evaluation_is_refused(data: Any, refused: Any):
    x, _ = data["rows"]()
    module = Counting(nnx.Rngs(0))
    refused(module, x, "changes calls (Variable) while it runs")
    assert float(module.calls[...]) == 0
    refused(Noisy(nnx.Rngs(0)), x, "random numbers in evaluation mode too")


def test_a_class_takes_rngs_of_the_seed(data: Any):
    x, y = data["rows"]()
    model = model_for(Dense, (6,), 3)
    weights = model.init(jax.random.key(5))
    np.testing.assert_array_equal(weights["layers/0/kernel"], Dense(nnx.Rngs(5)).layers[0].kernel[...])
    assert np.abs(weights["layers/0/kernel"] - model.init(jax.random.key(6))["layers/0/kernel"]).max() > 0.01
    assert model == model_for(Dense, (6,), 3)
    assert jax.eval_shape(model.init, jax.random.key(0))["layers/0/kernel"].shape == (6, 8)
    run = fit(Dense, (x, y), every=3, held_out=0.0, duration="1 epoch")
    mine: Any = run.job.model
    np.testing.assert_allclose(mine.trained(run.params)(jnp.asarray(x)), run.predict_raw(x), atol=1e-5)


def test_a_changed_module_is_not_taken_for_the_one_before():
    module = Normalised(nnx.Rngs(0))
    module.eval()
    first = model_for(module, (6,), 3)
    assert first == model_for(module, (6,), 3)
    module.linear.kernel[...] *= 2  # a weight to start from, which the program takes as it comes
    assert first == model_for(module, (6,), 3)
    module.norm.mean[...] += 1
    assert first != model_for(module, (6,), 3)
    second = model_for(module, (6,), 3)
    module.norm.epsilon = 0.1
    assert second != model_for(module, (6,), 3)


def test_the_module_is_untouched_until_the_weights_are_put_back(data: Any):
    x, y = data["rows"]()
    module = Dense(nnx.Rngs(0))
    before = by_name(nnx.state(module))
    run = fit(module, (x, y), every=3, held_out=0.0, duration="2 epochs")
    for name, value in by_name(nnx.state(module)).items():
        np.testing.assert_array_equal(value, before[name])
        assert np.abs(run.params[name] - value).max() > 0
    mine: Any = run.job.model
    with pytest.raises(SettingsError, match="are not of Flax NNX Dense"):
        mine.trained({"out/kernel": np.zeros((2, 2))})


def test_shared_weights_stay_one(data: Any):
    class Tied(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.one = nnx.Linear(6, 6, use_bias=False, rngs=rngs)
            self.other = nnx.Linear(6, 6, use_bias=False, rngs=rngs)
            self.other.kernel = self.one.kernel
            self.out = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.out(self.other(jnp.tanh(self.one(x))))

    x, y = data["rows"]()
    module, theirs = Tied(nnx.Rngs(0)), Tied(nnx.Rngs(0))
    gradients = by_name(nnx.grad(own_loss)(theirs, x, y))
    run = fit(module, (x, y), every="dataset", held_out=0.0, learning_rate=RATE, duration="1 updates")
    assert sorted(run.params) == ["one/kernel", "out/bias", "out/kernel"]
    expected = theirs.one.kernel[...] - RATE * gradients["one/kernel"]
    np.testing.assert_allclose(run.params["one/kernel"], expected, rtol=2e-5, atol=2e-6)
    mine: Any = run.job.model
    assert mine.trained(run.params).other.kernel is module.one.kernel


def test_if_on_values_is_refused_with_its_line(data: Any, refused: Any):
    class Deciding(Dense):
        def __call__(self, x: Any) -> Any:
            return super().__call__(x) if x.sum() > 0 else -x[:, :3]

    assert "(test_nnx.py, line " in refused(Deciding(nnx.Rngs(0)), data["rows"]()[0], "decides by the values")
    refused(Recurrent(nnx.Rngs(0)).rnn, data["series"]()[0][:, :, :2], "cannot be applied to inputs of shape [1, 5, 2]")
