"""Planted faults: each is found and its cause named, and the same model or loss without it passes."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.models import Functions
from backbeat.verify import Verification, verify

RNG = np.random.default_rng(0)
X = np.abs(RNG.normal(size=(24, 4))).astype(np.float32) + np.float32(0.1)
Y = RNG.normal(size=(24, 3)).astype(np.float32)
N_EXAMPLES = 11
LOWER: Any = jnp.asarray(RNG.normal(size=(4, 5)).astype(np.float32))
UPPER: Any = jnp.asarray(RNG.normal(size=(5, 3)).astype(np.float32))


def network(middle: Callable[[Any], Any], first: Callable[[Any], Any] = lambda x: x) -> Functions:
    """Returns two layers with something between them, and something before the first."""
    return Functions(
        lambda key: {"lower": LOWER, "upper": UPPER},
        lambda params, x: middle(first(x) @ params["lower"]) @ params["upper"],
    )


def squares(prediction: Any, label: Any) -> Any:
    return ((prediction - label) ** 2).sum(axis=1)


@jax.custom_vjp
def _scaled_by_batch(h: Any) -> Any:
    return h


@jax.custom_vjp
def _normed_by_row(h: Any) -> Any:
    return h


@jax.custom_vjp
def _doubled(h: Any) -> Any:
    return h


_scaled_by_batch.defvjp(lambda h: (h, None), lambda _, g: (g / jnp.linalg.norm(g),))
_normed_by_row.defvjp(lambda h: (h, None), lambda _, g: (g / jnp.linalg.norm(g, axis=1, keepdims=True),))
_doubled.defvjp(lambda h: (h, None), lambda _, g: (2 * g,))


class Counted:
    """A layer that divides by how often it was called before."""

    def __init__(self, moves: int) -> None:
        self.calls, self.moves = 1.0, moves

    def __call__(self, h: Any) -> Any:
        self.calls += self.moves
        return h / self.calls


class Dropping:
    """A model with dropout of its own: by one key for the batch, or by each example's."""

    def __init__(self, by_example: bool) -> None:
        self.by_example = by_example

    def init(self, key: Any) -> Any:
        return {"lower": LOWER}

    def apply(self, params: Any, x: Any) -> Any:
        return x @ params["lower"][:, :3]

    def apply_random(self, params: Any, x: Any, keys: Any) -> Any:
        kept = (
            jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, x.shape[1:]))(keys)
            if self.by_example
            else jax.random.bernoulli(keys[0], 0.5, x.shape)
        )
        return self.apply(params, jnp.where(kept, x, 0))


def normalised(axis: int) -> Callable[[Any], Any]:
    return lambda h: (h - h.mean(axis, keepdims=True)) / jnp.sqrt(h.var(axis, keepdims=True) + 1e-3)


def noisy(h: Any) -> Any:
    return h * NOISE.integers(0, 2, h.shape[1:]).astype(np.float32)


NOISE = np.random.default_rng(1)
FIXED = np.random.default_rng(1).integers(0, 2, 5).astype(np.float32)


def masked(h: Any) -> Any:
    return jnp.where(jax.random.bernoulli(jax.random.key(3), 0.5, h.shape), h, 0)


def masked_alike(h: Any) -> Any:
    return jnp.where(jax.random.bernoulli(jax.random.key(3), 0.5, h.shape[1:]), h, 0)


def cubed(kind: Any) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        whole = (10 * x + 7).astype(kind)
        return (whole * whole * whole).astype(jnp.float32) / 1000

    return function


def straight_through(h: Any) -> Any:
    return h + jax.lax.stop_gradient(jnp.round(h) - h)


def rooted(safe: bool) -> Callable[[Any], Any]:
    def function(h: Any) -> Any:
        first = h - h[:, :1]  # 0 in the first column of every example
        inside = jnp.where(first == 0, 1, first) if safe else first
        return jnp.where(first == 0, 0, jnp.sqrt(jnp.abs(inside)))

    return function


class Fault(NamedTuple):
    """A fault, the same without it, and what has to be said of it."""

    cause: str
    layer: str | None
    model: Any
    clean_model: Any
    loss: Any = squares
    clean_loss: Any = squares
    said: str = ""


