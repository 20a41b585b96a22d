"""A stretch whose batches are shared by several devices: each computes its part of every batch, sums are combined.

What is combined is (Σ w ∇ℓ, Σ w ℓ, Σ w), as one vector; then every device divides it once and makes the same update.
Combined either by a sum over the devices in any order (`psum`), or in one fixed order that gives the same bits on any
number of devices, one included (`tree.py`). A device that has no example of a batch, since there are fewer than
devices, computes one that weighs 0.

The parameters enter the differentiated function as they are on one device, so that its gradient is that device's own
part. That is why replication is not checked (`check_vma=False`): with it, JAX adds up a gradient by replicated
parameters over the devices by itself, and the sum here would count it once for each device; and a user's loop that
begins with plain zeros would be refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from .gradient import Parts, add_parts, block_parts, no_parts
from .losses import Loss
from .models import Model, RandomModel
from .norms import Lengths, Squares, add_squares, no_squares, watched_parts
from .optimizer import Optimizer
from .stretch import Data, Form, Rows, example_keys
from .tree import Leaves, joined, leaves_of, unit_sum, units_of
from .update import Seen, State, apply_parts

AXIS = "devices"
_LEAF_BYTES = 1 << 26  # activations and inputs of one leaf, as of a block: 64 MiB


@dataclass(frozen=True)
class Layout:
    """How the batches of a form are shared.

    Attributes:
        n_devices: n.
        leaves: how a batch is cut, where the order of sums is fixed; None where it is not.
    """

    n_devices: int
    leaves: Leaves | None = None

    @classmethod
    def of(cls, form: Form, n_devices: int, example_floats: int, *, deterministic: bool) -> Layout:
        """Returns the layout for a form.

        Args:
            form: of which M counts here.
            n_devices: n.
            example_floats: numbers that the model keeps of one example on its way (bounds the leaf).
            deterministic: whether the order of sums is fixed.

        Example:
            >>> from backbeat.stretch import form_for
            >>> Layout.of(form_for(256, 64, plain=True), 4, 64, deterministic=True).leaves
            Leaves(number=8, rows=32)
        """
        most = _LEAF_BYTES // (4 * example_floats)
        return cls(n_devices, leaves_of(form.batch_size, most) if deterministic else None)

    def share(self, form: Form) -> tuple[int, int]:
        """Returns (blocks of a device, examples in each) where the order of sums is not fixed."""
        rows = math.ceil(form.batch_size / self.n_devices)
        n_blocks = math.ceil(rows / form.block)
        return n_blocks, math.ceil(rows / n_blocks)


class Part(NamedTuple):
    """What each device computes of a batch, `[devices]` each; numbers that a program is given, and no constants of it.

    Attributes:
        first: the first unit of the tree; 0 where the order of sums is not fixed.
        share: how many units; 0 likewise.
        pieces: leaves of a unit, or blocks of a device.
    """

    first: Any
    share: Any
    pieces: Any


def n_updates(form: Form, rows: Rows) -> int:
    """Returns how many updates the arrays of a stretch stand for."""
    n = int(rows.n_segments)
    return n if form.whole or form.in_blocks else int(rows.full[:n].sum() + rows.short[:n].sum())


def places(layout: Layout, form: Form, device: int) -> Iterator[np.ndarray]:
    """Yields the places in a batch of the examples that a device computes at once, one array after the other.

    Places of M and beyond are not there: the last example stands for them, with the weight 0.

    Args:
        layout: how batches are shared.
        form: the stretch's form.
        device: from 0.

    Example:
        >>> from backbeat.stretch import form_for
        >>> [p.tolist() for p in places(Layout(2), form_for(5, 64, plain=True, block=2), device=1)]
        [[3, 4], [5, 6]]
    """
    if layout.leaves is None:
        n_blocks, block = layout.share(form)
        first = device * math.ceil(form.batch_size / layout.n_devices)
        starts, size = [first + k * block for k in range(n_blocks)], block
    else:
        units = units_of(layout.leaves.number, layout.n_devices)
        first, n = units.first[device] * units.leaves, units.share[device] * units.leaves
        starts, size = [int(k) * layout.leaves.rows for k in range(first, first + n)], layout.leaves.rows
    for start in starts:
        yield start + np.arange(size)


def fetches(layout: Layout, form: Form, rows: Rows, devices: range) -> Iterator[np.ndarray]:
    """Yields the examples that the devices of a process fetch, to be read ahead: see `stretch.fetches`."""
    each = [np.minimum(where, form.batch_size - 1) for device in devices for where in places(layout, form, device)]
    for u in range(n_updates(form, rows)):
        row = rows.indices[0 if form.whole else u]
        yield from (row[where] for where in each)


class _Work(NamedTuple):
    """What the loops of a device share."""

    layout: Layout
    form: Form
    model: Model
    loss: Loss
    optimizer: Optimizer
    data: Data
    rows: Rows
    part: Part
    device: Array

    def take(self, u: Array, where: Array, end: Array | int) -> tuple:
        """Returns (x, y, weight, keys) at places of batch `u`; what lies beyond its end weighs 0."""
        row = self.rows.indices[0 if self.form.whole else u, jnp.minimum(where, self.form.batch_size - 1)]
        inside = where < jnp.minimum(end, self.rows.sizes[u])
        weight = inside.astype(jnp.float32)
        if self.data.weight is not None:
            weight = jnp.where(inside, self.data.weight[row], 0)
        random = isinstance(self.model, RandomModel)
        keys = example_keys(self.rows.key, self.rows.first + u, row) if random else None
        return self.data.x[row], self.data.y[row], weight, keys

    def sums(self, params: Any, batch: tuple) -> tuple[Parts, Squares | None]:
        """Returns the sums over some examples."""
        rule = (self.model, self.loss, params)
        return watched_parts(*rule, *batch) if self.form.noise else (block_parts(*rule, *batch), None)

    def combined(self, params: Any, u: Array) -> tuple[Parts, Squares | None]:
        """Returns the sums over batch `u`, alike on all devices."""
        return self.added(params, u) if self.layout.leaves is None else self.by_tree(params, u)

    def added(self, params: Any, u: Array) -> tuple[Parts, Squares | None]:
        """Returns them in any order."""
        _, block = self.layout.share(self.form)
        rows = math.ceil(self.form.batch_size / self.layout.n_devices)
        start = self.device * rows

        def add(number: Array, sums: tuple) -> tuple:
            batch = self.take(u, start + number * block + jnp.arange(block), start + rows)
            parts, squares = self.sums(params, batch)
            return add_parts(sums[0], parts), None if squares is None else add_squares(sums[1], squares)

        nothing = (no_parts(params), no_squares() if self.form.noise else None)
        own = lax.fori_loop(0, self.part.pieces[self.device], add, nothing)
        return _unflat(lax.psum(_flat(own), AXIS), own)

    def by_tree(self, params: Any, u: Array) -> tuple[Parts, Squares | None]:
        """Returns them in the order of the tree."""
        leaves = self.layout.leaves
        assert leaves is not None
        units, levels = units_of(leaves.number, self.layout.n_devices), leaves.number.bit_length() - 1

        def leaf(number: Array) -> tuple[Parts, Squares | None]:
            where = number * leaves.rows + jnp.arange(leaves.rows)
            return self.sums(params, self.take(u, where, self.form.batch_size))

        def unit(k: Array, own: Any) -> Any:
            first = (self.part.first[self.device] + k) * self.part.pieces[self.device]
            total = unit_sum(leaf, first, self.part.pieces[self.device], levels)
            return jax.tree.map(lambda kept, new: kept.at[k].set(new) if units.slots > 1 else new[None], own, total)

        shapes = jax.eval_shape(leaf, jax.ShapeDtypeStruct((), jnp.int32))
        own = jax.tree.map(lambda shape: jnp.zeros((units.slots, *shape.shape), shape.dtype), shapes)
        own = lax.fori_loop(0, self.part.share[self.device], unit, own)
        if self.layout.n_devices > 1:
            gathered = (lax.all_gather(vector, AXIS) for vector in _flat(own))
            own = jax.vmap(partial(_unflat, like=own))(tuple(gathered))
            own = jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:])[units.places], own)
        return joined(own)


def _flat(sums: Any) -> tuple[Array, ...]:
    """Returns the numbers of sums as one vector for each type: one message for all of them.

    The sums come from a loop: else the compiler would make one function of all that they come from, for each number
    anew, and take a hundred times as long.
    """
    leaves = jax.tree.leaves(sums)
    return tuple(
        jnp.concatenate([leaf.reshape(-1) for leaf in leaves if leaf.dtype == dtype]) for dtype in _types(leaves)
    )


def _unflat(vectors: tuple[Array, ...], like: Any) -> Any:
    """Returns sums from their vectors, in the shapes of others."""
    leaves, structure = jax.tree.flatten(like)
    left, found = dict(zip(_types(leaves), vectors, strict=True)), []
    for leaf in leaves:
        vector, size = left[leaf.dtype], math.prod(leaf.shape)
        found.append(vector[:size].reshape(leaf.shape))
        left[leaf.dtype] = vector[size:]
    return jax.tree.unflatten(structure, found)


def _types(leaves: list) -> list:
    return list(dict.fromkeys(leaf.dtype for leaf in leaves))


def run_shared(
    layout: Layout, form: Form, model: Model, loss: Loss, optimizer: Optimizer,
    state: State, data: Data, rows: Rows, rate: Array, part: Part,
) -> tuple[State, Seen]:  # fmt: skip
    """Returns the state after a stretch and what each update saw, on one of the devices that share its batches.

    Args:
        layout: how they share them.
        form: as in `stretch.run_stretch`, likewise the others.
        model: see there.
        loss: see there.
        optimizer: see there.
        state: see there.
        data: see there.
        rows: see there, but `n_segments` is the number of updates.
        rate: see there.
        part: what each device computes.
    """
    work = _Work(layout, form, model, loss, optimizer, data, rows, part, lax.axis_index(AXIS))

    def body(u: Array, carry: tuple[State, Seen]) -> tuple[State, Seen]:
        state, columns = carry
        parts, squares = work.combined(state.params, u)
        gamma = rate * rows.factor[u] if form.scheduled else rate
        state, seen = apply_parts(optimizer, state, parts, gamma, form.watch, squares)
        return state, jax.tree.map(lambda column, value: column.at[u].set(value), columns, seen)

    column = jnp.zeros(form.rows)
    columns = Seen(column, column, column, Lengths(column, column, column) if form.noise else None)
    return lax.fori_loop(0, rows.n_segments, body, (state, columns))


@lru_cache(maxsize=64)
def shared_program(
    mesh: Mesh, layout: Layout, form: Form, model: Model, loss: Loss, optimizer: Optimizer
) -> Callable[..., tuple[State, Seen]]:
    """Returns the compiled stretch: (state, data, rows, rate, part) -> (state, seen), all alike on all devices."""
    one = partial(run_shared, layout, form, model, loss, optimizer)
    alike = PartitionSpec()
    return jax.jit(jax.shard_map(one, mesh=mesh, in_specs=alike, out_specs=alike, check_vma=False))


def part_of(layout: Layout, form: Form) -> Part:
    """Returns what a program is given of each device's part.

    Example:
        >>> from backbeat.stretch import form_for
        >>> part_of(Layout(2), form_for(8, 64, plain=True, block=2)).pieces.tolist()
        [2, 2]
    """
    zeros = np.zeros(layout.n_devices, np.int32)
    if layout.leaves is None:
        return Part(zeros, zeros, zeros + np.int32(layout.share(form)[0]))
    units = units_of(layout.leaves.number, layout.n_devices)
    return Part(units.first, units.share, zeros + np.int32(units.leaves))
