"""∇L_B: by hand, by central differences, example by example, in blocks, with PyTorch: always the same mean."""

from functools import lru_cache
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.errors import SettingsError
from backbeat.gradient import gradient, per_example_gradients
from backbeat.losses import Loss, cross_entropy
from backbeat.models import cnn, from_theta, linear, mlp, n_parameters, theta

# float32 sums of up to 24 terms of order 1, in another order: a few units in the last place of the largest
ROUNDING: dict[str, Any] = {"rtol": 1e-5, "atol": 2e-6}


MLP = mlp((4,), "tanh")


def case(n: int = 12, inputs: int = 5, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, inputs)).astype(np.float32), rng.integers(0, classes, n).astype(np.int32)


@lru_cache
def initial(architecture: Any, shape: tuple[int, ...], outputs: int) -> Any:
    return architecture.build(shape, outputs).init(jax.random.key(3))


def by_hand(params: dict, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns θ's gradient and the mean loss of a tanh network with one hidden layer, back-propagation written out."""
    x, w = x.astype(float), weight.astype(float) / weight.sum()
    (a, b), (c, d) = (
        (np.asarray(params[layer]["weight"], float), np.asarray(params[layer]["bias"], float))
        for layer in ("dense_0", "dense_1")
    )
    h = np.tanh(x @ a + b)
    z = h @ c + d
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    dz = (p - np.eye(z.shape[1])[y]) * w[:, None]
    dh = dz @ c.T * (1 - h**2)
    pieces = [dh.sum(axis=0), x.T @ dh, dz.sum(axis=0), h.T @ dz]  # the order of theta: names sorted, bias first
    return np.concatenate([piece.ravel() for piece in pieces]), float(-(w * np.log(p[np.arange(len(y)), y])).sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_back_propagation_by_hand(weighted: bool):
    x, y = case()
    weight = np.arange(12, dtype=np.float32) if weighted else np.ones(12, np.float32)
    params = initial(MLP, (5,), 3)
    found = gradient(MLP, "cross_entropy", params, x, y, weight if weighted else None)
    expected, loss = by_hand(params, x, y, weight)
    np.testing.assert_allclose(theta(found.mean), expected, **ROUNDING)
    assert found.loss_mean == pytest.approx(loss, rel=1e-5)
    rows = per_example_gradients(MLP, "cross_entropy", params, x, y, weight if weighted else None)
    np.testing.assert_allclose(rows.sum(axis=0) / weight.sum(), expected, **ROUNDING)


COUNTS = Loss(  # 1 to 3 elements an example
    "counts", lambda p, y: (p[:, 0] ** 2 * (1 + y.astype(p.dtype)), 1 + y.astype(p.dtype)), "other"
)

MODELS = {
    **{f"mlp {name}": (mlp((4,), name), (5,)) for name in ("relu", "gelu", "silu", "tanh", "sigmoid", "identity")},
    "linear": (linear(), (5,)),
    "no bias": (mlp((3, 4), bias=False), (5,)),
    "cnn": (cnn((3,)), (4, 5)),
    "cnn of colours": (cnn((2,)), (4, 4, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_equals_central_differences_and_its_rows(name: str):
    """In float64, where (L(θ + hv) − L(θ − hv))/2h with h = 1e-6 is right to about 1e-9: h² and 1e-16/h."""
    architecture, shape = MODELS[name]
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        model = architecture.build(shape, 3)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 2), shapes)
        x, y = jnp.asarray(rng.normal(size=(6, *shape))), jnp.asarray(rng.integers(0, 3, 6))
        vector, loss = np.asarray(theta(params)), cross_entropy()
        value = jax.jit(lambda v: loss(model.apply(from_theta(v, params), x), y).total.mean())
        found = np.asarray(theta(gradient(model, loss, params, x, y).mean))
        for _ in range(5):
            direction = rng.normal(size=vector.shape)
            slope = (value(vector + 1e-6 * direction) - value(vector - 1e-6 * direction)) / 2e-6
            assert found @ direction == pytest.approx(float(slope), abs=1e-7)
        rows = np.asarray(per_example_gradients(model, loss, params, x, y))
        np.testing.assert_allclose(rows.mean(axis=0), found, atol=1e-12)
        one = jax.jit(jax.grad(lambda v: loss(model.apply(from_theta(v, params), x[2:3]), y[2:3]).total[0]))
        np.testing.assert_allclose(rows[2], one(vector), atol=1e-12)


@pytest.mark.parametrize("block", [1, 5, 100])
@pytest.mark.parametrize("kind", ["plain", "weights", "ignored", "counts"])
def test_any_number_of_blocks_gives_the_same(block: int, kind: str):
    x, y = case()
    weight, loss = None, cross_entropy(ignore=-1 if kind == "ignored" else None)
    if kind == "weights":
        weight = np.array([0, 1, 2, 0.5] * 3, np.float32)
    if kind == "ignored":
        y[[0, 3, 4, 11]] = -1
    if kind == "counts":
        loss = COUNTS
    params = initial(MLP, (5,), 3)
    whole = gradient(MLP, loss, params, x, y, weight)
    blocks = gradient(MLP, loss, params, x, y, weight, block=block)
    np.testing.assert_allclose(theta(blocks.mean), theta(whole.mean), **ROUNDING)
    assert blocks.loss_mean == pytest.approx(float(whole.loss_mean), rel=1e-5)
    assert blocks.parts.weight == whole.parts.weight  # whole numbers and halves: exact


def test_the_mean_of_unequal_blocks_means_would_be_another_number():
    """What blocks must not do: this shows that the test above can fail."""
    x, y = case()
    y[:9] = -1
    params, loss = initial(MLP, (5,), 3), cross_entropy(ignore=-1)
    means = [float(gradient(MLP, loss, params, x[s], y[s]).loss_mean) for s in (slice(0, 10), slice(10, 12))]
    right = float(gradient(MLP, loss, params, x, y).loss_mean)
    assert abs(np.mean(means) - right) > 0.01


def test_equals_pytorch(torch: ModuleType):
    x, y = case(20)
    params = initial(mlp((4,), "relu"), (5,), 3)
    layers = []
    for layer in ("dense_0", "dense_1"):
        dense = torch.nn.Linear(*params[layer]["weight"].shape)
        dense.weight.data = torch.tensor(np.asarray(params[layer]["weight"]).T.copy())
        dense.bias.data = torch.tensor(np.asarray(params[layer]["bias"]))
        layers.append(dense)
    loss = torch.nn.functional.cross_entropy(layers[1](torch.relu(layers[0](torch.tensor(x)))), torch.tensor(y).long())
    loss.backward()
    found = gradient(mlp((4,), "relu"), "cross_entropy", params, x, y)
    assert found.loss_mean == pytest.approx(loss.item(), rel=1e-6)
    for dense, layer in zip(layers, ("dense_0", "dense_1"), strict=True):
        np.testing.assert_allclose(found.mean[layer]["weight"].T, dense.weight.grad, **ROUNDING)
        np.testing.assert_allclose(found.mean[layer]["bias"], dense.bias.grad, **ROUNDING)


def test_an_own_pair_of_functions():
    """Least squares: ∇ = Xᵀ(Xβ − y)/n."""
    x, y = case()[0], case()[0][:, 0] * 2
    pair = (lambda key: {"beta": jnp.zeros(5)}, lambda params, x: x @ params["beta"])
    beta = np.arange(5, dtype=np.float32)
    found = gradient(pair, "squared_error", {"beta": beta}, x, y)
    np.testing.assert_allclose(found.mean["beta"], x.T @ (x @ beta - y) / 12, rtol=1e-5, atol=1e-5)


def test_the_norm_of_a_dense_layers_rows_is_that_of_inputs_times_errors():
    """|∂ℓ_j/∂W|² = |a_j|²|δ_j|² (Goodfellow 2015): here the only layer, so a = x and δ = p − e_y."""
    x, y = case()
    params = initial(linear(bias=False), (5,), 3)
    rows = np.asarray(per_example_gradients(linear(bias=False), "cross_entropy", params, x, y))
    delta = np.asarray(jax.nn.softmax(jnp.asarray(x) @ params["dense_0"]["weight"])) - np.eye(3)[y]
    np.testing.assert_allclose((rows**2).sum(1), (x**2).sum(1) * (delta**2).sum(1), rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_theta_there_and_back(name: str):
    architecture, shape = MODELS[name]
    shapes = jax.eval_shape(architecture.build(shape, 3).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32), shapes)
    vector = theta(params)
    assert vector.shape == (n_parameters(params),)
    jax.tree.map(np.testing.assert_array_equal, from_theta(vector, params), params)
    np.testing.assert_array_equal(theta(from_theta(vector * 2, params)), vector * 2)


def test_theta_of_another_length_is_refused():
    with pytest.raises(SettingsError, match=r"theta has the shape \[2\] but the model has 3 parameters"):
        from_theta(jnp.zeros(2), {"w": jnp.zeros(3)})


def test_initial_weights_have_the_variance_that_their_activation_needs():
    """Variance gain²/inputs; with 64·400 normal draws the estimate is right to 5 % (six standard errors)."""
    for activation, gain in (("relu", 2), ("tanh", 1)):
        weight = initial(mlp((400,), activation), (64,), 3)["dense_0"]["weight"]
        assert np.var(weight) == pytest.approx(gain / 64, rel=0.06)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.zeros(3, np.int32)}, r"x has the shape \[12, 5\] and y \[3\]"),
        ({"x": np.zeros((0, 5), np.float32), "y": np.zeros(0, np.int32)}, "at least 1"),
        ({"weight": np.ones(3)}, "give one weight each"),
        ({"block": 0}, "block=0 must be a whole number"),
        ({"loss": "cross_entorpy"}, "did you mean 'cross_entropy'"),
        ({"model": 3}, "model=3 is not a model"),
    ],
)
def test_what_does_not_fit_is_said(change: dict, sentence: str):
    x, y = case()
    given = {"model": MLP, "loss": "cross_entropy", "params": initial(MLP, (5,), 3), "x": x, "y": y} | change
    with pytest.raises(SettingsError, match=sentence):
        gradient(**given)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_the_model_has_no_class_for_is_refused(label: int):
    x, y = case()
    y[1], params = label, initial(MLP, (5,), 3)
    for function in (gradient, per_example_gradients):
        with pytest.raises(SettingsError, match=rf"y holds the label {label}, but the model gives 3 numbers"):
            function(MLP, "cross_entropy", params, x, y)
    gradient(MLP, cross_entropy(ignore=label), params, x, y)
