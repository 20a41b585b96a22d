"""Says whether an update has become slower than a bare scan's: a handful of cases, in pairs; `make check` runs it.

    python bench/guard.py        # half a minute; exit code 1 where backbeat has become slower

Both sides of a pair train the same network for about as long, one after the other, so that what else the machine does
falls on both; what counts is the median of the pairs' ratios. A case fails where that is below its limit in each of
three attempts: noise hits one of them, a slower program all. Limits lie a tenth and more below what is seen on a quiet
machine (docs/benchmarks.md); what is small beside that is for `bench/against.py` to find.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import NamedTuple

from peers import backbeat_fit, bare_scan
from peers.task import Task

PAIRS, SECONDS, ATTEMPTS = 9, 0.15, 3


class Case(NamedTuple):
    """A task, and the share of the bare scan's speed that its updates have at least."""

    task: Task
    least: float


CASES = (
    Case(Task("64-32-10", "sgd", 1, 16384), 0.8),
    Case(Task("64-32-10", "sgd", 32, 16384), 0.8),
    Case(Task("64-32-10", "momentum", 16384, 16384), 0.8),
    Case(Task("784-128-10", "adam", 32, 8192), 0.8),
    Case(Task("cnn:8,16", "sgd", 32, 8192), 0.8),
)


class Updates:
    """Runs of `fit`, by their updates alone: what a call costs beside them weighs too much in short ones."""

    def __init__(self, task: Task) -> None:
        self.fit, self.seconds = backbeat_fit.prepare(task), 0.0

    def train(self, n_updates: int) -> int:
        made = self.fit.train(n_updates)
        self.seconds = self.fit.updates_alone
        return made


class Timed:
    """A bare scan, timed from outside."""

    def __init__(self, task: Task) -> None:
        self.scan, self.seconds = bare_scan.prepare(task), 0.0

    def train(self, n_updates: int) -> int:
        start = time.perf_counter()
        made = self.scan.train(n_updates)
        self.seconds = time.perf_counter() - start
        return made


def enough(side: Updates | Timed) -> int:
    """Returns how many updates take about `SECONDS`; by then everything is compiled and warm."""
    n = 1
    while side.train(n) and side.train(n) and side.seconds < SECONDS / 2:
        n *= max(2, min(32, int(SECONDS / max(side.seconds, 1e-6))))
    return max(1, round(n * SECONDS / side.seconds))


def speed(fit: Updates, scan: Timed) -> float:
    """Returns the speed of the updates over the scan's: the median of the pairs."""
    n = {fit: enough(fit), scan: enough(scan)}
    ratios = []
    for k in range(PAIRS):
        each = {}
        for side in (fit, scan) if k % 2 else (scan, fit):
            made = side.train(n[side])
            each[side] = side.seconds / made
        ratios.append(each[scan] / each[fit])
    return statistics.median(ratios)


def main() -> int:
    """Measures each case, and says which of them has become slower."""
    slower = 0
    for task, least in CASES:
        fit, scan = Updates(task), Timed(task)
        for _ in range(ATTEMPTS):
            found = speed(fit, scan)
            if found >= least:
                break
        slower += found < least
        m = "|D|" if task.whole else task.batch
        print(
            f"{task.network:10} {task.optimizer:8} M={m:<4} {found:.2f} × the speed of the bare scan "
            f"(at least {least}){'  SLOWER' if found < least else ''}"
        )
    return min(slower, 1)


if __name__ == "__main__":
    sys.exit(main())
