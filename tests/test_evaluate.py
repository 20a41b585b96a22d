"""Scores against scikit-learn, in one block or many: sums over examples divided once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

from backbeat.evaluate import block_for, evaluator, scores
from backbeat.losses import Loss, binary_cross_entropy, cross_entropy, loss_for, squared_error
from backbeat.models import Functions
from backbeat.stretch import Data

RNG = np.random.default_rng(0)
N = 23
AS_IT_IS = Functions(lambda key: jnp.zeros(()), lambda params, x: x)  # the prediction is the input
LOGITS = RNG.normal(size=(N, 3)).astype(np.float32)
CLASSES = RNG.integers(0, 3, N).astype(np.int32)
PART = np.sort(RNG.permutation(N)[:17]).astype(np.int32)


def evaluated(loss: Loss, x: np.ndarray, y: np.ndarray, block: int = 1000, weight: Any = None) -> dict[str, float]:
    data = Data(jnp.asarray(x), jnp.asarray(y), None if weight is None else jnp.asarray(weight))
    (sums,) = jax.device_get(evaluator(AS_IT_IS, loss, block)(jnp.zeros(()), data, (jnp.asarray(PART),)))
    return scores(loss, sums, y[PART])


@pytest.mark.parametrize("block", [1, 5, 17, 1000])
def test_classes(block: int):
    found = evaluated(cross_entropy(), LOGITS, CLASSES, block)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    assert found["accuracy"] == pytest.approx(accuracy_score(CLASSES[PART], LOGITS[PART].argmax(axis=1)))
    p = p.astype(float) / p.astype(float).sum(axis=1, keepdims=True)
    assert found["loss"] == pytest.approx(log_loss(CLASSES[PART], p[PART], labels=[0, 1, 2]), rel=1e-5)


@pytest.mark.parametrize("block", [5, 1000])
def test_values(block: int):
    y = (LOGITS @ RNG.normal(size=(3, 3)) / 3).astype(np.float32)
    found = evaluated(squared_error(), LOGITS, y, block)
    assert found["mse"] == pytest.approx(mean_squared_error(y[PART], LOGITS[PART]), rel=1e-5)
    assert found["r2"] == pytest.approx(r2_score(y[PART], LOGITS[PART]), rel=1e-4)
    assert found["loss"] == pytest.approx(found["mse"] * 3 / 2, rel=1e-5)  # ½, and a sum over the three outputs


def test_yes_or_no_counts_every_label():
    y = RNG.integers(0, 2, (N, 3)).astype(np.int32)
    found = evaluated(binary_cross_entropy(), LOGITS, y, 5)
    assert found["accuracy"] == pytest.approx(np.mean((LOGITS[PART] > 0) == y[PART]))


def test_ignored_labels_count_nowhere():
    y = CLASSES.copy()
    y[PART[:5]] = -1
    found = evaluated(cross_entropy(ignore=-1), LOGITS, y, 5)
    kept = PART[5:]
    assert found["accuracy"] == pytest.approx(accuracy_score(CLASSES[kept], LOGITS[kept].argmax(axis=1)))
    each = -np.log(np.exp(LOGITS)[kept, CLASSES[kept]] / np.exp(LOGITS)[kept].sum(axis=1))
    assert found["loss"] == pytest.approx(each.mean(), rel=1e-5)


def test_weights_weigh_the_loss_and_not_the_accuracy():
    weight = RNG.random(N).astype(np.float32)
    found = evaluated(cross_entropy(), LOGITS, CLASSES, 5, weight)
    each = -np.log(np.exp(LOGITS)[np.arange(N), CLASSES] / np.exp(LOGITS).sum(axis=1))
    assert found["loss"] == pytest.approx(np.average(each[PART], weights=weight[PART]), rel=1e-5)
    assert found["accuracy"] == evaluated(cross_entropy(), LOGITS, CLASSES)["accuracy"]


def test_an_own_loss_has_a_loss_and_no_score():
    own = loss_for(lambda prediction, label: jnp.abs(prediction).sum(axis=1))
    assert evaluated(own, LOGITS, CLASSES) == {"loss": pytest.approx(np.abs(LOGITS[PART]).sum(axis=1).mean(), rel=1e-5)}


def test_labels_without_spread_have_no_r2():
    found = evaluated(squared_error(), LOGITS[:, :1], np.ones((N, 1), np.float32))
    assert np.isnan(found["r2"])
    assert found["mse"] == pytest.approx(np.mean((LOGITS[PART, :1] - 1) ** 2), rel=1e-5)


def test_a_block_stays_within_64_mib():
    assert block_for(1000) * 1000 * 4 <= 1 << 26
    assert block_for(1 << 30) == 16
