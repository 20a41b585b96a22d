"""Times a search: 5 batch sizes × 8 learning rates × 3 seeds, 120 runs of 64-32-10, by backbeat and by peers' loops.

    python bench/search.py               # half an hour
    python bench/search.py --epochs 1 --rounds 3 --peers backbeat,torch

Each search is a process of its own, from its start to its end: import, compilation and all. All make the same updates:
1,792 random examples, --epochs epochs a run, plain SGD, no evaluation. PyTorch and scikit-learn train one run after
another, as `bench/peers` does it. Ray Tune is given the same grid and PyTorch's loop as its function, one core a trial,
as many trials at once as there are cores, with the reports and files that it cannot be told to leave out.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from peers import PEERS
from peers import task as peers_task
from peers.task import Task

N_EXAMPLES, SEEDS = 1792, 3
BATCHES = (1, 8, 32, 256, N_EXAMPLES)
RATES = tuple((1e-5 * 2.0 ** np.arange(8)).tolist())
TITLES = {
    "backbeat": "backbeat",
    "torch": "PyTorch, a loop",
    "sklearn": "scikit-learn, a loop",
    "ray": "Ray Tune, PyTorch",
}


def grid() -> Iterator[Task]:
    """Yields the 120 runs; a seed changes nothing in what they cost."""
    for batch, rate, _ in itertools.product(BATCHES, RATES, range(SEEDS)):
        yield Task("64-32-10", "sgd", batch, N_EXAMPLES, rate=rate)


def by_backbeat(epochs: int) -> None:
    """Trains all runs as `backbeat.compare` does: those of a batch size together."""
    import backbeat as bb
    from backbeat.compare.sweep import sweep
    from backbeat.config import Settings, resolve
    from backbeat.measure import time_updates

    x, y = Task("64-32-10", n_examples=N_EXAMPLES).data()
    for batch in BATCHES:
        every = "dataset" if batch == N_EXAMPLES else batch
        jobs = [
            resolve(
                bb.mlp(hidden=(32,)), (x, y), Settings(every=every, seed=seed, held_out=0.0, duration="1000 epochs")
            )
            for seed in range(SEEDS)
        ]
        data = jobs[0].device_data()
        alone = time_updates(jobs[:1], data)[0].seconds_per_update.median
        sweep(jobs, RATES, data, alone).advance(epochs * (N_EXAMPLES // batch))


def by_loop(name: str, epochs: int) -> None:
    """Trains one run after another."""
    peers_task.faster = lambda makers: makers[0]()  # choosing among forms for each run would cost more than the run
    module = import_module(f"peers.{PEERS[name].module}")
    for task in grid():
        module.prepare(task).train(epochs * task.n_batches)


def by_ray(epochs: int) -> None:
    """Gives the grid to Ray Tune."""
    import ray
    from ray import tune

    path = os.path.dirname(os.path.abspath(__file__))

    def trial(config: dict[str, Any]) -> dict[str, float]:
        sys.path.insert(0, path)
        import torch
        from peers import task as chosen

        torch.set_num_threads(1)
        chosen.faster = lambda makers: makers[0]()
        from peers import torch_eager

        one = chosen.Task("64-32-10", "sgd", config["batch"], N_EXAMPLES, rate=config["rate"])
        return {"updates": torch_eager.prepare(one).train(epochs * one.n_batches)}

    space = {"batch": tune.grid_search(list(BATCHES)), "rate": tune.grid_search(list(RATES)),
             "seed": tune.grid_search(list(range(SEEDS)))}  # fmt: skip
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        config = tune.TuneConfig(reuse_actors=True, metric="updates", mode="max")
        where = tune.RunConfig(storage_path=folder, verbose=0)
        found = tune.Tuner(trial, param_space=space, tune_config=config, run_config=where).fit()
        assert len(found) == len(BATCHES) * len(RATES) * SEEDS
        assert not found.errors, found.errors
    ray.shutdown()


def seconds(name: str, epochs: int) -> float:
    """Returns the wall time of one search."""
    command = [sys.executable, __file__, "--one", name, "--epochs", str(epochs)]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "BACKBEAT_CACHE": cache,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(TITLES))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        how = {"backbeat": by_backbeat, "ray": by_ray}.get(asked.one)
        by_loop(asked.one, asked.epochs) if how is None else how(asked.epochs)
        return
    taken: dict[str, list[float]] = {name: [] for name in asked.peers.split(",")}
    for k in range(asked.rounds):
        for name in taken if k % 2 else reversed(taken):
            taken[name].append(seconds(name, asked.epochs))
            print(json.dumps({name: taken[name][-1]}), file=sys.stderr)
    ours = taken.get("backbeat", [])
    print("| | s | from | to | × backbeat |\n|---|---:|---:|---:|---:|")
    for name, each in taken.items():
        times = f"{statistics.median(a / b for a, b in zip(each, ours, strict=True)):.1f}" if ours else ""
        print(f"| {TITLES[name]} | {statistics.median(each):.1f} | {min(each):.1f} | {max(each):.1f} | {times} |")


if __name__ == "__main__":
    main()
