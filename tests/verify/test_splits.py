"""Gradients of every split against float64 means: what rounding explains passes, and nothing larger does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.config import Settings
from backbeat.losses import cross_entropy
from backbeat.models import Functions, mlp
from backbeat.verify import verify
from backbeat.verify.rounding import EPSILON, Piece, Reference, nudged
from backbeat.verify.splits import reference_of
from backbeat.verify.subject import drawn_from, subject_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 40).astype(np.int32)


@pytest.mark.parametrize(
    ("model", "data", "settings"),
    [
        pytest.param("mlp:8", (X, Y), {}, id="classes"),
        pytest.param("mlp:8:tanh", (X, X[:, :2]), {}, id="values", marks=pytest.mark.slow),
        pytest.param(
            "linear",
            (X, Y % 2),
            {"loss": "binary_cross_entropy:positive_weight=3"},
            id="counted by class",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "linear", (X, Y, RNG.uniform(0, 2, 40).astype(np.float32)), {}, id="weighted data", marks=pytest.mark.slow
        ),
        pytest.param("cnn:3", (RNG.normal(size=(30, 8, 8)).astype(np.float32), Y[:30]), {}, id="images"),
    ],
)
@pytest.mark.sample(1)
def test_built_in_models_pass_every_split(model: str, data: tuple, settings: dict[str, Any]):
    found = verify(model, data, examples=11, held_out=0.0, **settings)
    assert found.passed
    assert found.findings == ()
    splits = [comparison.split for comparison in found.comparisons]
    assert len(splits) == len(set(splits)) == 10
    assert "2 devices" in splits
    assert all(layer.explained < 1e-3 for comparison in found.comparisons for layer in comparison.layers)


def test_an_example_without_weight_counts_in_neither():
    weight = np.ones(40, np.float32)
    weight[::3] = 0
    assert verify("linear", (X, Y, weight), held_out=0.0).passed


@pytest.mark.slow
def test_few_examples_are_enough():
    assert verify("linear", (X[:3], Y[:3]), held_out=0.0, loss="cross_entropy").n_examples == 3
    assert verify("linear", (X[:2], np.array([0, 1], np.int32)), held_out=0.0).passed


def test_the_reference_is_the_gradient_computed_in_float64():
    """Rounding is bounded from above by what is allowed, and the bound is no excuse for a real error."""
    settings = Settings(held_out=0.0, loss="cross_entropy")
    subject = subject_of(mlp((16,), "tanh"), drawn_from((X, Y), settings, 40), None)
    reference = reference_of(subject, np.ones((1, 40)))
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), subject.params)
        x, y = jnp.asarray(subject.x, jnp.float64), jnp.asarray(subject.y)

        def mean_loss(params: Any) -> Any:
            hidden = jnp.tanh(x @ params["dense_0"]["weight"] + params["dense_0"]["bias"])
            logits = hidden @ params["dense_1"]["weight"] + params["dense_1"]["bias"]
            return -jax.nn.log_softmax(logits)[jnp.arange(40), y].mean()

        exact = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(jax.grad(mean_loss)(params))]
    assert all(leaf.dtype == np.float64 for leaf in exact)
    for layer in reference.compare(exact):
        assert 0 < layer.error < layer.explained < 1e-4


def test_the_bound_is_the_stated_formula():
    gradients = RNG.normal(size=(5, 3)).astype(np.float32)
    moved = gradients + np.float32(1e-3)
    weights = np.array([[1.0, 0, 2, 1, 1]])
    counts = np.array([1.0, 7, 2, 1, 1])
    reference = Reference.of(("layer",), weights, iter([Piece([gradients], [moved], counts)]))
    total = (weights[0] * counts).sum()
    np.testing.assert_allclose(reference.mean()[0], weights[0] @ gradients.astype(np.float64) / total, rtol=1e-12)
    length = (weights[0] * np.sqrt((gradients.astype(np.float64) ** 2).sum(1))).sum() / total
    shift = (weights[0] * np.sqrt(((moved.astype(np.float64) - gradients) ** 2).sum(1))).sum() / total
    np.testing.assert_allclose(reference.explained(0), 8 * (shift + EPSILON * 2 * length), rtol=1e-6)


def test_one_percent_is_no_rounding():
    subject = subject_of(mlp((8,)), drawn_from((X, Y), Settings(held_out=0.0), 40), None)
    reference = reference_of(subject, np.ones((1, 40)))
    assert not any(layer.passed for layer in reference.compare([1.01 * leaf for leaf in reference.mean()]))
    assert not any(layer.passed for layer in reference.compare([np.nan * leaf for leaf in reference.mean()]))


def test_numbers_are_moved_by_one_rounding():
    x = np.array([1.0, -3.0, 0.0, 1e20], np.float32)
    moved = nudged(x, np.random.default_rng(0))
    assert moved.dtype == np.float32
    np.testing.assert_allclose(np.abs(moved / np.where(x == 0, 1, x) - 1)[[0, 1, 3]], EPSILON, rtol=0.51)
    assert nudged(np.arange(3), np.random.default_rng(0)).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_a_pair_of_functions_is_named_in_the_answer():
    model = Functions(lambda key: {"w": jnp.ones((4, 3))}, lambda params, x: x @ params["w"])
    found = verify(model, (X, Y), held_out=0.0, loss=cross_entropy(), examples=9)
    assert found.passed
    assert "is the mean of per-example gradients" in found.answer
