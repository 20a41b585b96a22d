"""|g_i|² of every example: the squared lengths of the rows of `per_example_gradients`, whatever makes them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.errors import SettingsError
from backbeat.gradient import block_parts, per_example_gradients
from backbeat.losses import loss_for
from backbeat.models import cnn, linear, mlp
from backbeat.norms import add_squares, example_norms, lengths, squared_length, watched_parts
from backbeat.stretch import example_keys

# float32 sums of up to some hundred squares, in another order
ROUNDING: dict[str, Any] = {"rtol": 2e-5, "atol": 1e-6}

RNG = np.random.default_rng(0)
X = RNG.normal(size=(13, 6, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 13).astype(np.int32)
WEIGHT = RNG.uniform(0, 2, 13).astype(np.float32)
WEIGHT[4] = 0
NETWORKS = {
    "dense": mlp((7, 5), "tanh"),
    "dense relu": mlp((9,)),
    "linear": linear(),
    "no bias": linear(bias=False),
    "convolutions": cnn((2,)),
}


def built(name: str) -> tuple[Any, Any]:
    model = NETWORKS[name].build((6, 6), 3)
    return model, model.init(jax.random.key(1))


@pytest.mark.parametrize("block", [None, 1, 4, 13])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.sample(8)
def test_norms_are_those_of_the_rows(name: str, block: int | None):
    model, params = built(name)
    for weight in (None, WEIGHT):
        rows = np.asarray(per_example_gradients(model, "cross_entropy", params, X, Y, weight), np.float64)
        found = example_norms(model, "cross_entropy", params, X, Y, weight, block=block)
        np.testing.assert_allclose(found, (rows**2).sum(axis=1), **ROUNDING)


def test_values_with_several_outputs_and_ignored_labels():
    model, params = built("dense")
    y = np.where(Y == 1, -1, Y)
    loss = "cross_entropy:ignore=-1"
    rows = np.asarray(per_example_gradients(model, loss, params, X, y, WEIGHT), np.float64)
    found = example_norms(model, loss, params, X, y, WEIGHT)
    np.testing.assert_allclose(found, (rows**2).sum(axis=1), **ROUNDING)
    assert (np.asarray(found)[y == -1] == 0).all()
    values = RNG.normal(size=(13, 3)).astype(np.float32)
    rows = np.asarray(per_example_gradients(model, "squared_error", params, X, values), np.float64)
    found = example_norms(model, "squared_error", params, X, values)
    np.testing.assert_allclose(found, (rows**2).sum(axis=1), **ROUNDING)


class Dropped:
    """A linear network on inputs of which each is dropped with probability ½."""

    def init(self, key: Any) -> Any:
        return {"w": jnp.full(4, 0.3)}

    def apply(self, params: Any, x: Any) -> Any:
        return x @ params["w"]

    def apply_random(self, params: Any, x: Any, keys: Any) -> Any:
        return (x * 2 * jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (4,)))(keys).astype(x.dtype)) @ params["w"]


def test_dropout_draws_what_the_update_draws():
    x, y = X[:, 0, :4], RNG.normal(size=13).astype(np.float32)
    params = {"w": jnp.full(4, 0.3)}
    keys = example_keys(jnp.array([0, 7], jnp.uint32), jnp.int32(5), jnp.arange(13))
    masks = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (4,)))(keys)
    dropped = 2.0 * np.asarray(x, np.float64) * np.asarray(masks)
    rows = (dropped @ np.full(4, 0.3) - y)[:, None] * dropped  # ∇ ½ (x·w − y)², by hand
    found = example_norms(Dropped(), "squared_error", params, x, y, keys=keys)
    np.testing.assert_allclose(found, (rows**2).sum(axis=1), **ROUNDING)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.sample(4)
def test_the_sums_are_those_that_are_not_watched(name: str, mean: bool):
    model, params = built(name)
    loss, weight = loss_for("cross_entropy"), None if mean else jnp.asarray(WEIGHT)
    parts, squares = watched_parts(model, loss, params, jnp.asarray(X), jnp.asarray(Y), weight, mean=mean)
    plain = block_parts(model, loss, params, jnp.asarray(X), jnp.asarray(Y), weight)
    scale = 13 if mean else 1
    for a, b in zip(jax.tree.leaves(parts.gradient), jax.tree.leaves(plain.gradient), strict=True):
        np.testing.assert_allclose(a * scale, b, **ROUNDING)
    np.testing.assert_allclose([parts.loss, parts.weight], [plain.loss, plain.weight], rtol=1e-6)
    norms = np.asarray(example_norms(model, loss, params, X, Y, weight), np.float64)
    omega = np.ones(13) if mean else WEIGHT.astype(np.float64)
    expected = (norms[omega > 0] / omega[omega > 0]).sum()
    np.testing.assert_allclose([squares.examples, squares.weights], [expected, (omega**2).sum()], rtol=1e-5)


@pytest.mark.slow
def test_blocks_add_up_and_lengths_are_divided_once():
    model, params = built("dense")
    loss, weight = loss_for("cross_entropy"), jnp.asarray(WEIGHT)
    whole = watched_parts(model, loss, params, jnp.asarray(X), jnp.asarray(Y), weight)
    one, other = (
        watched_parts(model, loss, params, jnp.asarray(X[part]), jnp.asarray(Y[part]), weight[part])
        for part in (slice(0, 5), slice(5, None))
    )
    np.testing.assert_allclose(add_squares(one[1], other[1]), whole[1], rtol=1e-6)
    rows = np.asarray(per_example_gradients(model, loss, params, X, Y), np.float64)
    p = WEIGHT.astype(np.float64) / WEIGHT.sum(dtype=np.float64)
    mean = jax.tree.map(lambda g: g / whole[0].weight, whole[0].gradient)
    found = lengths(*whole, mean)
    np.testing.assert_allclose(found.examples, p @ (rows**2).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.mean, ((p @ rows) ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(found.share, (p**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(squared_length(mean), ((p @ rows) ** 2).sum(), rtol=1e-5)


def test_a_batch_of_ignored_labels_measures_nothing():
    model, params = built("linear")
    y = np.full(13, -1, np.int32)
    parts, squares = watched_parts(
        model, loss_for("cross_entropy:ignore=-1"), params, jnp.asarray(X), jnp.asarray(y), jnp.asarray(WEIGHT)
    )
    assert [float(v) for v in lengths(parts, squares, parts.gradient)] == [0, 0, 0]


def test_what_does_not_fit_is_refused():
    model, params = built("linear")
    with pytest.raises(SettingsError, match="block=0"):
        example_norms(model, "cross_entropy", params, X, Y, block=0)
    with pytest.raises(SettingsError, match="13"):
        example_norms(model, "cross_entropy", params, X, Y[:5])
