"""Class weights: as scikit-learn counts them, and the same training as with a weight for each example."""

from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import backbeat as bb
from backbeat.config import Settings, resolve
from backbeat.errors import SettingsError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = np.repeat([0, 1, 2], [40, 15, 5])
NAMES = np.array(["ant", "bee", "cat"])[Y]


def weights(data: tuple, given: Any, **settings: Any) -> tuple[Any, Any]:
    job = resolve(bb.linear(), data, Settings(class_weight=given, **settings))
    return job.loss.options.get("class_weight", job.loss.options.get("positive_weight")), job


def test_balanced_is_scikit_learns_on_the_training_part():
    found, job = weights((X, Y), "balanced", every=8)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=Y[job.split.train])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sample_weights_count_in_the_balance():
    sample = RNG.uniform(0.5, 2, 60).astype(np.float32)
    found, _ = weights((X, Y, sample), "balanced", held_out=0)
    of_class = np.array([sample[c == Y].sum(dtype=np.float64) for c in range(3)])
    np.testing.assert_allclose(found, of_class.sum() / (3 * of_class), rtol=1e-6)  # the weights are float32


@pytest.mark.parametrize(
    "given", [[1, 2, 4], "1,2,4", {"bee": 2, "cat": 4}, "bee=2,cat=4", {"ant": 1, "bee": 2.0, "cat": 4}]
)
def test_weights_by_place_or_by_name(given: Any):
    assert weights((X, NAMES), given, held_out=0)[0] == (1.0, 2.0, 4.0)


def test_numbers_name_classes_too():
    assert weights((X, Y), {2: 4}, held_out=0)[0] == weights((X, Y), "2=4", held_out=0)[0] == (1.0, 1.0, 4.0)


@pytest.mark.parametrize("every", [7, "dataset"])
def test_training_is_that_with_a_weight_for_each_example(every: Any):
    settings: dict = {"every": every, "held_out": 0, "duration": "4 epochs", "learning_rate": 0.2}
    by_class = bb.fit(bb.linear(), (X, Y), class_weight=[1, 3, 9], **settings)
    by_example = bb.fit(bb.linear(), (X, Y, np.array([1, 3, 9], np.float32)[Y]), **settings)
    # the same sums of float32 products, multiplied in another order
    np.testing.assert_allclose(by_class.theta, by_example.theta, rtol=1e-5, atol=1e-6)
    plain = bb.fit(bb.linear(), (X, Y), **settings)
    assert not np.allclose(plain.theta, by_class.theta, atol=1e-3)


def test_two_classes_of_one_output():
    y = (Y > 0).astype(int)
    found, _ = weights((X, y), "balanced", loss="binary_cross_entropy", held_out=0)
    assert found == pytest.approx(40 / 20)  # n / (2 · 20) over n / (2 · 40)


def test_ignored_labels_are_not_counted():
    y = np.where(np.arange(60) % 4 == 0, -1, Y)
    found, job = weights((X, y), "balanced", loss="cross_entropy:ignore=-1", held_out=0)
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(3), y=y[y >= 0]), rtol=1e-12)
    assert job.loss.ignore == -1


@pytest.mark.parametrize(
    ("data", "settings", "said"),
    [
        ((X, Y), {"class_weight": [1, 2]}, "class_weight has 2 weights for 3 classes"),
        ((X, Y), {"class_weight": "heavy"}, 'is not understood; give "balanced"'),
        ((X, NAMES), {"class_weight": "dog=2"}, "names 'dog', which is no class here"),
        ((X, X[:, 0]), {"class_weight": "balanced"}, "for labels that are one of several classes"),
        ((X, Y), {"class_weight": "balanced", "loss": "cross_entropy:class_weight=1,2,3"}, "give one of them"),
        ((X, Y), {"class_weight": [1, -2, 1]}, "must be 0 or more"),
    ],
)
def test_what_cannot_be_is_said(data: tuple, settings: dict, said: str):
    with pytest.raises(SettingsError, match=said):
        resolve(bb.linear(), data, Settings(every=8, **settings))
