"""Stretches: the compiled loop equals a plain loop over batches, whatever its form and however it is cut."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.cadence import every
from backbeat.losses import cross_entropy
from backbeat.models import mlp, theta
from backbeat.optimizer import optimizer_for
from backbeat.order import Order
from backbeat.plan import Cursor, Plan
from backbeat.stretch import Data, Form, form_for, program, rows_for, sweep_program
from backbeat.update import State

N = 10
MODEL = mlp((4,), "tanh").build((3,), 3)
LOSS, RULE = cross_entropy(), optimizer_for("momentum")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 3)).astype(np.float32), RNG.integers(0, 3, N).astype(np.int32)
WEIGHT = np.array([1, 2, 0.5, 0, 1, 1, 3, 1, 1, 1], np.float32)
RATE = 0.3

# float32 rounding of about 1e-7 a sum, over some 30 updates that pass it on; values of order 1
ROUNDING: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-6}


@lru_cache
def initial() -> State:
    params = MODEL.init(jax.random.key(0))
    return State(params, RULE.init(params))


def numpy_gradient(v: dict, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[dict, float, float]:
    """Returns Σ w ∇ℓ / Σ w, Σ w ℓ and Σ w in float64, back-propagation written out."""
    h = np.tanh(x @ v["a"] + v["b"])
    z = h @ v["c"] + v["d"]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    dz = (p - np.eye(3)[y]) * (w / (w.sum() or 1))[:, None]  # a batch that weighs nothing moves nothing
    dh = dz @ v["c"].T * (1 - h**2)
    gradient = {"a": x.T @ dh, "b": dh.sum(axis=0), "c": h.T @ dz, "d": dz.sum(axis=0)}
    return gradient, float(-(w * np.log(p[np.arange(len(y)), y])).sum()), float(w.sum())


@lru_cache
def by_hand(m: int, short: str, weighted: bool, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns θ and the batches' mean losses after `n` updates with momentum 0.9: a plain loop in NumPy's float64."""
    start = initial().params
    v = {k: np.asarray(start[layer][part], float) for k, (layer, part) in NAMES.items()}
    velocity = {k: np.zeros_like(part) for k, part in v.items()}
    order, losses, queue, epoch = Order("reshuffled", 1, N), [], [], 0
    while len(losses) < n:
        queue += order.epochs(epoch, 1)[0].tolist()
        epoch += 1
        while len(queue) >= m or (queue and short == "keep"):
            batch, queue = queue[:m], queue[m:]
            w = (WEIGHT if weighted else np.ones(N))[batch].astype(float)
            gradient, total, weight = numpy_gradient(v, X[batch].astype(float), Y[batch], w)
            losses.append(total / (weight or 1))
            for k in v:
                velocity[k] = gradient[k] + 0.9 * velocity[k]
                v[k] = v[k] - RATE * velocity[k]
            if len(losses) == n:
                break
        queue = queue if short == "carry" else []
    return np.concatenate([v[k].ravel() for k in "badc"]), np.array(losses)


NAMES = {
    "a": ("dense_0", "weight"), "b": ("dense_0", "bias"), "c": ("dense_1", "weight"), "d": ("dense_1", "bias"),
}  # fmt: skip


def run(form: Form, plan: Plan, pieces: list[int], weight: np.ndarray | None = None) -> tuple[State, np.ndarray]:
    """Returns the state and every update's mean loss after stretches of these lengths."""
    state, cursor, losses = initial(), Cursor(), []
    data = Data(jnp.asarray(X), jnp.asarray(Y), None if weight is None else jnp.asarray(weight))
    for n in pieces:
        stretch = plan.stretch(cursor, n)
        rows = rows_for(form, stretch, n)
        state, seen = program(form, MODEL, LOSS, RULE)(state, data, rows, jnp.float32(RATE))
        losses.append(np.asarray(seen.loss / jnp.where(seen.weight > 0, seen.weight, 1))[:n])
        cursor = stretch.end
    return state, np.concatenate(losses)


FORMS = [
    (1, "keep", 16),
    (3, "keep", 16),
    (3, "keep", 2),
    (3, "drop", 2),
    (3, "carry", 4),
    (10, "keep", 1),
    (7, "keep", 1),
]


