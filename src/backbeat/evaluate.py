"""Loss and scores of a part of the data: sums over examples divided by counts, in blocks of bounded memory.

Scores: `loss`, Σ w ℓ / Σ w; `accuracy`, the share of counted labels whose class gets the highest prediction; `mse`, the
mean of (f(x) − y)² over examples and outputs; `r2`, 1 − Σ(f(x) − y)² / Σ(y − ȳ)², averaged over outputs, each alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .gradient import weigh
from .losses import Loss
from .models import Model
from .stretch import Data

_BLOCK_FLOATS = 1 << 21


class Sums(NamedTuple):
    """Sums over examples from which every score is divided once.

    Attributes:
        loss: Σ w ℓ.
        weight: Σ w.
        right: labels classified rightly, or Σ(f(x) − y)² of each output `[outputs]`.
        counted: labels that count, or examples.
    """

    loss: Array
    weight: Array
    right: Array
    counted: Array


def example_sums(model: Model, loss: Loss, params: Any, data: Data, indices: Array, inside: Array) -> Sums:
    """Returns the sums over one block of examples; those not `inside` count nothing."""
    x, y = data.x[indices], data.y[indices]
    weight = inside.astype(jnp.float32) if data.weight is None else jnp.where(inside, data.weight[indices], 0)
    prediction = model.apply(params, x)
    total, count = weigh(loss(prediction, y), weight)
    right, counted = hits(loss, prediction, y)
    mask = inside.reshape((-1,) + (1,) * (right.ndim - 1))
    return Sums(total, count, jnp.where(mask, right, 0).sum(axis=0), jnp.where(inside, counted, 0).sum())


def hits(loss: Loss, prediction: Array, label: Array) -> tuple[Array, Array]:
    """Returns, for each example, (labels classified rightly, labels counted), or (squared errors `[outputs]`, 1)."""
    n = prediction.shape[0]
    one = jnp.ones(n)
    if loss.kind == "classification":
        guess = prediction.argmax(axis=-1)
        truth = label if label.ndim == guess.ndim else label.argmax(axis=-1)
        counts = jnp.ones_like(truth) if loss.ignore is None else (truth != loss.ignore).astype(jnp.int32)
        per_example = tuple(range(1, truth.ndim))
        right, counted = ((guess == truth) & (counts > 0)).sum(axis=per_example), counts.sum(axis=per_example)
        return right.astype(jnp.float32), counted.astype(jnp.float32)
    if loss.kind == "binary":
        right = (prediction.reshape(n, -1) > 0) == (label.reshape(n, -1).astype(prediction.dtype) > 0.5)
        return right.sum(axis=1).astype(jnp.float32), one * right.shape[1]
    if loss.kind == "regression":
        return (prediction.reshape(n, -1) - label.reshape(n, -1).astype(prediction.dtype)) ** 2, one
    return jnp.zeros((n, 1)), one


def part_sums(
    model: Model, loss: Loss, block: int, params: Any, data: Data, indices: Array, skip: Array | bool = False
) -> Sums:
    """Returns the sums over a part of the data, given by its indices `[n]`, in blocks; pure, to be compiled.

    Where `skip` is true nothing is computed, by the same program: to compile it without the cost of an evaluation.
    """
    n = indices.shape[0]
    block = min(block, max(1, n))
    one = jax.ShapeDtypeStruct((1,), indices.dtype)
    shapes = jax.eval_shape(partial(example_sums, model, loss, params, data, inside=jnp.ones(1, bool)), indices=one)
    zero = Sums(*(jnp.zeros(s.shape, s.dtype) for s in shapes))
    if n == 0:
        return zero

    def add(number: Array, sums: Sums) -> Sums:
        where = number * block + jnp.arange(block)
        more = example_sums(model, loss, params, data, indices[jnp.minimum(where, n - 1)], where < n)
        return Sums(*(a + b for a, b in zip(sums, more, strict=True)))

    return lax.fori_loop(0, jnp.where(skip, 0, -(-n // block)), add, zero)


@lru_cache(maxsize=64)
def evaluator(model: Model, loss: Loss, block: int) -> Callable[..., tuple[Sums, ...]]:
    """Returns the compiled evaluation of several parts: (params, data, their indices, skip or not) -> their sums."""

    def parts(params: Any, data: Data, indices: tuple[Array, ...], skip: Array | bool = False) -> tuple[Sums, ...]:
        return tuple(part_sums(model, loss, block, params, data, part, skip) for part in indices)

    return jax.jit(parts)


@lru_cache(maxsize=64)
def sweep_evaluator(model: Model, loss: Loss, block: int) -> Callable[[Any, Data, tuple[Array, ...]], tuple[Sums, ...]]:
    """Returns the same for parameters `[seeds, rates, ...]`, each seed with its own split, indices `[seeds, n]`."""

    def parts(params: Any, data: Data, indices: tuple[Array, ...]) -> tuple[Sums, ...]:
        one = partial(part_sums, model, loss, block)
        return tuple(jax.vmap(jax.vmap(one, (0, None, None)), (0, None, 0))(params, data, part) for part in indices)

    return jax.jit(parts)


def fetches(block: int, parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the examples that an evaluation of parts, `[..., n]` indices each, fetches: see `stretch.fetches`."""
    for part in parts:
        size = min(block, max(1, part.shape[-1]))
        for start in range(0, part.shape[-1], size):
            beyond = [part[..., -1:]] * max(0, start + size - part.shape[-1])
            yield np.concatenate([part[..., start : start + size], *beyond], axis=-1)


def block_for(example_floats: int) -> int:
    """Returns how many examples to evaluate at once so that what is kept of them, 8 MiB, stays in the caches."""
    return max(16, _BLOCK_FLOATS // example_floats)


def scores(loss: Loss, sums: Sums, y: np.ndarray, scale: Any = 1.0) -> dict[str, float]:
    """Returns the scores that sums make.

    Args:
        loss: which scores there are.
        sums: of the part.
        y: its labels, for the spread that r2 compares with.
        scale: what they were divided by, `[outputs]`; mse is in their own units.
    """
    weight = float(sums.weight)
    result = {"loss": float(sums.loss) / weight if weight else float("nan")}
    counted = float(sums.counted)
    if loss.kind in ("classification", "binary"):
        result["accuracy"] = float(sums.right) / counted if counted else float("nan")
    if loss.kind == "regression":
        errors = np.asarray(sums.right, np.float64).reshape(-1)
        values = np.asarray(y, np.float64).reshape(len(y), -1)
        spread = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        result["mse"] = float((errors * np.square(scale)).sum() / (counted * len(errors)))
        with np.errstate(divide="ignore", invalid="ignore"):
            result["r2"] = float(np.mean(1 - errors / spread)) if spread.all() else float("nan")
    return result
