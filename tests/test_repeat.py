"""Repeated batches: the closed form on least squares, the bounds, and what was recorded against a plain loop."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.cadence import Cadence, every
from backbeat.done import Run
from backbeat.models import linear
from backbeat.order import Order
from backbeat.run import fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5]) + 0.3 * RNG.normal(size=6)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)
START = {"dense_0": {"weight": np.zeros((3, 1), np.float32)}}
RATE = 0.1


@functools.cache
def regression(cadence: Cadence, duration: str = "2 epochs", weighted: bool = False) -> Run:
    data = (X, Y, WEIGHT) if weighted else (X, Y)
    return fit(linear(bias=False), data, every=cadence, loss="squared_error", learning_rate=RATE, params=START,
               held_out=0.0, evaluate="never", duration=duration, seed=4)  # fmt: skip


WEIGHT = np.array([1, 2, 1, 3, 0.5, 1], np.float32)


def by_hand(m: int, below: float, at_most: int, n_updates: float = math.inf, weighted: bool = False) -> dict[str, list]:
    """Returns what two epochs record: a plain loop in float64, which ends inside a batch after `n_updates`."""
    w, seen = np.zeros(3), {name: [] for name in ("updates", "before", "after", "rest_before", "rest_after")}
    x, y, weights = X.astype(float), Y.astype(float), (WEIGHT if weighted else np.ones(6)).astype(float)

    def mean(rows: Any) -> float:
        return float((weights[rows] * 0.5 * (x[rows] @ w - y[rows]) ** 2).sum() / weights[rows].sum())

    total = 0
    for order in Order("reshuffled", 4, 6).epochs(0, 2):
        for batch in np.split(order, range(m, 6, m)):
            if total >= n_updates:
                break
            rest = np.setdiff1d(np.arange(6), batch)
            seen["before"].append(mean(batch))
            seen["rest_before"].append(mean(rest))
            updates = 0
            while updates < at_most and total < n_updates and mean(batch) >= below:
                share = weights[batch] / weights[batch].sum()
                w = w - RATE * (share * (x[batch] @ w - y[batch])) @ x[batch]
                updates, total = updates + 1, total + 1
            seen["updates"].append(updates)
            seen["after"].append(mean(batch))
            seen["rest_after"].append(mean(rest))
    return {**seen, "w": list(w)}


@pytest.mark.parametrize(("m", "below", "weighted"), [(1, 0.05, False), (4, 0.3, False), (4, 0.3, True)])
def test_counts_losses_and_the_rest_equal_a_plain_loop(m: int, below: float, weighted: bool):
    """float32 sums of six terms against float64: a few units in the last place."""
    run = regression(every(m).repeat(until=f"loss<{below}", at_most=7), weighted=weighted)
    seen = by_hand(m, below, 7, weighted=weighted)
    assert run.repeats is not None
    assert run.repeats["updates"].tolist() == seen["updates"]
    assert len(set(seen["updates"])) > 1  # some are satisfied before the bound
    for name, column in (("batch_loss_before", "before"), ("batch_loss_after", "after"),
                         ("rest_loss_before", "rest_before"), ("rest_loss_after", "rest_after")):  # fmt: skip
        np.testing.assert_allclose(run.repeats[name], seen[column], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(run.theta, seen["w"], rtol=2e-5)
    sizes = [m if (j + 1) % -(-6 // m) or not 6 % m else 6 % m for j in range(len(seen["updates"]))]
    assert (run.clock.updates, run.clock.epochs) == (sum(seen["updates"]), 2.0)
    assert run.clock.examples == sum(np.multiply(seen["updates"], sizes))


@pytest.mark.parametrize("n", [1, 3, 10])
def test_a_residual_shrinks_as_the_closed_form_says(n: int):
    """One example, n updates: r → r(1 − γ|x|²)ⁿ; the loss is r²/2. Rounding of n products: n · 1.2e-7."""
    run = fit(linear(bias=False), (X[:2], Y[:2]), every=every(1).repeat(until="loss<1e-30", at_most=n), params=START,
              loss="squared_error", learning_rate=RATE, held_out=0.0, evaluate="never", duration="0.5 epochs",
              order="as given")  # fmt: skip
    assert run.repeats is not None
    r = Y[0] * (1 - RATE * (X[0].astype(float) @ X[0])) ** n
    assert run.repeats["batch_loss_after"].tolist() == pytest.approx([0.5 * r**2], rel=1e-5)
    assert run.repeats["updates"].tolist() == [n]


@pytest.mark.parametrize("limit", [1, 9, 13])
def test_a_run_ends_inside_a_repeat_where_its_limit_says(limit: int):
    run = regression(every(1).repeat(until="loss<0.05", at_most=7), f"{limit} updates")
    assert run.clock.updates == run.clock.examples == limit
    np.testing.assert_allclose(run.theta, by_hand(1, 0.05, 7, limit)["w"], rtol=2e-5)
    examples = regression(every(1).repeat(until="loss<0.05", at_most=7), f"{limit} examples")
    np.testing.assert_array_equal(examples.theta, run.theta)


def test_satisfied_at_once_makes_no_update_and_does_not_go_on_for_ever():
    run = regression(every(2).repeat(until="loss<1e9", at_most=3), "5 updates")
    assert run.clock.updates == 0
    assert run.reason == "every batch was satisfied for a whole epoch"
    np.testing.assert_array_equal(run.theta, 0)
    bounded = regression(every(2).repeat(until="loss<1e9", at_most=3), "2 epochs")
    assert bounded.reason == "ran for 2 epochs"


def test_until_correct_and_until_a_function_says_so():
    def fit_classes(until: Any) -> Run:
        return fit(linear(), (X, LABELS), every=every(2).repeat(until=until, at_most=50), learning_rate=0.5,
                   held_out=0.0, evaluate="never", duration="3 epochs", seed=4)  # fmt: skip

    def right(prediction: jax.Array, label: jax.Array, losses: jax.Array) -> jax.Array:
        return (prediction.argmax(axis=-1) == label).all()

    correct, function = fit_classes("correct"), fit_classes(right)
    assert correct.repeats is not None
    assert function.repeats is not None
    np.testing.assert_array_equal(correct.repeats["updates"], function.repeats["updates"])
    np.testing.assert_array_equal(correct.theta, function.theta)
    params, updates = correct.params["dense_0"], correct.repeats["updates"]
    last = Order("reshuffled", 4, 6).epochs(2, 1)[0][-2:]
    if updates[-1] < 50:
        assert ((X[last] @ params["weight"] + params["bias"]).argmax(axis=1) == LABELS[last]).all()
    assert updates.max() > 1


@pytest.mark.parametrize("rest", ["none", 3])
def test_what_is_measured_on_the_rest_changes_no_update(rest: Any):
    all_of_them = regression(every(1).repeat(until="loss<0.05", at_most=7))
    other = regression(every(1).repeat(until="loss<0.05", at_most=7, rest=rest))
    np.testing.assert_array_equal(other.theta, all_of_them.theta)
    assert other.repeats is not None
    nothing = np.isnan(other.repeats["rest_loss_after"])
    assert nothing.all() if rest == "none" else not nothing.any()


def test_the_whole_data_set_has_no_rest():
    run = regression(every("dataset").repeat(until="loss<0.01", at_most=4))
    assert run.repeats is not None
    assert run.repeats["updates"].tolist() == [4, 4]
    assert np.isnan(run.repeats["rest_loss_before"]).all()


def test_an_evaluation_inside_does_not_disturb():
    settings = {"every": every(1).repeat(until="loss<0.05", at_most=7), "loss": "squared_error", "params": START,
                "learning_rate": RATE, "held_out": 0.0, "duration": "2 epochs", "seed": 4}  # fmt: skip
    evaluated = fit(linear(bias=False), (X, Y), evaluate="0.5 epochs", **settings)
    np.testing.assert_array_equal(evaluated.theta, regression(settings["every"]).theta)
    assert jnp.isfinite(evaluated.history["train_loss_mean"]).sum() == 5
