"""Durations, targets and patience as they are read, and the one place that decides when a run is over."""

import math

import pytest

from backbeat.clock import Clock, Duration, Durations, Patience, Stopping, Target, parse_seconds


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("20 epochs", 20, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("0.5 epochs", 0.5, "epochs"),
        ("5000updates", 5000, "updates"),
        ("1e3 updates", 1000, "updates"),
        ("100_000 examples", 100_000, "examples"),
        ("100,000 Examples", 100_000, "examples"),
        ("30 s", 30, "seconds"),
        (".5 sec", 0.5, "seconds"),
        ("2 min", 120, "seconds"),
        ("1.5 h", 5400, "seconds"),
    ],
)
def test_durations_are_read(text: str, amount: float, unit: str):
    duration = Duration.parse(text)
    assert (duration.amount, duration.unit) == (amount, unit)
    assert Duration.parse(str(duration)) == duration


def test_whichever_comes_first():
    durations = Durations.parse("20 epochs or 30 s or 10 epochs")
    assert durations.amount("epochs") == 10
    assert durations.amount("seconds") == 30
    assert math.isinf(durations.amount("updates"))
    assert not durations.over(Clock(epochs=9.99, seconds=29.9, updates=10**9))
    assert durations.over(Clock(epochs=10.0))
    assert durations.over(Clock(seconds=30.0))
    assert Durations.parse(str(durations)) == durations


@pytest.mark.parametrize(("given", "seconds"), [("60 s", 60), ("2 min", 120), (5, 5), (0.25, 0.25), ("7", 7)])
def test_times(given: str | float, seconds: float):
    assert parse_seconds(given, "budget") == seconds


@pytest.mark.parametrize(
    ("text", "score", "value", "part"),
    [
        ("accuracy>=0.95", "accuracy", 0.95, None),
        ("accuracy >= 95%", "accuracy", 0.95, None),
        ("train loss<=0.1", "loss", 0.1, "train"),
        ("held-out r2>0.8", "r2", 0.8, "held_out"),
        ("held out mse<1e-3", "mse", 0.001, "held_out"),
    ],
)
def test_targets_are_read(text: str, score: str, value: float, part: str | None):
    target = Target.parse(text)
    assert (target.score, target.value, target.part) == (score, pytest.approx(value, rel=1e-15), part)
    assert Target.parse(str(target)) == target


def test_a_target_is_reached_from_its_side_and_never_by_nan():
    accuracy, loss = Target.parse("accuracy>=0.5"), Target.parse("loss<=0.5")
    assert [accuracy.reached(v) for v in (0.4, 0.5, 0.6, math.nan)] == [False, True, True, False]
    assert [loss.reached(v) for v in (0.4, 0.5, 0.6, math.nan)] == [True, True, False, False]


def test_why_a_run_is_over():
    stopping = Stopping(Durations.parse("10 epochs or 60 s"), Target.parse("accuracy>=0.9"), Patience.parse("3 epochs"))
    best = Clock(epochs=4.0)
    assert stopping.reason(Clock(epochs=6.0), {"accuracy": 0.8, "loss": 1.0}, best) is None
    assert stopping.reason(Clock(epochs=7.0), {"accuracy": 0.8, "loss": 1.0}, best) == "no better for 3 epochs"
    assert stopping.reason(Clock(epochs=7.0), {}, best) is None  # patience is judged where something was evaluated
    assert stopping.reason(Clock(epochs=10.0), {"accuracy": 0.8}, best) == "ran for 10 epochs or 60 seconds"
    assert stopping.reason(Clock(epochs=10.0), {"accuracy": 0.9}, best) == "reached accuracy>=0.9"
    assert stopping.reason(Clock(seconds=61.0), {}, None) == "ran for 10 epochs or 60 seconds"
