"""Lightning: its `Trainer` with `barebones=True`, the mode that its documentation gives for measuring raw speed.

It has no logger, no checkpoints, no progress bar and no checks. Batches come from PyTorch's `DataLoader` in the form
that its documentation gives for reading a whole batch at once (`batch_size=None` and a `BatchSampler`), no workers.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from .task import Task, Weights
from .torch_networks import mean_loss, network, rule, tensors, weights


class Module(lightning.LightningModule):
    """The network, its loss and its optimizer; keeps the optimizer's state from one `fit` to the next."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.module, self.loss = network(task), mean_loss(task)
        self.rule = rule(task, self.module.parameters())

    def training_step(self, batch: Any, number: int) -> Any:
        x, y = batch
        return self.loss(self.module(x), y)

    def configure_optimizers(self) -> Any:
        return self.rule


class Fit:
    """Calls of `Trainer.fit`, one after another."""

    def __init__(self, task: Task) -> None:
        warnings.filterwarnings("ignore", module="lightning")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        self.task, self.module = task, Module(task)
        data = TensorDataset(*tensors(task))
        shuffled = task.shuffled and not task.whole
        sampler: Any = RandomSampler(data) if shuffled else SequentialSampler(data)
        batches = BatchSampler(sampler, task.batch, drop_last=False)
        self.loader = DataLoader(data, sampler=batches, batch_size=None)

    def train(self, n_updates: int) -> int:
        trainer = lightning.Trainer(barebones=True, accelerator="cpu", devices=1, max_epochs=-1, max_steps=n_updates)
        trainer.fit(self.module, self.loader)
        assert torch.isfinite(next(iter(self.module.module.parameters()))).all()
        return trainer.global_step

    def weights(self) -> Weights:
        return weights(self.task, self.module.module)


def prepare(task: Task) -> Fit:
    """Returns the task made ready."""
    return Fit(task)
