"""The sentences and the table at equal budgets, on results that are made up: each figure is known beforehand."""

import numpy as np
import pytest

from backbeat.compare.answer import amount, answer, named
from backbeat.compare.result import CadenceResult, MeasuredRun, Reached, at_equal
from backbeat.compare.tune import Tried, Tuning
from backbeat.measure import Spread, Timing

TARGET = "held-out accuracy>=0.9"


def run(seed, updates, *, batch=1, reached=None, losses=None, scores=None, diverged_at=None) -> MeasuredRun:
    updates = np.array(updates)
    losses = 1 / (1.0 + updates) if losses is None else np.array(losses)
    scores = np.linspace(0.1, 0.95, len(updates)) if scores is None else np.array(scores)
    curve = {
        "updates": updates, "examples": updates * batch, "epochs": updates * batch / 100, "seconds": updates * 1e-3,
        "train_loss_mean": losses, "held_out_accuracy": scores,
        "gradient_norm_mean": np.r_[np.nan, np.ones(len(updates) - 1)],
        "gradient_norm_sd": np.r_[np.nan, np.zeros(len(updates) - 1)],
    }  # fmt: skip
    at = None if reached is None else Reached(reached, reached * batch, reached * batch / 100, reached * 1e-3)
    return MeasuredRun(seed, curve, at, diverged_at)


def cadence(batch, reached, **options) -> CadenceResult:
    """Returns a cadence whose seeds reached the target after so many updates (None: not at all)."""
    runs = tuple(run(k, [0, 10, 100], batch=batch, reached=u, **options) for k, u in enumerate(reached))
    best = Tried(0.1, tuple(reached), 0.9, 0)
    timing = Timing((Spread(1e-3, 1e-3, 1e-3),), 1.0)
    every = "dataset" if batch == 100 else str(batch)
    return CadenceResult(
        every, batch, 100, Tuning((best,), best, False, 0, 1.0), timing, runs, "held_out_accuracy"
    )  # fmt: skip


def said(*cadences, target=TARGET) -> str:
    return " ".join(answer(cadences, target, None, at_equal(cadences)))


def test_ranges_that_overlap_have_no_clear_winner():
    text = said(cadence(1, [40, 50, 90]), cadence(32, [60, 70, 80]))
    assert "No clear winner on updates: updating after each example took 50 updates (40 to 90) and was first" in text
    assert "first with 2 of 3 seeds" in text, "of one seed after the other: 40 < 60, 50 < 70, 90 > 80"
    assert "that of updating after 32 examples (70 updates)" in text


def test_ranges_that_do_not_overlap_have_a_winner_and_by_how_much():
    text = said(cadence(1, [40, 50, 59]), cadence(32, [60, 100, 110]))
    assert "Updating after each example took the fewest updates: 50 updates (40 to 59)" in text
    assert "2 times fewer than after 32 examples (100 updates)" in text
    assert "took the least time: 50 ms" in text
    assert "No clear winner" not in text


def test_each_clock_has_its_own_winner():
    sentences = answer([cadence(1, [50, 51, 52]), cadence(100, [5, 6, 7])], TARGET, None, {})
    assert any(s.startswith("Updating after the whole data set took the fewest updates") for s in sentences)
    assert any(s.startswith("Updating after each example took the fewest examples") for s in sentences)


def test_a_cadence_that_some_seeds_did_not_bring_to_the_target_is_named_and_never_ranked():
    text = said(cadence(1, [50, 51, 52]), cadence(32, [3, 4, None]))
    assert "Updating after 32 examples reached the target in 2 of 3 runs" in text
    assert "Only updating after each example reached held-out accuracy>=0.9 on every seed" in text


def test_a_target_that_none_reached_is_said_with_what_came_nearest():
    near, far = cadence(1, [None] * 3), cadence(32, [None] * 3, scores=[0.1, 0.2, 0.3])
    equal = at_equal([far, near])
    sentence, *others = answer([far, near], TARGET, None, equal)
    assert sentence.startswith("No cadence reached held-out accuracy>=0.9 on every seed")
    assert "each example came nearest, at 0.95" in sentence
    assert others == answer([far, near], None, None, equal), "what was measured all the same"
    sentence, *_ = answer([far, near], "train loss<=0.1", None, equal)
    assert "32 examples came nearest, at 0.3" in sentence, "of a loss the smaller one is nearer"


