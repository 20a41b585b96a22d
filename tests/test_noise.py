"""The noise scale: worked numbers, no bias on gradients that are known, an interval that holds, and along a run."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from backbeat import fit, linear, mlp
from backbeat.config import Settings, resolve
from backbeat.errors import SettingsError
from backbeat.gradient import per_example_gradients
from backbeat.models import cnn, from_theta, theta
from backbeat.noise import GROUPS, NoiseSums, adascale_gain, noise_scale, parts_of_two_sizes, unbiased_parts
from backbeat.norms import Lengths
from backbeat.plan import Cursor

RNG = np.random.default_rng(0)


def measured(rows: np.ndarray, weight: np.ndarray | None = None) -> Lengths:
    """What batches of gradients `[..., B, N]` measure, written another way."""
    weight = np.ones(rows.shape[:-1]) if weight is None else weight
    p = weight / weight.sum(axis=-1, keepdims=True)
    mean = (p[..., None] * rows).sum(axis=-2)
    return Lengths((p * (rows**2).sum(axis=-1)).sum(axis=-1), (mean**2).sum(axis=-1), (p**2).sum(axis=-1))


def within(found: np.ndarray, truth: float, errors: float = 3) -> bool:
    """Whether the mean of independent values is within so many standard errors of the truth."""
    return abs(found.mean() - truth) < errors * found.std(ddof=1) / math.sqrt(len(found))


def test_worked_numbers():
    squared, trace = parts_of_two_sizes(0.0410, 0.00280, 32, 512)
    assert squared == pytest.approx(2.533e-4, rel=5e-4)
    assert trace == pytest.approx(1.304, rel=5e-4)
    assert trace / squared == pytest.approx(5150, rel=2e-3)


def test_parts_of_single_examples_are_those_of_sizes_1_and_b():
    rows = RNG.normal(size=(7, 4))
    m, n, share = measured(rows)
    assert unbiased_parts(m, n, share) == pytest.approx(parts_of_two_sizes(m, n, 1, 7))
    assert unbiased_parts(m, n, share)[1] == pytest.approx(np.trace(np.cov(rows.T)))  # the usual unbiased covariance


def test_without_bias_on_known_gradients():
    """Gaussian gradients with |G|² = 1.25 and tr Σ = 30: both parts within 3 standard errors, M = 2 and 16."""
    mean, deviation = np.array([1.0, 0.5, 0.0]), np.array([1.0, 2.0, 5.0])
    for size in (2, 16):
        rows = mean + deviation * RNG.normal(size=(20_000, size, 3))
        squared, trace = unbiased_parts(*measured(rows))
        assert within(squared, 1.25)
        assert within(trace, 30)


def test_two_sizes_without_bias_on_known_gradients():
    rows = np.array([1.0, 0.5]) + np.array([3.0, 1.0]) * RNG.normal(size=(20_000, 12, 2))
    small, big = (rows[:, :n].mean(axis=1) for n in (3, 12))
    of_each = np.array([parts_of_two_sizes((s**2).sum(), (b**2).sum(), 3, 12) for s, b in zip(small, big, strict=True)])
    assert within(of_each[:, 0], 1.25)
    assert within(of_each[:, 1], 10)


def test_weights_that_say_nothing_of_the_gradients_leave_no_bias():
    mean, deviation = np.array([1.0, 0.5]), np.array([1.0, 2.0])
    rows = mean + deviation * RNG.normal(size=(20_000, 6, 2))
    weight = RNG.choice([0.0, 0.5, 1.0, 3.0], size=(20_000, 6))
    weight[:, 0] = 1
    squared, trace = unbiased_parts(*measured(rows, weight))
    known = np.isfinite(squared)
    assert 0.9 < known.mean() < 1  # in a few batches only one example counts
    assert within(squared[known], 1.25)
    assert within(trace[known], 5)


def test_finite_data_form_is_exact():
    """Over all 20 batches of 3 out of 6 examples the mean of |G|²̂ is |G|² − tr Σ/6, to rounding."""
    rows = RNG.normal(size=(6, 4)) + 0.5
    batches = rows[np.array(list(itertools.combinations(range(6), 3)))]
    squared, trace = (part.mean() for part in unbiased_parts(*measured(batches)))
    whole, covariance = (rows.mean(axis=0) ** 2).sum(), np.trace(np.cov(rows.T))
    assert trace == pytest.approx(covariance)
    assert squared == pytest.approx(whole - covariance / 6)
    sums = NoiseSums.of(measured(batches), np.full(20, 3), 0, 6)
    assert sums.scale().scale == pytest.approx(covariance / whole)


def test_one_example_has_no_parts():
    assert all(math.isnan(part) for part in unbiased_parts(2.0, 2.0, 1.0))
    assert all(math.isnan(part) for part in unbiased_parts(0.0, 0.0, 0.0))  # a batch in which nothing counts
    found = NoiseSums.of(Lengths(np.ones(5), np.ones(5), np.ones(5)), np.ones(5), 0).scale()
    assert not found.known
    assert str(found) == "noise scale: not measured, no batch had more than one example"


def test_a_gradient_that_noise_hides_is_not_known():
    rows = RNG.normal(size=(200, 8, 5))  # G = 0
    found = NoiseSums.of(measured(rows), np.full(200, 8), 0).scale()
    assert not found.known
    assert math.isinf(found.high)
    assert found.low > 50
    assert str(found).startswith("noise scale: not known, at least ")
    hidden = noise_scale(-0.1, 1.0, np.array([[-0.1, -0.12, -0.08], [1.0, 1.1, 0.9]]))
    assert math.isnan(hidden.scale)
    assert not hidden.known


def test_equal_gradients_have_no_noise():
    found = NoiseSums.of(measured(np.ones((40, 4, 3))), np.full(40, 4), 0).scale()
    assert (found.scale, found.low, found.high) == (0, 0, 0)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 400 runs of 120 updates the 95 % interval holds the noise scale in 380, give or take 3 times 4.4."""
    held = 0
    for _ in range(400):
        rows = np.array([1.0, 0.0]) + np.array([1.0, 4.0]) * RNG.normal(size=(120, 4, 2))
        lengths = measured(rows)
        found = NoiseSums.of(lengths, np.full(120, 4), 0).scale()
        squared, trace = unbiased_parts(*lengths)
        assert found.scale == pytest.approx(trace.sum() / squared.sum()) or squared.sum() <= 0
        held += found.low <= 17 <= found.high
    assert 366 <= held <= 394


