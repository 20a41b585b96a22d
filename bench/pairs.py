"""Two runs that differ in one setting, timed in pairs that take turns. Not a bench: what several of them measure with.

Each round moves both runs on by as many updates, the one that begins changing from round to round; a ratio is the
median of the rounds' ratios, beside the range of the middle half of them. Rounds are short, so that what else the
machine does falls on both sides of most of them alike. What is done outside the compiled program counts too.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import backbeat as bb
from backbeat.advance import Engine
from backbeat.clock import Duration
from backbeat.config import Settings, resolve

N_EXAMPLES, RATE = 8192, 1e-5


@dataclass
class Ratio:
    """Microseconds of an update of the first run, and how many times as long the second one's takes."""

    microseconds: float
    ratio: float
    low: float
    high: float


class Running:
    """A run that goes on, its program compiled and warm."""

    def __init__(self, model: Any, data: Any, every: int | str, **changed: Any) -> None:
        settings = Settings(
            every=every, learning_rate=RATE, held_out=0.0, duration="1000000000 updates", evaluate="never",
            loss="cross_entropy", **changed,
        )  # fmt: skip
        self.engine = Engine(resolve(model, data, settings))
        self.engine.compile()
        self.advance(2)

    def advance(self, n: int) -> float:
        """Returns the seconds that the next `n` updates take."""
        start, end = time.perf_counter(), self.engine.clock.updates + n
        while self.engine.clock.updates < end:
            self.engine.advance([Duration(float(end), "updates")])
        return time.perf_counter() - start


def model_and_data(network: str) -> tuple[Any, tuple[np.ndarray, np.ndarray]]:
    """Returns a network, 784-128-10 or cnn:8,16, with random data for it; what is learned does not matter."""
    generator = np.random.default_rng(0)
    y = np.arange(N_EXAMPLES, dtype=np.int32) % 10
    if not network[0].isdigit():
        return network, (generator.standard_normal((N_EXAMPLES, 28, 28), dtype=np.float32), y)
    inputs, *hidden, _ = map(int, network.split("-"))
    return bb.mlp(hidden=tuple(hidden)), (generator.standard_normal((N_EXAMPLES, inputs), dtype=np.float32), y)


def ratio(network: str, batch: int, rounds: int, seconds: float, **changed: Any) -> Ratio:
    """Returns what a setting costs, for one network and batch size.

    Args:
        network: as `model_and_data` takes it.
        batch: its size; as many as there are examples is the whole data set.
        rounds: how many pairs; a quarter of them, at least 9, where one update takes longer than a side of a round.
        seconds: of one side of a round.
        **changed: the setting in which the second run differs.
    """
    model, data = model_and_data(network)
    every = "dataset" if batch == len(data[0]) else batch
    pair = [Running(model, data, every), Running(model, data, every, **changed)]
    n = 2
    while (took := min(pair[0].advance(n), pair[0].advance(n))) < seconds / 2:  # this also warms up
        n *= 2
    n = max(1, round(n * seconds / took))
    rounds = rounds if n > 1 else max(9, rounds // 4)
    ratios, alone = [], []
    for number in range(rounds):
        first = number % 2
        times = {k: pair[k].advance(n) for k in (first, 1 - first)}
        ratios.append(times[1] / times[0])
        alone.append(times[0] / n)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Ratio(statistics.median(alone) * 1e6, middle, low, high)
