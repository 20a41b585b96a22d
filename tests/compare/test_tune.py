"""The racing tuner finds what trying everything finds, and does not stop at the edge of its grid."""

import math

import numpy as np
import pytest

import backbeat as bb
from backbeat.clock import Target
from backbeat.compare.tune import Tried, default_rates, evaluation_points, tune
from backbeat.config import Settings, resolve
from backbeat.errors import DivergedError

TARGET = "accuracy>=0.7"
MOST = 60  # updates; with seconds in plenty nothing here depends on the speed of the machine
SECONDS = 3600.0


def jobs_for(data, every: int | str = 8, target: str | None = TARGET, n_seeds=2, model=None):
    settings = Settings(every=every, target=target, duration="1000000000 updates", evaluate="1 epoch")
    model = bb.linear() if model is None else model
    given = settings.__dict__
    return [resolve(model, tuple(data), Settings(**{**given, "seed": seed})) for seed in range(n_seeds)]


def tuned(jobs, rates, *, widen=False, most=MOST):
    data = jobs[0].device_data()
    target = jobs[0].stopping.target
    return tune(jobs, data, rates, target=target, seconds=SECONDS, seconds_alone=SECONDS / most, widen=widen)


def brute_force(data, every, rates, n_seeds=2):
    """Returns the updates to the target of each rate and seed, from plain runs that are evaluated at each update."""
    target, found = Target.parse(TARGET), {}
    for rate in rates:
        reached = []
        for seed in range(n_seeds):
            try:
                run = bb.fit(
                    bb.linear(), tuple(data), every=every, seed=seed, learning_rate=rate, duration=f"{MOST} updates",
                    evaluate="1 update",
                )  # fmt: skip
            except DivergedError:
                reached.append(math.inf)
                continue
            columns = run.history
            points = set(evaluation_points(run.job.n_train, every, MOST))
            seen = zip(columns["updates"], columns["held_out_accuracy"], strict=True)
            hits = [int(u) for u, score in seen if u in points and target.reached(score)]
            reached.append(hits[0] if hits else math.inf)
        found[rate] = reached
    return found


def test_the_best_of_a_grid_is_the_best_of_trying_everything(digits):
    rates = [0.03, 0.25, 1.0]
    all_tried = brute_force(digits, 8, rates)
    best = min(rates, key=lambda rate: (max(all_tried[rate]), np.median(all_tried[rate]), rate))
    assert math.isfinite(max(all_tried[best])), "the grid has to hold a rate that reaches the target"
    assert len({max(reached) for reached in all_tried.values()}) > 1, "rates that do alike would test nothing"
    found = tuned(jobs_for(digits), rates)
    assert found.best.learning_rate == best
    assert found.best.updates_to_target == tuple(all_tried[best])
    end = max(all_tried[best])  # the race is over then: who has not reached it by now is not waited for
    for tried in found.tried:
        early = tuple(u if u <= end else None for u in all_tried[tried.learning_rate])
        assert tried.updates_to_target == early


@pytest.mark.parametrize(("rates", "direction"), [([0.001, 0.002, 0.004], 1), ([4.0, 8.0, 16.0], -1)])
def test_a_grid_with_the_best_on_its_edge_is_widened_that_way(diabetes, rates, direction):
    found = tuned(jobs_for(diabetes, every="dataset", target="train r2>=0.3"), rates, widen=True)
    tried = [t.learning_rate for t in found.tried]
    assert 1 <= found.widened <= 3
    assert len(tried) == len(rates) * (1 + found.widened)
    assert np.allclose(np.diff(np.log2(tried)), 1), "the grid stays a factor 2 apart"
    if direction > 0:
        assert tried[0] == rates[0]
        assert found.best.learning_rate > rates[-1]
    else:
        assert tried[-1] == rates[-1]
        assert found.best.learning_rate < rates[0]
    assert not found.on_edge
    assert None not in found.best.updates_to_target


def test_widening_ends_after_three_times_and_says_so(digits):
    found = tuned(jobs_for(digits, n_seeds=1), [1e-7, 2e-7], widen=True)
    assert (found.widened, found.on_edge, len(found.tried)) == (3, True, 8)
    assert found.best is found.tried[-1]


def test_a_grid_that_may_not_be_widened_is_not(digits):
    found = tuned(jobs_for(digits, n_seeds=1), [1e-7, 2e-7], widen=False)
    assert (found.widened, found.on_edge, len(found.tried)) == (0, True, 2)
    assert not tuned(jobs_for(digits, n_seeds=1), [0.25]).on_edge, "a single rate has no edge"


def test_without_a_target_the_lowest_loss_wins_and_a_diverged_rate_never(diabetes):
    jobs = jobs_for(diabetes, every=32, target=None)
    rates = [1e-4, 0.05, 10.0]
    found = tuned(jobs, rates)
    losses = [
        np.median([
            bb.fit(bb.linear(), tuple(diabetes), every=32, seed=seed, learning_rate=rate, duration=f"{MOST} updates")
            .history["held_out_loss_mean"][-1]
            for seed in range(2)
        ])
        for rate in rates[:2]
    ]  # fmt: skip
    assert losses[1] < losses[0]
    assert found.best.learning_rate == 0.05
    assert [t.diverged for t in found.tried] == [0, 0, 2]
    assert math.isnan(found.tried[2].score)
    np.testing.assert_allclose([t.score for t in found.tried[:2]], losses, rtol=1e-5)  # float32 sums in another order


def test_every_seed_counts_before_the_median_and_then_the_score():
    def rank(reached, score=0.9, diverged=0):
        return Tried(0.1, reached, score, diverged).rank(more_is_better=True)

    assert rank((40, 40, 40)) < rank((10, 10, 41)) < rank((5, 5, None))
    assert rank((None, None, None), score=0.8) < rank((None, None, None), score=0.7)
    assert rank((None,), score=0.1) < rank((None,), score=0.9, diverged=1)


def test_default_rates_are_ten_a_factor_two_apart():
    for rule in ("sgd", "momentum", "adam"):
        rates = np.array(default_rates(rule))
        assert len(rates) == 10
        assert (rates[1:] / rates[:-1] == 2).all()


def test_evaluation_points_end_at_the_most_and_are_six_percent_apart():
    for n, size, most in ((1437, 1, 5000), (1437, 32, 700), (88, 88, 20)):
        points = np.array(evaluation_points(n, size, most))
        assert points[-1] == most
        assert (np.diff(points) > 0).all()
        gaps = points[1:-1] / points[:-2]
        assert (gaps <= 1.06 + 1 / points[:-2]).all(), "6 %, or the next whole number"
