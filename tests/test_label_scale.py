"""Values of a table are scaled for the training: losses are of the scaled, predictions and scores of the given ones."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import backbeat as bb
from backbeat.assess import assess
from backbeat.config import Settings, resolve
from backbeat.data import from_arrays
from backbeat.saved import load_run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 2)) * [1, 30] + [5, 100]
Y = X @ [[300.0, 1], [10, -2]] + 2e4 + RNG.normal(size=(80, 2))
TABLE = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "price": Y[:, 0], "area": Y[:, 1]})
SETTINGS: dict = {"every": 8, "learning_rate": 0.1, "duration": "30 epochs"}


@pytest.mark.parametrize("label", ["price", "price,area"])
def test_labels_have_mean_0_and_deviation_1_in_the_training_part(label: str):
    job = resolve(bb.linear(), TABLE, Settings(every=8, label=label, inputs="a,b"))
    y = job.dataset.y[job.split.train].astype(np.float64)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)  # float32 of numbers up to 3
    np.testing.assert_allclose(y.std(axis=0), 1, atol=1e-6)
    own = Y[:, : 1 + label.count(",")].squeeze()
    np.testing.assert_allclose(job.dataset.label_scale, np.atleast_1d(own[job.split.train].std(axis=0)), rtol=1e-12)
    assert any("predictions and mse are in their own units" in note for note in job.dataset.notes)


@pytest.mark.parametrize("label", ["price", "price,area"])
def test_predictions_and_scores_are_in_own_units(label: str, tmp_path: Path):
    run = bb.fit(bb.linear(), TABLE, label=label, inputs="a,b", run=tmp_path / "run", **SETTINGS)
    held, own = run.job.split.held_out, Y[:, : 1 + label.count(",")].squeeze()[run.job.split.held_out]
    predicted = run.predict(TABLE)[held]
    error = np.mean((predicted.astype(np.float64) - own) ** 2)
    # float32 predictions of 2e4, whose errors are about 1: the sums differ by their rounding, 2e-3
    assert run.history["held_out_mse"][-1] == pytest.approx(error, rel=1e-2)
    r2 = np.mean(1 - ((predicted - own) ** 2).sum(axis=0) / ((own - own.mean(axis=0)) ** 2).sum(axis=0))
    assert run.history["held_out_r2"][-1] == pytest.approx(r2, abs=1e-4)
    saved = load_run(tmp_path / "run")
    np.testing.assert_allclose(saved.predict(TABLE)[held], predicted, rtol=1e-6)
    found = assess(saved, TABLE).scores
    assert found["mse"] == pytest.approx(
        np.mean((run.predict(TABLE) - Y[:, : 1 + label.count(",")].squeeze()) ** 2), rel=1e-2
    )


def test_the_training_is_that_of_arrays_scaled_by_hand():
    run = bb.fit(bb.linear(), TABLE, label="price", inputs="a,b", **SETTINGS)
    train = run.job.split.train
    x = (X - X[train].mean(axis=0)) / X[train].std(axis=0)
    y = (Y[:, 0] - Y[train, 0].mean()) / Y[train, 0].std()
    by_hand = bb.fit(bb.linear(), from_arrays(x[train], y[train].astype(np.float32)), **{**SETTINGS, "held_out": 0})
    # the same float32 inputs up to their last bit, over 240 updates
    np.testing.assert_allclose(run.theta, by_hand.theta, rtol=1e-4, atol=1e-5)


def test_values_stay_as_they_are_where_nothing_is_prepared():
    job = resolve(bb.linear(), TABLE, Settings(every=8, label="price", inputs="a,b", prepare="none"))
    np.testing.assert_array_equal(job.dataset.y, Y[:, 0].astype(np.float32))
    assert job.dataset.label_scale == 1.0
