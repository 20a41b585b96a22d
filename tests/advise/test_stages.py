"""The stages of advice, each against something written another way, on data small enough for seconds."""

import math
from dataclasses import replace

import numpy as np
import pytest

import backbeat as bb
from backbeat.advise import capacity as capacity_module
from backbeat.advise.answer import about_wish, next_measurement, not_measured
from backbeat.advise.capacity import Capacity, largest_batch
from backbeat.advise.confirm import Confirmation, Confirmed, alone_for, in_rounds
from backbeat.advise.hardware import HardwareCurve
from backbeat.advise.noise_run import noise_along
from backbeat.advise.replan import elsewhere
from backbeat.advise.search import Budget, Search, Sized, first_sizes
from backbeat.advise.target import measured_target, with_target
from backbeat.advise.timing import of_batch_size
from backbeat.advise.wishes import one_run, wishes_of
from backbeat.clock import Target
from backbeat.compare.critical import Interval, fit_critical
from backbeat.compare.spread import Workers
from backbeat.compare.trainings import Trainings
from backbeat.compare.where import Where
from backbeat.config import Settings, resolve
from backbeat.data import Reading, load
from backbeat.errors import DivergedError, SettingsError
from backbeat.gradient import per_example_gradients

ENDLESS = {"duration": "1000000000 updates", "held_out": 0, "evaluate": "1 epoch"}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 120)
    x = rng.normal(size=(120, 5)) + 2 * np.eye(3, 5)[y]
    return x.astype(np.float32), y


def jobs_for(data, n=6, **settings):
    given = {**ENDLESS, "every": 8, "target": Target.parse("train loss<=0.3"), **settings}
    return [resolve(bb.linear(), data, Settings.given({**given, "seed": seed})) for seed in range(n)]


def here(data, place=None):
    """Returns what makes the runs of jobs for the same data, in this process or elsewhere."""
    settings = Settings.given({**ENDLESS, "every": 8, "target": "train loss<=0.3"})
    return Workers(place, Trainings(bb.linear(), load(data, Reading(), 0), settings), pytest.fail)


# the noise scale along a run


@pytest.mark.parametrize("weighted", [False, True])
def test_noise_along_a_run_is_that_of_every_examples_gradient(data, weighted):
    x, y = data
    weight = np.random.default_rng(1).uniform(0.5, 2, 120).astype(np.float32)
    job = jobs_for((x, y, weight) if weighted else data, 1, learning_rate=0.3)[0]
    found = noise_along(job, job.device_data(), 20, n_points=3)
    assert found.updates == (0, 10, 20)
    assert found.n_examples == found.n_train == 120
    p = weight / weight.sum() if weighted else np.full(120, 1 / 120)
    parts = []
    for updates, point in zip(found.updates, found.points, strict=True):
        run = bb.fit(bb.linear(), (x, y, weight) if weighted else data, every=8, learning_rate=0.3, held_out=0,
                     duration=f"{max(updates, 1)} updates")  # fmt: skip
        params = run.params if updates else job.initial_state().params
        rows = np.asarray(per_example_gradients(job.model, job.loss, params, x, y), np.float64)
        mean = p @ rows
        trace = (p @ ((rows - mean) ** 2).sum(axis=1)) / (1 - (p**2).sum())
        assert point.trace == pytest.approx(trace, rel=1e-4)  # float32 gradients
        if not weighted:
            assert point.gradient_squared == pytest.approx(mean @ mean, rel=1e-3)
            assert point.scale == pytest.approx(np.trace(np.cov(rows.T)) / (mean @ mean), rel=1e-3)
        parts.append((point.gradient_squared, point.trace))
    squared, trace = np.mean(parts, axis=0)
    assert found.whole.scale == pytest.approx(trace / squared), "the parts are averaged, not the ratios"
    assert "all examples" in found.sentence
    assert len(found.record()["points"]) == 3


