"""The hardware curve: fits of known curves, knees, neighbours, drift, and a real measurement within its time."""

import math

import numpy as np
import pytest

import backbeat as bb
from backbeat.advise import timing
from backbeat.advise.hardware import HardwareCurve, Session
from backbeat.advise.knees import neighbours, with_neighbours
from backbeat.advise.timing import extend, far_apart_first, measure_hardware
from backbeat.config import Settings, resolve
from backbeat.errors import SettingsError

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def curve(of, sizes=SIZES, *, noise=0.0, rounds=7, seed=0) -> HardwareCurve:
    rng = np.random.default_rng(seed)
    return HardwareCurve.of({m: of(m) * np.exp(rng.normal(0, noise, rounds)) for m in sizes})


@pytest.mark.parametrize(("alpha", "beta"), [(2e-5, 1e-7), (1e-6, 1e-6), (1e-3, 0.0), (0.0, 3e-7)])
def test_a_line_is_found_with_its_two_numbers(alpha, beta):
    found = curve(lambda m: alpha + beta * m)
    assert found.alpha.value == pytest.approx(alpha, rel=1e-9, abs=1e-15)
    assert found.beta.value == pytest.approx(beta, rel=1e-9, abs=1e-15)
    assert found.residual < 1e-9
    assert found.knees == ()
    assert found.seconds(4096) == pytest.approx(alpha + beta * 4096)


def test_its_intervals_hold_the_truth_as_often_as_they_say():
    held = np.zeros(2)
    for seed in range(60):
        found = curve(lambda m: 1e-5 + 1e-6 * m, noise=0.1, seed=seed)
        held += [found.alpha.low <= 1e-5 <= found.alpha.high, found.beta.low <= 1e-6 <= found.beta.high]
    # 95 % of 60 is 57; 50 or fewer has a chance below 1 in 1,000, and resampling eleven sizes is a little too sure
    assert (held >= 50).all(), held
    assert (held < 60 * 2).all()


def test_what_a_line_does_not_describe_is_said_with_its_knee():
    found = curve(lambda m: 1e-4 if m < 100 else 4e-6 * m, noise=0.01)
    assert found.residual > 0.2
    assert any("poorly" in sentence for sentence in found.sentences)
    assert found.knees[0].kind == "dearer"
    assert 64 <= found.knees[0].batch_size <= 256, "at 100 the line begins to rise"
    assert found.seconds(45) == pytest.approx(1e-4, rel=0.05), "what was measured counts, not the fit"


def test_between_sizes_it_lies_between_them_and_says_so():
    found = curve(lambda m: 1e-5 + 1e-6 * m)
    assert found.how(48) == "interpolated"
    assert found.seconds(32) < found.seconds(48) < found.seconds(64)
    assert found.how(64) == "measured"
    assert found.how(2048) == "extrapolated"
    with pytest.raises(SettingsError, match="batch_size=0"):
        found.seconds(0)
    with pytest.raises(SettingsError, match="two or more"):
        HardwareCurve.of({8: [1.0]})


def test_a_tile_is_told_from_a_smooth_curve():
    sizes = with_neighbours([32, 48], 1000)
    assert sizes == [31, 32, 33, 40, 47, 48, 49, 60]
    rng = np.random.default_rng(1)

    def rounds(of):
        return {m: of(m) * np.exp(rng.normal(0, 0.01, 9)) for m in sizes}

    smooth = HardwareCurve.of(rounds(lambda m: 1e-5 + 1e-6 * m)).grain([32, 48])
    assert [each.verdict for each in smooth] == ["even", "even"]
    assert "do not matter here" in smooth[0].sentence
    tiled = HardwareCurve.of(rounds(lambda m: 1e-6 * 16 * math.ceil(m / 16) * (1 + 0.3 * (m % 16 > 0))))
    verdicts = [each.verdict for each in tiled.grain([32, 48])]
    assert verdicts == ["better", "better"]
    assert all("matter here" in each.sentence for each in tiled.grain([32, 48]))
    noisy = neighbours(32, {m: np.exp(rng.normal(0, 0.5, 4)) for m in (31, 32, 33)})
    assert noisy.verdict == "not clear"
    with pytest.raises(SettingsError, match="the neighbours of 100 were not measured"):
        tiled.grain([100])


def test_a_machine_that_slows_down_between_sessions_is_seen_and_undone():
    first = {m: (1e-5 + 1e-6 * m,) * 5 for m in (1, 32, 256)}
    later = {m: (2 * (1e-5 + 1e-6 * m),) * 5 for m in (32, 64)}
    found = HardwareCurve((Session(first), Session(later, drift=2.0)))
    assert found.seconds(64) == pytest.approx(7.4e-5)
    assert found.alpha.value == pytest.approx(1e-5)
    assert any("took 2.00 times as long" in sentence for sentence in found.sentences)
    assert found.record()["drift"] == [2.0]


def test_the_ends_come_first():
    assert far_apart_first([1, 2, 4, 8, 16, 32]) == [1, 32, 4, 2, 8, 16]
    assert far_apart_first([5]) == [5]
    assert far_apart_first([]) == []


@pytest.fixture(scope="module")
def job():
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(200, 6)).astype(np.float32), rng.integers(0, 3, 200))
    return resolve(bb.mlp((8,)), data, Settings.given({"every": 8, "held_out": 0, "block": 64}))


@pytest.mark.slow
def test_measured_sizes_have_every_round_and_more_can_be_added(job):
    shares: list[float] = []
    data = job.device_data()
    found = measure_hardware(job, data, [1, 16, 200], seconds=60, rounds=3, progress=shares.append)
    assert [point.batch_size for point in found.points] == [1, 16, 200]
    assert all(point.n_rounds == 3 and 0 < point.low <= point.median <= point.high for point in found.points)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert found.blocks == {200: 50}, "200 in the fewest blocks of at most 64, all alike"
    more = extend(found, job, data, [15, 16, 17, 20], seconds=60, rounds=3)
    assert more.points[1].batch_size == 15
    assert {point.n_rounds for point in more.points if point.batch_size == 16} == {6}
    assert [each.batch_size for each in more.grain()] == [16]
    record = more.record()
    assert {"points", "alpha", "beta", "residual", "knees", "neighbours", "not_measured", "drift"} <= record.keys()


def test_without_time_two_sizes_are_measured_and_the_others_named(job):
    found = measure_hardware(job, job.device_data(), [1, 4, 16, 64], seconds=0, rounds=3)
    assert [point.batch_size for point in found.points] == [1, 64]
    assert found.left_out == (16, 4) or found.left_out == (4, 16)
    assert any(sentence.startswith("Not measured, for lack of time:") for sentence in found.sentences)
    more = extend(found, job, job.device_data(), [16], seconds=0, rounds=3)
    assert more.left_out == (4,)


@pytest.mark.parametrize("size", [0, 201, True])
def test_a_size_that_the_data_cannot_give_is_refused(job, size):
    with pytest.raises(SettingsError, match="cannot be timed; give whole numbers from 1 to 200"):
        measure_hardware(job, job.device_data(), [1, size], seconds=1)


def test_one_size_is_no_curve(job):
    with pytest.raises(SettingsError, match="two batch sizes or more"):
        measure_hardware(job, job.device_data(), [8], seconds=1)
    assert timing.of_batch_size(job, 200).plan.cadence.batch_sizes(200) == (200,)