PLAIN = network(jnp.tanh)
FAULTS = {
    "batch normalisation": Fault("batch normalisation", "lower", network(normalised(0)), network(normalised(1))),
    "batch normalisation of inputs": Fault(
        "batch normalisation", None, network(jnp.tanh, normalised(0)), network(jnp.tanh, normalised(1))
    ),
    "running sum over the batch": Fault(
        "mixed examples", "lower", network(lambda h: jnp.cumsum(h, 0)), network(lambda h: jnp.cumsum(h, 1)),
        said="cumsum",
    ),
    "attention over the batch": Fault(
        "mixed examples", "lower", network(lambda h: jax.nn.softmax(h @ h.T) @ h),
        network(lambda h: jax.vmap(lambda row: jax.nn.softmax(jnp.outer(row, row)) @ row)(h)), said="dot_general",
    ),
    "neighbour": Fault(
        "mixed examples", "lower", network(lambda h: h + 1e-5 * jnp.roll(h, 1, 0)),
        network(lambda h: h + 1e-5 * jnp.roll(h, 1, 1)),
    ),
    "numbered places": Fault(
        "depends on the place", None, network(lambda h: h + jnp.arange(h.shape[0])[:, None] / 10),
        network(lambda h: h + jnp.arange(h.shape[1]) / 10),
    ),
    "divided by the batch's size": Fault(
        "depends on the batch's size", None, network(lambda h: h / h.shape[0]), network(lambda h: h / h.shape[1])
    ),
    "mask of one key": Fault("position-keyed dropout", "lower", network(masked), network(masked_alike)),
    "dropout by the batch's key": Fault("position-keyed dropout", None, Dropping(False), Dropping(True)),
    "contrastive loss": Fault(
        "in-batch loss", None, PLAIN, PLAIN, lambda p, y: -jnp.diag(jax.nn.log_softmax(p @ y.T)),
        lambda p, y: -jax.nn.log_softmax(p * y)[:, 0],
    ),
    "loss over the largest": Fault(
        "in-batch loss", None, PLAIN, PLAIN, lambda p, y: squares(p, y) / jnp.abs(y).max(),
        lambda p, y: squares(p, y) / jnp.abs(y).max(axis=1),
    ),
    "mean loss": Fault("mean of means", None, PLAIN, PLAIN, lambda p, y: ((p - y) ** 2).mean()),
    "mean loss for each": Fault(
        "mean of means", None, PLAIN, PLAIN, lambda p, y: jnp.full(p.shape[0], ((p - y) ** 2).mean())
    ),
    "loss divided by the batch's size": Fault(
        "mean of means", None, PLAIN, PLAIN, lambda p, y: squares(p, y) / p.shape[0], lambda p, y: squares(p, y) / 3
    ),
    "loss by place": Fault(
        "depends on the place", None, PLAIN, PLAIN, lambda p, y: squares(p, y) * jnp.linspace(1, 2, p.shape[0]),
        lambda p, y: squares(p * jnp.linspace(1, 2, 3), y),
    ),
    "counted over the batch": Fault(
        "in-batch loss", None, PLAIN, PLAIN,
        lambda p, y: (squares(p, y), jnp.full(p.shape[0], (y > 0).mean() + 0.1)),
        lambda p, y: (squares(p, y), (y > 0).mean(axis=1) + 0.1),
    ),
    "counter": Fault("stateful layer", "lower", network(Counted(1)), network(Counted(0))),
    "NumPy's random numbers": Fault("stateful layer", "lower", network(noisy), network(lambda h: h * FIXED)),
    "overflow of bytes": Fault(
        "integer overflow", None, network(jnp.tanh, cubed(jnp.int8)), network(jnp.tanh, cubed(jnp.int32)),
        said="int8 holds",
    ),
    "overflow in a loss": Fault(
        "integer overflow", "upper", PLAIN, PLAIN,
        lambda p, y: squares(p, y) + p[:, 0] * ((10 + y[:, 0]).astype(jnp.int32) ** 12).astype(jnp.float32),
        lambda p, y: squares(p, y) + p[:, 0] * ((10 + y[:, 0]).astype(jnp.int32) ** 3).astype(jnp.float32),
        said="int32 holds",
    ),
    "rounding": Fault(
        "non-differentiable step", "lower", network(lambda h: jnp.round(10 * h)), network(straight_through),
        said="round (test_faults.py, line",
    ),
    "largest of each": Fault(
        "non-differentiable step", "lower", network(lambda h: jax.nn.one_hot(jnp.argmax(h, 1), 5)),
        network(jax.nn.softmax), said="argmax",
    ),
    "stopped gradient": Fault(
        "non-differentiable step", "lower", network(jax.lax.stop_gradient), network(jax.nn.relu), said="stop_gradient"
    ),
    "root of nothing": Fault(
        "non-finite gradient", "lower", network(rooted(False)), network(rooted(True)), said="sqrt"
    ),
    "derivative over the batch": Fault(
        "derivative of its own", "lower", network(_scaled_by_batch), network(_doubled),
        said="custom_vjp, test_faults.py",
    ),
    "derivative that is not linear": Fault("derivative of its own", "lower", network(_normed_by_row), PLAIN),
}  # fmt: skip


@cache  # several faults have the same twin without them
def looked_at(model: Any, loss: Any) -> Verification:
    return verify(model, (X, Y), loss=loss, examples=N_EXAMPLES, held_out=0.0)


@pytest.fixture(autouse=True)
def quick_compilation():
    """Programs run once or twice: compiling them is what takes time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def one_of_each_cause() -> list[Any]:
    """Returns the faults, all but the first of each cause marked as slow."""
    seen: set[str] = set()
    each = []
    for name, fault in FAULTS.items():
        each.append(pytest.param(name, marks=[pytest.mark.slow] if fault.cause in seen else []))
        seen.add(fault.cause)
    return each


@pytest.mark.parametrize("name", one_of_each_cause())
@pytest.mark.sample(4)
def test_a_planted_fault_is_found_and_named(name: str):
    fault = FAULTS[name]
    found = looked_at(fault.model, fault.loss)
    assert not found.passed
    assert found.causes == (fault.cause,)
    assert found.findings[0].layer == fault.layer
    sentence = found.findings[0].sentence
    assert fault.said in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("name", one_of_each_cause())
@pytest.mark.sample(3)
def test_the_same_without_the_fault_passes(name: str):
    fault = FAULTS[name]
    found = looked_at(fault.clean_model, fault.clean_loss)
    assert found.causes == ()
    assert found.passed