def test_noise_of_a_sample_is_near_that_of_all_and_its_interval_wider(data):
    job = jobs_for(data, 1, learning_rate=0.05)[0]
    whole, some = (noise_along(job, job.device_data(), 4, n_points=2, most=most).whole for most in (4096, 60))
    assert some.low < whole.scale < some.high
    assert some.high / some.low > whole.high / whole.low


def test_noise_of_a_run_that_diverges_ends_there(data):
    x, y = data
    job = resolve(bb.linear(), (x, y.astype(float)), Settings.given({**ENDLESS, "every": 8, "learning_rate": 50.0}))
    found = noise_along(job, job.device_data(), 5000, n_points=4)
    assert found.updates[0] == 0
    assert found.updates[-1] < 5000


# memory


def test_all_of_small_data_fits_and_is_run_once(data):
    job = jobs_for(data, 1)[0]
    found = largest_batch(job, job.device_data(), seconds=60)
    assert found.block == 120
    assert found.confirmed
    assert found.needed is not None
    assert 0 < found.needed < 10_000_000
    assert "fits into memory as one batch in one block" in found.sentences[0]


def test_with_little_memory_a_smaller_block_is_found_from_the_compilers_plan(monkeypatch):
    rng = np.random.default_rng(0)
    big = (rng.normal(size=(4096, 64)).astype(np.float32), rng.integers(0, 3, 4096))
    job = resolve(bb.mlp((256,)), big, Settings.given({**ENDLESS, "every": 8}))
    all_of_it = largest_batch(job, job.device_data(), seconds=60, confirm=False)
    assert all_of_it.block == 4096
    assert not all_of_it.confirmed
    assert all_of_it.needed is not None
    half = all_of_it.needed // 2
    monkeypatch.setattr(capacity_module, "free_bytes", lambda: half)
    found = largest_batch(job, job.device_data(), seconds=60)
    assert found.block is not None
    assert 128 < found.block < 2048
    assert found.confirmed
    assert found.needed is not None
    assert found.free is not None
    assert found.needed <= 0.8 * found.free
    assert "larger batches are computed in blocks" in found.sentences[0]
    monkeypatch.setattr(capacity_module, "free_bytes", lambda: None)
    assert "was not measured" in largest_batch(job, job.device_data(), seconds=60).sentences[0]
    assert Capacity(None, 5, None, 7, False).record()["block"] is None


# the target where none is given


def test_a_target_is_a_loss_that_every_seed_can_reach(data):
    x, _ = data
    jobs = jobs_for((x, x @ np.arange(5.0).astype(np.float32)), 3)
    found = measured_target(jobs, jobs[0].device_data(), 1e-4, 0.5)
    assert (found.score, found.part) == ("loss", "train")
    first = bb.fit(bb.linear(), (x, x @ np.arange(5.0)), held_out=0, duration="1 epoch", evaluate="1 epoch")
    assert 0 < found.value < 0.5 * float(first.history["train_loss_mean"][0])
    assert with_target(jobs[0], found).stopping.target == found


def test_a_target_is_not_made_up_where_nothing_is_learned(data):
    x, _ = data
    jobs = jobs_for((np.zeros_like(x), np.zeros(len(x), np.float32)), 2)
    with pytest.raises(DivergedError, match="no target to advise for"):
        measured_target(jobs, jobs[0].device_data(), 1e-4, 0.2)


# the search


def test_sizes_go_from_one_to_all():
    assert first_sizes(2) == [1, 2]
    assert first_sizes(1437) == [1, 4, 16, 64, 256, 1437]
    assert first_sizes(100) == [1, 4, 16, 100]


