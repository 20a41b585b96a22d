"""Sums in one order: whoever computes which units, the tree's sum is the same to the last bit."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.tree import joined, leaves_of, unit_sum, units_of

RNG = np.random.default_rng(0)
VALUES = (RNG.normal(size=64) * 10.0 ** RNG.integers(-3, 4, 64)).astype(np.float32)


def by_recursion(values: np.ndarray) -> np.float32:
    """Returns the tree's sum, written another way."""
    half = len(values) // 2
    return values[0] if half == 0 else by_recursion(values[:half]) + by_recursion(values[half:])


@given(st.integers(1, 10_000), st.integers(1, 300))
def test_leaves_cover_a_batch_and_are_a_power_of_two(m: int, most: int):
    leaves = leaves_of(m, most)
    assert leaves.number & (leaves.number - 1) == 0
    assert leaves.number * leaves.rows >= m > (leaves.number * leaves.rows) - leaves.number
    assert leaves.rows <= min(64, most)


@given(st.integers(0, 8), st.integers(1, 70))
def test_units_are_aligned_and_each_is_one_devices(power: int, n_devices: int):
    units = units_of(1 << power, n_devices)
    assert units.number * units.leaves == 1 << power
    assert units.share.sum() == units.number
    assert (np.cumsum(units.share) - units.share == units.first).all()
    assert len(set(units.places.tolist())) == units.number
    assert units.share.max() - units.share.min() <= 1
    if n_devices & (n_devices - 1) == 0:
        assert units.slots == 1


@pytest.mark.parametrize("n_leaves", [1, 2, 8, 64])
@pytest.mark.parametrize("n_devices", [1, 2, 3, 4, 7, 8, 100])
def test_the_sum_is_the_trees_whoever_computes_it(n_leaves: int, n_devices: int):
    units = units_of(n_leaves, n_devices)
    levels = int(math.log2(n_leaves))
    sums = np.zeros(n_devices * units.slots, np.float32)
    one = jax.jit(partial(unit_sum, lambda number: {"sum": jnp.asarray(VALUES)[number]}, levels=levels))
    for device in range(n_devices):
        for k in range(units.share[device]):
            first = (units.first[device] + k) * units.leaves
            sums[device * units.slots + k] = one(np.int32(first), np.int32(units.leaves))["sum"]
    total = joined(jnp.asarray(sums[units.places]))
    assert np.asarray(total).tobytes() == by_recursion(VALUES[:n_leaves]).tobytes()
    if n_leaves == 64:  # the order matters: else this would show nothing
        assert float(total) != float(np.cumsum(VALUES, dtype=np.float32)[-1])
