"""What is trained, the same for every peer: a network with its initial weights, data, batch size, order and rule.

Weights are a nested dict of NumPy arrays, in the layout of `backbeat.models`: a dense weight is `[inputs, outputs]`, a
convolution's `[height, width, in, out]`. A peer whose library has another layout turns them on the way in and out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

DENSE = ("64-32-10", "784-128-10", "784-512-512-10")
CNN, TRANSFORMER, LOGISTIC = "cnn:8,16", "transformer", "logistic"
NETWORKS = (*DENSE, CNN, TRANSFORMER, LOGISTIC)
OPTIMIZERS = ("sgd", "momentum", "adam")
MOMENTUM, BETAS, EPSILON = 0.9, (0.9, 0.999), 1e-8
# so small that training on random labels does not diverge however long it is timed
RATES = {"sgd": 1e-3, "momentum": 1e-4, "adam": 1e-4}

VOCABULARY, LENGTH, WIDTH, HEADS, LAYERS = 64, 32, 64, 4, 2  # of the transformer
NORM_EPSILON = 1e-5

Weights = dict[str, Any]


class CannotDo(Exception):
    """A peer that cannot do a task; the message says why, in a few words."""


class Trainer(Protocol):
    """One task made ready in one library."""

    def train(self, n_updates: int) -> int:
        """Trains about so many updates more, waits until they are done, and returns how many were made."""
        ...

    def weights(self) -> Weights:
        """Returns the weights as they are now, in the layout of `Task.weights`."""
        ...


@dataclass(frozen=True)
class Task:
    """One cell of the table.

    Attributes:
        network: one of `NETWORKS`.
        optimizer: "sgd", "momentum" (0.9) or "adam" (0.9, 0.999, 1e-8).
        batch: M; `n_examples` for the whole data set.
        n_examples: |D|, a multiple of M.
        shuffled: whether every epoch has a new order; else it is the data's own.
        rate: γ; 0 for one at which nothing diverges.
    """

    network: str
    optimizer: str = "sgd"
    batch: int = 1
    n_examples: int = 8192
    shuffled: bool = True
    rate: float = 0.0

    @property
    def gamma(self) -> float:
        """The learning rate γ."""
        return self.rate or RATES[self.optimizer]

    @property
    def whole(self) -> bool:
        """Whether every batch is the whole data set, so that no order is needed."""
        return self.batch == self.n_examples

    @property
    def sizes(self) -> tuple[int, ...]:
        """The widths of a dense network."""
        return tuple(map(int, self.network.split("-")))

    @property
    def n_batches(self) -> int:
        """Updates an epoch."""
        return self.n_examples // self.batch

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns inputs and labels: random, since what is learned does not matter to a time."""
        rng, n = np.random.default_rng(0), self.n_examples
        if self.network == TRANSFORMER:
            text = rng.integers(0, VOCABULARY, (n, LENGTH + 1), dtype=np.int32)
            return np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])
        if self.network == LOGISTIC:
            return rng.standard_normal((n, 64), dtype=np.float32), np.arange(n, dtype=np.int32) % 2
        shape = (28, 28) if self.network == CNN else (self.sizes[0],)
        return rng.standard_normal((n, *shape), dtype=np.float32), np.arange(n, dtype=np.int32) % 10

    def weights(self) -> Weights:
        """Returns the weights that training starts from."""
        rng = np.random.default_rng(1)

        def layer(*shape: int, gain: float = 2.0) -> Weights:
            scale = np.float32((gain / np.prod(shape[:-1])) ** 0.5)
            return {"weight": rng.standard_normal(shape, dtype=np.float32) * scale, "bias": np.zeros(shape[-1], "f4")}

        if self.network == TRANSFORMER:
            return _transformer(rng, layer)
        if self.network == LOGISTIC:  # at 0, where River and Vowpal Wabbit begin
            return {"dense_0": {"weight": np.zeros((64, 1), np.float32), "bias": np.zeros(1, np.float32)}}
        if self.network == CNN:
            return {"conv_0": layer(3, 3, 1, 8), "conv_1": layer(3, 3, 8, 16), "dense_0": layer(7 * 7 * 16, 10)}
        return {f"dense_{k}": layer(*shape) for k, shape in enumerate(pairwise(self.sizes))}


def _transformer(rng: np.random.Generator, layer: Any) -> Weights:
    def norm() -> Weights:
        return {"scale": np.ones(WIDTH, np.float32), "bias": np.zeros(WIDTH, np.float32)}

    def table(rows: int) -> np.ndarray:
        return rng.standard_normal((rows, WIDTH), dtype=np.float32) * np.float32(0.1)

    blocks = {
        f"block_{k}": {
            "norm_0": norm(),
            "qkv": layer(WIDTH, 3 * WIDTH, gain=1.0),
            "out": layer(WIDTH, WIDTH, gain=1.0),
            "norm_1": norm(),
            "up": layer(WIDTH, 4 * WIDTH),
            "down": layer(4 * WIDTH, WIDTH, gain=1.0),
        }
        for k in range(LAYERS)
    }
    ends = {"token": table(VOCABULARY), "position": table(LENGTH)}
    return {"embed": ends, **blocks, "norm": norm(), "head": layer(WIDTH, VOCABULARY, gain=1.0)}


def flat(weights: Any) -> np.ndarray:
    """Returns all weights as one vector, in the order of their names."""
    if isinstance(weights, dict):
        return np.concatenate([flat(weights[name]) for name in sorted(weights)])
    return np.asarray(weights, np.float64).reshape(-1)


def epochs(task: Task, n_updates: int) -> int:
    """Returns how many whole epochs come nearest to so many updates, at least one."""
    return max(1, round(n_updates / task.n_batches))


def part(task: Task, n_updates: int) -> tuple[int, int]:
    """Returns (examples, epochs) that make about so many updates: of an epoch that would be longer, its beginning.

    For libraries that count in epochs.
    """
    if n_updates >= task.n_batches:
        return task.n_examples, epochs(task, n_updates)
    return max(1, n_updates) * task.batch, 1


def faster(makers: list[Callable[[], Any]], seconds: float = 0.1) -> Any:
    """Returns the trainer, of several forms, that is the fastest here."""

    def speed(trainer: Any) -> float:
        n, took, made = 2, 0.0, 1
        while took < seconds and n < 1 << 20:
            n *= 1 if took == 0 else 2
            trainer.train(n)
            start = time.perf_counter()
            made = trainer.train(n)
            took = time.perf_counter() - start
        return took / made

    if len(makers) == 1:
        return makers[0]()
    return min(makers, key=lambda make: speed(make()))()