@pytest.mark.slow
def test_a_search_finds_for_each_size_what_runs_of_fit_take(data):
    jobs = jobs_for(data)
    search = Search(jobs, jobs[0].device_data(), lambda m: 1e-5 + 1e-6 * m, lambda *a, **k: None, lambda *a: None)
    search.first_rung(lambda: 30.0)
    assert sorted(search.sizes) == [1, 4, 16, 120]
    search.second_rung(lambda: 30.0)
    best = search.quickest
    assert best is not None
    assert all(m in search.sizes for m in search.beside(best)), "both neighbours are measured"
    assert len(search.sizes[best].tried) > 5, "and rates near the best one, on other seeds"
    size = search.sizes[16]
    assert size.reached
    tuned = [t for t in size.tried if t.learning_rate == size.learning_rate]
    for seed, updates in enumerate(tuned[0].updates_to_target):
        run = bb.fit(bb.linear(), data, every=16, held_out=0, learning_rate=size.learning_rate, seed=seed,
                     target="train loss<=0.3", duration="100 epochs", evaluate="1 updates")  # fmt: skip
        # evaluations of the search are 6 % apart at most, at least one update
        assert updates is not None
        assert run.clock.updates <= updates <= max(run.clock.updates * 1.07, run.clock.updates + 1)
    assert search.law is not None
    medians = [search.sizes[m].median for m in (1, 4, 16, 120)]
    assert medians == sorted(medians, reverse=True)


def test_a_size_that_takes_too_long_is_named(data):
    jobs = jobs_for(data)
    search = Search(jobs, jobs[0].device_data(), lambda m: 1e-5, lambda *a, **k: None, lambda *a: None)
    search.sizes[64] = Sized(64, 0.1, (100, 100, 100))
    search.measure(1, 1e-4, slice(0, 3), (1.0,))
    assert search.sizes[1].why_not is not None
    assert (
        "was not measured: one run would take about 64 ms, more than the 100 µs left"
        in not_measured(search.sizes, 120)[0]
    )


def test_an_optimizer_with_its_own_rate_is_searched_without_rates(data):
    import optax

    jobs = jobs_for(data, 6, optimizer=optax.sgd(0.3))
    search = Search(jobs, jobs[0].device_data(), lambda m: 1e-5 + 1e-6 * m, lambda *a, **k: None, lambda *a: None)
    search.first_rung(lambda: 20.0)
    assert search.law is None
    assert search.sizes[16].reached


def test_the_budget_counts_shares():
    budget = Budget(100.0)
    assert 49 < budget.left(0.5) <= 50
    assert budget.left(0.0, 0.1) == 10
    assert budget.spent < 1


# wishes, confirmation, answer


def sized(updates):
    return {m: Sized(m, 0.1, tuple(u)) for m, u in updates.items()}


UPDATES = {m: [round(100 * (1 + 32 / m) * f) for f in (0.95, 1.0, 1.06)] for m in (1, 4, 16, 64, 256, 1000)}


def seconds(m):
    t = 1e-5 + 1e-6 * m
    return Interval(t, 0.9 * t, 1.2 * t)


def test_each_wish_has_the_least_of_its_kind():
    sizes = sized(UPDATES)
    found = wishes_of(list(sizes.values()), seconds, 1000)
    assert set(found) == {"finish_first", "fewest_examples", "fewest_updates"}
    times_of = {m: s.median * seconds(m).value for m, s in sizes.items()}
    assert found["finish_first"].batch_size == min(times_of, key=times_of.__getitem__)
    assert found["fewest_examples"].batch_size == 4, "1 needs 9 % fewer, within what counts as equal, and more time"
    assert found["fewest_updates"].batch_size == 256, (
        "1000 needs 8 % fewer, within what counts as equal, and more examples"
    )
    first = found["finish_first"]
    assert first.seconds.value == pytest.approx(first.updates.value * seconds(first.batch_size).value)
    assert first.seconds.low < first.seconds.value < first.seconds.high
    assert first.epochs.value == pytest.approx(first.examples.value / 1000)
    assert wishes_of([Sized(1, 0.1, (5, None))], seconds, 1000) == {}
    assert "update after 16 examples with the learning rate 0.1" in about_wish(first, 1000)


