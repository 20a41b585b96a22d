"""Keras 3 models: losses and gradients against Keras's own loss through jax.grad and its own train_on_batch."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from backbeat.errors import SettingsError
from backbeat.models import RandomModel, model_for
from backbeat.run import fit

BATCH, UPDATES, RATE = 4, 6, 0.05
layers = keras.layers


def dense() -> Any:
    return keras.Sequential([layers.Input((6,)), layers.Dense(8, activation="tanh"), layers.Dense(3)])


def convolutional() -> Any:
    return keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(3),
    ])  # fmt: skip


def recurrent() -> Any:
    return keras.Sequential([layers.Input((5,)), layers.Embedding(11, 8), layers.LSTM(7), layers.Dense(3)])


KINDS = {"rows": dense, "images": convolutional, "tokens": recurrent}


def of(kind: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    return data[kind](channels_first=False) if kind == "images" else data[kind]()


def seeded(make: Any) -> Any:
    keras.utils.set_random_seed(0)
    return make()


def by_name(model: Any, values: Any = None) -> dict[str, np.ndarray]:
    values = [variable.value for variable in model.trainable_variables] if values is None else values
    names = [f"{k}/{variable.name}" for k, variable in enumerate(model.trainable_variables)]
    return dict(zip(names, map(np.asarray, values), strict=True))


@pytest.fixture(autouse=True)
def _as_keras_promotes():
    """Keras's own fit and losses, the oracle here, mix types of numbers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(2)
