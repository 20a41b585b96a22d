"""Examples that stay in the host's memory: every kind of run gives the same bits as with examples on the device."""

import gc
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbeat as bb
from backbeat.compare.sweep import Together
from backbeat.config import Settings, resolve
from backbeat.data.dataset import aligned
from backbeat.data.streaming import host
from backbeat.data.streaming.host import HostRows, on_device

RNG = np.random.default_rng(0)
N = 60
LABELS = RNG.integers(0, 3, N).astype(np.int32)


def beginning_at(offset: int, shape: tuple[int, ...] = (N, 5)) -> np.ndarray:
    """Returns one and the same array, so many bytes behind a multiple of 64."""
    flat = aligned((math.prod(shape) + 16,), np.float32)
    array = flat[offset // 4 :][: math.prod(shape)].reshape(shape)
    array[...] = np.random.default_rng(1).normal(size=shape)
    return array


@pytest.fixture
def nothing_is_copied(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, "MOST_COPIED_BYTES", 0)


def test_only_large_arrays_that_jax_would_copy_stay(nothing_is_copied: None):
    assert isinstance(on_device(beginning_at(16)), HostRows)
    assert isinstance(on_device(beginning_at(0)[:, ::2]), HostRows)
    assert isinstance(on_device(beginning_at(0)), jax.Array)


def test_small_arrays_are_copied():
    assert isinstance(on_device(beginning_at(16)), jax.Array)


@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 4, 3, 2)])
@pytest.mark.parametrize("where", [3, [6, 0, 0], [[1, 2], [3, 4], [5, 6]]])
def test_rows_are_those_of_the_array(shape: tuple[int, ...], where: Any):
    array = RNG.normal(size=shape).astype(np.float32)
    rows, indices = HostRows(array), jnp.asarray(where)
    np.testing.assert_array_equal(rows[indices], array[np.asarray(where)])
    taken = jax.jit(lambda rows, indices: rows[indices])(rows, indices)
    np.testing.assert_array_equal(taken, array[np.asarray(where)])


def test_vectorised_over_indices_and_not():
    array = RNG.normal(size=(7, 5)).astype(np.float32)
    rows, indices = HostRows(array), jnp.array([[1, 2], [3, 4], [5, 6]])
    taken = jax.vmap(lambda i: jax.vmap(lambda k: rows[i] * k)(jnp.arange(2.0)))(indices)
    np.testing.assert_array_equal(taken[:, 1], array[np.asarray(indices)])


def test_arrays_of_one_shape_share_a_program_and_are_not_kept():
    traced = []

    @jax.jit
    def first(rows: HostRows) -> jax.Array:
        traced.append(rows)
        return rows[jnp.arange(1)]

    for value in range(3):
        array = np.full((4, 2), value, np.float32)
        assert first(HostRows(array)).tolist() == [[value, value]]
    assert len(traced) == 1
    del array
    gc.collect()
    assert not [one for one in host._held.values() if getattr(one, "shape", None) == (4, 2)]


@pytest.mark.parametrize(
    "settings",
    [
        {"every": 1},
        {"every": 32},
        {"every": 32, "block": 9},
        {"every": "dataset"},
        {"every": "dataset", "block": 9},
        {"every": "8 repeat until correct at most 3"},
        {"every": "8 then 20 after 2 epochs", "order": "with replacement"},
    ],
    ids=str,
)
@pytest.mark.sample(3)
def test_the_bits_are_those_of_a_run_on_the_device(settings: dict, nothing_is_copied: None):
    given = {"duration": "4 epochs", "evaluate": "1 epoch", **settings}
    here, there = (bb.fit(bb.mlp((4,)), (beginning_at(offset), LABELS), **given) for offset in (0, 16))
    assert isinstance(there.job.device_data().x, HostRows)
    np.testing.assert_array_equal(there.theta, here.theta)
    for name in ("train_loss_mean", "held_out_accuracy"):
        np.testing.assert_array_equal(there.history[name], here.history[name])


def test_a_sweep_too(nothing_is_copied: None):
    found = []
    for offset in (0, 16):
        data = (beginning_at(offset), LABELS)
        jobs = [resolve(bb.mlp((4,)), data, Settings(every=8, seed=seed, duration="1000 updates")) for seed in range(2)]
        runs = Together(jobs, (0.1, 0.2, 0.3), jobs[0].device_data())
        runs.advance(20)
        found.append([np.asarray(leaf) for leaf in jax.tree.leaves(runs.states)])
        found.append([np.asarray(runs.scores(["train"])["train"][s][r]["loss"]) for s in range(2) for r in range(3)])
    for one, other in zip([*found[0], *found[1]], [*found[2], *found[3]], strict=True):
        np.testing.assert_array_equal(one, other)
