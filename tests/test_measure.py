"""Timing an update: medians and ranges, one figure a phase, nothing trained on the way."""

import numpy as np
import pytest

import backbeat as bb
from backbeat import measure as module
from backbeat.config import Settings, resolve
from backbeat.measure import ROUNDS, Spread, time_updates


def job_for(every, **settings):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype(np.float32)
    given = {"every": every, "held_out": 0, "duration": "1000000000 updates", "evaluate": "1 epoch", **settings}
    return resolve(bb.linear(), (x, x[:, 0]), Settings(**given))


def test_a_spread_is_median_and_range():
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert Spread.of([4.0, 1.0]) == Spread(2.5, 1, 4)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [((1, 2), (3, 4), False), ((1, 3), (3, 4), True), ((1, 9), (3, 4), True), ((5, 6), (1, 4), False)],
)
def test_ranges_overlap_where_they_share_a_value(one, other, overlap):
    a, b = (Spread(low, low, high) for low, high in (one, other))
    assert a.overlaps(b) is overlap
    assert b.overlaps(a) is overlap


@pytest.fixture
def short_rounds(monkeypatch):
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.002)


def test_every_phase_and_every_cadence_has_its_time(short_rounds):
    jobs = [job_for(8), job_for("8 then 64 after 2 epochs"), job_for("4 repeat until loss<1e-9 at most 3")]
    shares = []
    timings = time_updates(jobs, jobs[0].device_data(), shares.append)
    assert [len(timing.phases) for timing in timings] == [1, 2, 1]
    for timing in timings:
        assert timing.compile_seconds > 0
        assert timing.seconds_per_update is timing.phases[0]
        for phase in timing.phases:
            assert 0 < phase.low <= phase.median <= phase.high
            assert phase.median < 1, "an update of 8 examples of 3 numbers"
    assert len(shares) == ROUNDS * 4, "four batch sizes in all"
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_rate_at_which_runs_diverge_does_not_disturb_a_timing(short_rounds):
    job = job_for(8, learning_rate=1e9)
    (timing,) = time_updates([job], job.device_data())
    assert np.isfinite(timing.seconds_per_update.median)
