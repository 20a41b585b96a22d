"""PyTorch with `torch.compile`: the whole update, network, gradient and rule, as one compiled function.

The gradient is `torch.func.grad_and_value` of `functional_call`, which compiles into one graph with the update of the
weights; compiling the module and the optimizer apart, as in the tutorial "Compiling the optimizer", was slower here.
The rule is written out, as PyTorch's optimizers hold their state outside. Static shapes; the data as in `torch_eager`.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import torch
from torch.func import functional_call, grad_and_value

from .task import BETAS, EPSILON, MOMENTUM, Task
from .torch_eager import Loop


class Compiled(Loop):
    """The loop of `torch_eager` around a compiled update."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, fused=False)
        self.parameters = {name: value.detach() for name, value in self.module.named_parameters()}
        zeros = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        kinds = {"sgd": 0, "momentum": 1, "adam": 2}[task.optimizer]
        self.state = [{name: value.clone() for name, value in zeros.items()} for _ in range(kinds)]
        self.count = torch.zeros(())
        torch._dynamo.reset()
        self.compiled = torch.compile(self._update, fullgraph=True, dynamic=False)

    def _update(self, parameters: Any, state: Any, count: Any, x: Any, y: Any) -> Any:
        gradient, loss = grad_and_value(lambda p: self.loss(functional_call(self.module, p, (x,)), y))(parameters)
        with torch.no_grad():
            count += 1
            for name, g in gradient.items():
                parameters[name] -= self.task.gamma * self._change(name, g, state, count)
        return loss

    def _change(self, name: str, g: Any, state: Any, count: Any) -> Any:
        """Returns what is subtracted, times γ, as `torch.optim` makes it of a gradient."""
        if self.task.optimizer == "sgd":
            return g
        if self.task.optimizer == "momentum":
            return state[0][name].mul_(MOMENTUM).add_(g)
        first, second = state[0][name].lerp_(g, 1 - BETAS[0]), state[1][name].lerp_(g * g, 1 - BETAS[1])
        return first / (1 - BETAS[0] ** count) / ((second / (1 - BETAS[1] ** count)).sqrt() + EPSILON)

    def update(self, x: Any, y: Any) -> Any:
        return self.compiled(self.parameters, self.state, self.count, x, y)


def prepare(task: Task) -> Compiled:
    """Returns the task made ready."""
    return Compiled(task)
