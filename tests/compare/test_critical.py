"""The fit of updates against batch size, on a model whose updates follow from a formula."""

import numpy as np
import pytest

from backbeat.compare.answer import about_fit
from backbeat.compare.critical import DEFINITION, fit_critical

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


def curve(b_crit, s_min, sizes=SIZES):
    return {m: [s_min * (1 + b_crit / m)] for m in sizes}


@pytest.mark.parametrize(("b_crit", "s_min"), [(3, 2000), (50, 100), (700, 11)])
def test_updates_that_follow_the_form_give_it_back(b_crit, s_min):
    fit = fit_critical(curve(b_crit, s_min))
    assert fit is not None
    assert fit.known
    # the squares are flat at their least: a relative 1e-4 in a parameter changes them by 1e-8, where the search ends
    assert fit.b_crit == pytest.approx(b_crit, rel=1e-4)
    assert fit.s_min == pytest.approx(s_min, rel=1e-4)
    assert fit.e_min == pytest.approx(b_crit * s_min, rel=1e-4)
    assert fit.residual < 1e-4
    assert fit.predict(b_crit).value == pytest.approx(2 * s_min, rel=1e-4), "both are twice their least at B_crit"
    assert fit.predict_examples(b_crit).value == pytest.approx(2 * fit.e_min, rel=1e-4)
    for m in (1, 17, 5000):
        steps, examples = fit.predict(m).value / fit.s_min, fit.predict_examples(m).value / fit.e_min
        assert (steps - 1) * (examples - 1) == pytest.approx(1, rel=1e-9), "McCandlish et al. 2018, eq. 2.11"


def test_twenty_percent_more_examples_are_needed_at_a_fifth_of_it():
    fit = fit_critical(curve(50, 100))
    assert fit is not None
    zhang = fit.batch_for_more_examples(0.2)
    assert zhang.value == pytest.approx(0.2 * fit.b_crit, rel=1e-12)
    assert (zhang.low, zhang.high) == pytest.approx((0.2 * fit.b_crit_low, 0.2 * fit.b_crit_high), rel=1e-9)
    assert fit.predict_examples(zhang.value).value == pytest.approx(1.2 * fit.e_min, rel=1e-9)
    assert fit.as_dict()["definition"] == DEFINITION
    assert "McCandlish" in DEFINITION


def coverage(n, *, sizes=SIZES, seeds, between, off):
    """Returns how often the intervals hold the truth: B_crit, S_min, the curve at 100, and one more run at 100.

    `between`: standard deviation of log updates between seeds; `off`: of each size about the curve.
    """
    b_crit, s_min = 50.0, 100.0
    held = np.zeros(4)
    for seed in range(n):
        rng = np.random.default_rng(seed)
        middle = {m: s_min * (1 + b_crit / m) * np.exp(rng.normal(0, off)) for m in sizes}
        fit = fit_critical({m: (u * np.exp(rng.normal(0, between, seeds))).tolist() for m, u in middle.items()})
        assert fit is not None
        at, one = fit.predict(100), fit.predict(100, one_run=True)
        there = s_min * (1 + b_crit / 100)
        run = there * np.exp(rng.normal(0, np.hypot(off, between)))
        held += [
            fit.b_crit_low <= b_crit <= fit.b_crit_high, fit.s_min_low <= s_min <= fit.s_min_high,
            at.low <= there <= at.high, one.low <= run <= one.high,
        ]  # fmt: skip
    return held / n


@pytest.mark.parametrize(
    ("seeds", "between", "off", "least"),
    [
        (3, 0.1, 0.05, 0.9),
        (5, 0.2, 0.02, 0.9),
        # one seed: its luck is only seen as misfit, so that one more run is within the interval less often, as it says
        (1, 0.1, 0.05, 0.75),
    ],
)
@pytest.mark.sample(1)
def test_intervals_hold_the_truth_about_as_often_as_they_say(seeds, between, off, least):
    # 95 % of 60: fewer than 90 %, 54, has a chance of 3 %; the seeds are fixed, so it either holds or does not
    held = coverage(60, seeds=seeds, between=between, off=off)
    assert held.min() >= least, held


