"""Closed forms: the time model, the laws of the learning rate, machines that are not here."""

import math
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from backbeat.advise.laws import RateLaw, fit_law, second_moment_decay
from backbeat.advise.time_model import TimeModel
from backbeat.advise.what_if import HardwareModel, on_devices, parse_hardware
from backbeat.errors import SettingsError

MODELS = [TimeModel(100, 64, 1e-5, 1e-6), TimeModel(7, 3000, 1e-3, 1e-7), TimeModel(1e4, 2, 1e-6, 1e-6)]


@pytest.mark.parametrize("model", MODELS)
def test_the_least_time_is_at_the_root_of_b_crit_alpha_over_beta(model):
    found: Any = minimize_scalar(lambda log_m: model.seconds(math.exp(log_m)), bounds=(-5, 15), method="bounded",
                            options={"xatol": 1e-9})  # fmt: skip
    # the minimum is flat: its place is found to about the root of the accuracy of its value
    assert math.exp(found.x) == pytest.approx(model.b_time, rel=1e-4)
    least = model.s_min * (math.sqrt(model.alpha) + math.sqrt(model.beta * model.b_crit)) ** 2
    assert model.seconds(model.b_time) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("factor", "most"), [(2, 1.125), (4, 1.5625)])
def test_twice_off_costs_an_eighth_at_most_and_four_times_nine_sixteenths(model, factor, most):
    least = model.seconds(model.b_time)
    for m in (model.b_time * factor, model.b_time / factor):
        assert least < model.seconds(m) <= most * least * (1 + 1e-12)
    # reached where α = β B_crit, so that nothing but the product matters
    worst = TimeModel(1, 10, 1e-5, 1e-6)
    assert worst.seconds(10 * factor) == pytest.approx(most * worst.seconds(10))


@pytest.mark.parametrize("model", MODELS)
def test_the_flat_range_ends_where_the_time_is_that_much_more(model):
    low, high = model.flat(0.1)
    assert low < model.b_time < high
    for end in (low, high):
        assert model.seconds(end) == pytest.approx(1.1 * model.seconds(model.b_time), rel=1e-9)


def test_machines_on_which_batches_cost_nothing_or_all():
    free, dear = TimeModel(100, 64, 1e-5, 0.0), TimeModel(100, 64, 0.0, 1e-6)
    assert free.b_time == math.inf
    assert free.flat(0.1)[1] == math.inf
    assert free.seconds(free.flat(0.1)[0]) == pytest.approx(1.1 * 100 * 1e-5)
    assert dear.b_time == 0
    assert dear.seconds(dear.flat(0.1)[1]) == pytest.approx(1.1 * 100 * 64 * 1e-6)


def test_updates_have_their_slopes_at_the_bends():
    model = MODELS[0]
    for m, slope in zip(model.regimes, (-0.8, -0.2), strict=True):
        seen = math.log(model.updates(m * 1.0001) / model.updates(m / 1.0001)) / math.log(1.0001**2)
        assert seen == pytest.approx(slope, abs=1e-6)
    rows = model.record([64, 1])["rows"]
    assert [row["batch_size"] for row in rows] == [1, 64]
    assert rows[1]["updates"] == 200


@pytest.mark.parametrize("noise", [3.0, 100.0, 2000.0])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_law_is_found_again(optimizer, noise):
    sizes = [4**k for k in range(7)]
    law = RateLaw(optimizer != "adam", 0.3, noise, 0.0)
    found = fit_law(optimizer, {m: law.rate(m) for m in sizes})
    assert found.by_gradient == (optimizer != "adam")
    # what is assumed of B_n beforehand, a factor 10 either way, moves it by a little
    assert found.noise == pytest.approx(noise, rel=0.15)
    assert found.residual < 0.05
    for m in (2, 50, 1500):
        assert found.rate(m) == pytest.approx(law.rate(m), rel=0.1)
        assert found.start(m) == pytest.approx(law.rate(m), rel=0.1)


def test_the_laws_ends_are_the_rules_of_thumb():
    sgd, adam = RateLaw(True, 1.0, 1000, 0.0), RateLaw(False, 1.0, 1000, 0.0)
    assert sgd.rate(2) / sgd.rate(1) == pytest.approx(2, rel=2e-3), "Goyal et al. 2017: in proportion"
    assert adam.rate(4) / adam.rate(1) == pytest.approx(2, rel=5e-3), "Malladi et al. 2022: as the square root"
    assert sgd.rate(1e9) == pytest.approx(1)
    assert adam.rate(1000) == 1
    assert adam.rate(4000) == pytest.approx(0.8), "Li et al. 2024: it falls again beyond its peak"
    assert adam.rate(1000 / 4) == pytest.approx(0.8)


def test_one_size_gives_a_start_and_none_an_error():
    found = fit_law("sgd", {16: 0.2})
    assert found.start(16) == pytest.approx(0.2)
    assert 0.1 / 4 < found.start(2) < 0.2
    assert 0.2 < found.start(256) < 0.2 * 16
    assert found.residual == 0
    with pytest.raises(SettingsError, match="tuned rate"):
        fit_law("sgd", {})
    rows = found.record([1, 64])["rows"]
    assert rows[0]["batch_size"] == pytest.approx(1)
    assert rows[-1]["learning_rate"] == pytest.approx(found.rate(64))


def test_beta2_forgets_after_as_many_examples():
    assert second_moment_decay(0.95, 1, 16) == pytest.approx(0.9968, abs=5e-5)
    assert second_moment_decay(0.95, 32, 16) == pytest.approx(0.95**2)


def test_a_machine_is_read_from_text():
    for text, alpha, beta in (("alpha=20us,beta=0.1us", 2e-5, 1e-7), (" beta = 3 ns , alpha=1e-2ms", 1e-5, 3e-9)):
        assert astuple(parse_hardware(text))[:2] == pytest.approx((alpha, beta))
    assert parse_hardware("bandwidth=10GB/s") == HardwareModel(None, None, 1e10)
    assert parse_hardware("alpha=0s,beta=1us,bandwidth=2 MB/s").seconds(5) == pytest.approx(5e-6)


@pytest.mark.parametrize(
    "text",
    ["", "alpha=20us", "alpha=20,beta=1us", "alpha=1us,beta=1us,alpha=2us", "beta=-1us", "gamma=1us",
     "alpha=0s,beta=0s", "alpha=1..2us,beta=1us", "alpha=1us,beta=1us,bandwidth=0GB/s",
     "alpha=1us,beta=1us,bandwidth=3",
     "alpha=inf s,beta=1us"],
)  # fmt: skip
def test_a_text_that_is_no_machine_is_refused_with_an_example(text):
    with pytest.raises(SettingsError, match=r'give for example "alpha=20us,beta=0\.1us"'):
        parse_hardware(text)


def test_devices_share_a_batch_and_add_up_what_they_found():
    def one(m: float) -> float:
        return 1e-4 + 1e-6 * m

    shared = on_devices(one, 8, 10_000, 1e9)
    # each device computes an eighth; a ring sends 2 (n − 1)/n of the gradient's 40 KB
    assert shared(800) == pytest.approx(one(100) + 2 * 7 / 8 * 4e4 / 1e9)
    assert on_devices(one, 8, 10_000, None)(4) == one(1), "a device without an example waits for the others"
    assert on_devices(one, 1, 10_000, 1e9)(7) == one(7)
    assert np.isfinite(shared(1))