@pytest.mark.parametrize(("m", "short", "chunk"), FORMS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.sample(6)
def test_a_stretch_equals_a_plain_loop_in_numpy(m: int, short: str, chunk: int, weighted: bool):
    """Several epochs; a short last batch is divided by its own weight; segments end at chunks and at short batches."""
    plan = Plan(Order("reshuffled", 1, N), every(m), short)
    form = Form(m, 32, chunk, m, plain=not weighted, short=plan.has_short_batches(m), whole=m == N)
    state, losses = run(form, plan, [23], WEIGHT if weighted else None)
    expected, expected_losses = by_hand(m, short, weighted, 23)
    np.testing.assert_allclose(theta(state.params), expected, **ROUNDING)
    np.testing.assert_allclose(losses, expected_losses, **ROUNDING)


@pytest.mark.parametrize(("m", "block"), [(3, 1), (3, 2), (10, 4), (10, 9)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.sample(4)
def test_blocks_give_the_same(m: int, block: int, weighted: bool):
    plan = Plan(Order("reshuffled", 1, N), every(m))
    form = Form(m, 32, 4, block, plain=not weighted, short=plan.has_short_batches(m), whole=m == N)
    assert form.in_blocks
    state, losses = run(form, plan, [23], WEIGHT if weighted else None)
    expected, expected_losses = by_hand(m, "keep", weighted, 23)
    np.testing.assert_allclose(theta(state.params), expected, **ROUNDING)
    np.testing.assert_allclose(losses, expected_losses, **ROUNDING)


@pytest.mark.parametrize("m", [1, 3, 10])
def test_unit_weights_give_what_no_weights_give(m: int):
    plan = Plan(Order("reshuffled", 1, N), every(m))
    options = {"short": plan.has_short_batches(m), "whole": m == N}
    plain, losses = run(Form(m, 32, 4, m, plain=True, **options), plan, [23])
    weighted, also = run(Form(m, 32, 4, m, plain=False, **options), plan, [23], np.ones(N, np.float32))
    np.testing.assert_allclose(theta(weighted.params), theta(plain.params), **ROUNDING)
    np.testing.assert_allclose(also, losses, **ROUNDING)


@pytest.mark.parametrize(("m", "chunk"), [(1, 16), (1, 4), (3, 2), (10, 1)])
@pytest.mark.parametrize("pieces", [[1] * 23, [5, 7, 11], [22, 1]])
def test_any_cut_into_stretches_gives_the_same_bits(m: int, chunk: int, pieces: list[int]):
    plan = Plan(Order("reshuffled", 1, N), every(m))
    form = Form(m, 32, chunk, m, plain=True, short=plan.has_short_batches(m), whole=m == N)
    one, losses = run(form, plan, [23])
    cut, also = run(form, plan, pieces)
    jax.tree.map(np.testing.assert_array_equal, cut, one)
    np.testing.assert_array_equal(also, losses)


def test_a_sweep_equals_single_runs():
    """Vectorising turns products into batched ones, which may sum in another order: rounding, as above."""
    plan, rates, n = Plan(Order("reshuffled", 1, N), every(3)), [0.05, 0.3], 23
    form = Form(3, 32, 4, 3, plain=True, short=True)
    rows = rows_for(form, plan.stretch(Cursor(), n), n)
    stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2, 2, *leaf.shape)), initial())
    other = rows_for(form, Plan(Order("reshuffled", 2, N), every(3)).stretch(Cursor(), n), n)
    both = rows._replace(indices=np.stack([rows.indices, other.indices]))
    data = Data(jnp.asarray(X), jnp.asarray(Y))
    state, seen = sweep_program(form, MODEL, LOSS, RULE)(stacked, data, both, jnp.asarray(rates, jnp.float32))
    for seed, its_rows in enumerate((rows, other)):
        for r, rate in enumerate(rates):
            alone, saw = program(form, MODEL, LOSS, RULE)(initial(), data, its_rows, jnp.float32(rate))
            mine = jax.tree.map(lambda leaf, s=seed, r=r: leaf[s, r], state.params)
            np.testing.assert_allclose(theta(mine), theta(alone.params), **ROUNDING)
            np.testing.assert_allclose(seen.loss[seed, r][:n], saw.loss[:n], **ROUNDING)


def test_the_form_bounds_blocks_chunks_and_rows():
    assert form_for(32, 100, plain=True).block == 32
    big = form_for(100_000, 1 << 14, plain=True, whole=True)  # 64 KiB an example: 1,024 of them are 64 MiB
    assert big.block <= 1024
    assert big.block * -(-100_000 // big.block) - 100_000 < 100_000 / big.block  # blocks of nearly equal size
    assert form_for(1000, 10, plain=True, block=300).block == 250
    small = form_for(32, 64, plain=True, rows=100)
    assert small.rows == 128
    assert small.chunk * 32 * 64 * 4 <= 1 << 20
