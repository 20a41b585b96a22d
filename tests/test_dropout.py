"""Random numbers in training: what is drawn for an example depends on the seed, the update and the example alone."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbeat as bb
from backbeat.compare.sweep import Together
from backbeat.config import Settings, resolve
from backbeat.stretch import example_keys

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 4)).astype(np.float32), RNG.normal(size=23).astype(np.float32)
WEIGHT = RNG.uniform(0.5, 2, 23).astype(np.float32)
RATE = 0.05


@dataclass(frozen=True)
class Dropped:
    """A linear network on inputs of which each is dropped with probability ½."""

    def init(self, key: Any) -> Any:
        return {"w": jnp.full(4, 0.3)}

    def apply(self, params: Any, x: Any) -> Any:
        return x @ params["w"]

    def apply_random(self, params: Any, x: Any, keys: Any) -> Any:
        return (x * 2 * jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (4,)))(keys).astype(x.dtype)) @ params["w"]


def trained(data: tuple = (X, Y), **settings: Any) -> np.ndarray:
    given = {"every": 6, "order": "as given", "held_out": 0, "duration": "3 epochs", "learning_rate": RATE, "seed": 7}
    return np.asarray(bb.fit(Dropped(), data, **{**given, **settings}).theta)


def by_hand(every: int, updates: int, weight: np.ndarray, seed: int = 7) -> np.ndarray:
    """The same training written another way: one example at a time, in float64, masks from the keys' definition."""
    w, done = np.full(4, 0.3), 0
    key = jax.random.fold_in(jax.random.key(seed), 0x6472617E)
    while done < updates:
        for start in range(0, len(X), every):
            gradient, total = np.zeros(4), 0.0
            for i in range(start, min(start + every, len(X))):
                own = jax.random.fold_in(jax.random.fold_in(key, done), i)
                x = X[i].astype(np.float64) * 2 * np.asarray(jax.random.bernoulli(own, 0.5, (4,)))
                gradient, total = gradient + weight[i] * (x @ w - Y[i]) * x, total + weight[i]
            w, done = w - RATE * gradient / total, done + 1
            if done == updates:
                break
    return w


# float32 sums of 23 products against float64, over 12 updates: 2e-6 was the most that was seen
CLOSE: dict = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("every", [1, 6, 23])
@pytest.mark.sample(2)
def test_training_is_that_of_keys_by_seed_update_and_example(every: int):
    plain = by_hand(every, 12, np.ones(23))
    np.testing.assert_allclose(trained(every=every, duration="12 updates"), plain, **CLOSE)
    weighted = by_hand(every, 12, WEIGHT)
    np.testing.assert_allclose(trained((X, Y, WEIGHT), every=every, duration="12 updates"), weighted, **CLOSE)


@pytest.mark.parametrize("block", [1, 2, 4, 5])
@pytest.mark.sample(2)
def test_the_split_of_a_batch_does_not_change_what_is_dropped(block: int):
    np.testing.assert_allclose(trained(block=block), trained(), **CLOSE)
    np.testing.assert_allclose(trained(every="dataset", block=block), trained(every="dataset"), **CLOSE)


def test_another_seed_drops_others_and_the_same_seed_the_same():
    assert (trained() == trained()).all()
    assert not np.allclose(trained(), trained(seed=8), rtol=1e-3)


def test_the_whole_data_set_is_dropped_anew_at_each_update():
    keys = [example_keys(jnp.array([0, 7], jnp.uint32), jnp.int32(u), jnp.arange(5)) for u in range(2)]
    drawn = np.stack([jax.random.key_data(k) for k in keys])
    assert len(np.unique(drawn.reshape(-1, 2), axis=0)) == 10


def test_evaluation_and_prediction_drop_nothing():
    run = bb.fit(Dropped(), (X, Y), every=6, held_out=0.2, duration="2 epochs", learning_rate=RATE)
    w = np.asarray(run.params["w"], np.float64)
    np.testing.assert_allclose(run.predict(X), X @ w, rtol=1e-5, atol=1e-6)
    part = run.job.split.held_out
    mean = 0.5 * np.mean((X[part] @ w - Y[part]) ** 2)
    assert run.history["held_out_loss_mean"][-1] == pytest.approx(mean, rel=1e-5)


def test_a_sweep_drops_what_single_runs_drop():
    settings = Settings(every=5, held_out=0.2, duration="9 updates", learning_rate=RATE, evaluate="never")
    jobs = [resolve(Dropped(), (X, Y), replace(settings, seed=seed)) for seed in (1, 2)]
    together = Together(jobs, [RATE, 2 * RATE], jobs[0].device_data())
    together.advance(9)
    swept = np.asarray(together.states[0].params["w"])[:, 0]
    for seed, w in zip((1, 2), swept, strict=True):
        alone = trained(every=5, held_out=0.2, duration="9 updates", order="reshuffled", seed=seed)
        np.testing.assert_allclose(w, alone, **CLOSE)


def test_updates_on_the_same_batch_draw_anew():
    """Two updates on each of 23 examples: the second one sees another mask, by its own number."""
    w, key, done = np.full(4, 0.3), jax.random.fold_in(jax.random.key(7), 0x6472617E), 0
    for i in range(23):
        for _ in range(2):
            own = jax.random.fold_in(jax.random.fold_in(key, done), i)
            x = X[i].astype(np.float64) * 2 * np.asarray(jax.random.bernoulli(own, 0.5, (4,)))
            w, done = w - RATE * (x @ w - Y[i]) * x, done + 1
    cadence = bb.every(1).repeat(until="loss<0.0000000001", at_most=2)
    np.testing.assert_allclose(trained(every=cadence, duration="46 updates"), w, rtol=1e-4, atol=1e-5)
