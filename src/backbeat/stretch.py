"""A stretch: many consecutive updates as one compiled program, one loop over a plan of indices.

The number of updates is an argument of the program, not a constant of it: a stretch may end at any update without being
compiled again, and a run that diverged can be taken back to its last finite state by running the same program for fewer
updates. Inside, the examples of a chunk of updates are gathered once, and the updates run over contiguous slices.
A short batch takes the weighted form of the update, every full one the unweighted form, in the same program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .losses import Loss
from .models import Model, RandomModel
from .norms import Lengths
from .optimizer import Optimizer
from .plan import Stretch
from .update import Seen, State, update, update_in_blocks

CHUNK_BYTES = 1 << 20  # gathered examples that stay within a core's cache
STREAMED_CHUNK_BYTES = 1 << 25  # of examples that come from files: fewer and longer reads
_BLOCK_BYTES = 1 << 26  # activations and inputs of one block, 64 MiB
_MAX_ROWS = 1 << 17
_DRAWN = 0x6472617E  # keeps these keys apart from those of the initial weights
_MAX_INDICES = 1 << 18  # 1 MiB: every call copies this much to the device, however few of them it uses


class Data(NamedTuple):
    """A data set: inputs `[n, ...]`, labels `[n, ...]`, weights `[n]` or None where each is 1.

    All are on the device; or the inputs are a `HostRows`, which is indexed as an array on the device is.
    """

    x: Any
    y: Array
    weight: Array | None = None


@dataclass(frozen=True)
class Form:
    """What a compiled stretch is made for; two stretches of one form share one program.

    Attributes:
        batch_size: M.
        rows: the most updates in one call.
        chunk: updates whose examples are gathered at once.
        block: examples computed at once; below M the batch is computed in blocks.
        plain: every example counts exactly 1, so full batches take the unweighted form.
        short: there may be short batches.
        whole: every batch is the whole data set in the same order.
        scheduled: the learning rate changes from update to update.
        watch: the norm of every mean gradient is measured.
        noise: what the noise of every batch's gradient is found from is measured.
    """

    batch_size: int
    rows: int
    chunk: int
    block: int
    plain: bool
    short: bool = False
    whole: bool = False
    scheduled: bool = False
    watch: bool = False
    noise: bool = False

    @property
    def in_blocks(self) -> bool:
        """Whether a batch is computed in several blocks."""
        return self.block < self.batch_size


class Rows(NamedTuple):
    """A plan's stretch as the arrays that a program takes; made by `rows_for`.

    Attributes:
        indices: `[rows + chunk, M]` into the data, or `[1, M]` where each batch is the same.
        sizes: `[rows]`, how many indices of a row count.
        start: `[segments]`, the first row of each segment: at most `chunk` full batches and one short one.
        full: `[segments]`, how many full batches it has.
        short: `[segments]`, 1 where a short one follows.
        n_segments: how many segments there are.
        factor: `[rows]`, on the learning rate; `[1]` where it stays.
        first: how many updates the run made before.
        key: `[2]` uint32, the run's own random key; with the update's number and an example's index it decides what is
            drawn at random.
    """

    indices: Any
    sizes: Any
    start: Any
    full: Any
    short: Any
    n_segments: Any
    factor: Any
    first: Any
    key: Any


def form_for(
    batch_size: int,
    example_floats: int,
    *,
    plain: bool,
    short: bool = False,
    whole: bool = False,
    scheduled: bool = False,
    watch: bool = False,
    noise: bool = False,
    rows: int = _MAX_ROWS,
    block: int | None = None,
    input_floats: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Form:
    """Returns the form of stretch for a batch size.

    Args:
        batch_size: M.
        example_floats: numbers that the model keeps of one example on its way, inputs included (bounds the block).
        plain: see `Form`, likewise the others.
        short: see there.
        whole: see there.
        scheduled: see there.
        watch: see there.
        noise: see there.
        rows: the most updates that a caller will ask for at once.
        block: the most examples to compute at once; None: as many as keep a block's numbers within 64 MiB.
        input_floats: numbers of one example's input (bounds the chunk).
        chunk_bytes: the most bytes to gather at once, where that is more than one batch.

    Example:
        >>> form_for(1437, 1 << 20, plain=True).block
        16
    """
    most = block if block is not None else max(16, _BLOCK_BYTES // (4 * example_floats))
    n_blocks = math.ceil(batch_size / most)
    rows = max(1, min(rows, _MAX_ROWS, _MAX_INDICES // batch_size if not whole else _MAX_ROWS))
    rows = 1 << (rows - 1).bit_length()
    fit = max(1, chunk_bytes // (4 * batch_size * (input_floats or example_floats)))
    chunk = 1 if whole else min(rows, 1 << (fit.bit_length() - 1))
    return Form(batch_size, rows, chunk, math.ceil(batch_size / n_blocks), plain, short, whole, scheduled, watch, noise)


def rows_for(
    form: Form,
    stretch: Stretch,
    n: int,
    index: np.ndarray | None = None,
    factor: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> Rows:
    """Returns the arrays that make a program run the first `n` updates of a plan's stretch.

    Args:
        form: the program's form; `n` is at most `form.rows`.
        stretch: the plan's indices, into the training part.
        n: how many updates.
        index: `[|D|]`, where each example of the training part lies in the data; None: where its number says.
        factor: `[n]` on the learning rate, for a scheduled form.
        seed: what decides the random numbers that a network draws in training.
    """
    assert n <= form.rows
    indices = stretch.indices if index is None else index[stretch.indices]
    if not form.whole:
        indices = _filled(indices[:n], form.rows + form.chunk)
    start, full, short = _segments(stretch.sizes[:n] < form.batch_size, form.chunk)
    longest = form.rows // form.chunk + form.rows // (2 if form.short else form.rows) + 2
    factors = np.ones(1, np.float32) if factor is None else _filled(factor[:n].astype(np.float32), form.rows)
    return Rows(
        np.ascontiguousarray(indices, np.int32), _filled(stretch.sizes[:n], form.rows),
        _filled(start, longest), _filled(full, longest), _filled(short, longest),
        np.int32(n if form.whole or form.in_blocks else len(start)), factors,
        np.int32(stretch.end.batches - len(stretch)), np.array([0, seed], np.uint32),
    )  # fmt: skip


def fetches(form: Form, rows: Rows) -> Iterator[np.ndarray]:
    """Yields the examples that a program fetches, in its order, so that they can be read ahead.

    It says what the loops below do; where it did not, a run would be slower and no number different.

    Args:
        form: the program's form.
        rows: what it is called with; several runs at once have their own indices `[runs, ...]`.
    """
    n = int(rows.n_segments)
    if form.in_blocks:
        for u in range(n):
            row = rows.indices[..., 0 if form.whole else u, :]
            for start in range(0, form.batch_size, form.block):
                beyond = [row[..., -1:]] * max(0, start + form.block - form.batch_size)
                yield np.concatenate([row[..., start : start + form.block], *beyond], axis=-1)
    elif form.whole:
        yield rows.indices[..., 0, :]
    else:
        for start, full, short in zip(rows.start[:n], rows.full[:n], rows.short[:n], strict=True):
            yield rows.indices[..., start : start + form.chunk, :]
            if short:
                yield rows.indices[..., start + full, :]


def example_keys(key: Array, update: Array, examples: Array) -> Array:
    """Returns a random key for each example of an update: of the run, the update's number and the example's index."""
    drawn = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), _DRAWN)
    return jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(drawn, update)))(examples)


def _filled(array: np.ndarray, length: int) -> np.ndarray:
    out = np.zeros((length, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def _segments(short: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (start, full, short) of the segments that rows fall into, given which rows are short."""
    ends = np.flatnonzero(short)
    run_start = np.concatenate([[0], ends + 1]).astype(np.int32)
    # full batches up to the next short one
    run_full = np.concatenate([ends, [len(short)]]).astype(np.int32) - run_start
    pieces = np.maximum(1, -(-run_full // chunk))
    run = np.repeat(np.arange(len(run_start)), pieces)
    piece = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = run_start[run] + piece * chunk
    full = np.minimum(chunk, run_full[run] - piece * chunk)
    follows = ((piece == pieces[run] - 1) & (run < len(ends))).astype(np.int32)
    keep = (full + follows) > 0
    return start[keep].astype(np.int32), full[keep].astype(np.int32), follows[keep]


class _Work(NamedTuple):
    """What the loops of a stretch share: the update, the data, the rows and the learning rate."""

    form: Form
    update: Callable
    data: Data
    rows: Rows
    rate: Array
    random: bool

    def keys(self, row: Array, u: Array) -> Array | None:
        """Returns the random keys of the examples `row` in row `u`; None where the network draws nothing."""
        return example_keys(self.rows.key, self.rows.first + u, row) if self.random else None

    def gamma(self, u: Array) -> Array:
        """Returns the learning rate of row `u`."""
        return self.rate * self.rows.factor[u] if self.form.scheduled else self.rate

    def weights(self, row: Array, u: Array, where: Array) -> Array | None:
        """Returns the weights of the examples `row` at the places `where` of row `u`; None for 1 each."""
        weight = None if self.data.weight is None else self.data.weight[row]
        if not self.form.short:
            return weight
        inside = where < self.rows.sizes[u]
        return inside.astype(jnp.float32) if weight is None else jnp.where(inside, weight, 0)


def _measured(form: Form, seen: Sequence) -> list:
    """Returns what is written update by update of what each saw, or of columns; the rest is known beforehand."""
    loss, weight, norm, noise = seen
    kept = zip((loss, weight, norm), (True, not form.plain, form.watch), strict=True)
    return [column for column, is_measured in kept if is_measured] + list(noise if form.noise else ())


def _write(form: Form, columns: tuple, u: Array, made: tuple[State, Seen]) -> tuple[State, tuple]:
    """Returns the new state, and the measured columns with the newest row written in."""
    values = _measured(form, made[1])
    return made[0], tuple(column.at[u].set(value) for column, value in zip(columns, values, strict=True))


def _seen(form: Form, rows: Rows, columns: tuple) -> Seen:
    """Returns all columns: those measured, sizes where every example weighs 1, zeros where no norm is watched."""
    loss, *others = columns
    weight = rows.sizes.astype(jnp.float32) if form.plain else others.pop(0)
    norm = others.pop(0) if form.watch else jnp.zeros(form.rows)
    return Seen(loss, weight, norm, Lengths(*others) if form.noise else None)


def run_stretch(
    form: Form, model: Model, loss: Loss, optimizer: Optimizer, state: State, data: Data, rows: Rows, rate: Array
) -> tuple[State, Seen]:
    """Returns the state after a stretch and what each update saw, `[rows]`; pure, to be compiled or vectorised."""
    rule = (model, loss, optimizer)
    work = _Work(
        form,
        partial(update, *rule, watch=form.watch, noise=form.noise),
        data,
        rows,
        rate,
        isinstance(model, RandomModel),
    )
    if form.in_blocks:
        body = _blocked(work, partial(update_in_blocks, *rule, watch=form.watch, noise=form.noise))
    else:
        body = _same(work) if form.whole else _segment(work)
    columns = tuple(jnp.zeros(form.rows) for _ in _measured(form, (0, 0, 0, (0, 0, 0))))
    state, columns = lax.fori_loop(0, rows.n_segments, body, (state, columns))
    return state, _seen(form, rows, columns)


def _blocked(work: _Work, update_blocks: Callable) -> Callable:
    """Returns the loop body for batches that are fetched and computed block by block."""
    form, data, rows = work.form, work.data, work.rows
    n_blocks = math.ceil(form.batch_size / form.block)

    def body(u: Array, carry: tuple) -> tuple:
        def take(number: Array) -> tuple:
            where = number * form.block + jnp.arange(form.block)
            row = rows.indices[0 if form.whole else u, jnp.minimum(where, form.batch_size - 1)]
            weight = work.weights(row, u, where)
            if form.batch_size % form.block:  # the last block reaches over the end of the batch
                weight = jnp.where(where < form.batch_size, 1.0 if weight is None else weight, 0)
            return data.x[row], data.y[row], weight, work.keys(row, u)

        return _write(form, carry[1], u, update_blocks(carry[0], take, n_blocks, work.gamma(u)))

    return body


def _same(work: _Work) -> Callable:
    """Returns the loop body for batches that are all the whole data set, gathered once."""
    row = work.rows.indices[0]
    weight = None if work.data.weight is None else work.data.weight[row]
    x, y = work.data.x[row], work.data.y[row]

    def body(u: Array, carry: tuple) -> tuple:
        batch = (x, y, weight, work.keys(row, u))
        return _write(work.form, carry[1], u, work.update(carry[0], batch, work.gamma(u), plain=work.form.plain))

    return body


def _segment(work: _Work) -> Callable:
    """Returns the loop body for one segment: gather, run the full batches, then a short one if it follows."""
    form, data, rows = work.form, work.data, work.rows
    places = jnp.arange(form.batch_size)

    def body(k: Array, carry: tuple) -> tuple:
        first = rows.start[k]
        taken = lax.dynamic_slice_in_dim(rows.indices, first, form.chunk)
        x, y = data.x[taken], data.y[taken]

        def full(j: Array, carry: tuple) -> tuple:
            place = 0 if form.chunk == 1 else j  # known beforehand, it needs no copy of a batch larger than the caches
            weight = None if form.plain else work.weights(taken[place], first + j, places)
            batch = (x[place], y[place], weight, work.keys(taken[place], first + j))
            made = work.update(carry[0], batch, work.gamma(first + j), plain=form.plain)
            return _write(form, carry[1], first + j, made)

        def last(again: Array, carry: tuple) -> tuple:  # fetched apart: the chunk may be full without it
            # the barrier: else XLA would fetch it before this loop, in every segment, whether it runs or not
            u = lax.optimization_barrier((first + rows.full[k], again))[0]
            row = rows.indices[u]
            batch = (data.x[row], data.y[row], work.weights(row, u, places), work.keys(row, u))
            return _write(form, carry[1], u, work.update(carry[0], batch, work.gamma(u), plain=False))

        # not unrolled, which would be 15 % faster at M = 1: an update's bits would depend on its place among the
        # written-out bodies, and so on where a stretch was cut
        carry = lax.fori_loop(0, rows.full[k], full, carry)
        return lax.fori_loop(0, rows.short[k], last, carry) if form.short else carry

    return body


@lru_cache(maxsize=64)
def program(
    form: Form, model: Model, loss: Loss, optimizer: Optimizer
) -> Callable[[State, Data, Rows, Array], tuple[State, Seen]]:
    """Returns the compiled stretch of one run: (state, data, rows, learning rate) -> (state, seen)."""
    return jax.jit(partial(run_stretch, form, model, loss, optimizer))


@lru_cache(maxsize=64)
def sweep_program(
    form: Form, model: Model, loss: Loss, optimizer: Optimizer
) -> Callable[[State, Data, Rows, Array], tuple[State, Seen]]:
    """Returns the compiled stretch of many runs at once, [seeds, learning rates].

    States are `[seeds, rates, ...]`, `rows.indices` and `rows.key` are `[seeds, ...]` (each seed has its own order,
    split and random numbers) and the learning rate is `[rates]`. The learning rates of one seed share its batches, so
    that their first layers become one matrix product.
    """
    shared = Rows(*(None for _ in Rows._fields))
    one = partial(run_stretch, form, model, loss, optimizer)
    over_rates = jax.vmap(one, in_axes=(0, None, shared, 0))
    return jax.jit(jax.vmap(over_rates, in_axes=(0, None, shared._replace(indices=0, key=0), None)))
