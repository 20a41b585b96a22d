"""backbeat, as its users call it: the whole call of `backbeat.fit` on arrays, nothing held out, no evaluation.

Every call checks, hashes and copies the data, plans its batches, and gives a run with its history; programs are those
that the first call compiled. `update_seconds` of the last call, its updates alone, is told beside it.
"""

from __future__ import annotations

from typing import Any

import backbeat as bb

from .jax_networks import transformer
from .task import CNN, LOGISTIC, TRANSFORMER, Task, Weights


def _model(task: Task) -> Any:
    if task.network == TRANSFORMER:
        weights = task.weights()
        return (lambda key: weights), transformer
    if task.network in (CNN, LOGISTIC):
        return bb.cnn((8, 16)) if task.network == CNN else bb.linear()
    return bb.mlp(hidden=task.sizes[1:-1])


class Fit:
    """Calls of `fit`, each beginning where the one before ended."""

    def __init__(self, task: Task) -> None:
        self.task, self.model, self.data, self.params = task, _model(task), task.data(), task.weights()
        self.loss = "binary_cross_entropy" if task.network == LOGISTIC else "cross_entropy"
        self.updates_alone = 0.0

    def train(self, n_updates: int) -> int:
        task = self.task
        run = bb.fit(
            self.model, self.data, every="dataset" if task.whole else task.batch, loss=self.loss,
            optimizer=task.optimizer, learning_rate=task.gamma, duration=f"{n_updates} updates", held_out=0,
            evaluate="never", order="reshuffled" if task.shuffled else "as given", params=self.params,
        )  # fmt: skip
        self.params, self.updates_alone = run.params, float(run.history["update_seconds"][-1])
        return run.clock.updates

    def weights(self) -> Weights:
        return self.params


def prepare(task: Task) -> Fit:
    """Returns the task made ready."""
    return Fit(task)
