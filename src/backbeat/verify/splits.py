"""A batch cut in several ways: the gradient as backbeat's own code makes it, against the mean of single examples'."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..cadence import every
from ..gradient import Parts, add_parts, block_parts, gradient, mean_of
from ..optimizer import Optimizer
from ..order import Order
from ..plan import Cursor, Plan
from ..stretch import Data, form_for, program, rows_for
from ..update import State
from .result import Comparison
from .rounding import Piece, Reference, nudged
from .subject import Subject, one_example

_PIECE_FLOATS = 1 << 24  # of gradients that are held at once, 64 MiB
_ALL, _WEIGHTED = 0, 1  # the sets of weights: as the data has them, and others; those of each update follow


class Batch(NamedTuple):
    """The examples that are cut, with their keys and two sets of weights."""

    x: np.ndarray
    y: np.ndarray
    keys: Array | None
    given: np.ndarray
    other: np.ndarray


def compared(subject: Subject) -> tuple[tuple[Comparison, ...], Reference]:
    """Returns the comparison of every way of cutting the examples of a subject, and what they are compared with."""
    batch = _batch(subject)
    size, n = subject.batch_size, len(subject)
    ends = [*range(0, n, size), n]
    inside = np.zeros((len(ends) - 1, n))
    for u, (start, end) in enumerate(pairwise(ends)):
        inside[u, start:end] = 1
    sets = np.concatenate([[batch.given, batch.other], inside * batch.given, inside * batch.other])
    reference = reference_of(subject, sets)
    comparisons = (
        *_in_blocks(subject, batch, reference),
        _on_devices(subject, batch, reference),
        *_as_compiled(subject, batch, reference, weighted=False),
        *_as_compiled(subject, batch, reference, weighted=True),
    )
    return comparisons, reference


def _batch(subject: Subject) -> Batch:
    n = len(subject)
    given = np.ones(n, np.float32) if subject.weight is None else subject.weight
    other = np.random.default_rng(subject.seed).uniform(0.25, 2.0, n).astype(np.float32)
    other[n // 2] = 0.0  # an example that is there and does not count
    return Batch(subject.x, subject.y, subject.keys(), given, other)


def reference_of(subject: Subject, weights: np.ndarray) -> Reference:
    """Returns the float64 means of per-example gradients for sets of weights `[sets, n]`."""
    rng = np.random.default_rng(subject.seed)
    moved = jax.tree.map(lambda leaf: jnp.asarray(nudged(np.asarray(leaf), rng, subject.epsilon)), subject.params)
    x, y, keys = nudged(subject.x, rng, subject.epsilon), subject.y, subject.keys()
    n_parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(subject.params))
    step = max(1, min(len(subject), _PIECE_FLOATS // max(1, n_parameters)))
    compiled = one_example(subject)

    def pieces() -> Iterator[Piece]:
        for start in range(0, len(subject), step):
            part = slice(start, start + step)
            mine = None if keys is None else keys[part]
            found, _, count = compiled(subject.params, subject.x[part], y[part], mine)
            other, _, _ = compiled(moved, x[part], y[part], mine)
            yield Piece(*jax.device_get((found, other, count)))

    return Reference.of(subject.layers, weights, pieces(), subject.epsilon)


def _in_blocks(subject: Subject, batch: Batch, reference: Reference) -> Iterator[Comparison]:
    n = len(subject)
    even = [1] * n
    uneven = [1, n - 1] if n < 8 else [1, n // 3, n - 1 - n // 3]
    weight = None if subject.weight is None else batch.given
    ways = [
        (f"one block of {n}", [n], weight, _ALL),
        (f"{n} blocks of 1", even, batch.given, _ALL),
        (f"uneven blocks, {_listed(uneven)}", uneven, batch.given, _ALL),
        (f"weights, blocks of {_listed(uneven)}", uneven, batch.other, _WEIGHTED),
    ]
    for name, sizes, weights, which in ways:
        parts = _sum_of_blocks(subject, batch, sizes, weights)
        yield Comparison(name, reference.compare(_mean(parts), which))
    block = max(1, (n + 2) // 3 - 1)
    if batch.keys is None and n > 1:  # which has no random numbers
        found = gradient(subject.model, subject.loss, subject.params, batch.x, batch.y, weight, block=block).parts
        yield Comparison(f"backbeat.gradient, block={block}", reference.compare(_mean(found)))


@lru_cache(maxsize=4)
def _block_parts(subject: Subject) -> Callable[..., Parts]:
    return jax.jit(partial(block_parts, subject.model, subject.loss))


_ADD, _MEAN = jax.jit(add_parts), jax.jit(mean_of)


def _mean(parts: Parts) -> list[np.ndarray]:
    return jax.tree.leaves(jax.device_get(_MEAN(parts)))


def _listed(sizes: list[int]) -> str:
    return " + ".join(map(str, sizes))


def _sum_of_blocks(subject: Subject, batch: Batch, sizes: list[int], weight: np.ndarray | None) -> Parts:
    compiled = _block_parts(subject)
    total, start = None, 0
    for size in sizes:
        part = slice(start, start + size)
        keys = None if batch.keys is None else batch.keys[part]
        weights = None if weight is None else weight[part]
        parts = compiled(subject.params, batch.x[part], batch.y[part], weights, keys)
        total, start = parts if total is None else _ADD(total, parts), start + size
    assert total is not None
    return total


def _on_devices(subject: Subject, batch: Batch, reference: Reference) -> Comparison:
    """Returns the comparison of a batch spread over all devices, filled up with examples that do not count."""
    devices = jax.devices()
    if len(devices) == 1:
        return Comparison("several devices", note=f"not measured: there is one device, {devices[0]}")
    n, k = len(subject), len(devices)
    filled = np.concatenate([np.arange(n), np.zeros(-n % k, int)])
    weight = np.where(np.arange(len(filled)) < n, batch.given[filled], 0).astype(np.float32)
    along = NamedSharding(Mesh(np.array(devices), ("examples",)), PartitionSpec("examples"))
    everywhere = NamedSharding(along.mesh, PartitionSpec())
    keys = None if batch.keys is None else jax.device_put(batch.keys[filled], along)
    x, y, weights = (jax.device_put(array, along) for array in (batch.x[filled], batch.y[filled], weight))
    params = jax.device_put(subject.params, everywhere)
    parts = _block_parts(subject)(params, x, y, weights, keys)
    return Comparison(f"{k} devices", reference.compare(_mean(parts)))


def _as_compiled(subject: Subject, batch: Batch, reference: Reference, *, weighted: bool) -> Iterator[Comparison]:
    """Yields the comparisons of updates as a run compiles them: full batches, and the short last one."""
    n, size = len(subject), subject.batch_size
    count = math.ceil(n / size)
    block = max(1, size // 3) if weighted else None  # blocks that do not divide the batch
    form = form_for(
        size, subject.example_floats, plain=subject.plain and not weighted, short=n % size != 0, block=block, rows=count
    )
    stretch = Plan(Order("as given", subject.seed, n), every(size)).stretch(Cursor(), count)
    rows = rows_for(form, stretch, count, seed=subject.seed)
    weight = batch.other if weighted else subject.weight
    data = Data(*jax.device_put((batch.x, batch.y, weight)))
    keeper = _keeper(count)
    state = State(subject.params, keeper.init(jax.device_get(subject.params)))
    run = program(form, subject.model, subject.loss, keeper)
    kept = jax.device_get(run(state, data, rows, jnp.float32(1.0))[0].optimizer[1])
    first = 2 + count * weighted
    ways = [(0, f"update of {size}"), (count - 1, f"last update of {n % size}")] if n % size else [(0, f"all {n}")]
    how = f", weights, blocks of {form.block}" if weighted else ", compiled"
    for u, name in ways:
        yield Comparison(name + how, reference.compare([leaf[u] for leaf in jax.tree.leaves(kept)], first + u))


@lru_cache(maxsize=8)
def _keeper(n_updates: int) -> Optimizer:
    """Returns a rule that keeps the mean gradient of each of `n_updates` updates in its state, and moves nothing."""

    def init(params: Any) -> Any:
        return np.int32(0), jax.tree.map(lambda leaf: np.zeros((n_updates, *leaf.shape), leaf.dtype), params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        number, kept = state
        kept = jax.tree.map(lambda rows, leaf: rows.at[number].set(leaf), kept, updates)
        return jax.tree.map(jnp.zeros_like, updates), (number + 1, kept)

    return Optimizer("keeps gradients", fixed=optax.GradientTransformation(init, update))