def test_sums_do_not_depend_on_where_a_stretch_is_cut():
    lengths = measured(RNG.normal(size=(50, 4, 3)) + 1)
    whole = NoiseSums.of(lengths, np.full(50, 4), 0, 100)
    cut = [NoiseSums.of(Lengths(*(c[a:b] for c in lengths)), np.full(b - a, 4), a, 100) for a, b in ((0, 13), (13, 50))]
    np.testing.assert_allclose((cut[0] + cut[1]).columns, whole.columns)
    assert whole.columns[2].sum() == 50
    assert (whole * 0.5).scale().scale == pytest.approx(whole.scale().scale)
    assert whole.columns.shape == (5, GROUPS)


def test_gain_is_the_updates_that_a_larger_batch_is_worth():
    # by how much E|∇L_B|² = |G|² + tr Σ / B is less with the larger batch
    for squared, trace, batch, base in ((1.0, 32.0, 256, 32), (0.2, 5.0, 64, 16)):
        of_size = [squared + trace / size for size in (base, batch)]
        assert adascale_gain(squared, trace, batch, base) == pytest.approx(of_size[0] / of_size[1])
    assert adascale_gain(-1.0, 3.0, 64, 32) == 2.0
    assert adascale_gain(3.0, 0.0, 64, 32) == 1.0


def test_sizes_out_of_order_are_refused():
    with pytest.raises(SettingsError, match="the smaller one first"):
        parts_of_two_sizes(1.0, 0.5, 32, 32)


# along a run

