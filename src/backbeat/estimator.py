"""scikit-learn estimators: a dense network in pipelines, searches and cross-validation, updated when you say.

`fit` trains as `backbeat.fit` does, on the same engine. `partial_fit` is online learning: one pass over the examples in
the order given, the weights updated after each one, the optimizer going on from call to call. So how the stream is cut
into calls does not matter, beyond the rounding of programs that differ.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .config import Settings, asks_rate, resolve
from .data import Dataset, from_arrays
from .done import Run
from .errors import DataError, DivergedError, SettingsError
from .events import Event
from .models import Model, mlp
from .rate_range import with_rate
from .record import save_params
from .run import gather
from .train import INTERRUPTED, TERMINATED, events_of
from .update import State

_ROWS = 256  # predictions are made for so many examples at once, always: none depends on what others there are


class _Network(BaseEstimator):
    """What the classifier and the regressor share; see there."""

    _loss: str

    def __init__(
        self,
        hidden: Any = (128,),
        activation: Any = "relu",
        every: Any = "auto",
        learning_rate: Any = 0.005,
        optimizer: Any = "adam",
        duration: Any = "50 epochs",
        target: Any = None,
        patience: Any = None,
        order: Any = "reshuffled",
        short_batch: Any = "keep",
        schedule: Any = None,
        warm_up: Any = None,
        weight_decay: Any = 0.0,
        clip: Any = None,
        held_out: Any = 0.0,
        evaluate: Any = "1 epoch",
        random_state: Any = None,
        warm_start: Any = False,
    ) -> None:
        self.hidden, self.activation, self.every = hidden, activation, every
        self.learning_rate, self.optimizer, self.duration = learning_rate, optimizer, duration
        self.target, self.patience, self.order, self.short_batch = target, patience, order, short_batch
        self.schedule, self.warm_up, self.weight_decay, self.clip = schedule, warm_up, weight_decay, clip
        self.held_out, self.evaluate = held_out, evaluate
        self.random_state, self.warm_start = random_state, warm_start

    def _settings(self, **given: Any) -> Settings:
        """Returns the settings of a run, with the names that this estimator does not share with them left out.

        Class weights are in the examples' weights already.
        """
        own = {
            name: getattr(self, name) for name in self.get_params(deep=False) if name in Settings.__dataclass_fields__
        }
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return Settings(**{**own, "class_weight": None, "loss": self._loss, "seed": seed, **given})

    def _architecture(self) -> Any:
        return mlp(hidden=self.hidden, activation=self.activation)

    def _train(self, data: Dataset, settings: Settings, *, params: Any = None, state: State | None = None) -> Run:
        """Trains, keeps what was learned, and returns the run.

        Raises:
            DivergedError: the loss or the parameters stopped being finite; nothing is kept then.
        """
        job, last = with_rate(resolve(self._architecture(), data, settings, params)), {}

        def keep(event: Event) -> None:
            last["event"] = event

        run = gather(job, events_of(job, state), [keep])
        if run.reason in (INTERRUPTED, TERMINATED):
            raise KeyboardInterrupt
        if run.diverged:
            raise DivergedError(f"{run.reason}; {run.remedy}.", run)
        self.params_ = jax.tree.map(np.asarray, run.params)
        self.optimizer_state_ = jax.tree.map(np.asarray, last["event"].state.optimizer)
        self.n_outputs_ = job.n_outputs
        return run

    def _fitted(self, data: Dataset) -> Any:
        """Trains anew, or on from the present weights with `warm_start`."""
        on = self.warm_start and hasattr(self, "params_")
        settings = self._settings()
        if settings.every == "auto":
            n_train = len(data) - round(len(data) * settings.held_out)
            settings = replace(settings, every=32 if n_train >= 32 else "dataset")
        run = self._train(data, settings, params=self.params_ if on else None)
        losses = run.history.get("train_loss_mean", run.history["loss_mean"])
        self.loss_curve_ = [float(loss) for loss in losses if np.isfinite(loss)]
        self.loss_, self.n_iter_ = self.loss_curve_[-1], run.clock.epochs
        return self

    def _continued(self, data: Dataset) -> Any:
        """Makes one pass over the data in its order, an update after each example, going on from the present state."""
        for name in ("schedule", "warm_up"):
            if getattr(self, name) is not None:
                raise SettingsError(
                    f"{name} needs to know how long a run is, which partial_fit does not; leave it out, or use fit."
                )
        if asks_rate(self.learning_rate):
            raise SettingsError(
                'learning_rate="auto" would be found anew in every call of partial_fit; give a number, or use fit.'
            )
        online = {"every": 1, "order": "as given", "duration": "1 epoch", "held_out": 0.0, "evaluate": "never",
                  "target": None, "patience": None, "short_batch": "keep"}  # fmt: skip
        params = getattr(self, "params_", None)
        state = State(params, self.optimizer_state_) if hasattr(self, "optimizer_state_") else None
        run = self._train(data, self._settings(**online), params=params, state=state)
        self.loss_ = float(run.history["loss_mean"][-1])
        self.loss_curve_ = [*getattr(self, "loss_curve_", []), self.loss_]
        self.n_iter_ = getattr(self, "n_iter_", 0.0) + 1.0
        return self

    def _weights(self, sample_weight: Any, x: np.ndarray) -> np.ndarray | None:
        return None if sample_weight is None else _check_sample_weight(sample_weight, x, dtype=np.float32)

    def _outputs(self, X: Any) -> np.ndarray:
        """Returns the network's outputs `[n, outputs]` in float64, from sums in float32."""
        check_is_fitted(self)
        x: Any = validate_data(self, X, reset=False, dtype=np.float32)
        model = self._architecture().build(x.shape[1:], self.n_outputs_)
        padded = np.zeros((-(-len(x) // _ROWS) * _ROWS, *x.shape[1:]), np.float32)
        padded[: len(x)] = x
        pieces = [_apply(model)(self.params_, piece) for piece in padded.reshape(-1, _ROWS, *x.shape[1:])]
        return np.concatenate(pieces)[: len(x)].astype(np.float64)

    def save(self, path: str | Path) -> None:
        """Writes the fitted estimator as a safetensors file, without pickle; replaces a file that is there.

        The optimizer's state is not kept: `partial_fit` begins with a new one after `load`.

        Raises:
            SettingsError: a path that does not end in .safetensors, or a parameter that is no number, text or list.
        """
        check_is_fitted(self)
        fitted = {name: _plain(getattr(self, name)) for name in _KEPT if hasattr(self, name)}
        try:
            about = json.dumps({"estimator": type(self).__name__, "parameters": self.get_params(), "fitted": fitted})
        except TypeError as error:
            raise SettingsError(
                f"{type(self).__name__} cannot be saved ({error}); give this parameter by name."
            ) from None
        save_params(self.params_, Path(path), {"backbeat": about})

    @classmethod
    def load(cls, path: str | Path) -> Any:
        """Returns the estimator that `save` wrote.

        Raises:
            DataError: the file is not there, is damaged, or holds something else.
        """
        about, params = _read(Path(path))
        if about.get("estimator") != cls.__name__:
            raise DataError(f"{path} holds a {about.get('estimator', 'model')}, not a {cls.__name__}; load it as that.")
        found = cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in about["parameters"].items()})
        for name, value in about["fitted"].items():
            setattr(found, name, np.asarray(value) if name in _ARRAYS else value)
        found.params_ = params
        return found


_ARRAYS = ("classes_", "feature_names_in_")
_KEPT = (*_ARRAYS, "n_features_in_", "n_outputs_", "loss_", "loss_curve_", "n_iter_", "flat_")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a safetensors file says of the estimator, and its parameters as a tree."""
    from safetensors import SafetensorError, safe_open

    params: dict[str, Any] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("backbeat", "{}"))
            for name in file.keys():  # noqa: SIM118 it is no dict
                layer, part = name.split("/")
                params.setdefault(layer, {})[part] = file.get_tensor(name)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a saved estimator ({error}); save it again.") from None
    return about, params


@lru_cache(maxsize=32)
def _apply(model: Model) -> Any:
    return jax.jit(model.apply)


class BackbeatClassifier(ClassifierMixin, _Network):
    """A dense network that classifies, trained with the cross-entropy of a softmax.

    Args:
        hidden: widths of the hidden layers; () for logistic regression.
        activation: "relu", "gelu", "silu", "tanh", "sigmoid" or "identity".
        every: after how many examples the weights are updated, as in `backbeat.fit`; "auto" is 32, or the whole data
            set where that is smaller.
        learning_rate: see there, likewise the others.
        optimizer: see there; here "adam" unless given, which needs no inputs of one scale.
        duration: see there.
        target: see there.
        patience: see there.
        order: see there.
        short_batch: see there.
        schedule: see there.
        warm_up: see there.
        weight_decay: see there.
        clip: see there.
        held_out: the share that is not trained on, for `target` and `patience`; none unless given.
        evaluate: how often the training loss is measured for `loss_curve_`.
        random_state: decides initial weights, split and order.
        warm_start: whether `fit` goes on from the weights that are there.
        class_weight: "balanced", a dict from class to weight, or None.

    Attributes:
        classes_: the classes, sorted.
        params_: the weights, a dict of `dense_0`, ... of `weight` `[inputs, outputs]` and `bias`.
        loss_curve_: mean training loss at each evaluation, from before the first update on.
        loss_: the last of it.
        n_iter_: epochs.
        n_features_in_: inputs of one example.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> classifier = BackbeatClassifier(hidden=(32,), every=32, duration="10 epochs", random_state=0).fit(X, y)
        >>> bool(classifier.score(X, y) > 0.95)
        True
    """

    _loss = "cross_entropy"

    # all names once more: scikit-learn reads the parameters from the signature of the class itself
    def __init__(
        self,
        hidden: Any = (128,),
        activation: Any = "relu",
        every: Any = "auto",
        learning_rate: Any = 0.005,
        optimizer: Any = "adam",
        duration: Any = "50 epochs",
        target: Any = None,
        patience: Any = None,
        order: Any = "reshuffled",
        short_batch: Any = "keep",
        schedule: Any = None,
        warm_up: Any = None,
        weight_decay: Any = 0.0,
        clip: Any = None,
        held_out: Any = 0.0,
        evaluate: Any = "1 epoch",
        random_state: Any = None,
        warm_start: Any = False,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            hidden,
            activation,
            every,
            learning_rate,
            optimizer,
            duration,
            target,
            patience,
            order,
            short_batch,
            schedule,
            warm_up,
            weight_decay,
            clip,
            held_out,
            evaluate,
            random_state,
            warm_start,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> BackbeatClassifier:
        """Returns the estimator, trained on inputs `[n, features]`, classes `[n]` and weights `[n]`."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise DataError(f"y holds 1 class only, {self.classes_.tolist()[0]!r}; a classifier needs at least two.")
        return self._fitted(self._data(X, y, sample_weight))

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> BackbeatClassifier:
        """Returns the estimator after one pass over the examples in their order, an update after each one.

        Args:
            X: `[n, features]`.
            y: `[n]`.
            classes: all classes that will ever come; needed at the first call.
            sample_weight: `[n]`, None for 1 each.
        """
        from sklearn.utils.multiclass import _check_partial_fit_first_call

        first = _check_partial_fit_first_call(self, classes)
        X, y = validate_data(self, X, y, dtype=np.float32, reset=first)
        unknown = np.setdiff1d(y, self.classes_).tolist()
        if unknown:
            raise DataError(
                f"y holds {unknown[0]!r}, which is none of the classes given at the first call; name all of them there."
            )
        return self._continued(self._data(X, y, sample_weight))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probability of each class, `[n, classes]`."""
        return softmax(self._outputs(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Returns the likeliest class of each example, `[n]`."""
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(axis=1)]

    def _data(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> Dataset:
        weight = self._weights(sample_weight, X)
        if self.class_weight is not None:
            of_class = compute_sample_weight(self.class_weight, y)
            weight = (of_class if weight is None else weight * of_class).astype(np.float32)
        names = tuple(str(name) for name in self.classes_)
        return from_arrays(X, np.searchsorted(self.classes_, y).astype(np.int32), weight, classes=names)


class BackbeatRegressor(RegressorMixin, _Network):
    """A dense network that predicts values, trained with the squared error; arguments as in `BackbeatClassifier`.

    Several values at once are possible. Values far from the scale of 1 are best scaled, for example by scikit-learn's
    `TransformedTargetRegressor`.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.preprocessing import scale
        >>> X, y = load_diabetes(return_X_y=True)
        >>> regressor = BackbeatRegressor(hidden=(), every=16, random_state=0).fit(scale(X), scale(y))
        >>> bool(regressor.score(scale(X), scale(y)) > 0.4)
        True
    """

    _loss = "squared_error"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> BackbeatRegressor:
        """Returns the estimator, trained on inputs `[n, features]`, values `[n]` or `[n, outputs]`, weights `[n]`."""
        return self._fitted(self._data(X, y, sample_weight, reset=True))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> BackbeatRegressor:
        """Returns the estimator after one pass over the examples in their order, an update after each one."""
        return self._continued(self._data(X, y, sample_weight, reset=not hasattr(self, "params_")))

    def predict(self, X: Any) -> np.ndarray:
        """Returns the values of each example, `[n]` or `[n, outputs]` as they were in `fit`."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self.flat_ else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _data(self, X: Any, y: Any, sample_weight: Any, *, reset: bool) -> Dataset:
        X, y = validate_data(self, X, y, dtype=np.float32, multi_output=True, y_numeric=True, reset=reset)
        self.flat_ = y.ndim == 1
        y = y.reshape(len(y)) if y.size == len(y) else y  # one program, and so the same bits, for [n] and [n, 1]
        return from_arrays(X, y.astype(np.float32), self._weights(sample_weight, X))
