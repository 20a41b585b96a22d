"""Vowpal Wabbit: plain SGD on the logistic loss (`--sgd --power_t 0`), on examples that were read and parsed before.

Its own rules (normalised, adaptive, invariant) train another task and are off. Its features are hashed; names that are
numbers keep their number.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
from vowpalwabbit import pyvw

from .task import LOGISTIC, CannotDo, Task, Weights

_CONSTANT = 11650396  # the feature that is always 1 (`constant` in its sources)


class Stream:
    """A workspace of Vowpal Wabbit and its examples."""

    def __init__(self, task: Task) -> None:
        self.task, self.generator = task, np.random.default_rng(0)
        self.workspace = pyvw.Workspace(f"--loss_function logistic --sgd -l {task.gamma!r} --power_t 0 -b 18 --quiet")
        x, y = task.data()
        self.examples: list[Any] = [self._example(*one) for one in zip(x.tolist(), y.tolist(), strict=True)]

    def _example(self, x: list[float], y: int) -> Any:
        text = " ".join(f"{name}:{value!r}" for name, value in enumerate(x))
        return self.workspace.example(f"{2 * y - 1} | {text}")

    def train(self, n_updates: int) -> int:
        made, learn, examples = 0, self.workspace.learn, self.examples
        while made < n_updates:
            n = self.task.n_examples
            order = self.generator.permutation(n) if self.task.shuffled else np.arange(n)
            for place in order[: n_updates - made].tolist():
                learn(examples[place])
            made += min(n, n_updates - made)
        return made

    def weights(self) -> Weights:
        weight = [self.workspace.get_weight(name) for name in range(64)]
        bias = self.workspace.get_weight(_CONSTANT)
        return {"dense_0": {"weight": np.array(weight)[:, None], "bias": np.array([bias])}}


def prepare(task: Task) -> Stream:
    """Returns the task made ready."""
    if task.network != LOGISTIC or task.batch != 1:
        raise CannotDo("it learns linear models, one example at a time")
    if task.optimizer != "sgd":
        raise CannotDo("it has neither momentum nor Adam")
    return Stream(task)
