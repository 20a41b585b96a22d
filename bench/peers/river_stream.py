"""River: `LogisticRegression.learn_one`, an example at a time, as it is meant; the dicts that it takes are made before.

Its intercept has a learning rate of its own and always takes plain SGD, so that other rules would train another task.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import numpy as np
from river import linear_model, optim

from .task import LOGISTIC, CannotDo, Task, Weights


class Stream:
    """A model of River and the examples as it takes them."""

    def __init__(self, task: Task) -> None:
        x, y = task.data()
        self.task, self.x, self.y = task, [dict(enumerate(row)) for row in x.tolist()], y.astype(bool).tolist()
        self.model = linear_model.LogisticRegression(optim.SGD(task.gamma), intercept_lr=task.gamma)
        self.generator = np.random.default_rng(0)

    def train(self, n_updates: int) -> int:
        made, learn, x, y = 0, self.model.learn_one, self.x, self.y
        while made < n_updates:
            n = self.task.n_examples
            order = self.generator.permutation(n) if self.task.shuffled else np.arange(n)
            for place in order[: n_updates - made].tolist():
                learn(x[place], y[place])
            made += min(n, n_updates - made)
        return made

    def weights(self) -> Weights:
        weight = [self.model.weights[name] for name in range(64)]
        return {"dense_0": {"weight": np.array(weight)[:, None], "bias": np.array([self.model.intercept])}}


def prepare(task: Task) -> Stream:
    """Returns the task made ready."""
    if task.network != LOGISTIC or task.batch != 1:
        raise CannotDo("it learns linear models, one example at a time")
    if task.optimizer != "sgd":
        raise CannotDo("its intercept always takes plain SGD")
    return Stream(task)
