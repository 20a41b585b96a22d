"""The learning-rate range test: what it leaves behind (nothing), what it finds, and what it refuses."""

import json
import math
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import backbeat as bb
from backbeat.cli import run as command
from backbeat.config import Settings, resolve
from backbeat.data import Packed
from backbeat.errors import SettingsError
from backbeat.estimator import BackbeatClassifier
from backbeat.events import Finished, Started, StretchDone
from backbeat.rate_range import FACTOR, RateRange, range_test

RNG = np.random.default_rng(0)
N = 70
X = RNG.normal(size=(N, 5)).astype(np.float32)
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(np.int32)
WEIGHT = RNG.uniform(0.5, 2, N).astype(np.float32)
VALUES = (X @ RNG.normal(size=5) + 0.1 * RNG.normal(size=N)).astype(np.float32)
POINT = (lambda key: {"theta": jnp.zeros(())}, lambda params, x: params["theta"] + 0 * x[:, 0])


@dataclass(frozen=True)
class Dropped:
    """A linear classifier of two classes on inputs of which each is dropped with probability ½."""

    def init(self, key: Any) -> Any:
        return {"w": 0.1 * jax.random.normal(key, (5, 2))}

    def apply(self, params: Any, x: Any) -> Any:
        return x @ params["w"]

    def apply_random(self, params: Any, x: Any, keys: Any) -> Any:
        return (x * 2 * jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (5,)))(keys).astype(x.dtype)) @ params["w"]


def bowl(curvature: float) -> Any:
    """Returns the loss ½ c (θ − y)², whose gradient descent is known: θ − 1 shrinks by 1 − γ c at each update."""
    return lambda prediction, label: 0.5 * curvature * (prediction - label) ** 2


ONES = (X, np.ones(N, np.float32))


def found(model: Any = POINT, data: Any = ONES, **settings: Any) -> RateRange:
    given = {"every": "dataset", "loss": bowl(1.0), "held_out": 0.0, "learning_rate": "auto", **settings}
    return range_test(resolve(model, data, Settings.given(given)))


def updates(model: Any, data: Any, params: Any = None, **settings: Any) -> tuple[float, np.ndarray, Any]:
    """Returns (its learning rate, the loss of every update's batch before it, the final state) of a run."""
    rate, losses, end = math.nan, [], None
    for event in bb.train(model, data, params=params, **settings):
        if isinstance(event, Started):
            rate = event.about["learning_rate"]
        if isinstance(event, StretchDone):
            losses.append(event.losses)
        end = event
    assert isinstance(end, Finished)
    return rate, np.concatenate(losses), end.state


def same_bits(a: Any, b: Any) -> bool:
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


