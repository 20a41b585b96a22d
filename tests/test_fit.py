"""fit and Run: predictions by name, value, yes or no; a regression that converges to the least-squares solution."""

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from backbeat.errors import DataError
from backbeat.models import linear, mlp
from backbeat.run import fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2)).astype(np.float32)
SIDE = (X @ [1.0, 2.0] > 0).astype(int)


def test_linear_regression_converges_to_the_least_squares_solution():
    """Full batch on a quadratic converges for γ < 2/λmax; the slowest direction is (1 − γλmin)ⁿ ≈ 1e-5 by then."""
    data: Any = load_diabetes()
    inputs = (data.data / data.data.std(axis=0)).astype(np.float32)
    x = np.linalg.qr(inputs - inputs.mean(axis=0))[0].astype(np.float32) * np.sqrt(len(inputs))  # all λ = 1
    y = ((data.target - data.target.mean()) / data.target.std()).astype(np.float32)
    solution, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)
    run = fit(linear(), (x, y), every="dataset", held_out=0.0, learning_rate=0.5, duration="40 updates")
    np.testing.assert_allclose(run.params["dense_0"]["weight"][:, 0], solution[:-1], atol=1e-5)
    residual = y - np.column_stack([x, np.ones(len(x))]) @ solution
    assert run.history["train_mse"][-1] == pytest.approx(np.mean(residual**2), rel=1e-5)
    assert run.history["train_r2"][-1] == pytest.approx(1 - np.mean(residual**2) / y.var(), rel=1e-5)
    assert run.predict(x).shape == (len(x),)
    np.testing.assert_allclose(run.predict(x), y - residual, atol=1e-4)


def test_a_full_batch_diverges_beyond_two_over_the_largest_eigenvalue():
    x = np.array([[1.0], [1.0]], np.float32)
    settings = {"loss": "squared_error", "every": "dataset", "held_out": 0.0, "duration": "60 updates"}
    start = {"dense_0": {"weight": np.ones((1, 1), np.float32)}}
    for rate, shrinks in ((1.9, True), (2.1, False)):
        run = fit(linear(bias=False), (x, np.zeros(2, np.float32)), params=start, learning_rate=rate, **settings)
        assert abs(float(run.theta[0])) == pytest.approx(abs(1 - rate) ** 60, rel=1e-4)
        assert (abs(float(run.theta[0])) < 1) is shrinks


def test_classes_by_name():
    names = np.array(["left", "right"])[SIDE]
    run = fit(linear(), (X, names), every=4, duration="30 epochs", held_out=0.0)
    assert np.mean(run.predict(X) == names) > 0.95
    assert set(run.predict(X)) == {"left", "right"}
    assert run.predict_raw(X).shape == (60, 2)
    assert run.history["train_accuracy"][-1] == pytest.approx(np.mean(run.predict(X) == names))


def test_yes_or_no():
    run = fit(linear(), (X, SIDE), loss="binary_cross_entropy", every=4, duration="30 epochs", held_out=0.0)
    assert run.job.n_outputs == 1
    assert run.predict(X).shape == (60,)
    assert np.mean(run.predict(X) == SIDE) > 0.95
    assert run.history["train_accuracy"][-1] == pytest.approx(np.mean(run.predict(X) == SIDE))


def test_several_labels_at_once():
    both = np.column_stack([SIDE, 1 - SIDE])
    run = fit(linear(), (X, both), loss="binary_cross_entropy", every=4, duration="20 epochs", held_out=0.0)
    assert run.predict(X).shape == (60, 2)
    assert np.mean(run.predict(X) == both) > 0.95


def test_several_values_at_once():
    y = X @ np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]], np.float32)
    run = fit(linear(), (X, y), every=4, learning_rate=0.1, duration="60 epochs", held_out=0.0)
    np.testing.assert_allclose(run.predict(X), y, atol=1e-3)


def test_whole_numbers_as_values():
    settings: dict = {"loss": "squared_error", "every": "dataset", "duration": "50 updates", "held_out": 0.0}
    run = fit(linear(), (X, SIDE * 3), learning_rate=0.1, **settings)
    design = np.column_stack([X, np.ones(60)])
    fitted = design @ np.linalg.lstsq(design, SIDE * 3.0, rcond=None)[0]
    np.testing.assert_allclose(run.predict(X), fitted, atol=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_with_its_place(bad: float):
    x = X.copy()
    x[7, 1] = bad
    with pytest.raises(DataError, match=r"inputs hold 1 values that are not finite numbers, the first at \[7, 1\]"):
        fit(linear(), (x, SIDE))


def test_other_inputs_than_those_trained_on_are_refused():
    run = fit(linear(), (X, SIDE), duration="1 epoch", evaluate="never")
    with pytest.raises(DataError, match=r"one example has the shape \[5\], but the run was trained on \[2\]"):
        run.predict(np.zeros((3, 5)))


def test_consumers_get_every_event():
    seen: list[str] = []
    fit(mlp((3,)), (X, SIDE), duration="2 updates", evaluate="never", on_event=lambda e: seen.append(type(e).__name__))
    assert [kind for kind, _ in groupby(seen)] == ["Started", "StretchDone", "Finished"]


def test_the_learning_rate_where_none_is_given_is_smaller_for_values():
    for y, rate in ((SIDE, 0.1), (X[:, 0], 0.01)):
        run = fit(linear(), (X, y), every=4, duration="3 updates", held_out=0.0)
        given = fit(linear(), (X, y), every=4, duration="3 updates", held_out=0.0, learning_rate=rate)
        assert run.job.learning_rate == rate
        np.testing.assert_array_equal(run.theta, given.theta)
