"""The cost model against formulas and cases that are known; what it predicts here is measured by bench/scale.py."""

import math

import pytest

from backbeat.scale import WORLDS, Link, Machine, scaling

FREE = Link(0.0, math.inf)


def test_a_free_link_divides_the_examples_and_nothing_else():
    machine = Machine(1e-5, 1e-6, FREE)
    assert machine.update_seconds(1000, 8, 10**9) == pytest.approx(1e-5 + 125e-6)
    assert machine.update_seconds(1, 8, 10**9) == pytest.approx(1.1e-5)


def test_adding_up_takes_the_faster_of_ring_and_tree():
    link = Link(1e-5, 1e9)
    n_bytes = 4e6
    assert link.seconds(10**6, 2) == pytest.approx(2e-5 + n_bytes / 1e9)  # both of two devices send half, twice
    assert link.seconds(10**6, 64) == pytest.approx(2 * 63e-5 + 2 * 63 / 64 * n_bytes / 1e9)  # long: the ring
    assert link.seconds(1, 4096) == pytest.approx(2 * 12 * (1e-5 + 4e-9))  # short: the tree
    assert link.seconds(10**6, 1) == 0


def test_without_a_cost_of_adding_devices_pay_until_examples_save_no_updates():
    """With α = 0 and a free link, n devices at M = n take the time of one example: S falls as 1 + B / n."""
    found = scaling(Machine(0.0, 1e-6, FREE), 1000, b_crit=256, n_train=4096)
    assert [world.devices for world in found.worlds] == list(WORLDS)
    for world in found.worlds:
        assert world.batch_size == world.devices
        assert world.speedup == pytest.approx((1 + 256) / (1 + 256 / world.devices))
    # from 2 B_crit to 4 B_crit a doubling saves 1 − (1 + 1/4) / (1 + 1/2), less than the quarter that counts as paying
    assert found.pays_up_to == 512


def test_where_adding_up_costs_more_than_an_update_a_second_device_does_not_pay():
    found = scaling(Machine(1e-5, 1e-7, Link(1e-3, 1e9)), 2410, b_crit=50, n_train=1437)
    assert found.pays_up_to == 1
    assert "does not pay" in str(found)
    assert all(world.same_batch < 1 for world in found.worlds[1:])
    assert all(world.speedup >= world.same_batch for world in found.worlds)
