"""scikit-learn: `MLPClassifier` for dense networks and `SGDClassifier` for logistic regression, each by its own `fit`.

`warm_start=True` lets them go on with the weights that they have, and begin with the task's. No weight decay, no
early stopping. The rule's memory (momentum, Adam's) begins anew with every `fit`, as scikit-learn has it. `fit` of
`SGDClassifier` is its own loop in Cython, faster than a loop over `partial_fit` in Python.
"""

# pyright: reportArgumentType=false
# its annotations are of its defaults

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from .task import BETAS, DENSE, EPSILON, LOGISTIC, MOMENTUM, CannotDo, Task, Weights, part


class Network:
    """An `MLPClassifier` that goes on learning."""

    def __init__(self, task: Task) -> None:
        self.task, (self.x, self.y) = task, task.data()
        rule: dict[str, Any] = {"solver": "sgd", "momentum": 0, "nesterovs_momentum": False}
        if task.optimizer == "momentum":
            rule["momentum"] = MOMENTUM
        elif task.optimizer == "adam":
            rule = {"solver": "adam", "beta_1": BETAS[0], "beta_2": BETAS[1], "epsilon": EPSILON}
        self.model = MLPClassifier(
            task.sizes[1:-1], alpha=0, batch_size=task.batch, learning_rate_init=task.gamma, tol=0,
            shuffle=task.shuffled and not task.whole, max_iter=1, warm_start=True, random_state=0, **rule,
        )  # fmt: skip
        self._fit(max(10, task.batch), 1)  # makes the arrays that the task's weights are put into
        layers = task.weights().values()
        self.model.coefs_ = [layer["weight"].copy() for layer in layers]
        self.model.intercepts_ = [layer["bias"].copy() for layer in layers]

    def _fit(self, n: int, n_epochs: int) -> None:
        self.model.set_params(max_iter=n_epochs, n_iter_no_change=n_epochs + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model.fit(self.x[:n], self.y[:n])

    def train(self, n_updates: int) -> int:
        n, n_epochs = part(self.task, n_updates)
        n = min(self.task.n_examples, max(n, -(-10 // self.task.batch) * self.task.batch))  # all 10 classes
        self._fit(n, n_epochs)
        return n // self.task.batch * n_epochs

    def weights(self) -> Weights:
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return {f"dense_{k}": {"weight": weight, "bias": bias} for k, (weight, bias) in enumerate(pairs)}


class Logistic:
    """An `SGDClassifier` that goes on learning."""

    def __init__(self, task: Task) -> None:
        self.task, (self.x, self.y) = task, task.data()
        self.model = SGDClassifier(
            loss="log_loss", penalty=None, learning_rate="constant", eta0=task.gamma, tol=None, shuffle=task.shuffled,
            warm_start=True,
        )  # fmt: skip

    def train(self, n_updates: int) -> int:
        n, n_epochs = part(self.task, max(2, n_updates))
        self.model.set_params(max_iter=n_epochs).fit(self.x[:n], self.y[:n])
        return n * n_epochs

    def weights(self) -> Weights:
        return {"dense_0": {"weight": np.asarray(self.model.coef_).T, "bias": np.asarray(self.model.intercept_)}}


def prepare(task: Task) -> Network | Logistic:
    """Returns the task made ready."""
    if task.network in DENSE:
        return Network(task)
    if task.network != LOGISTIC:
        raise CannotDo("it has dense networks only")
    if task.optimizer != "sgd" or task.batch != 1:
        raise CannotDo("its SGDClassifier is plain SGD, one example at a time")
    return Logistic(task)