def test_one_more_run_falls_into_its_interval_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        made = {m: np.maximum(1, np.round(1000 * np.exp(rng.normal(0, 0.1, 3)))).astype(int) for m in (1, 2, 3)}
        sizes = [Sized(m, 0.1, tuple(int(u) for u in updates)) for m, updates in made.items()]
        found = one_run(sizes[0], sizes)
        held += found.low <= 1000 * np.exp(rng.normal(0, 0.1)) <= found.high
    # 95 % of 300 is 285, ± 3 standard errors of 3.8; the median instead of the mean makes it a little less
    assert 268 <= held <= 296


def searched(data, **settings):
    jobs = jobs_for(data, 9, **settings)
    search = Search(jobs, jobs[0].device_data(), lambda m: 1e-5 + 1e-6 * m, lambda *a, **k: None, lambda *a: None)
    search.first_rung(lambda: 30.0)
    search.second_rung(lambda: 30.0)
    return search


@pytest.mark.slow
def test_real_runs_decide_between_the_setting_and_its_neighbours(data):
    search = searched(data)
    predicted = search.quickest
    notes = []
    confirmation = Confirmation(
        search, here(data), seconds, range(6, 9), lambda event, **known: notes.append(known["batch_size"]),
    )  # fmt: skip
    wishes = confirmation.carry_out(lambda: 20.0)
    best = wishes["finish_first"].batch_size
    assert predicted in confirmation.confirmed
    assert {best, *(m for m in search.beside(best) if m in search.sizes)} <= set(confirmation.confirmed)
    assert sorted(notes) == sorted(confirmation.confirmed)
    one = confirmation.confirmed[best]
    assert one.reached
    assert len(one.updates) == len(one.seconds) == 3
    pooled = next(size for size in confirmation.sizes if size.batch_size == best)
    assert pooled.updates == (*search.sizes[best].updates, *one.updates)
    assert wishes["finish_first"].updates.value == np.median(pooled.seen)
    of_runs = confirmation.seconds(best)
    assert of_runs != seconds(best), "seconds are those of the real runs"
    assert 0 < of_runs.low <= of_runs.value <= of_runs.high
    quickest = min(confirmation.confirmed, key=lambda m: confirmation.seconds(m).value * next(
        size.median for size in confirmation.sizes if size.batch_size == m))  # fmt: skip
    assert best == quickest


@pytest.mark.slow
def test_real_runs_on_two_processes_take_the_same_updates(data):
    search, seen = searched(data), []
    for place in (None, Where(processes=2)):
        with here(data, place) as workers:
            confirmation = Confirmation(search, workers, seconds, range(6, 9), lambda *a, **k: None)
            confirmation._run(list(search.sizes)[:3], lambda: 600.0)
            seen.append({m: one.updates for m, one in confirmation.confirmed.items()})
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3


def test_a_setting_whose_real_runs_fall_short_is_not_recommended(data):
    search = searched(data)
    best = search.quickest
    assert best is not None
    real = search.sizes[best]
    search.sizes[best] = replace(real, learning_rate=1e-6, updates=(3, 3, 3))  # a search that was wrong
    confirmation = Confirmation(
        search, here(data), lambda m: Interval(1e-5, 1e-5, 1e-5), range(6, 9), lambda *a, **k: None
    )
    wishes = confirmation.carry_out(lambda: 2.0)
    assert not confirmation.confirmed[best].reached
    assert wishes["finish_first"].batch_size != best


def test_a_prediction_agrees_within_its_factors():
    right = Confirmed(8, "8", 0.1, Interval(100, 1, 999), Interval(1.0, 0, 9), (125, 110, 80), (1.4, 1.2, 0.9))
    assert right.agrees
    assert not replace(right, predicted_updates=Interval(150, 1, 999)).agrees
    assert not replace(right, predicted_seconds=Interval(2.0, 1, 9)).agrees
    never = replace(right, updates=(5, None), seconds=(0.1, None))
    assert never.median_updates == math.inf
    assert not never.agrees


