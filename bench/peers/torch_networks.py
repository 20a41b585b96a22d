"""The networks as PyTorch modules with a task's weights, and its rule; what PyTorch, Lightning and skorch train."""

# pyright: reportMissingImports=false
# PyTorch is not among the locked packages, so its types may not be there to check against.

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .task import (
    BETAS,
    CNN,
    EPSILON,
    HEADS,
    LAYERS,
    LENGTH,
    LOGISTIC,
    MOMENTUM,
    NORM_EPSILON,
    TRANSFORMER,
    VOCABULARY,
    WIDTH,
    Task,
    Weights,
)


class Block(nn.Module):
    """Attention to what came before, then two linear layers, each behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_0, self.norm_1 = (nn.LayerNorm(WIDTH, eps=NORM_EPSILON) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, h: Any) -> Any:
        parts = self.qkv(self.norm_0(h)).chunk(3, dim=-1)
        q, k, v = (one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.down(functional.gelu(self.up(self.norm_1(h)), approximate="tanh"))


class Transformer(nn.Module):
    """Characters in, logits of each next one out."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=NORM_EPSILON), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x: Any) -> Any:
        h = self.token(x) + self.position.weight
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class MeanLoss(nn.Module):
    """The mean cross-entropy of a batch, over all tokens where there are several an example."""

    def __init__(self, binary: bool = False) -> None:
        super().__init__()
        self.binary = binary

    def forward(self, out: Any, y: Any) -> Any:
        if self.binary:
            return functional.binary_cross_entropy_with_logits(out[:, 0], y.to(out.dtype))
        return functional.cross_entropy(out.flatten(0, -2), y.flatten())


def network(task: Task) -> Any:
    """Returns the module of a task with its initial weights."""
    if task.network == TRANSFORMER:
        module: Any = Transformer()
    elif task.network == CNN:
        layers = [nn.Unflatten(1, (1, 28))]
        for a, b in ((1, 8), (8, 16)):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(7 * 7 * 16, 10))
    else:
        layers = []
        for a, b in pairwise((64, 1) if task.network == LOGISTIC else task.sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        module = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for path, parameter in _parameters(task, module).items():
            value: Any = task.weights()
            for name in path.split("/"):
                value = value[name]
            parameter.copy_(torch.from_numpy(_turned(task, path, value)))
    return module


def mean_loss(task: Task) -> MeanLoss:
    """Returns the loss of a task."""
    return MeanLoss(task.network == LOGISTIC)


def rule(task: Task, parameters: Any, *, fused: bool = False) -> Any:
    """Returns the optimizer of a task."""
    if task.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=task.gamma, betas=BETAS, eps=EPSILON, fused=fused)
    momentum = MOMENTUM if task.optimizer == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr=task.gamma, momentum=momentum, fused=fused)


def tensors(task: Task) -> tuple[Any, Any]:
    """Returns a task's inputs and labels; numbers of classes are int64, as PyTorch wants them."""
    x, y = task.data()
    return torch.from_numpy(x if x.dtype == np.float32 else x.astype(np.int64)), torch.from_numpy(y.astype(np.int64))


def weights(task: Task, module: Any) -> Weights:
    """Returns a module's weights in the layout of the task."""
    found: Weights = {}
    for path, parameter in _parameters(task, module).items():
        inside = found
        *folders, name = path.split("/")
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[name] = _turned(task, path, parameter.detach().numpy(), back=True)
    return found


def _parameters(task: Task, module: Any) -> dict[str, Any]:
    """Returns the parameters by their paths in the layout of the task."""
    if task.network == TRANSFORMER:
        layers = {"norm": module.norm, "head": module.head}
        layers |= {f"block_{k}/{name}": one for k in range(LAYERS) for name, one in module.blocks[k].named_children()}
        made = {"embed/token": module.token.weight, "embed/position": module.position.weight}
    else:
        found = [one for one in module if hasattr(one, "weight")]
        names = ["conv_0", "conv_1", "dense_0"] if task.network == CNN else [f"dense_{k}" for k in range(len(found))]
        layers, made = dict(zip(names, found, strict=True)), {}
    for path, layer in layers.items():
        made[f"{path}/{'scale' if isinstance(layer, nn.LayerNorm) else 'weight'}"] = layer.weight
        made[f"{path}/bias"] = layer.bias
    return made


def _turned(task: Task, path: str, value: np.ndarray, *, back: bool = False) -> np.ndarray:
    """Returns a weight in PyTorch's layout: outputs first, images channels first; or `back` from it."""
    if not path.endswith("weight"):
        return value
    if value.ndim == 4:  # [height, width, in, out] and [out, in, height, width]
        return np.ascontiguousarray(value.transpose((2, 3, 1, 0) if back else (3, 2, 0, 1)))
    if task.network == CNN:  # behind an image: places of a channel are together in PyTorch
        if back:
            return value.reshape(10, 16, 7, 7).transpose(2, 3, 1, 0).reshape(-1, 10)
        return np.ascontiguousarray(value.reshape(7, 7, 16, 10).transpose(3, 2, 0, 1).reshape(10, -1))
    return np.ascontiguousarray(value.T)
