"""The fit of updates against batch size, on a model whose updates follow from a formula."""

import numpy as np
import pytest

from backbeat.compare.answer import about_fit
from backbeat.compare.critical import fit_critical

SIZES = (1, 4, 16, 64, 256, 1024)
CURVATURE = 1 / np.arange(1, 33)  # h_i = 1/i, and as much noise, c_i = h_i, as in the paper


def updates_to(target, batch, start, rates):
    """Returns the least updates to the target over learning rates, in the noisy quadratic model.

    E θ_i²(t) = v_i + (θ_i(0)² − v_i)(1 − γh_i)^{2t}, v_i = γ² h_i / (B (1 − (1 − γh_i)²)), L = Σ h_i E θ_i² / 2
    (Zhang et al. 2019, arXiv:1907.04164).
    """
    h, best = CURVATURE, np.inf
    for rate in rates:
        keep = 1 - rate * h
        still = rate**2 * h / (batch * (1 - keep**2))

        def loss(t, keep=keep, still=still):
            return 0.5 * np.sum(h * (still + (start**2 - still) * keep ** (2 * t)))

        low, high = 0, 1 << 20
        if loss(high) > target:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if loss(middle) <= target else (middle, high)
        best = min(best, high)
    return best


@pytest.mark.parametrize("target", [0.1, 0.3])
def test_a_noisy_quadratic_gives_its_own_critical_batch(target):
    rates = 2.0 ** np.arange(-14, 1, 0.25)
    seen = {m: [updates_to(target, m, scale * np.ones(32), rates) for scale in (0.9, 1, 1.1)] for m in SIZES}
    # by definition: the least updates with no noise at all, the least examples with batches that hold next to nothing
    s_min = updates_to(target, 1e9, np.ones(32), rates)
    e_min = 1e-3 * updates_to(target, 1e-3, np.ones(32), 2.0 ** np.arange(-24, 1, 0.25))
    fit = fit_critical(seen)
    assert fit is not None
    assert fit.known
    assert fit.b_crit_low <= e_min / s_min <= fit.b_crit_high
    assert fit.s_min_low <= s_min <= fit.s_min_high
    assert fit.b_crit_high < 2 * fit.b_crit_low, "an interval that holds everything would prove nothing"
    assert f"about {fit.b_crit:,.3g}" in about_fit(fit)


def test_updates_that_do_not_fall_with_the_batch_are_not_known():
    fit = fit_critical({1: [100, 90, 110], 32: [300, 500, 100], 256: [80, 900, 50], 1024: [700, 100, 30]})
    assert fit is not None
    assert not fit.known
    assert "not known" in about_fit(fit)


def test_a_critical_batch_far_outside_what_was_measured_is_not_known():
    flat = fit_critical({m: [100, 100, 100] for m in (64, 256, 1024)})  # no falling part: B_crit lies below all
    steep = fit_critical({m: [1e6 / m] * 3 for m in (1, 4, 16)})  # no flat part: it lies above all
    for fit in (flat, steep):
        assert fit is not None
        assert not fit.inside
        assert not fit.known


def test_the_interval_is_wider_where_seeds_disagree():
    rng = np.random.default_rng(0)
    fits = [
        fit_critical({m: (50 * (1 + 40 / m) * np.exp(rng.normal(0, spread, 5))).tolist() for m in SIZES})
        for spread in (0.05, 0.4)
    ]
    narrow, wide = (fit.b_crit_high / fit.b_crit_low for fit in fits if fit)
    assert narrow < 1.6 < wide
    assert fits[0] is not None
    assert fits[0].b_crit_low <= 40 <= fits[0].b_crit_high


def test_two_batch_sizes_are_too_few():
    assert fit_critical({1: [100], 32: [10]}) is None
    assert fit_critical({1: [100], 32: [10], 64: []}) is None, "a size that no seed reached is none"