RUNS: dict[str, dict[str, Any]] = {
    "one example": {"every": 1, "optimizer": "momentum"},
    "all examples": {"every": "dataset", "optimizer": "adam"},
    "carried batches": {"every": 30, "short_batch": "carry", "optimizer": "lion", "clip": 1.0},
    "blocks": {"every": 32, "block": 5, "weight_decay": 0.01, "optimizer": "adamw"},
    "with replacement": {"every": 8, "order": "with replacement", "optimizer": "nesterov"},
    "as given": {"every": 8, "order": "as given", "optimizer": "adagrad"},
    "a schedule": {"every": 8, "schedule": "cosine", "warm_up": "3 updates"},
    "more and more examples": {"duration": "3 epochs", "every": "8 then 32 after 2 epochs", "optimizer": optax.adam},
    "watched": {"every": 8, "watch_noise": True, "watch_gradient": True},
    "example weights": {"every": 8, "data": (X, Y, WEIGHT)},
    "values": {"every": 8, "data": (X, VALUES)},
    "given weights": {"every": 8, "model": "linear", "params": {"dense_0": {"weight": X[:5, :2], "bias": X[0, :2]}}},
    "dropout": {"every": 8, "model": Dropped()},
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.sample(4)
def test_the_run_is_that_of_the_same_rate_given_bit_for_bit(name: str):
    given = {"model": "mlp:4", "data": (X, Y), "held_out": 0.1, "duration": "6 epochs", "seed": 3, **RUNS[name]}
    model, data, params = given.pop("model"), given.pop("data"), given.pop("params", None)
    before = jax.tree.map(np.array, params)
    rate, losses, state = updates(model, data, params, **given, learning_rate="auto")
    assert rate > 0
    _, expected, end = updates(model, data, params, **given, learning_rate=rate)
    assert losses.tobytes() == expected.tobytes()
    assert same_bits(state, end)
    assert params is None or same_bits(before, params)


def test_examples_in_files_give_the_same_rate_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    given = {"every": 8, "duration": "3 epochs", "learning_rate": "auto"}
    here = bb.fit("mlp:4", tmp_path / "d.npz", **given)
    monkeypatch.setenv("BACKBEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules["backbeat.data.load"], "larger_than_memory", lambda source, memory: True)
    there = bb.fit("mlp:4", tmp_path / "d.npz", **given, memory="2 GB")
    assert isinstance(there.job.dataset.x, Packed)
    assert there.job.learning_rate == here.job.learning_rate
    again = bb.fit("mlp:4", tmp_path / "d.npz", **{**given, "learning_rate": here.job.learning_rate}, memory="2 GB")
    assert same_bits(there.params, again.params)


def test_it_is_deterministic_and_draws_nothing_from_global_generators():
    before = np.random.get_state(legacy=True)[1].tolist()  # pyright: ignore
    one, two = (found(data=(X, RNG_VALUES), every=4, order=order) for order in ("reshuffled", "reshuffled"))
    assert (one.learning_rate, one.rates, one.loss, one.high) == (two.learning_rate, two.rates, two.loss, two.high)
    assert np.random.get_state(legacy=True)[1].tolist() == before  # pyright: ignore


RNG_VALUES = (1 + 0.3 * RNG.normal(size=N)).astype(np.float32)


def test_the_curve_is_that_of_the_closed_form():
    """Gradient descent on ½ (θ − 1)² from θ = 0, 8 updates with each rate: the loss is ½ (1 − γ)¹⁶."""
    curve = found()
    rates = np.array(curve.rates)
    expected = 0.5 * (1 - rates) ** 16
    assert (curve.repeats, curve.updates_each, curve.first_loss) == (1, 8, 0.5)
    np.testing.assert_allclose(rates[1:] / rates[:-1], FACTOR, rtol=1e-12)
    # float32: near 1 θ has an error of 1e-7, so |1 − θ| has, and the loss is half its square; where γ > 2 it grows
    np.testing.assert_allclose(np.sqrt(curve.low), np.sqrt(expected), rtol=1e-4, atol=2e-7)
    assert curve.low == curve.loss == curve.high
    last = rates[expected <= expected.min() + 0.02 * (0.5 - expected.min())].max()
    assert curve.lowest == last
    assert curve.learning_rate == pytest.approx(last / FACTOR, rel=0.05)
    assert curve.rises == rates[rates > 2][0]  # (1 − γ)¹⁶ > 1


@pytest.mark.parametrize(("every", "n_each"), [(8, 64), (32, 16), (1, 128), (64, 8)])
def test_the_curve_is_that_of_a_training_written_out(every: int, n_each: int):
    """In the order as given the batches are known: each rate has 512 examples, but 8 to 128 updates."""
    curve = found(data=(X, RNG_VALUES, WEIGHT), every=every, order="as given")
    assert (curve.updates_each, curve.repeats) == (n_each, 1)
    y, w = RNG_VALUES.astype(np.float64), WEIGHT.astype(np.float64)
    batches = [slice(start, start + every) for start in range(0, N, every)]
    expected = []
    for rate in curve.rates:
        theta = 0.0 if rate < 1.5 else np.nan
        for done in range(n_each):
            batch = batches[done % len(batches)]
            theta -= rate * np.average(theta - y[batch], weights=w[batch])
        expected.append(0.5 * np.average((theta - y) ** 2, weights=w))
    # float32 against float64 over at most 128 updates that contract; above 1.5 they hardly do, and errors stay
    stable = np.array(curve.rates) < 1.5
    assert stable.sum() > 4
    np.testing.assert_allclose(np.array(curve.low)[stable], np.array(expected)[stable], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("power", [-12, 10])
@pytest.mark.sample(1)
def test_a_steeper_loss_gives_a_rate_as_much_lower(power: int):
    """The rates of the first look are a factor 4 apart, so that a loss 4^k times as steep gives the same curve."""
    plain, steep = found(every=16, data=(X, RNG_VALUES)), found(
        every=16, data=(X, RNG_VALUES), loss=bowl(4.0**power)
    )  # fmt: skip
    # both are rounded to two digits, 5 % at the most
    assert steep.learning_rate * 4.0**power == pytest.approx(plain.learning_rate, rel=0.1)
    assert steep.lowest * 4.0**power == pytest.approx(plain.lowest)


def test_the_rate_is_one_below_the_last_that_is_about_the_lowest():
    curve = found("mlp:8", "digits", every=32, loss="cross_entropy")
    loss = np.array(curve.loss)
    near = loss <= loss.min() + 0.02 * (curve.first_loss - loss.min())
    last = next(k for k in range(int(loss.argmin()), len(loss)) if not near[k + 1])
    assert curve.lowest == curve.rates[last]
    assert curve.learning_rate == pytest.approx(curve.rates[last - 1], rel=0.05)  # two digits
    assert curve.repeats == 3
    assert all(low <= high for low, high in zip(curve.low, curve.high, strict=True))
    assert curve.rises is not None
    assert curve.rises > curve.lowest


def test_the_smallest_batch_of_the_run_is_tested():
    data = (X, RNG_VALUES)
    assert found(every="32 then 4 after 1 epochs", data=data).batch_size == 4
    assert found(every="4 then 32 after 1 epochs", data=data).learning_rate == found(every=4, data=data).learning_rate


def test_a_loss_with_a_bound_and_one_below_zero_have_a_rate():
    bounded = found(loss=lambda p, y: 1 - jnp.exp(-0.5 * (p - y) ** 2))
    assert 0.1 < bounded.learning_rate < 10
    below = found(loss=lambda p, y: 0.5 * (p - y) ** 2 - 3)
    assert below.first_loss == -2.5
    assert 0.3 < below.learning_rate < 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"every": bb.every(4).repeat(until="loss<0.1", at_most=3)}, "repeat"),
        ({"learning_rate": "auto", "schedule": optax.cosine_decay_schedule(1.0, 10)}, "function"),
        ({"optimizer": optax.sgd(0.1)}, "holds its own learning rate"),
        ({"learning_rate": "automatic"}, "automatic.*not a number.*auto"),
    ],
)
def test_what_has_no_rate_to_find_is_refused(settings: dict[str, Any], says: str):
    with pytest.raises(SettingsError, match=says) as error:
        bb.train("linear", (X, Y), **{"learning_rate": "auto", **settings})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        pytest.param(lambda p, y: 1 + 0 * (p - y), "fell with no rate", id="flat"),
        pytest.param(
            lambda p, y: jnp.where(p == 0, 1.0, jnp.inf * (p - y) ** 2),
            "fell with no rate",
            id="a cliff",
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda p, y: jnp.log(p), "before the first update", id="infinite"),
    ],
)
def test_a_loss_that_falls_nowhere_is_refused_in_a_sentence(loss: Any, says: str, tmp_path: Path):
    with pytest.raises(SettingsError, match=says) as error:
        bb.fit(POINT, (X, VALUES), loss=loss, learning_rate="auto", held_out=0.0, run=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_says_records_and_repeats_its_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert command(["train", "--model", "mlp:8", "--lr", "auto", "--for", "2 epochs", "--run", "one"]) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "runs/one/record.json").read_text())
    settings = (tmp_path / "runs/one/settings.toml").read_text()
    started = json.loads((tmp_path / "runs/one/events.jsonl").read_text().splitlines()[0])
    rate = record["rate_range"]["learning_rate"]
    assert f"learning rate {rate:g} chosen by a range test: " in out
    assert record["settings"]["learning_rate"] == "auto"
    assert record["learning_rate"] == tomllib.loads(settings)["learning_rate"] == rate
    assert '# learning_rate was "auto"' in settings
    assert started["rate_range"] == record["rate_range"]
    assert len(record["rate_range"]["rates"]) == len(record["rate_range"]["loss"])
    assert command(["train", "--settings", "runs/one", "--run", "two"]) == 0
    assert "range test" not in capsys.readouterr().out
    one, two = (tmp_path / f"runs/{name}/model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_estimators_find_it_too_and_partial_fit_refuses():
    finder = BackbeatClassifier(hidden=(8,), optimizer="sgd", learning_rate="auto", every=8, random_state=0)
    assert finder.fit(X, Y).score(X, Y) > 0.9
    with pytest.raises(SettingsError, match="partial_fit"):
        finder.partial_fit(X, Y)
