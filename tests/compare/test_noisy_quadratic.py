"""The noisy quadratic (Zhang et al. 2019, arXiv:1907.04164): sweep, tuning and fit against a closed form.

Examples ε_k with mean 0 and variance 1 in each coordinate, ℓ_k(θ) = ½ Σ_i h_i (θ_i − ε_ki)²: curvatures h_i, and
c_i = h_i² for the variance of one example's gradient. Batches of M drawn with replacement give

    E θ_i²(t) = v_i + (θ_i(0)² − v_i)(1 − γ h_i)^{2t},    v_i = γ² c_i / (M (1 − (1 − γ h_i)²)),

and the mean loss is ½ Σ h_i (E θ_i² + 1). With many coordinates one run's loss is close to its mean.
"""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from backbeat.cadence import every
from backbeat.compare.critical import fit_critical
from backbeat.compare.tune import evaluation_points, tune
from backbeat.config import Settings, resolve, with_cadence

D, N = 256, 512
H = np.geomspace(0.01, 1.0, D)
START = 1 / np.sqrt(H)  # every coordinate has its share of the loss
SIZES = (1, 4, 16, 64, 256)
RATES = [1.9 * 2.0 ** (-k / 2) for k in range(8)]  # every one is stable: γ h < 2
FLOOR = 0.5 * float(H.sum())
TARGET = FLOOR + 0.05 * 0.5 * float((H * START**2).sum())


def expected_loss(rate: float, size: int, updates: np.ndarray) -> np.ndarray:
    """The closed form, at `[updates]`."""
    shrink = 1 - rate * H
    v = (rate * H) ** 2 / (size * (1 - shrink**2))
    squares = v + (START**2 - v) * shrink ** (2 * updates[:, None])
    return 0.5 * (H * squares).sum(axis=1) + FLOOR


def best_updates(size: float, h: np.ndarray, start: float) -> float:
    """The fewest updates until the closed form has fallen to a twentieth, of any rate; as a real number."""
    squares, best = start**2 / h, math.inf
    for rate in np.geomspace(1e-6, 1.95, 500):
        shrink = (1 - rate * h) ** 2
        v = (rate * h) ** 2 / (size * (1 - shrink))

        def excess(t: float, shrink: np.ndarray = shrink, v: np.ndarray = v) -> float:
            return float((h * (v + (squares - v) * shrink**t)).sum() - 0.05 * (h * squares).sum())

        if (h * v).sum() < 0.05 * (h * squares).sum():
            best = min(best, float(brentq(excess, 0, 1e12)))  # pyright: ignore[reportArgumentType]
    return best


def updates_simulated(size: int, rate: float, points: np.ndarray, n_runs: int = 100) -> float:
    """The median of the updates at which runs with Gaussian gradients first meet the target."""
    rng = np.random.default_rng(size)
    theta, met = np.broadcast_to(START, (n_runs, D)).copy(), np.zeros(n_runs)
    for update in range(1, int(points[-1]) + 1):
        theta -= rate * H * (theta - rng.normal(0, size**-0.5, theta.shape))
        if update in points:
            low = 0.5 * (H * theta**2).sum(axis=1) + FLOOR <= TARGET
            met = np.where((met == 0) & low, update, met)
            if met.all():
                break
    return float(np.median(met[met > 0]))


def made_examples() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(N, D))
    return ((drawn - drawn.mean(axis=0)) / drawn.std(axis=0)).astype(np.float32)


@pytest.fixture(scope="module")
def found():
    root = np.sqrt(H).astype(np.float32)
    labels = made_examples() * root

    def init(key):
        return {"theta": jnp.asarray(START, jnp.float32)}

    def apply(params, x):
        return jnp.broadcast_to(params["theta"] * root, (x.shape[0], D))

    data = (np.zeros((N, 1), np.float32), labels)
    settings = {"loss": "squared_error", "optimizer": "sgd", "order": "with replacement", "held_out": 0,
                "prepare": "none", "duration": "1000000 updates", "evaluate": "1 epoch",
                "target": f"train loss<={TARGET}"}  # fmt: skip
    jobs = [resolve((init, apply), data, Settings.given({**settings, "every": 1, "seed": seed})) for seed in range(5)]
    on_device = jobs[0].device_data()
    tuned = {}
    for m in SIZES:
        of_size = [with_cadence(job, every(m)) for job in jobs]
        tuned[m] = tune(of_size, on_device, RATES, target=jobs[0].stopping.target, seconds=200,
                        seconds_alone=1e-5, widen=False)  # fmt: skip
    return tuned


def test_every_size_takes_what_a_simulation_of_it_takes(found):
    truth, seen = {}, {}
    for m in SIZES:
        best = found[m].best
        seen[m] = [u for u in best.updates_to_target if u]
        assert len(seen[m]) == 5
        truth[m] = [updates_simulated(m, best.learning_rate, np.array(evaluation_points(N, m, 2000)))]
        # evaluations are 6 % apart, or one update; the median of five seeds is as sure as that at these noises
        assert np.median(seen[m]) == pytest.approx(truth[m][0], rel=0.12, abs=1), m
    expected, fit = fit_critical(truth), fit_critical(seen)
    assert expected is not None
    assert fit is not None
    assert fit.known
    assert fit.b_crit == pytest.approx(expected.b_crit, rel=0.1)
    assert fit.b_crit_low < expected.b_crit < fit.b_crit_high


@pytest.mark.parametrize(("least_curvature", "start"), [(0.01, 0.3), (0.01, 1.0), (0.1, 0.3), (0.1, 1.0)])
def test_the_critical_batch_of_the_closed_form_is_found_within_a_tenth(least_curvature, start):
    h = np.geomspace(least_curvature, 1.0, 64)
    # by their definition: the updates of endless batches, the examples of the smallest
    s_min, e_min = best_updates(1e9, h, start), 0.01 * best_updates(0.01, h, start)
    fit = fit_critical({m: [best_updates(m, h, start)] for m in (1, 4, 16, 64, 256, 1024, 4096)})
    assert fit is not None
    assert fit.known
    assert fit.b_crit == pytest.approx(e_min / s_min, rel=0.1)
    assert fit.s_min == pytest.approx(s_min, rel=0.1)
    assert fit.e_min == pytest.approx(e_min, rel=0.1)


def test_the_closed_form_is_that_of_a_simulation():
    rng, examples = np.random.default_rng(1), made_examples()
    rate, size, n = 0.3, 8, 25
    losses = []
    for _ in range(200):
        theta = START.copy()
        for _ in range(n):
            theta = theta - rate * H * (theta - examples[rng.integers(0, N, size)].mean(axis=0))
        losses.append(0.5 * (H * theta**2).sum() + FLOOR)
    error = np.std(losses, ddof=1) / math.sqrt(len(losses))
    assert abs(np.mean(losses) - expected_loss(rate, size, np.array([n]))[0]) < 4 * error
