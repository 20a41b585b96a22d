"""skorch: `NeuralNet.partial_fit` without validation, and without the callbacks that time and print each epoch.

Batches come from the `DataLoader` in the form that PyTorch's documentation gives for reading a whole batch at once: a
`BatchSampler`, and no batch size of its own; one example after another, as by default, takes longer.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import skorch
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from .task import BETAS, EPSILON, MOMENTUM, Task, Weights, part
from .torch_networks import mean_loss, network, rule, weights


def _batches(task: Task) -> Any:
    """Returns what makes the batches of a data set."""

    def loader(dataset: Any, batch_size: int) -> Any:
        whole = RandomSampler if task.shuffled and not task.whole else SequentialSampler
        return DataLoader(dataset, sampler=BatchSampler(whole(dataset), batch_size, drop_last=False), batch_size=None)

    return loader


class Net:
    """A network of skorch that goes on learning."""

    def __init__(self, task: Task) -> None:
        self.task, (x, y) = task, task.data()
        self.x, self.y = x if x.dtype == np.float32 else x.astype(np.int64), y.astype(np.int64)
        settings: dict[str, Any] = {}
        if task.optimizer == "adam":
            settings |= {"optimizer__betas": BETAS, "optimizer__eps": EPSILON}
        elif task.optimizer == "momentum":
            settings |= {"optimizer__momentum": MOMENTUM}
        self.net = skorch.NeuralNet(
            network(task), criterion=mean_loss(task), optimizer=type(rule(task, [torch.zeros(1)])), lr=task.gamma,
            batch_size=task.batch, train_split=None, iterator_train=_batches(task), callbacks="disable", verbose=0,
            **settings,
        ).initialize()  # fmt: skip

    def train(self, n_updates: int) -> int:
        n, n_epochs = part(self.task, n_updates)
        self.net.partial_fit(self.x[:n], self.y[:n], epochs=n_epochs)
        assert all(parameter.isfinite().all() for parameter in self.net.module_.parameters())
        return n // self.task.batch * n_epochs

    def weights(self) -> Weights:
        return weights(self.task, self.net.module_)


def prepare(task: Task) -> Net:
    """Returns the task made ready."""
    return Net(task)
