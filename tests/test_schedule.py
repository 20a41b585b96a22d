"""Learning-rate schedules: a factor for each update from where it lies on the run's clocks. In a run: test_train.py."""

import math

import numpy as np
import optax
import pytest

from backbeat.clock import Durations
from backbeat.schedule import Schedule, schedule_for


def clocks(n: int, batch: int, n_examples: int) -> tuple[dict, dict]:
    updates = np.arange(n + 1)
    all_clocks = {"updates": updates, "examples": updates * batch, "epochs": updates * batch / n_examples}
    return {k: v[:-1] for k, v in all_clocks.items()}, {k: v[1:] for k, v in all_clocks.items()}


def factors(text: str | None, warm_up: str | None, duration: str = "4 epochs", batch: int = 10) -> np.ndarray:
    schedule = schedule_for(text, warm_up, Durations.parse(duration))
    return schedule.factors(*clocks(400 // batch, batch, 100))


@pytest.mark.parametrize("over", ["4 epochs", "40 updates", "400 examples"])
def test_shapes_equal_their_formulas_in_every_unit(over: str):
    """float32 factors of float64 formulas: equal to half a unit in the last place, 6e-8."""
    u = np.arange(40)
    np.testing.assert_allclose(factors(f"linear over {over}", None), 1 - u / 40, atol=6e-8)
    np.testing.assert_allclose(
        factors(f"cosine over {over}", None), [0.5 * (1 + math.cos(math.pi * v / 40)) for v in u], atol=6e-8
    )


@pytest.mark.parametrize("warm_up", ["1 epochs", "10 updates", "100 examples"])
def test_warm_up_rises_in_a_line_and_loses_no_update(warm_up: str):
    rising = np.minimum(np.arange(1, 41) / 10, 1)
    np.testing.assert_allclose(factors(None, warm_up), rising, atol=6e-8)


def test_a_decay_in_the_same_unit_begins_where_the_warm_up_ends():
    u = np.arange(40)
    expected = np.where(u < 10, (u + 1) / 10, 1 - (u - 10) / 30)
    np.testing.assert_allclose(factors("linear", "10 updates", "40 updates"), expected, atol=6e-8)


def test_a_decay_stands_still_after_its_end():
    assert factors("linear over 2 epochs", None)[20:].tolist() == [0.0] * 20


def test_the_same_schedule_for_any_batch_size_in_examples():
    """Batches of 10 and of 40 at the same number of examples have the same factor."""
    fine, coarse = factors("cosine over 400 examples", None), factors("cosine over 400 examples", None, batch=40)
    np.testing.assert_array_equal(fine[::4], coarse)


def test_without_over_a_decay_takes_the_duration_that_is_counted():
    assert str(schedule_for("cosine", None, Durations.parse("30 s or 20 epochs"))) == "cosine over 20 epochs"


def test_an_optax_schedule_is_read_at_the_update_count():
    schedule = schedule_for(optax.linear_schedule(0.5, 0.1, 4), None, Durations.parse("1 epochs"))
    np.testing.assert_allclose(schedule.factors(*clocks(5, 1, 5)), [0.5, 0.4, 0.3, 0.2, 0.1], rtol=1e-6)
    assert schedule.units == {"updates"}


def test_a_constant_has_nothing_to_work_out():
    assert schedule_for(None, None, Durations.parse("1 s")).constant
    assert not Schedule("linear").constant
