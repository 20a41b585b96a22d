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
    Case(Task("64-32-10", "sgd", 1, 16384), 0.75),
    Case(Task("64-32-10", "sgd", 32, 16384), 0.75),
    Case(Task("64-32-10", "momentum", 16384, 16384), 0.75),
    Case(Task("784-128-10", "adam", 32, 8192), 0.7),
    Case(Task("cnn:8,16", "sgd", 32, 1024), 0.75),
)


def enough(scan: bare_scan.Scan) -> int:
    """Returns how many updates, in whole epochs, take about `SECONDS`."""
    n = 4 if scan.task.whole else scan.task.n_batches
    scan.train(n)
    start = time.perf_counter()
    scan.train(n)
    return n * max(1, round(SECONDS / (time.perf_counter() - start)))


def speed(fit: backbeat_fit.Fit, scan: bare_scan.Scan, n: int) -> float:
    """Returns the speed of the updates over the scan's: the median of the pairs."""
    ratios = []
    for k in range(PAIRS):
        if k % 2:
            fit.train(n)
        start = time.perf_counter()
        scan.train(n)
        took = time.perf_counter() - start
        if not k % 2:
            fit.train(n)
        ratios.append(took / fit.updates_alone)  # what a call costs beside them weighs too much in so short a one
    return statistics.median(ratios)


def main() -> int:
    """Measures each case, and says which of them has become slower."""
    slower = 0
    for task, least in CASES:
        fit, scan = backbeat_fit.prepare(task), bare_scan.prepare(task)
        n = enough(scan)
        for side in (fit, scan):
            side.train(n)  # compiles, and warms up
        found, attempts = 0.0, 0
        while found < least and attempts < ATTEMPTS:
            found, attempts = speed(fit, scan, n), attempts + 1
        slower += found < least
        m = "|D|" if task.whole else task.batch
        print(
            f"{task.network:10} {task.optimizer:8} M={m:<4} {found:.2f} × the speed of the bare scan "
            f"(at least {least}){'  SLOWER' if found < least else ''}"
        )
    return min(slower, 1)


if __name__ == "__main__":
    sys.exit(main())
