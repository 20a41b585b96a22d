"""Times runs that are saved at the default interval against the same runs that are not, in pairs that take turns.

    python bench/checkpoints.py                            # about ten minutes on two cores
    python bench/checkpoints.py --rounds 3 --seconds 10    # a first look

A pair is two whole calls of `fit` that record a folder, on warm programs, and differ in `checkpoint="auto"` against
`"never"`: as many updates as take about `--seconds`. The side that begins changes from round to round; a ratio is the
median of the rounds' ratios, beside the range of the middle half of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import backbeat as bb
from backbeat import checkpoint

CASES: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "64-64-10, M = 1, SGD": ((64, 64), 1, {"optimizer": "sgd"}),
    "784-512-512-10, M = 32, Adam": ((784, 512, 512), 32, {"optimizer": "adam"}),
}
N_EXAMPLES, RATE = 8192, 1e-5


@dataclass
class Cost:
    """One case: seconds without, how many times as long with, and how many checkpoints of how many bytes that made.

    `milliseconds` is the median of what writing one took in its thread, `share` all of that over the time of the runs:
    what checkpoints cost at most, and less than that where a core has nothing else to do. Other work on the machine
    moves it far less than it moves the ratio of two runs.
    """

    case: str
    seconds: float
    ratio: float
    low: float
    high: float
    checkpoints: int
    megabytes: float
    milliseconds: float
    share: float


class Case:
    """A run that can be made again and again."""

    def __init__(self, name: str, folder: Path) -> None:
        (inputs, *hidden), every, given = CASES[name]
        generator = np.random.default_rng(0)
        self.data = generator.standard_normal((N_EXAMPLES, inputs), dtype=np.float32), np.arange(N_EXAMPLES) % 10
        self.model = bb.mlp(hidden=tuple(hidden))
        self.given = {"every": every, "learning_rate": RATE, "held_out": 0.0, "evaluate": "never", **given}
        self.folder, self.number, self.newest = folder, 0, folder

    def seconds(self, updates: int, checkpoint: str) -> float:
        """Returns what a whole call of `fit` takes, without what it compiled."""
        self.number += 1
        self.newest = self.folder / f"{self.number:04d}"
        start = time.perf_counter()
        run = bb.fit(
            self.model, self.data, duration=f"{updates} updates", run=self.newest, checkpoint=checkpoint, **self.given
        )
        return time.perf_counter() - start - run.compile_seconds


def measure(name: str, rounds: int, seconds: float) -> Cost:
    """Returns the cost of checkpoints for one case."""
    writes: list[float] = []
    write = checkpoint.write

    def timed(*given: Any) -> None:
        start = time.perf_counter()
        write(*given)
        writes.append(time.perf_counter() - start)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(checkpoint, "write", timed):
        case, n = Case(name, Path(folder)), 1000
        case.seconds(n, "auto")  # compiles, and imports what saves
        while (took := case.seconds(n, "never")) < seconds / 4:
            n *= 2
        n, size, sides = round(n * seconds / took), 0, {"auto": [], "never": []}
        writes.clear()
        for number in range(rounds):
            for side in ("auto", "never") if number % 2 else ("never", "auto"):
                sides[side].append(case.seconds(n, side))
                if side == "auto":
                    size = _bytes(checkpoint.numbered(case.newest)[-1])
    ratios = [saved / alone for saved, alone in zip(sides["auto"], sides["never"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Cost(
        name, statistics.median(sides["never"]), middle, low, high, round(len(writes) / rounds), size / 1e6,
        1e3 * statistics.median(writes), sum(writes) / sum(sides["auto"]),
    )  # fmt: skip


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Measures and prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    costs = [measure(name, options.rounds, options.seconds) for name in CASES]
    if options.json:
        print(json.dumps([asdict(cost) for cost in costs], indent=2))
        return
    print("| run | s without | with | checkpoints | MB each | ms each | share of the time |")
    print("|---|---|---|---|---|---|---|")
    for cost in costs:
        print(
            f"| {cost.case} | {cost.seconds:.1f} | {cost.ratio:.2f} × ({cost.low:.2f} to {cost.high:.2f}) | "
            f"{cost.checkpoints} | {cost.megabytes:.2f} | {cost.milliseconds:.0f} | {cost.share:.2%} |"
        )


if __name__ == "__main__":
    main()