def test_runs_are_timed_in_rounds_and_one_that_diverges_never_ends(data):
    x, _ = data
    job = jobs_for(data, 1, learning_rate=0.3)[0]
    seen = in_rounds([(of_batch_size(job, 8), 20), (of_batch_size(job, 120), 5)], job.device_data(), 0.0)
    assert seen.shape == (2, 2)
    assert ((seen > 0) & (seen < 5)).all()
    diverges = jobs_for((x, x @ np.arange(5.0).astype(np.float32)), 1, learning_rate=100.0)[0]
    assert alone_for(diverges, 500, diverges.device_data()) == math.inf


def test_the_next_measurement_is_named_where_something_is_unsure():
    sizes = sized(UPDATES)
    wishes = wishes_of(list(sizes.values()), seconds, 1000)
    fit = fit_critical({m: s.seen for m, s in sizes.items()})
    assert fit is not None
    assert fit.known
    assert next_measurement(wishes, fit, [], sizes) is None
    first = wishes["finish_first"]
    good = Confirmed(16, "16", 0.1, first.updates, first.seconds, (300,), (first.seconds.value,))
    assert good.agrees
    assert next_measurement(wishes, fit, [good], sizes) is None
    bad = replace(good, updates=(900,))
    assert "disagree with the prediction" in str(next_measurement(wishes, fit, [bad], sizes))
    wide = {"finish_first": replace(first, seconds=Interval(1, 0.1, 10))}
    assert "more seeds at 16" in str(next_measurement(wide, fit, [], sizes))
    left = sizes | {2: Sized(2, math.nan, (), why_not="no time")}
    assert "Measure next: 2" in str(next_measurement(wishes, fit, [], left))
    assert "critical batch size becomes known" in str(next_measurement(wishes, None, [], sizes))
    assert "more time" in str(next_measurement({}, None, [], {}))


# machines that are not here


def test_elsewhere_is_computed_from_updates_measured_here():
    sizes = sized(UPDATES)
    fit = fit_critical({m: s.seen for m, s in sizes.items()})
    curve = HardwareCurve.of({m: [1e-5 + 1e-6 * m] * 3 for m in (1, 16, 256, 1000)})
    given = elsewhere(None, "alpha=1ms,beta=1us")
    assert given is not None
    found = given.record(fit, sizes, curve, 1000, 5000)
    assert fit is not None
    # √(B_crit α/β) = √(32 · 1000) ≈ 179, of the powers of two and the sizes measured
    assert found["best"]["batch_size"] in (128, 256)
    assert all(row["seconds"] == pytest.approx(row["updates"]["value"] * (1e-3 + 1e-6 * row["batch_size"]))
               for row in found["rows"])  # fmt: skip
    assert found["sentences"][0].startswith("Computed, not measured: on a machine with α = 1 ms")
    eight = elsewhere(8, None)
    assert eight is not None
    more = eight.record(fit, sizes, curve, 1000, 5000)
    assert more["best"]["batch_size"] > 16, "eight devices share a batch, so a larger one is quickest"
    assert "adding up the gradients is not counted" in more["sentences"][0]
    linked = elsewhere(8, "bandwidth=1MB/s")
    assert linked is not None
    slow = linked.record(fit, sizes, curve, 1000, 5000)
    assert slow["best"]["batch_size"] >= more["best"]["batch_size"]
    assert "not counted" not in slow["sentences"][0]
    assert elsewhere(None, None) is None
    for devices in (0, True, 2.5):
        with pytest.raises(SettingsError, match="must be a whole number from 1"):
            elsewhere(devices, None)
    none = eight.record(None, {}, curve, 1000, 5000)
    assert none["best"] is None
