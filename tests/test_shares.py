"""Batches shared by two devices: the same update as on one, and which examples each of them takes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbeat as bb
from backbeat.advance import Engine
from backbeat.config import Settings, resolve
from backbeat.order import Order
from backbeat.plan import Cursor, Plan
from backbeat.shares import Layout, fetches, n_updates, places
from backbeat.stretch import form_for, rows_for

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 3)).astype(np.float32), RNG.integers(0, 3, 23).astype(np.int32)
WEIGHT = np.where(np.arange(23) % 4 == 0, 0, RNG.uniform(0.5, 2, 23)).astype(np.float32)

# float32 sums of up to 23 terms of order 1, split in two, over up to 92 updates, small enough not to amplify it
ROUNDING: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-6}


def theta(**settings: Any) -> np.ndarray:
    given = {"held_out": 0, "duration": "4 epochs", "evaluate": "never", "learning_rate": 0.05, "optimizer": "momentum"}
    data = settings.pop("data", (X, Y, WEIGHT))
    return np.asarray(bb.fit("mlp:4:tanh", data, **{**given, **settings}).theta)


@pytest.mark.parametrize("every", [1, 2, 5, 8, "dataset"])
@pytest.mark.parametrize("data", [pytest.param((X, Y, WEIGHT), id="weighted"), pytest.param((X, Y), id="plain")])
@pytest.mark.sample(2)
def test_two_devices_make_the_updates_of_one(every: Any, data: tuple):
    one = theta(every=every, data=data)
    for more in ({}, {"block": 2}, {"deterministic": True}):
        np.testing.assert_allclose(theta(every=every, data=data, devices=2, **more), one, **ROUNDING)


def test_the_gradient_is_not_counted_once_for_each_device():
    """Σ x = 28 by two devices; 56 where replicated parameters have JAX add up what is added up again afterwards."""
    x = np.arange(8, dtype=np.float32)[:, None]
    pair = (lambda key: {"w": jnp.zeros(1)}, lambda params, x: x @ params["w"])
    for deterministic in (False, True):
        run = bb.fit(
            pair, (x, np.zeros(8, np.float32)), every="dataset", loss=lambda p, y: p, learning_rate=8.0, held_out=0,
            duration="1 update", devices=2, deterministic=deterministic, optimizer="sgd",
        )  # fmt: skip
        assert float(run.params["w"][0]) == -28.0


def test_watched_noise_and_norms_are_the_same():
    given: dict[str, Any] = {"every": 8, "held_out": 0, "duration": "9 updates"}
    given |= {"watch_noise": True, "watch_gradient": True}
    cases: list[dict[str, Any]] = [{}, {"devices": 2}, {"devices": 2, "deterministic": True}]
    runs = [bb.fit("mlp:4", (X, Y), **given, **more) for more in cases]
    for column in ("gradient_norm_mean", "gradient_trace", "gradient_squared"):
        one, *others = (np.asarray(run.history[column]) for run in runs)
        made = np.isfinite(one)
        for other in others:
            np.testing.assert_allclose(other[made].mean(), one[made].mean(), rtol=1e-4)  # sums of sums of squares


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("n_devices", [1, 2, 3, 5])
@pytest.mark.parametrize("m", [1, 7, 23])
def test_every_place_of_a_batch_is_one_devices(m: int, n_devices: int, deterministic: bool):
    form = form_for(m, 3, plain=True, block=2)
    layout = Layout.of(form, n_devices, 3, deterministic=deterministic)
    each = [[p for where in places(layout, form, k) for p in where.tolist()] for k in range(n_devices)]
    if not deterministic:  # what a last block reaches over into the next share weighs 0
        rows = -(-m // n_devices)
        each = [[p for p in where if p < (k + 1) * rows] for k, where in enumerate(each)]
    assert sorted(p for where in each for p in where if p < m) == list(range(m))


def test_what_is_fetched_is_said_ahead():
    form = form_for(4, 3, plain=True, rows=8)
    stretch = Plan(Order("as given", 0, 8), bb.every(4)).stretch(Cursor(), 2)
    rows = rows_for(form, stretch, 2)
    assert n_updates(form, rows) == 2
    said = [where.tolist() for where in fetches(Layout(2), form, rows, range(1, 2))]
    assert said == [[2, 3], [6, 7]]


def test_the_ordinary_program_is_untouched():
    """One device and no fixed order: nothing of this is in the way."""
    job = resolve("linear", (X, Y), Settings(every=4))
    assert job.team.devices == ()
    assert Engine(job).shared is None
    assert len(jax.devices()) == 2
