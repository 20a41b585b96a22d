"""PyTorch modules: losses and gradients are torch.autograd's, training is torch.optim's, and each trap is refused."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.errors import MissingExtraError, SettingsError
from backbeat.models import RandomModel, model_for
from backbeat.run import fit

BATCH, UPDATES, RATE = 4, 6, 0.05


def dense(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def convolutional(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))


def recurrent(torch: Any) -> Any:
    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 7, batch_first=True)
            self.out = torch.nn.Linear(7, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.lstm(x)[0][:, -1])

    return Recurrent()


def transformer(torch: Any) -> Any:
    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(11, 8)
            self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.out = torch.nn.Linear(8, 3)
            self.place = torch.linspace(0, 1, 5)[:, None]  # neither a parameter nor a buffer

        def forward(self, x: Any) -> Any:
            return self.out(self.layer(self.embed(x) + self.place).mean(dim=1))

    return Transformer()


KINDS = {"rows": dense, "images": convolutional, "series": recurrent, "tokens": transformer}


def seeded(torch: Any, make: Any) -> Any:
    torch.manual_seed(0)
    return make(torch)


def of(kind: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    return data[kind](channels_first=True) if kind == "images" else data[kind]()


def as_torch(torch: Any, x: np.ndarray) -> Any:
    return torch.from_numpy(np.array(x, np.int64 if x.dtype.kind == "i" else np.float32))


def own_loss(torch: Any, module: Any, x: np.ndarray, y: np.ndarray) -> Any:
    return torch.nn.functional.cross_entropy(module(as_torch(torch, x)), as_torch(torch, y))


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_autograd(torch: Any, kind: str, data: Any, agrees: Any):
    module = seeded(torch, KINDS[kind])
    x, y = of(kind, data)

    def own(x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        loss = own_loss(torch, module, x, y)
        names, weights = zip(*module.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, weights)
        return loss.item(), {name: each.numpy() for name, each in zip(names, found, strict=True)}

    agrees(type("Case", (), {"model": module, "x": x, "y": y, "own": staticmethod(own)}))


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_of_torch_optim(torch: Any, kind: str, data: Any, trains: Any):
    module, theirs = seeded(torch, KINDS[kind]), seeded(torch, KINDS[kind])
    x, y = of(kind, data)
    rule = torch.optim.SGD(theirs.parameters(), RATE)
    for update in range(UPDATES):
        part = slice(update * BATCH % len(x), update * BATCH % len(x) + BATCH)
        rule.zero_grad()
        own_loss(torch, theirs, x[part], y[part]).backward()
        rule.step()
    expected = {name: weight.detach().numpy() for name, weight in theirs.named_parameters()}
    run = trains(module, x, y, expected, lambda module, x: module(as_torch(torch, x)).detach().numpy())
    assert run.job.model.trained(run.params) is module
