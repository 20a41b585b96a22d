"""Times updates with `watch_noise` against the same updates without, in pairs that take turns.

    python bench/noise.py                                      # about three minutes on two cores
    python bench/noise.py --networks 64-32-10 --batch 32,256
    python bench/noise.py --json > noise.json

A pair is two runs that differ in nothing but `watch_noise`, on warm programs. Each round moves both on by as many
updates, about `--seconds` of them, the one that begins changing from round to round; a ratio is the median of the
rounds' ratios, beside the range of the middle half of them: rounds are short, so that what else the machine does falls
on both sides of most of them alike. What is done for the noise outside the program counts too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import backbeat as bb
from backbeat.advance import Engine
from backbeat.clock import Duration
from backbeat.config import Settings, resolve

NETWORKS = ("64-32-10", "784-128-10", "784-512-512-10", "cnn:8,16")
BATCHES = (2, 8, 32, 256, 2048)
N_EXAMPLES, RATE, ROUNDS = 8192, 1e-5, 41
MOST_COST, FROM = 0.30, 32  # what is wanted of dense networks, from this batch size on


@dataclass
class Cost:
    """One network and batch size: microseconds of an update without, and how many times as long it takes with."""

    network: str
    batch: int
    microseconds: float
    ratio: float
    low: float
    high: float

    @property
    def wanted(self) -> bool:
        """Whether it is a case that has a bound."""
        return self.network[0].isdigit() and self.batch >= FROM


class Run:
    """A run that goes on, its program compiled and warm."""

    def __init__(self, model: Any, data: tuple, batch: int, watch: bool) -> None:
        settings = Settings(
            every=batch, learning_rate=RATE, held_out=0.0, duration="1000000000 updates", evaluate="never",
            loss="cross_entropy", watch_noise=watch,
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
    """Returns a network with random data for it; what is learned does not matter here."""
    generator = np.random.default_rng(0)
    y = np.arange(N_EXAMPLES, dtype=np.int32) % 10
    if not network[0].isdigit():
        return network, (generator.standard_normal((N_EXAMPLES, 28, 28), dtype=np.float32), y)
    inputs, *hidden, _ = map(int, network.split("-"))
    return bb.mlp(hidden=tuple(hidden)), (generator.standard_normal((N_EXAMPLES, inputs), dtype=np.float32), y)


def measure(network: str, batch: int, rounds: int, seconds: float) -> Cost:
    """Returns the cost of one network and batch size."""
    model, data = model_and_data(network)
    pair = [Run(model, data, batch, watch) for watch in (False, True)]
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
    return Cost(network, batch, statistics.median(alone) * 1e6, middle, low, high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS[:3]) + ";" + NETWORKS[3], help="with ; or , between")
    parser.add_argument("--batch", default=",".join(map(str, BATCHES)), help="batch sizes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=0.02, help="of one side of a round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    costs = []
    networks = options.networks.split(";") if ";" in options.networks else [options.networks]
    networks = [name for text in networks for name in ([text] if text.startswith("cnn") else text.split(","))]
    if not options.json:
        print(f"{'network':15} {'M':>5} {'µs':>10} {'with':>7}   middle half")
    for network in networks:
        for batch in map(int, options.batch.split(",")):
            costs.append(measure(network, batch, options.rounds, options.seconds))
            cost = costs[-1]
            if not options.json:
                over = "  more than wanted" if cost.wanted and cost.ratio > 1 + MOST_COST else ""
                print(
                    f"{network:15} {batch:5} {cost.microseconds:10.2f} {cost.ratio:6.2f}×   "
                    f"{cost.low:.2f} to {cost.high:.2f}{over}",
                    flush=True,
                )
    if options.json:
        print(json.dumps([asdict(cost) for cost in costs], indent=1))
    over = [cost for cost in costs if cost.wanted and cost.ratio > 1 + MOST_COST]
    print(f"{len(over)} of the dense networks at M ≥ {FROM} cost more than {MOST_COST:.0%}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