def test_at_equal_budgets_by_hand():
    one = cadence(1, [None] * 2, losses=[3, 2, 1])  # 100 updates, 100 examples, 0.1 s
    ten = cadence(10, [None] * 2, losses=[3, 0.7, 0.5])  # 100 updates, 1,000 examples, 0.1 s
    found = at_equal([one, ten])
    assert {clock: found[clock]["at"] for clock in found} == {"examples": 100, "updates": 100, "seconds": 0.1}
    medians = {clock: [row["train_loss_mean"]["median"] for row in found[clock]["rows"]] for clock in found}
    # after 100 examples the second has made 10 updates; after 100 updates, or 0.1 s, both are at their ends
    assert medians == {"examples": [1, 0.7], "updates": [1, 0.5], "seconds": [1, 0.5]}
    assert found["examples"]["rows"][1]["score"]["median"] == pytest.approx((0.1 + 0.95) / 2)


def test_equal_budgets_are_medians_and_ranges_over_the_seeds():
    runs = tuple(run(k, [0, 10], losses=[9, loss]) for k, loss in enumerate([0.5, 0.1, 0.2]))
    base = cadence(1, [None])
    three = CadenceResult("1", 1, 100, base.tuning, base.timing, runs, base.score_column)
    row = at_equal([three])["updates"]["rows"][0]["train_loss_mean"]
    assert row == {"median": 0.2, "low": 0.1, "high": 0.5}


def test_a_diverged_run_shortens_no_budget_and_has_no_figure():
    good, base = cadence(1, [None] * 2), cadence(32, [None] * 2)
    lost = run(1, [0], batch=32, diverged_at=3)
    bad = CadenceResult("32", 32, 100, base.tuning, base.timing, (base.runs[0], lost), base.score_column)
    found = at_equal([good, bad])
    assert found["updates"]["at"] == 100
    assert bad.record()["diverged_share"] == 0.5
    assert found["updates"]["rows"][0]["train_loss_mean"] is not None


def test_without_a_target_the_answer_is_the_lowest_loss_at_each_budget():
    better, worse = cadence(1, [None] * 2, losses=[3, 2, 0.1]), cadence(10, [None] * 2, losses=[3, 2.9, 2.8])
    sentences = answer([worse, better], None, None, at_equal([worse, better]))
    assert len(sentences) == 3
    assert sentences[1].startswith("After 100 examples, updating after each example has the lowest training loss, 0.1")
    same = answer([better, cadence(32, [None] * 2, losses=[3, 2, 0.1])], None, None, at_equal([better, better]))
    assert "no clear winner" in same[2]


def test_gradient_norm_pools_the_spread_within_intervals():
    base = cadence(1, [None])
    curve = {
        "updates": np.array([0, 2, 6]),
        "gradient_norm_mean": np.array([np.nan, 2.0, 1.0]),
        "gradient_norm_sd": np.array([np.nan, 1.0, 0.5]),
    }
    one = MeasuredRun(0, curve, None, None)
    found = CadenceResult("1", 1, 100, base.tuning, base.timing, (one,), "x").gradient_norm()
    # √((2·1² + 4·0.5²) / (2·2² + 4·1²)) = √(3/12); the fall from 2 to 1 does not count as spread
    assert found == {"median": 1.5, "spread": 0.5}


def test_names_and_amounts():
    assert [named(cadence(m, [1])) for m in (1, 32, 100)] == ["each example", "32 examples", "the whole data set"]
    assert amount(1, "updates") == "1 update"
    assert amount(12345.4, "examples") == "12,345 examples"
    assert [amount(s, "seconds") for s in (75, 1.234, 0.0123, 4.5e-6)] == ["75 s", "1.23 s", "12.3 ms", "4.5 µs"]
