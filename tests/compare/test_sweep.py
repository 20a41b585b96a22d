"""A sweep gives what single runs give: vectorised to rounding, each by itself to the bit."""

import math

import jax
import numpy as np
import pytest

import backbeat as bb
import backbeat.cores
from backbeat.compare import sweep as module
from backbeat.compare.sweep import Apart, Together, parted, sweep
from backbeat.config import Job, Settings, resolve
from backbeat.errors import DivergedError

RATES = (0.02, 0.1, 0.5)
POINTS = (3, 4, 31)  # two evaluations in the middle of an epoch


def jobs_for(data, every, *, n_seeds=2, model=None, **settings) -> list[Job]:
    given = {"every": every, "duration": "1000000000 updates", "evaluate": "1 epoch", **settings}
    model = bb.mlp(hidden=(4,)) if model is None else model
    return [resolve(model, tuple(data), Settings(seed=seed, **given)) for seed in range(n_seeds)]


def fitted(data, every, seed, rate, model=None, **settings):
    model = bb.mlp(hidden=(4,)) if model is None else model
    given = {"every": every, "seed": seed, "learning_rate": rate, "evaluate": "never", **settings}
    return bb.fit(model, tuple(data), duration=f"{POINTS[-1]} updates", **given)


def leaves_of(runs: Together | Apart, seed: int, rate: int) -> list[np.ndarray]:
    """Returns the parameters of one run of a sweep."""
    if isinstance(runs, Apart):
        return [np.asarray(leaf) for leaf in jax.tree.leaves(runs.engines[seed][rate].state.params)]
    part = 0 if rate < len(runs.rates[0]) else 1
    place = rate - runs.parts[part].start
    return [np.asarray(leaf)[seed, place] for leaf in jax.tree.leaves(runs.states[part].params)]


@pytest.mark.parametrize("every", [1, 32, "dataset"])
@pytest.mark.sample(2)
def test_a_sweep_equals_single_runs(digits, every):
    jobs = jobs_for(digits, every)
    data = jobs[0].device_data()
    together, apart = Together(jobs, RATES, data), Apart(jobs, RATES, data)
    for point in POINTS:
        together.advance(point)
        apart.advance(point)
    assert together.clock.updates == apart.clock.updates == POINTS[-1]
    found = together.scores(["train", "held_out"]), apart.scores(["train", "held_out"])
    for seed in range(len(jobs)):
        for r, rate in enumerate(RATES):
            alone = fitted(digits, every, seed, rate)
            for one, vectorised, single in zip(
                jax.tree.leaves(alone.params), leaves_of(together, seed, r), leaves_of(apart, seed, r), strict=True
            ):
                np.testing.assert_array_equal(single, one)
                # float32 sums in another order: 6e-8 relative an operation, a few dozen of them on values up to 2
                np.testing.assert_allclose(vectorised, one, rtol=1e-5, atol=1e-5)
            for part in ("train", "held_out"):
                a, b = (f[part][seed][r] for f in found)
                assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
                assert a["accuracy"] == pytest.approx(b["accuracy"], abs=1e-6)  # a share of float32 counts


def test_seeds_differ_in_weights_split_and_order(digits):
    jobs = jobs_for(digits, 32)
    together = Together(jobs, RATES[:1], jobs[0].device_data())
    assert not np.array_equal(leaves_of(together, 0, 0)[1], leaves_of(together, 1, 0)[1])
    assert not np.array_equal(jobs[0].split.held_out, jobs[1].split.held_out)
    rows, _ = together.planned(4)
    assert not np.array_equal(rows.indices[0], rows.indices[1])


@pytest.mark.parametrize("form", [Together, Apart])
def test_a_run_that_diverges_is_noted_and_disturbs_no_other(diabetes, form):
    rates = (0.01, 10.0, 0.02)  # 10 is far beyond 2/λ_max of least squares on standardised inputs
    jobs = jobs_for(diabetes, 32, model=bb.linear())
    runs = form(jobs, rates, jobs[0].device_data())
    for point in POINTS:
        runs.advance(point)
    for seed in range(2):
        with pytest.raises(DivergedError) as caught:
            fitted(diabetes, 32, seed, 10.0, model=bb.linear())
        words = str(caught.value)
        at = int(words.split("at update ")[1].split(":")[0])
        assert runs.diverged_at[seed].tolist() == [0, at, 0]
        for r in (0, 2):
            alone = jax.tree.leaves(fitted(diabetes, 32, seed, rates[r], model=bb.linear()).params)
            for one, swept in zip(alone, leaves_of(runs, seed, r), strict=True):
                np.testing.assert_allclose(swept, one, rtol=1e-5, atol=1e-6)  # rounding, as above
        found = runs.scores(["held_out"])["held_out"][seed]
        assert all(math.isnan(value) for value in found[1].values())
        assert all(math.isfinite(value) for r in (0, 2) for value in found[r].values())


@pytest.mark.parametrize("form", [Together, Apart])
def test_gradient_norms_are_those_of_each_update(digits, form):
    jobs = jobs_for(digits, 32)
    runs = form(jobs, RATES, jobs[0].device_data(), watch=True)
    norms = np.concatenate([runs.advance(point) for point in POINTS], axis=-1)
    assert norms.shape == (2, 3, POINTS[-1])
    seen = []
    fitted(digits, 32, 1, RATES[2], watch_gradient=True, on_event=lambda e: seen.append(e))
    alone = np.concatenate([e.gradient_norms for e in seen if hasattr(e, "gradient_norms")])
    np.testing.assert_allclose(norms[1, 2], alone, rtol=1e-4)  # of a gradient that becomes small: more than rounding


def test_results_do_not_depend_on_the_number_of_cores(digits, monkeypatch):
    jobs = jobs_for(digits, 8)
    found = []
    for cores in (1, 2, 7):
        for holder in (module, backbeat.cores):
            monkeypatch.setattr(holder, "n_cores", lambda cores=cores: cores)
        backbeat.cores._pool.cache_clear()
        runs = Together(jobs, RATES, jobs[0].device_data())
        runs.advance(20)
        found.append([leaf.tobytes() for r in range(3) for leaf in leaves_of(runs, 1, r)])
    assert found[0] == found[1] == found[2]


def test_parts_have_one_shape_and_cover_all():
    for n in range(1, 9):
        parts = parted(n)
        assert len({part.stop - part.start for part in parts}) == 1
        assert sorted({k for part in parts for k in range(n)[part]}) == list(range(n))


def test_only_plain_cadences_are_vectorised(digits):
    for every in ("8 repeat until correct at most 2", "8 then 16 after 2 epochs"):
        jobs = jobs_for(digits, every, n_seeds=1)
        assert isinstance(sweep(jobs, RATES[:1], jobs[0].device_data(), 1e-5), Apart)
    jobs = jobs_for(digits, 8)
    data = jobs[0].device_data()
    # told that a single run takes for ever, the sweep runs together; told that it takes nothing, apart
    assert isinstance(sweep(jobs, RATES, data, 10.0), Together)
    assert isinstance(sweep(jobs, RATES, data, 1e-12), Apart)
