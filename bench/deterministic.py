"""Times updates with `deterministic=True` against the same updates without, in pairs that take turns.

    python bench/deterministic.py                          # about half a minute on two cores
    python bench/deterministic.py --networks 64-32-10 --json

A pair is two runs that differ in nothing but `deterministic`, on one device and on warm programs. Each round moves both
on by as many updates, about `--seconds` of them, the one that begins changing from round to round; a ratio is the
median of the rounds' ratios, beside the range of the middle half of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass

import numpy as np

import backbeat as bb
from backbeat.advance import Engine
from backbeat.clock import Duration
from backbeat.config import Settings, resolve
from backbeat.tree import leaves_of

NETWORKS = ("64-32-10", "784-128-10")
BATCHES = (1, 32, 256, 8192)  # the last is all of the data
N_EXAMPLES, RATE, ROUNDS = 8192, 1e-5, 31


@dataclass
class Price:
    """One network and batch size: microseconds of an update without, and how many times as long it takes with."""

    network: str
    batch: int
    leaves: int
    rows: int
    microseconds: float
    ratio: float
    low: float
    high: float


class Run:
    """A run that goes on, its program compiled and warm."""

    def __init__(self, network: str, batch: int, *, deterministic: bool) -> None:
        inputs, *hidden, _ = map(int, network.split("-"))
        generator = np.random.default_rng(0)
        data = generator.standard_normal((N_EXAMPLES, inputs), dtype=np.float32), np.arange(N_EXAMPLES) % 10
        settings = Settings(
            every="dataset" if batch == N_EXAMPLES else batch, learning_rate=RATE, held_out=0.0,
            duration="1000000000 updates", evaluate="never", loss="cross_entropy", deterministic=deterministic,
        )  # fmt: skip
        self.engine = Engine(resolve(bb.mlp(hidden=tuple(hidden)), data, settings))
        self.engine.compile()
        self.advance(2)

    def advance(self, n: int) -> float:
        """Returns the seconds that the next `n` updates take."""
        start, end = time.perf_counter(), self.engine.clock.updates + n
        while self.engine.clock.updates < end:
            self.engine.advance([Duration(float(end), "updates")])
        return time.perf_counter() - start


def measure(network: str, batch: int, rounds: int, seconds: float) -> Price:
    """Returns the price for one network and batch size."""
    pair = [Run(network, batch, deterministic=fixed) for fixed in (False, True)]
    n = 2
    while (took := min(pair[0].advance(n), pair[0].advance(n))) < seconds / 2:  # this also warms up
        n *= 2
    n = max(1, round(n * seconds / took))
    ratios, alone = [], []
    for number in range(rounds):
        first = number % 2
        times = {k: pair[k].advance(n) for k in (first, 1 - first)}
        ratios.append(times[1] / times[0])
        alone.append(times[0] / n)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Price(network, batch, *leaves_of(batch), statistics.median(alone) * 1e6, middle, low, high)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batch", default=",".join(map(str, BATCHES)), help="batch sizes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=0.03, help="of one side of a round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    prices = []
    if not options.json:
        print(f"{'network':12} {'M':>5} {'leaves':>10} {'µs':>10} {'fixed':>7}   middle half")
    for network in options.networks.split(","):
        for batch in map(int, options.batch.split(",")):
            price = measure(network, batch, options.rounds, options.seconds)
            prices.append(price)
            if not options.json:
                print(
                    f"{network:12} {batch:5} {price.leaves:4} of {price.rows:<3} {price.microseconds:9.1f} "
                    f"{price.ratio:6.2f}×   {price.low:.2f} to {price.high:.2f}",
                    flush=True,
                )
    if options.json:
        print(json.dumps([asdict(price) for price in prices], indent=1))


if __name__ == "__main__":
    main()
