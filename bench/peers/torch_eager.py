"""PyTorch's eager loop, as in its tutorials, on tensors in memory.

No data loader, whose work for each example costs more than an update of a small network: an epoch's tensors are put in
order once and split into views. `zero_grad(set_to_none=True)`, default threads, losses kept without their graphs. The
faster one here of the optimizer with `fused=True` and without counts.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from .task import Task, Weights, faster
from .torch_networks import mean_loss, network, rule, tensors, weights


class Loop:
    """A module, its optimizer and the data."""

    def __init__(self, task: Task, fused: bool) -> None:
        self.task, self.module, self.loss = task, network(task), mean_loss(task)
        self.rule = rule(task, self.module.parameters(), fused=fused)
        self.x, self.y = tensors(task)

    def update(self, x: Any, y: Any) -> Any:
        self.rule.zero_grad(set_to_none=True)
        loss = self.loss(self.module(x), y)
        loss.backward()
        self.rule.step()
        return loss.detach()

    def train(self, n_updates: int) -> int:
        task, losses = self.task, []
        while len(losses) < n_updates:
            x, y = self.x, self.y
            if task.shuffled and not task.whole:
                order = torch.randperm(task.n_examples)[: (n_updates - len(losses)) * task.batch]
                x, y = x[order], y[order]
            for batch in zip(x.split(task.batch), y.split(task.batch), strict=True):
                losses.append(self.update(*batch))
                if len(losses) == n_updates:
                    break
        assert torch.stack(losses).isfinite().all()
        return n_updates

    def weights(self) -> Weights:
        return weights(self.task, self.module)


def prepare(task: Task) -> Loop:
    """Returns the task made ready."""
    return faster([partial(Loop, task, fused) for fused in (True, False)])
