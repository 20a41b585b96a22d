"""The estimators: scikit-learn's own checks, the weights of `fit`, online learning to the bit, files without pickle."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import sklearn
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

import backbeat as bb
from backbeat.errors import DataError, DivergedError, SettingsError
from backbeat.estimator import BackbeatClassifier, BackbeatRegressor

DIGITS: Any = load_digits()
X, Y = (DIGITS.data[:200] / 16).astype(np.float32), DIGITS.target[:200]
DIABETES: Any = load_diabetes()
INPUTS, VALUES = (np.asarray(scale(a)).astype(np.float32) for a in (DIABETES.data, DIABETES.target))
QUICK: dict[str, Any] = {"hidden": (8,), "duration": "5 epochs", "random_state": 0}
ENOUGH = {**QUICK, "duration": "30 epochs"}  # to learn something

# scikit-learn asks that a weight of 2 do what an example given twice does, and a weight of 0 what one left out does. A
# weight does so within a batch; but an example more or less makes other batches, unless a batch is the whole data set.
OTHER_BATCHES = dict.fromkeys(
    ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"),
    "a batch of 32 holds other examples where one is left out or given twice; the whole data set does not (next test)",
)


@parametrize_with_checks(
    [BackbeatClassifier(hidden=(16,)), BackbeatRegressor(hidden=(16,))], expected_failed_checks=lambda _: OTHER_BATCHES
)
@pytest.mark.sample(30)
def test_scikit_learns_checks(estimator: Any, check: Any):
    check(estimator)


@pytest.mark.parametrize(("kind", "x", "y"), [(BackbeatClassifier, X, Y), (BackbeatRegressor, INPUTS, VALUES)])
def test_weights_count_as_repeats_where_a_batch_is_the_whole_data_set(kind: Any, x: np.ndarray, y: np.ndarray):
    """scikit-learn's own check wants 1e-7, which float32 does not hold; sums of other lengths round otherwise."""
    weight = np.arange(len(x)) % 3
    given = {"every": "dataset", "optimizer": "sgd", "learning_rate": 0.01, "duration": "20 updates", "random_state": 0}
    weighted = kind(**given).fit(x, y, weight)
    repeated = kind(**given).fit(np.repeat(x, weight, axis=0), np.repeat(y, weight, axis=0))
    same(weighted.params_, repeated.params_, rtol=1e-4, atol=1e-6)


def same(one: Any, other: Any, **rounding: float):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0, "atol": 0, **rounding})


@pytest.mark.parametrize("every", [1, 32, "dataset"])
def test_the_weights_are_those_of_fit(every: Any):
    found = BackbeatClassifier(every=every, **QUICK).fit(X, Y)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    run = bb.fit(bb.mlp((8,)), (X, Y), every=every, seed=seed, optimizer="adam", learning_rate=0.005, held_out=0.0,
                 duration="5 epochs", evaluate="1 epoch")  # fmt: skip
    same(found.params_, run.params)
    losses = run.history["train_loss_mean"]
    assert found.loss_curve_ == losses[np.isfinite(losses)].tolist()
    assert (len(found.loss_curve_), found.loss_, found.n_iter_) == (6, found.loss_curve_[-1], 5)
    np.testing.assert_array_equal(found.predict(X), run.predict(X))


def test_every_is_32_or_all_where_there_are_fewer():
    by_default = BackbeatClassifier(**QUICK)
    same(by_default.fit(X, Y).params_, BackbeatClassifier(every=32, **QUICK).fit(X, Y).params_)
    same(
        by_default.fit(X[:31], Y[:31]).params_, BackbeatClassifier(every="dataset", **QUICK).fit(X[:31], Y[:31]).params_
    )
    with pytest.raises(SettingsError, match="every=32 but the data has 31 training examples"):
        BackbeatClassifier(every=32, **QUICK).fit(X[:31], Y[:31])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("cuts", [[200], [1, 2, 50, 150, 200], list(range(1, 41))])
@pytest.mark.sample(3)
def test_online_learning_does_not_depend_on_how_the_stream_is_cut(optimizer: str, cuts: list[int]):
    n = cuts[-1]
    given = {"hidden": (4,), "optimizer": optimizer, "random_state": 0}
    online = BackbeatClassifier(**given)
    for a, b in pairwise([0, *cuts]):
        online.partial_fit(X[a:b], Y[a:b], classes=range(10))
    once = BackbeatClassifier(**given, every=1, order="as given", duration="1 epoch").fit(X[:n], Y[:n])
    # one example is compiled otherwise than many: 1e-7 an update, up to 200 of them, and Adam divides by small numbers
    same(online.params_, once.params_, rtol=1e-4, atol=2e-5)
    assert online.n_iter_ == len(cuts) == len(online.loss_curve_)


@pytest.mark.slow
def test_online_regression_and_what_it_refuses():
    online = BackbeatRegressor(hidden=(), optimizer="sgd", learning_rate=0.01, random_state=0)
    for x, y in zip(INPUTS, VALUES, strict=True):
        online.partial_fit(x[None], y[None])
    once = BackbeatRegressor(hidden=(), optimizer="sgd", learning_rate=0.01, random_state=0, every=1, order="as given",
                             duration="1 epoch").fit(INPUTS, VALUES)  # fmt: skip
    same(online.params_, once.params_, rtol=1e-5, atol=1e-6)  # rounding, as above
    with pytest.raises(SettingsError, match=r"^schedule needs to know how long a run is"):
        BackbeatRegressor(schedule="cosine").partial_fit(INPUTS, VALUES)
    with pytest.raises(DataError, match="y holds 9, which is none of the classes given at the first call"):
        BackbeatClassifier(hidden=(4,)).partial_fit(X[:9], Y[:9], classes=range(9)).partial_fit(X[9:10], Y[9:10])