def test_a_single_seed_each_is_enough_and_no_claim_to_certainty():
    rng = np.random.default_rng(1)
    fit = fit_critical({m: [u[0] * np.exp(rng.normal(0, 0.1))] for m, u in curve(50, 100).items()})
    assert fit is not None
    assert fit.seed_spread == 0
    assert fit.misfit > 0.03, "the scatter about the curve is all that tells how sure it is"
    assert fit.b_crit_low < 50 < fit.b_crit_high
    assert fit.b_crit_high > 1.2 * fit.b_crit_low


def test_a_prediction_for_one_run_is_wider_than_for_the_curve_and_both_are_wider_where_nothing_was_measured():
    rng = np.random.default_rng(2)
    fit = fit_critical({m: (u[0] * np.exp(rng.normal(0, 0.1, 3))).tolist() for m, u in curve(50, 100).items()})
    assert fit is not None

    def width(m, one_run=False):
        return np.log(fit.predict(m, one_run=one_run).high / fit.predict(m, one_run=one_run).low)

    assert width(64, one_run=True) > 1.5 * width(64)
    seen = np.hypot(fit.misfit, fit.seed_spread)
    assert width(64, one_run=True) > 2 * 1.96 * seen, "no narrower than the scatter of the runs themselves"
    low = fit_critical(
        {m: (u[0] * np.exp(rng.normal(0, 0.1, 3))).tolist() for m, u in curve(50, 100).items() if m < 60}
    )
    assert low is not None
    far, near = low.predict(100_000), low.predict(16)
    assert far.high / far.low > 1.5 * near.high / near.low


def test_sizes_are_left_out_with_their_reason():
    seen = curve(50, 100)
    spoiled = {**seen, 16: [3.0], 1024: [0.0], 64: [0, 5]}
    fit = fit_critical(spoiled, rejected={16: "its best rate lies on the edge"})
    assert fit is not None
    assert fit.n_points == 3
    assert fit.b_crit == pytest.approx(50, rel=1e-3)
    why = {one.batch_size: one.why for one in fit.rejected}
    assert list(why) == [16, 64, 1024]
    assert why[16] == "its best rate lies on the edge"
    assert "before its first update" in why[64], "log 0 is no point of a curve"
    assert "before its first update" in why[1024]
    assert fit.as_dict()["rejected"][0] == {"batch_size": 16, "why": why[16]}
    assert fit_critical({1: [0], 2: [0], 4: [0], 8: [3]}) is None


def test_runs_that_did_not_get_there_keep_the_curve_above_them():
    falling = {m: u for m, u in curve(50, 100).items() if m >= 64}  # hardly any falling part: B_crit may be far lower
    free = fit_critical(falling)
    # at 1 the truth is 5,100 updates; it was given up after 4,000: B_crit is at least about 39, the misfit apart
    bound = fit_critical(falling, more_than={1: 4000.0})
    assert free is not None
    assert bound is not None
    assert 1.15 * free.b_crit_low < bound.b_crit_low < 39
    assert free.predict(1).low < 0.75 * 4000
    assert bound.predict(1).low > 0.85 * 4000
    assert bound.n_points == 3
    assert "did not reach the target within 4,000 updates" in bound.rejected[0].why
    idle = fit_critical(falling, more_than={1: 10.0})
    assert idle is not None
    assert idle.b_crit == pytest.approx(free.b_crit, rel=1e-3), "a bound that the curve keeps anyway changes nothing"
    violated = fit_critical({**falling, 4: [1350]}, more_than={1: 40_000.0})
    assert violated is not None
    assert violated.predict(1).value > 5200, "a bound above the other sizes' curve pulls it up"
