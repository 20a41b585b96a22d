"""Losses against NumPy and PyTorch, and the shapes that would be computed wrongly in silence."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, xlog1py, xlogy

from backbeat.errors import SettingsError
from backbeat.gradient import gradient, weigh
from backbeat.losses import ExampleLosses, Loss, binary_cross_entropy, cross_entropy, loss_for, squared_error
from backbeat.models import linear

# float32 sums of about ten terms of order 1: a few units in the last place (1.2e-7 each)
CLOSE: dict[str, Any] = {"rtol": 2e-6, "atol": 2e-6}


def logits(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)


def labels(classes: int, *shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.int32)


def mean(loss: Loss, prediction: np.ndarray, label: np.ndarray) -> float:
    total, weight = weigh(loss(jnp.asarray(prediction), jnp.asarray(label)), None)
    return float(total / weight)


def test_cross_entropy_of_classes():
    z, y = logits(7, 5), labels(5, 7)
    found = cross_entropy()(jnp.asarray(z), jnp.asarray(y))
    np.testing.assert_allclose(found.total, -log_softmax(z.astype(float), axis=1)[np.arange(7), y], **CLOSE)
    assert found.count is None


def test_cross_entropy_of_soft_labels_and_of_one_hot_ones():
    z, y = logits(7, 5), np.random.default_rng(2).dirichlet(np.ones(5), 7).astype(np.float32)
    found = cross_entropy()(jnp.asarray(z), jnp.asarray(y)).total
    np.testing.assert_allclose(found, -(y * log_softmax(z.astype(float), axis=1)).sum(axis=1), **CLOSE)
    hard = labels(5, 7)
    one_hot = cross_entropy()(jnp.asarray(z), jnp.asarray(np.eye(5, dtype=np.float32)[hard])).total
    np.testing.assert_allclose(one_hot, cross_entropy()(jnp.asarray(z), jnp.asarray(hard)).total, **CLOSE)


def test_cross_entropy_of_sequences_counts_what_is_not_ignored():
    z, y = logits(4, 6, 5), labels(5, 4, 6)
    y[1, 3:], y[2] = -1, -1
    found = cross_entropy(ignore=-1)(jnp.asarray(z), jnp.asarray(y))
    each = -np.take_along_axis(log_softmax(z.astype(float), axis=2), np.maximum(y, 0)[..., None], 2)[..., 0]
    np.testing.assert_allclose(found.total, np.where(y >= 0, each, 0).sum(axis=1), **CLOSE)
    assert found.count is not None
    assert found.count.tolist() == [6, 3, 0, 6]


def test_cross_entropy_equals_pytorch(torch: ModuleType):
    z, y = logits(8, 6, 5), labels(5, 8, 6)
    y[0, 2:] = -1
    weight = np.array([0.5, 1, 2, 0, 3], np.float32)
    f = torch.nn.functional.cross_entropy
    flat, target = torch.tensor(z.reshape(-1, 5)), torch.tensor(y.reshape(-1).astype(np.int64))
    for own, theirs in (({}, {}), ({"class_weight": weight.tolist()}, {"weight": torch.tensor(weight)})):
        expected = f(flat, target, ignore_index=-1, **theirs).item()
        assert mean(cross_entropy(ignore=-1, **own), z, y) == pytest.approx(expected, rel=2e-6)
    soft = np.random.default_rng(2).dirichlet(np.ones(5), 8).astype(np.float32)
    expected = f(torch.tensor(z[:, 0]), torch.tensor(soft)).item()
    assert mean(cross_entropy(), z[:, 0], soft) == pytest.approx(expected, rel=2e-6)


def test_class_weights_of_soft_labels_are_those_of_classes_where_the_labels_are_hard():
    z, y, weights = logits(9, 3), labels(3, 9), [1.0, 2.0, 0.5]
    loss = cross_entropy(class_weight=weights)
    assert mean(loss, z, np.eye(3, dtype=np.float32)[y]) == pytest.approx(mean(loss, z, y), rel=2e-6)


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 4)])
def test_binary_cross_entropy(shape: tuple[int, ...]):
    z = logits(*shape)
    y = labels(2, *shape)
    p = 1 / (1 + np.exp(-z.astype(float)))
    found = binary_cross_entropy()(jnp.asarray(z), jnp.asarray(y))
    each = -(xlogy(y, p) + xlog1py(1 - y, -p)).reshape(9, -1)
    np.testing.assert_allclose(found.total, each.sum(axis=1), **CLOSE)
    assert found.count is None if shape == (9,) else (found.count == each.shape[1]).all()


def test_binary_cross_entropy_equals_pytorch(torch: ModuleType):
    z, y = logits(9, 4), labels(2, 9, 4)
    f = torch.nn.functional.binary_cross_entropy_with_logits
    expected = f(torch.tensor(z), torch.tensor(y.astype(np.float32))).item()
    assert mean(binary_cross_entropy(), z, y) == pytest.approx(expected, rel=2e-6)
    total = f(torch.tensor(z), torch.tensor(y.astype(np.float32)), pos_weight=torch.tensor(3.0), reduction="sum").item()
    assert mean(binary_cross_entropy(positive_weight=3.0), z, y) == pytest.approx(total / (1 + 2 * y).sum(), rel=2e-6)


def test_squared_error_is_half_the_square_summed_over_outputs():
    f, y = logits(5, 3), logits(5, 3, seed=4)
    found = squared_error()(jnp.asarray(f), jnp.asarray(y)).total
    np.testing.assert_allclose(found, 0.5 * ((f - y) ** 2).sum(axis=1), **CLOSE)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_one_output_for_labels_without_that_axis_is_not_broadcast(dtype: type):
    """[batch, 1] − [batch] would be [batch, batch]: the trap that trains towards the mean."""
    f, y = logits(6, 1), labels(3, 6).astype(dtype)
    found = squared_error()(jnp.asarray(f), jnp.asarray(y)).total
    np.testing.assert_allclose(found, 0.5 * (f[:, 0] - y) ** 2, **CLOSE)


@pytest.mark.parametrize(
    ("loss", "prediction", "label"),
    [
        (squared_error(), (6,), (6, 1)),
        (squared_error(), (6, 2), (6,)),
        (binary_cross_entropy(), (6, 2), (6,)),
        (binary_cross_entropy(), (6, 4), (6, 5)),
    ],
)
def test_shapes_that_would_broadcast_are_refused(loss: Loss, prediction: tuple, label: tuple):
    with pytest.raises(SettingsError, match=r"predictions of shape .* for labels of shape .*; they must be alike"):
        loss(jnp.zeros(prediction), jnp.zeros(label))


def test_labels_that_do_not_fit_the_logits_are_refused():
    with pytest.raises(SettingsError, match="give one integer for each prediction"):
        cross_entropy()(jnp.zeros((4, 3)), jnp.zeros((4, 1), jnp.int32))
    with pytest.raises(SettingsError, match="class_weight has 2 weights but the predictions have 3 classes"):
        cross_entropy(class_weight=[1.0, 2.0])(jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32))


def test_the_mean_is_over_elements_and_never_a_mean_of_means():
    """Two examples with 1 and 9 counted elements, means 10 and 0: (10 + 0)/(1 + 9) = 1.0, not (10 + 0)/2 = 5.0."""
    own = loss_for(lambda prediction, label: (prediction, label))
    total, count = jnp.array([10.0, 0.0]), jnp.array([1.0, 9.0])
    assert mean(own, np.asarray(total), np.asarray(count)) == 1.0
    pair = (lambda key: {"w": jnp.ones(())}, lambda params, x: params["w"] * x)
    for block in (None, 1):
        assert gradient(pair, own, {"w": jnp.ones(())}, total, count, block=block).loss_mean == 1.0


def test_a_users_function_and_its_mistakes():
    def huber(prediction, label):
        return jnp.minimum(jnp.abs(prediction[:, 0] - label), 1)

    loss = loss_for(huber)
    assert (loss.name, loss.kind) == ("huber", "other")
    assert isinstance(loss(jnp.zeros((3, 1)), jnp.ones(3)), ExampleLosses)
    for wrong in (
        lambda prediction, label: ((prediction[:, 0] - label) ** 2).mean(),
        lambda prediction, label: (prediction - label) ** 2,
    ):
        with pytest.raises(SettingsError, match=r"one value for each example, \[batch\], not a mean"):
            loss_for(wrong)(jnp.zeros((3, 1)), jnp.ones(3))


@pytest.mark.parametrize("size", [1e4, 3e38])
def test_extreme_logits_stay_finite_where_the_loss_is(size: float):
    z, y = jnp.array([[size, -size / 2], [-size / 2, 0.0]]), jnp.array([0, 1], jnp.int32)
    for loss, prediction, label in ((cross_entropy(), z, y), (binary_cross_entropy(), z, jnp.array([[1, 0], [0, 1]]))):
        value, slope = jax.value_and_grad(lambda p, loss=loss, label=label: loss(p, label).total.sum())(prediction)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def test_an_ignored_element_with_an_infinite_loss_counts_nothing():
    z = jnp.array([[[0.0, 0.0], [jnp.inf, jnp.inf]]])
    found = cross_entropy(ignore=-1)(z, jnp.array([[0, -1]], jnp.int32))
    assert found.total[0] == pytest.approx(np.log(2), rel=1e-6)


def test_all_ignored_moves_nothing():
    params = linear().build((3,), 2).init(jax.random.key(0))
    found = gradient(linear(), cross_entropy(ignore=-1), params, np.ones((4, 3)), np.full(4, -1, np.int32))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(found.mean))
    assert found.loss_mean == 0
    assert found.parts.weight == 0


@pytest.mark.parametrize(
    "text",
    [
        "cross_entropy", "cross_entropy:ignore=-1", "cross_entropy:class_weight=1,0.5,3", "binary_cross_entropy",
        "cross_entropy:ignore=0:class_weight=1,2", "binary_cross_entropy:positive_weight=2.5", "squared_error",
    ],
)  # fmt: skip
def test_a_loss_as_text_is_read_back_equal(text: str):
    assert str(loss_for(text)) == text
    assert loss_for(str(loss_for(text))) == loss_for(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cross_entropy:ingore=-1", "'ingore=-1' is not understood; options of cross_entropy: ignore, class_weight"),
        ("squared_error:ignore=1", "options of squared_error: none"),
        ("cross_entropy:ignore=x", "'x' is no value for ignore"),
        ("cross_entropy:ignore", "'' is no value for ignore"),
        ("crossentropy:ignore=1", "did you mean 'cross_entropy'"),
    ],
)
def test_a_wrong_option_of_a_loss_is_said(text: str, said: str):
    with pytest.raises(SettingsError, match=said):
        loss_for(text)
