"""Times 8 learning rates × 3 seeds as `backbeat compare` runs them, against the same 24 runs one after another.

    python bench/sweep.py                                # about four minutes
    python bench/sweep.py --quick --every 1,32
    python bench/sweep.py --network 784-128-10 --json > sweep.json

Every form is warm, and all of them take turns, round after round, so that what else the machine does falls on all of
them alike; a ratio is the median of the rounds' ratios. Compilation and evaluation are left out; `compiling` is given
apart. What was seen, and what was decided: docs/decisions/0008-sweeps-in-two-threads.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import backbeat as bb
from backbeat.advance import Engine
from backbeat.clock import Duration
from backbeat.compare.sweep import Apart, Together, n_cores, sweep
from backbeat.config import Job, Settings, resolve
from backbeat.measure import time_updates
from backbeat.stretch import Data

RATES, SEEDS, N_EXAMPLES = tuple(1e-5 * 2**k for k in range(8)), 3, 1797
EVERY, ROUNDS, ROUND_SECONDS = "1,8,32,256,dataset", 9, 0.6
WANTED = 0.5


@dataclass
class Result:
    """One cadence; ratios are to the time of the same runs one after another: median, least and most of the rounds."""

    every: str
    updates: int
    choice: str
    compile_seconds: float
    microseconds_alone: float
    together: tuple[float, float, float]
    apart: tuple[float, float, float]

    @property
    def chosen(self) -> tuple[float, float, float]:
        """The ratio of the form that `compare` takes here."""
        return self.together if self.choice == "together" else self.apart


def make_jobs(network: str, every: str) -> list[Job]:
    """Returns one job a seed, on random inputs; what is learned does not matter here."""
    inputs, *hidden, outputs = (int(width) for width in network.split("-"))
    x = np.random.default_rng(0).standard_normal((N_EXAMPLES, inputs), dtype=np.float32)
    y = np.arange(N_EXAMPLES, dtype=np.int32) % outputs
    return [
        resolve(bb.mlp(hidden=tuple(hidden)), (x, y), Settings(every=every, seed=seed, duration="1000000000 updates"))
        for seed in range(SEEDS)
    ]


class OneAfterAnother:
    """The 24 runs, each moved on by `n` updates in turn, as a loop of `backbeat.fit` would."""

    def __init__(self, jobs: list[Job], data: Data) -> None:
        self.engines = [Engine(replace(job, learning_rate=rate), data) for job in jobs for rate in RATES]
        self.engines[0].compile()

    def advance(self, updates: int) -> None:
        """Moves each run on to this many updates."""
        for engine in self.engines:
            while engine.clock.updates < updates:
                engine.advance([Duration(float(updates), "updates")])


def timed(work: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(network: str, every: str, rounds: int) -> Result:
    """Returns the ratios of one cadence."""
    jobs = make_jobs(network, every)
    data = jobs[0].device_data()
    alone = OneAfterAnother(jobs, data)
    seconds = time_updates(jobs[:1], data)[0].seconds_per_update.median
    start = time.perf_counter()
    forms: dict[str, Together | Apart] = {"together": Together(jobs, RATES, data)}
    compile_seconds = time.perf_counter() - start
    forms["apart"] = Apart(jobs, RATES, data)
    chosen = "together" if isinstance(sweep(jobs, RATES, data, seconds), Together) else "apart"
    n = max(16, int(ROUND_SECONDS / (seconds * len(alone.engines))))
    taken = {name: [] for name in ("alone", *forms)}
    for turn in range(-1, rounds):  # one round more to warm up
        times = {"alone": timed(lambda to=(turn + 2) * n: alone.advance(to))}
        times |= {name: timed(lambda f=form, to=(turn + 2) * n: f.advance(to)) for name, form in forms.items()}
        for name, value in times.items():
            taken[name] += [value] if turn >= 0 else []
    ratios = {name: spread(np.array(taken[name]) / np.array(taken["alone"])) for name in forms}
    each = statistics.median(taken["alone"]) / (n * len(alone.engines)) * 1e6
    return Result(every, n, chosen, compile_seconds, each, ratios["together"], ratios["apart"])


def spread(values: np.ndarray) -> tuple[float, float, float]:
    """Returns median, least and most."""
    return float(np.median(values)), float(values.min()), float(values.max())


def show(network: str, results: list[Result], rounds: int) -> None:
    """Prints the table."""
    print(
        f"{len(RATES)} learning rates x {SEEDS} seeds, {network}, {n_cores()} cores, {rounds} rounds; times as shares"
    )
    print("of the same runs one after another: median (least-most)\n")
    print(f"{'every':>8}  {'alone':>9}  {'together':>18}  {'apart':>18}  {'compare takes':>13}  {'compiling':>9}")
    for r in results:
        shares = ["{:.2f} ({:.2f}-{:.2f})".format(*share) for share in (r.together, r.apart)]
        cells = f"{shares[0]:>18}  {shares[1]:>18}  {r.choice:>13}  {r.compile_seconds:7.1f} s"
        print(f"{r.every:>8}  {r.microseconds_alone:6.4g} µs  {cells}")
    slow = [r.every for r in results if r.chosen[0] > WANTED]
    print(f"\nwanted: at most {WANTED:g}; " + (f"missed at every {', '.join(slow)}" if slow else "met everywhere"))


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="64-32-10", help="widths, inputs first (default: %(default)s)")
    parser.add_argument("--every", default=EVERY, help="cadences, separated by commas (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    rounds = 3 if given.quick else given.rounds
    results = [measure(given.network, every, rounds) for every in given.every.split(",")]
    if given.json:
        about = {"network": given.network, "cores": n_cores(), "rounds": rounds, "rates": RATES, "seeds": SEEDS}
        print(json.dumps({**about, "results": [vars(r) | {"ratio": r.chosen[0]} for r in results]}))
    else:
        show(given.network, results, rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