def test_loss_and_gradient_are_those_of_keras(kind: str, data: Any, agrees: Any):
    model = seeded(KINDS[kind])
    x, y = of(kind, data)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def own(x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        rest = [variable.value for variable in model.non_trainable_variables]

        def own_loss(weights: Any) -> Any:
            return loss_of(y, model.stateless_call(weights, rest, x)[0])

        loss, gradients = jax.jit(jax.value_and_grad(own_loss))(
            [variable.value for variable in model.trainable_variables]
        )
        return float(loss), by_name(model, gradients)

    agrees(type("Case", (), {"model": model, "x": x, "y": y, "own": staticmethod(own)}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(2)
def test_training_is_that_of_keras(kind: str, data: Any, trains: Any):
    model, theirs = seeded(KINDS[kind]), seeded(KINDS[kind])
    x, y = of(kind, data)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(optimizer=keras.optimizers.SGD(RATE), loss=loss)
    for update in range(UPDATES):
        part = slice(update * BATCH % len(x), update * BATCH % len(x) + BATCH)
        theirs.train_on_batch(x[part], y[part])
    run = trains(model, x, y, by_name(theirs), lambda model, x: np.asarray(model(x)))
    assert run.job.model.trained(run.params) is model


class Dropped(keras.Model):
    def __init__(self, *, always: bool = False) -> None:
        super().__init__()
        self.drop, self.always = layers.Dropout(0.5), always
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.scale * self.drop(x, training=training or self.always)


def test_dropout_is_keyed_by_example(drops: Any, data: Any, refused: Any):
    drops(Dropped())
    drops(lambda: Dropped())
    assert not isinstance(model_for(seeded(dense), (6,), 3), RandomModel)
    refused(Dropped(always=True), data["rows"]()[0], "random numbers in evaluation mode too")


def test_batch_normalisation_is_refused_and_trained_with_frozen_statistics(data: Any, refused: Any):
    x, y = data["rows"]()
    model = keras.Sequential([layers.Input((6,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(3)])
    assert "set its trainable=False" in refused(model, x, "(BatchNormalization) normalises by the statistics")
    model(x, training=True)  # statistics that are not 0 and 1
    model.layers[1].trainable = False
    before = np.asarray(model.layers[1].moving_mean.value)
    assert np.abs(before).max() > 0
    run = fit(model, (x, y), every=3, held_out=0.0, duration="1 epoch")
    assert len(run.params) == 4
    mine: Any = run.job.model
    np.testing.assert_allclose(mine.trained(run.params)(x), run.predict_raw(x), rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(model.layers[1].moving_mean.value, before)


def test_what_keras_would_do_beside_the_loss_is_refused(data: Any, refused: Any):
    x, _ = data["rows"]()
    decayed = keras.Sequential([layers.Input((6,)), layers.Dense(3, kernel_regularizer="l2")])
    refused(decayed, x, "adds losses of its own")

    class Adding(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = layers.Dense(3)

        def call(self, x: Any) -> Any:
            self.add_loss(keras.ops.mean(x))
            return self.out(x)

    class Counting(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = layers.Dense(3)
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

        def call(self, x: Any) -> Any:
            self.calls.assign_add(1.0)
            return self.out(x)

    class Unseeded(Counting):
        def call(self, x: Any) -> Any:
            return self.out(keras.random.dropout(x, 0.5))

    refused(Adding(), x, "adds losses of its own")
    refused(Counting(), x, "/calls while it runs")
    refused(Unseeded(), x, "draws random numbers without a seed")


def test_a_model_is_built_for_the_data(data: Any):
    x, y = data["rows"]()
    model = keras.Sequential([layers.Dense(8, activation="tanh"), layers.Dense(3)])
    run = fit(model, (x, y), every=3, held_out=0.0, duration="1 epoch")
    assert run.params["0/kernel"].shape == (6, 8)
    mine: Any = run.job.model
    np.testing.assert_allclose(mine.trained(run.params)(x), run.predict_raw(x), rtol=2e-5, atol=2e-6)


def test_a_factory_makes_new_weights_for_each_seed(data: Any):
    for factory in (dense, lambda: keras.Sequential([layers.Dense(8), layers.Dense(3)])):
        model = model_for(factory, (6,), 3)
        first, again, other = (model.init(jax.random.key(seed))["0/kernel"] for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.01
        assert model == model_for(factory, (6,), 3)
    x, y = data["rows"]()
    run = fit(dense, (x, y), every=3, held_out=0.0, duration="1 epoch")
    mine: Any = run.job.model
    np.testing.assert_allclose(mine.trained(run.params)(x), run.predict_raw(x), rtol=2e-5, atol=2e-6)


def test_a_changed_model_is_not_taken_for_the_one_before():
    model = keras.Sequential([layers.Input((6,)), layers.Dense(4), layers.Dropout(0.5), layers.Dense(3)])
    first = model_for(model, (6,), 3)
    assert first == model_for(model, (6,), 3)
    model.layers[0].kernel.assign(model.layers[0].kernel.value * 2)  # the program takes it as it comes
    assert first == model_for(model, (6,), 3)
    model.layers[1].rate = 0.25
    second = model_for(model, (6,), 3)
    assert first != second
    model.layers[0].trainable = False
    assert second != model_for(model, (6,), 3)


def test_the_model_is_untouched_until_the_weights_are_put_back(data: Any):
    x, y = data["rows"]()
    model = seeded(dense)
    before = by_name(model)
    run = fit(model, (x, y), every=3, held_out=0.0, duration="2 epochs")
    for name, value in by_name(model).items():
        np.testing.assert_array_equal(value, before[name])
        assert np.abs(np.asarray(run.params[name]) - value).max() > 0
    mine: Any = run.job.model
    with pytest.raises(SettingsError, match="are not of Keras Sequential"):
        mine.trained({"0/kernel": np.zeros((2, 2))})


def test_another_backend_is_refused_in_one_sentence():
    code = (
        "import numpy as np, keras\n"
        "from backbeat.models import model_for\n"
        "try: model_for(keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3)]), (6,), 3)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("SettingsError Keras runs on numpy, but backbeat needs JAX; set KERAS_BACKEND=jax")


def test_if_on_values_is_refused_with_its_line(data: Any, refused: Any):
    class Deciding(Dropped):
        def call(self, x: Any) -> Any:
            return self.scale * x if jnp.sum(x) > 0 else x

    assert "(test_keras.py, line " in refused(Deciding(), data["rows"]()[0], "decides by the values")
