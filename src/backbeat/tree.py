"""Sums in one fixed order: leaves of a fixed size, added up by a binary tree over their numbers.

A sum of floats depends on its order, and a matrix product on its shape. So a batch is cut into L = 2^k leaves whose
size follows from M and the example alone; each is computed in one compiled shape; and leaves 2i and 2i + 1 are added
first, then pairs of pairs. Whoever computes an aligned part of the tree, units of L / U consecutive leaves, has a sum
that stands in the tree: joining the units by the rest of it gives the same bits, whoever computed which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_LEAST_ROWS, _MOST_ROWS, _LEAVES = 16, 64, 8
_FINER = 4  # units a device, where their number is no power of two: at most a quarter more for one than for another


class Leaves(NamedTuple):
    """How a batch is cut: into `number` leaves, a power of two, of `rows` examples each."""

    number: int
    rows: int


class Units(NamedTuple):
    """Which part of the tree each device computes.

    Attributes:
        number: U, a power of two.
        leaves: of each unit, L / U.
        first: `[devices]`, the first unit of each.
        share: `[devices]`, how many units each has.
    """

    number: int
    leaves: int
    first: np.ndarray
    share: np.ndarray

    @property
    def slots(self) -> int:
        """The most units that a device has."""
        return int(self.share.max())

    @property
    def places(self) -> np.ndarray:
        """`[U]`, where each unit's sum lies among those of all devices, `slots` of each."""
        device = np.searchsorted(self.first, np.arange(self.number), side="right") - 1
        return device * self.slots + np.arange(self.number) - self.first[device]


def leaves_of(batch_size: int, most_rows: int = _MOST_ROWS) -> Leaves:
    """Returns how a batch of M is cut into leaves, by M and what fits into memory alone.

    A leaf has at most 64 examples (on more, a matrix product was seen to depend on the number of cores), and 16 or
    more where M allows 8 leaves of that.

    Args:
        batch_size: M.
        most_rows: examples whose activations fit into memory.

    Example:
        >>> leaves_of(1), leaves_of(32), leaves_of(1437)
        (Leaves(number=1, rows=1), Leaves(number=2, rows=16), Leaves(number=32, rows=45))
    """
    want = min(max(batch_size // _LEAVES, _LEAST_ROWS), _MOST_ROWS, max(1, most_rows))
    number = _power_of_two(math.ceil(batch_size / want))
    return Leaves(number, math.ceil(batch_size / number))


def units_of(n_leaves: int, n_devices: int) -> Units:
    """Returns which aligned parts of the tree each of several devices computes.

    Args:
        n_leaves: L, a power of two.
        n_devices: beyond L, some have nothing to do.

    Example:
        >>> units_of(32, 4).share.tolist(), units_of(32, 3).share.tolist(), units_of(2, 4).share.tolist()
        ([1, 1, 1, 1], [5, 5, 6], [0, 1, 0, 1])
    """
    whole = n_devices & (n_devices - 1) == 0
    number = min(n_leaves, n_devices if whole else _FINER * _power_of_two(n_devices))
    bounds = np.arange(n_devices + 1) * number // n_devices
    return Units(number, n_leaves // number, bounds[:-1].astype(np.int32), np.diff(bounds).astype(np.int32))


def unit_sum(leaf: Callable[[Array], Any], first: Array, n_leaves: Array, levels: int) -> Any:
    """Returns the sum over 2^s consecutive leaves, in the order of the tree.

    Sums that wait for their neighbour are kept, one a level, as in binary counting; so memory is bounded by
    levels + 1 sums. The number of leaves is an argument of the program: a constant would let the compiler write the
    loop out, and the leaf's bits would depend on it.

    Args:
        leaf: number -> a tree of arrays.
        first: the number of the first leaf.
        n_leaves: 2^s, up to 2^levels.
        levels: the tree's whole height.

    Example:
        >>> one = lambda number: (jnp.float32(number),)
        >>> [float(total) for total in unit_sum(one, jnp.int32(4), jnp.int32(4), 3)]
        [22.0]
    """

    def add(number: Array, waiting: Any) -> Any:
        value = leaf(first + number)

        def join(carry: tuple) -> tuple:
            level, value = carry
            return level + 1, jax.tree.map(lambda kept, new: kept[level] + new, waiting, value)

        level, value = lax.while_loop(lambda carry: (number >> carry[0]) & 1 == 1, join, (jnp.int32(0), value))
        return jax.tree.map(lambda kept, new: kept.at[level].set(new), waiting, value)

    if levels == 0:
        return leaf(first)
    shapes = jax.eval_shape(leaf, jax.ShapeDtypeStruct((), jnp.int32))
    nothing = jax.tree.map(lambda shape: jnp.zeros((levels + 1, *shape.shape), shape.dtype), shapes)
    waiting = lax.fori_loop(0, n_leaves, add, nothing)
    top = jnp.sum(jnp.int32(1) << jnp.arange(31) < n_leaves, dtype=jnp.int32)
    return jax.tree.map(lambda kept: kept[top], waiting)


def joined(sums: Any) -> Any:
    """Returns the sum of units `[U, ...]` by the rest of the tree; U is a power of two.

    Example:
        >>> float(joined(jnp.arange(8.0)))
        28.0
    """

    def one(array: Array) -> Array:
        while array.shape[0] > 1:
            array = array[0::2] + array[1::2]
        return array[0]

    return jax.tree.map(one, sums)


def _power_of_two(n: int) -> int:
    """Returns the least power of two that is `n` or more."""
    return 1 << (n - 1).bit_length()