X = RNG.normal(size=(60, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 60).astype(np.int32)
WEIGHT = RNG.uniform(0.2, 2, 60).astype(np.float32)
RUN: dict[str, Any] = {"held_out": 0, "duration": "4 epochs", "evaluate": "never", "learning_rate": 0.2, "seed": 3}


def by_hand(every: int, weight: np.ndarray | None, model: Any, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """Parts of every update of plain gradient descent, batch by batch from the plan, in float64."""
    data = (X, Y) if weight is None else (X, Y, weight)
    job = resolve(model, data, Settings.given({**RUN, "every": every, **settings}))
    params, cursor, found = job.initial_state().params, Cursor(), []
    w = np.ones(60) if weight is None else weight.astype(np.float64)
    for _ in range(4 * math.ceil(60 / every)):
        stretch = job.plan.stretch(cursor, 1)
        cursor, rows = stretch.end, stretch.indices[0][: stretch.sizes[0]]
        gradients = np.asarray(per_example_gradients(job.model, job.loss, params, X[rows], Y[rows]), np.float64)
        found.append(unbiased_parts(*measured(gradients, w[rows])))
        mean = (w[rows] @ gradients) / w[rows].sum()
        after = np.asarray(theta(params), np.float64) - RUN["learning_rate"] * mean
        params = from_theta(jnp.asarray(after, jnp.float32), params)
    squared, trace = np.array(found).T
    return squared, trace


CASES: dict[str, dict[str, Any]] = {
    "full batches": {"every": 12},
    "short batches": {"every": 16},
    "whole": {"every": 60},
    "blocks": {"every": 16, "block": 5},
    "with replacement": {"every": 12, "order": "with replacement"},
    "pairs": {"every": 2},
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(5)
def test_a_run_measures_each_of_its_updates(name: str, weighted: bool):
    case, weight = CASES[name], WEIGHT if weighted else None
    model = mlp((4,), "tanh")
    data = (X, Y, WEIGHT) if weighted else (X, Y)
    run = fit(model, data, watch_noise=True, **{**RUN, **case})
    squared, trace = (part.mean() for part in by_hand(weight=weight, model=model, **case))
    assert run.noise is not None
    assert run.noise.n_updates == run.clock.updates
    # float32 gradients along a trajectory against a trajectory of float64 updates
    assert run.noise.trace == pytest.approx(trace, rel=1e-4)
    if name == "with replacement":
        assert run.noise.gradient_squared == pytest.approx(squared, rel=1e-3)
    elif not weighted:
        assert run.noise.gradient_squared == pytest.approx(squared + trace / 60, rel=1e-3)
    if name == "whole" and not weighted:  # nothing is estimated: it is the gradient itself
        assert run.noise.gradient_squared > squared
    # watching changes nothing but the rounding
    np.testing.assert_allclose(run.theta, fit(model, data, **{**RUN, **case}).theta, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_models_without_a_short_form_and_any_optimizer():
    x = RNG.normal(size=(60, 6, 6)).astype(np.float32)
    for optimizer in ("momentum", "adam", optax.sgd(0.1)):
        settings = {**RUN, "every": 8, "optimizer": optimizer, "learning_rate": None, "duration": "2 epochs"}
        run = fit(cnn((2,)), (x, Y), watch_noise=True, **settings)
        assert run.noise is not None
        assert run.noise.trace > 0
        np.testing.assert_allclose(run.theta, fit(cnn((2,)), (x, Y), **settings).theta, rtol=1e-5, atol=1e-6)


def test_phases_of_one_example_measure_nothing():
    run = fit(linear(), (X, Y), watch_noise=True, **{**RUN, "every": "1 then 12 after 60 updates"})
    assert run.noise is not None
    assert run.noise.n_updates == run.clock.updates - 60


def test_off_by_default_and_in_the_history_where_on(tmp_path: Path):
    assert fit(linear(), (X, Y), **RUN).noise is None
    assert "noise_scale" not in fit(linear(), (X, Y), **RUN).history
    run = fit(linear(), (X, Y), watch_noise=True, run=tmp_path / "run", **{**RUN, "evaluate": "1 epoch"})
    assert run.noise is not None
    columns = ("gradient_squared", "gradient_trace", "noise_scale", "noise_scale_low", "noise_scale_high")
    assert all(len(run.history[name]) == len(run.history["updates"]) for name in columns)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["noise"]["scale"] == pytest.approx(run.noise.scale)
    assert record["noise"]["n_updates"] == run.clock.updates
    assert record["noise"]["sentence"] == str(run.noise)
    assert record["followed"] is None
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    traces = [line["gradient_trace"] for line in lines if line["event"] == "stretch"]
    measured_rows = run.history["gradient_trace"]
    assert traces == pytest.approx(measured_rows[np.isfinite(measured_rows)].tolist())


@pytest.mark.parametrize(
    ("every", "sentence"),
    [
        (1, "a batch of one example cannot show; leave watch_noise out, or update after 2 examples or more"),
        ("8 repeat until loss<0.1 at most 3", "watch_noise is not measured where batches are repeated"),
    ],
)
def test_where_there_is_no_noise_to_measure_it_is_refused(every: Any, sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        fit(linear(), (X, Y), watch_noise=True, **{**RUN, "every": every})