def test_a_warm_start_goes_on_from_the_weights():
    warm = BackbeatClassifier(warm_start=True, **QUICK).fit(X, Y)
    before = warm.loss_
    warm.fit(X, Y)
    assert warm.loss_curve_[0] == pytest.approx(before, rel=1e-6)  # the same weights, evaluated again
    assert BackbeatClassifier(**QUICK).fit(X, Y).fit(X, Y).loss_curve_[0] > before


def test_class_weights_are_weights_of_their_examples():
    few = np.flatnonzero(Y < 2)[:30]
    few = few[np.argsort(Y[few], kind="stable")][:22]
    by_class = BackbeatClassifier(class_weight="balanced", every="dataset", **QUICK).fit(X[few], Y[few])
    weight = compute_sample_weight("balanced", Y[few])
    assert len(set(weight)) == 2
    same(by_class.params_, BackbeatClassifier(every="dataset", **QUICK).fit(X[few], Y[few], weight).params_)


def test_in_a_pipeline_a_search_and_cross_validation():
    pipeline = make_pipeline(StandardScaler(), BackbeatClassifier(**ENOUGH))
    assert cross_val_score(pipeline, X, Y, cv=3).min() > 0.5
    grid = {"backbeatclassifier__every": [8, "dataset"], "backbeatclassifier__learning_rate": [0.01]}
    found: Any = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    assert found.best_params_["backbeatclassifier__every"] == 8
    best: Any = found.best_estimator_[-1]
    copy: Any = clone(best)
    assert copy.get_params() == best.get_params()


def test_weights_are_routed():
    weight = np.arange(1, 201, dtype=np.float32)
    with sklearn.config_context(enable_metadata_routing=True):
        inner: Any = BackbeatClassifier(**QUICK).set_fit_request(sample_weight=True)
        first: Any = StandardScaler().set_fit_request(sample_weight=False)
        pipeline: Any = make_pipeline(first, inner).fit(X, Y, sample_weight=weight)
    alone = BackbeatClassifier(**QUICK).fit(StandardScaler().fit_transform(X), Y, weight)
    same(pipeline[-1].params_, alone.params_)


def test_a_prediction_does_not_depend_on_the_others():
    found = BackbeatClassifier(**QUICK).fit(X, Y)
    all_of_them = found.predict_proba(np.tile(X, (3, 1)))
    np.testing.assert_array_equal(np.concatenate([found.predict_proba(x[None]) for x in X]), all_of_them[:200])
    np.testing.assert_allclose(all_of_them.sum(axis=1), 1, rtol=1e-15)


def test_names_of_classes_and_several_values():
    names = np.array([f"digit {k}" for k in Y])
    found = BackbeatClassifier(**ENOUGH).fit(X, names)
    assert set(found.predict(X)) <= set(names)
    assert found.score(X, names) > 0.5
    both = np.column_stack([VALUES, -VALUES])
    several = BackbeatRegressor(**ENOUGH).fit(INPUTS, both)
    assert several.predict(INPUTS).shape == both.shape
    assert several.score(INPUTS, both) > 0.2


def test_saved_without_pickle_and_read_again(tmp_path: Path):
    names = np.array([f"digit {k}" for k in Y])
    classifier: Any = BackbeatClassifier(**QUICK, class_weight="balanced").fit(X, names)
    regressor: Any = BackbeatRegressor(**QUICK).fit(INPUTS, VALUES)
    again: Any = None
    for kind, found, inputs in ((BackbeatClassifier, classifier, X), (BackbeatRegressor, regressor, INPUTS)):
        found.save(tmp_path / "model.safetensors")
        again = kind.load(tmp_path / "model.safetensors")
        np.testing.assert_array_equal(again.predict(inputs), found.predict(inputs))
        assert again.get_params() == found.get_params()
        assert (again.loss_curve_, again.n_features_in_) == (found.loss_curve_, found.n_features_in_)
    again.partial_fit(INPUTS, VALUES)
    with pytest.raises(DataError, match="holds a BackbeatRegressor, not a BackbeatClassifier; load it as that"):
        BackbeatClassifier.load(tmp_path / "model.safetensors")


def test_files_that_cannot_be_read_and_parameters_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    save_file({"weight": np.zeros(1, np.float32)}, tmp_path / "other.safetensors")
    for name, words in (
        ("none", "cannot be read"),
        ("cut", "cannot be read"),
        ("other", "cannot be read|holds a model"),
    ):
        with pytest.raises(DataError, match=words):
            BackbeatClassifier.load(tmp_path / f"{name}.safetensors")
    own = BackbeatClassifier(**QUICK, every=bb.every(8)).fit(X, Y)
    with pytest.raises(SettingsError, match="cannot be saved"):
        own.save(tmp_path / "own.safetensors")
    assert not (tmp_path / "own.safetensors").exists()


def test_a_fit_that_diverges_says_so_and_keeps_nothing():
    wild = BackbeatRegressor(hidden=(), optimizer="sgd", learning_rate=100.0, every=1, duration="5 epochs")
    with pytest.raises(DivergedError, match=r"diverged at update \d+: .* try a learning rate below 100"):
        wild.fit(INPUTS, VALUES)
    assert not hasattr(wild, "params_")
