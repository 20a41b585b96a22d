"""Times how long it takes to begin: help, import, the first update of a fresh process, and a run to its target.

    python bench/start.py                # a quarter of an hour
    python bench/start.py --rounds 3 --peers torch,sklearn

Every figure is the wall time of a process from its start to its end. Processes take turns, round after round, and what
counts is the median. *cold* begins with an empty cache of compiled programs, *warm* with what a first process left
there (files of the disk are in the page cache in both). A peer's process imports it, makes 64-32-10 ready for batches
of 32 as `bench/peers` does in the first of its forms, and makes one update.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from peers import PEERS

BENCH = Path(__file__).parent
RUN = "train", "digits", "--every", "32", "--target", "accuracy>=0.95", "--quiet"
# what is wanted, in seconds
WANTED = {"backbeat --help": 0.25, "import backbeat": 0.4, "digits to 95 %, cold": 4.0, "digits to 95 %, warm": 3.0}
FIRST = """
import sys
sys.path.insert(0, {bench!r})
from peers import task
task.faster = lambda makers: makers[0]()
from peers import {module} as peer
peer.prepare(task.Task("64-32-10", "sgd", 32, 16384)).train(1)
"""


def seconds(command: Sequence[str], **environment: str) -> float:
    """Returns how long a process takes that is started in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=os.environ | environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        took = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return took


def timings(peers: Sequence[str], kept: str) -> dict[str, Callable[[], float]]:
    """Returns what is timed, by its name."""

    def cold(*command: str) -> float:
        with tempfile.TemporaryDirectory() as cache:
            return seconds(command, BACKBEAT_CACHE=cache)

    def warm(*command: str) -> float:
        return seconds(command, BACKBEAT_CACHE=kept)

    backbeat = ("-m", "backbeat")
    update = (*backbeat, "train", "digits", "--every", "32", "--for", "1 updates", "--quiet")
    found: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: seconds(["-c", "pass"]),
        "backbeat --help": lambda: seconds([*backbeat, "--help"]),
        "import backbeat": lambda: seconds(["-c", "import backbeat"]),
        "import jax": lambda: seconds(["-c", "import jax"]),
        "backbeat train, one update, cold": lambda: cold(*update),
        "backbeat train, one update, warm": lambda: warm(*update),
        "digits to 95 %, cold": lambda: cold(*backbeat, *RUN),
        "digits to 95 %, warm": lambda: warm(*backbeat, *RUN),
    }
    for name in peers:
        peer = PEERS[name]
        code = FIRST.format(bench=str(BENCH), module=peer.module)
        found[f"{peer.title}, one update"] = lambda code=code, peer=peer: seconds(["-c", code], **peer.environment)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", default=",".join(name for name in PEERS if name not in ("river", "vw")))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        turns = timings(asked.peers.split(","), kept)
        taken: dict[str, list[float]] = {}
        for name, call in turns.items():  # a first time, in which caches are filled
            try:
                call()
                taken[name] = []
            except RuntimeError as error:
                print(f"{name}: left out ({error})", file=sys.stderr)
        for k in range(asked.rounds):
            for name in taken if k % 2 else reversed(taken):
                taken[name].append(turns[name]())
    print("| | s | from | to | wanted |\n|---|---:|---:|---:|---:|")
    for name, each in taken.items():
        wanted = f"{WANTED[name]:g}" if name in WANTED else ""
        print(f"| {name} | {statistics.median(each):.2f} | {min(each):.2f} | {max(each):.2f} | {wanted} |")


if __name__ == "__main__":
    main()
