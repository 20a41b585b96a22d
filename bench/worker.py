"""One peer in a process of its own: reads tasks as JSON lines, trains as many updates as it is told, answers seconds.

Not a bench: what `bench/against.py` starts. Whatever the peer's library prints goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS
from peers.task import CannotDo, Task, flat


def timed(trainer: Any, n: int) -> tuple[int, float]:
    """Returns how many updates were made, and the seconds of each."""
    start = time.perf_counter()
    made = trainer.train(n)
    return made, (time.perf_counter() - start) / made


def calibrated(trainer: Any, seconds: float) -> int:
    """Returns how many updates take about so many seconds; by then everything is compiled and warm."""
    n = 1
    while True:
        trainer.train(n)  # what is compiled anew for so many updates, or once more for the second call, is not timed
        made, each = min((timed(trainer, n) for _ in range(2)), key=lambda found: found[1])
        took = made * each
        if took >= seconds / 2:
            n = max(1, round(seconds / each))
            trainer.train(n)
            return n
        n = max(made, n) * max(2, min(32, round(seconds / max(took, 1e-6))))


class Worker:
    """What a peer is asked for, one thing after another."""

    def __init__(self, name: str) -> None:
        self.module = import_module(f"peers.{PEERS[name].module}")
        self.versions = {package: metadata.version(package) for package in PEERS[name].packages}
        self.trainer: Any = None

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Returns what came of one line."""
        if "task" in asked:
            self.trainer = None
            gc.collect()
            start = time.perf_counter()
            self.trainer = self.module.prepare(Task(**asked["task"]))
            updates = calibrated(self.trainer, asked["seconds"]) if "seconds" in asked else 0
            return {"updates": updates, "prepare_seconds": time.perf_counter() - start}
        if "updates" in asked:
            start = time.perf_counter()
            made = self.trainer.train(asked["updates"])
            took = time.perf_counter() - start
            alone = getattr(self.trainer, "updates_alone", None)
            return {"made": made, "seconds": took, "alone": alone}
        return {"weights": flat(self.trainer.weights()).tolist()}


def main() -> None:
    """Answers each line of standard input with one."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library may print
    sys.path.insert(0, str(Path(__file__).parent))
    worker = Worker(sys.argv[1])
    print(json.dumps({"versions": worker.versions}), file=answers)
    for line in sys.stdin:
        try:
            found = worker.answer(json.loads(line))
        except CannotDo as error:
            found = {"cannot": str(error)}
        except Exception as error:  # a peer's bug is a cell of the table, not the end of it
            found = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(found, default=lambda value: np.asarray(value).tolist()), file=answers)


if __name__ == "__main__":
    main()
