"""Times an update of backbeat against every peer: networks × rules × batch sizes, interleaved, each in its own process.

    python bench/against.py --out a.jsonl                          # everything: hours; goes on where it was cut off
    python bench/against.py --networks 64-32-10 --batch 1,32 --peers backbeat,scan,torch
    python bench/against.py --table a.jsonl                        # the tables of what was measured
    python bench/against.py --check                                # do all come to the same weights?

Every round asks each peer in turn, in an order that turns, for a call of about --seconds; what counts is seconds over
the updates that it made. Ratios are medians over the rounds of the ratio within a round, so that what else the machine
does falls on both alike. Preparing, compiling and a warm-up come before and are not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from floor import Machine, floor
from peers import PEERS
from peers.task import CNN, LOGISTIC, NETWORKS, OPTIMIZERS, TRANSFORMER, Task, flat

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, "dataset")
N_EXAMPLES = {"64-32-10": 16384, CNN: 8192, TRANSFORMER: 8192, LOGISTIC: 16384}
_SHORT = {name.partition(":")[0]: name for name in NETWORKS}  # cnn for cnn:8,16
OURS, SCAN = "backbeat", "scan"
# of the move, after 16 updates in float32; Keras and scikit-learn have Adam's ε in another place than its paper, which
# counts where gradients are small
_APART = {"sgd": 1e-4, "momentum": 1e-4, "adam": 3e-2}


class Peer:
    """A peer's process."""

    def __init__(self, name: str) -> None:
        self.name = name
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **PEERS[name].environment}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "worker.py"), name], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.versions = self._read().get("versions", {})

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": f"its process ended ({self.process.poll()})"}

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Returns the answer to one question."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"failed": "its process ended"}
        return self._read()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


@contextmanager
def started(names: Sequence[str]) -> Iterator[list[Peer]]:
    """Gives the peers that can be started, each in a process of its own."""
    with ExitStack() as stack:
        peers = []
        for name in names:
            peer = Peer(name)
            if peer.versions:
                peers.append(peer)
                stack.callback(peer.close)
            else:
                print(f"{name}: not installed; left out", file=sys.stderr)
        yield peers


def measured(task: Task, peers: Sequence[Peer], rounds: int, seconds: float) -> dict[str, Any]:
    """Returns each peer's microseconds of an update, round by round, or why it has none."""
    found: dict[str, Any] = {}
    each: dict[str, int] = {}
    for peer in peers:
        answer = peer.ask(task=asdict(task), seconds=seconds)
        if "updates" in answer:
            each[peer.name], found[peer.name] = answer["updates"], []
        else:
            found[peer.name] = answer
    able = [peer for peer in peers if peer.name in each]
    for k in range(rounds):
        turn = able[k % len(able) :] + able[: k % len(able)]
        for peer in turn if k % 2 else turn[::-1]:
            answer = peer.ask(updates=each[peer.name])
            if "made" not in answer:
                return {**found, peer.name: answer}
            found[peer.name].append(1e6 * answer["seconds"] / answer["made"])
            if answer["alone"] is not None:
                found.setdefault(f"{peer.name} updates", []).append(1e6 * answer["alone"] / answer["made"])
    return found


def ratio(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Returns how many times as long the first takes: median and range of the middle half of the rounds."""
    ratios = sorted(a / b for a, b in zip(one, other, strict=True))
    quarter = len(ratios) // 4
    return statistics.median(ratios), ratios[quarter], ratios[-1 - quarter]


def tables(lines: Sequence[dict[str, Any]], machine: Machine | None) -> str:
    """Returns the tables of what was measured, in Markdown: microseconds of backbeat, and the peers' times over it."""
    parts = []
    for network, rule in dict.fromkeys((line["task"]["network"], line["task"]["optimizer"]) for line in lines):
        rows = [line for line in lines if (line["task"]["network"], line["task"]["optimizer"]) == (network, rule)]
        names = [name for name in PEERS if name != OURS and any(isinstance(r["found"].get(name), list) for r in rows)]
        head = ["M", "an update, µs", "of the floor", *(PEERS[name].title for name in names)]
        parts.append(f"**{network}, {rule}**\n\n| {' | '.join(head)} |\n|{'---:|' * len(head)}")
        for row in rows:
            task, ours = Task(**row["task"]), row["found"].get(OURS)
            if not isinstance(ours, list):
                continue
            mine = statistics.median(ours)
            share = "" if machine is None else f"{1e6 * floor(task, machine) / mine:.0%}"
            cells = ["|D|" if task.whole else f"{task.batch:,}", f"{mine:,.3g}", share.replace("%", " %")]
            for name in names:
                theirs = row["found"].get(name)
                cells.append(_cell(theirs, ours))
            parts.append(f"| {' | '.join(cells)} |".replace("|D|", "\\|D\\|"))
        parts.append("")
    return "\n".join(parts)


def _cell(theirs: Any, ours: Sequence[float]) -> str:
    if not isinstance(theirs, list) or len(theirs) != len(ours):
        return "–"
    middle, low, high = ratio(theirs, ours)
    return f"{middle:.3g} ({low:.3g}–{high:.3g})"


def tasks(networks: Sequence[str], rules: Sequence[str], batches: Sequence[Any]) -> Iterator[Task]:
    """Yields the cells of the table."""
    for network in networks:
        n = N_EXAMPLES.get(network, 8192)
        for rule in rules:
            for batch in batches:
                if network != LOGISTIC or (rule == "sgd" and batch == 1):
                    yield Task(network, rule, n if batch == "dataset" else int(batch), n)


def main() -> None:
    """Measures what is not in the file yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(_SHORT), help=f"of {', '.join(_SHORT)}")
    parser.add_argument("--rules", default=",".join(OPTIMIZERS))
    parser.add_argument("--batch", default=",".join(map(str, BATCHES)))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one call")
    parser.add_argument("--out", type=Path, default=Path("bench/results/against.jsonl"))
    parser.add_argument("--table", type=Path, help="only print the tables of this file")
    parser.add_argument("--check", action="store_true", help="compare the weights that all come to; time nothing")
    asked = parser.parse_args()
    if asked.check:
        sys.exit(_check(asked))
    file = asked.table or asked.out
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if asked.table is None:
        _measure(asked, lines)
    about = next((line["machine"] for line in lines if "machine" in line), None)
    machine = Machine(about["flops"], {int(k): v for k, v in about["bandwidth"].items()}) if about else None
    print(tables([line for line in lines if "task" in line], machine))


def _networks(asked: argparse.Namespace) -> list[str]:
    return [_SHORT[name] for name in asked.networks.split(",")]


def _check(asked: argparse.Namespace) -> int:
    """Prints how far each peer's weights are from those of the bare scan, over how far training moved these.

    All make the same updates: the same data in its own order. Distances are Euclidean: Adam moves a weight whose
    gradient is 0, such as the bias of a key in attention, as rounding has it.
    """
    wrong = 0
    with started([SCAN, *(name for name in asked.peers.split(",") if name != SCAN)]) as peers:
        for network in _networks(asked):
            for rule in asked.rules.split(",") if network != LOGISTIC else ("sgd",):
                batch = 1 if network == LOGISTIC else 32
                task = Task(network, rule, batch, 16 * batch, shuffled=False, rate=0.01)
                start, ours = flat(task.weights()), None
                for peer in peers:
                    answer = peer.ask(task=asdict(task))
                    made = peer.ask(updates=16) if "updates" in answer else answer
                    if made.get("made") != 16:
                        print(f"{network:18} {rule:9} {peer.name:12} {made}")
                        wrong += "failed" in made
                        continue
                    there = np.array(peer.ask(weights=True)["weights"])
                    ours = there if ours is None else ours
                    apart = float(np.linalg.norm(there - ours) / max(np.linalg.norm(ours - start), 1e-30))
                    wrong += not apart < _APART[rule]
                    print(
                        f"{network:18} {rule:9} {peer.name:12} {apart:.1e}{'' if apart < _APART[rule] else '  WRONG'}"
                    )
    return min(wrong, 1)


def _measure(asked: argparse.Namespace, lines: list[dict[str, Any]]) -> None:
    done = [line["task"] for line in lines if "task" in line]

    def write(line: dict[str, Any]) -> None:
        lines.append(line)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        with asked.out.open("a") as out:
            out.write(json.dumps(line) + "\n")

    if not any("machine" in line for line in lines):
        command = [sys.executable, str(Path(__file__).parent / "floor.py"), "--json"]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        write({"machine": {**found, "cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}})
    with started(asked.peers.split(",")) as peers:
        write({"versions": {peer.name: peer.versions for peer in peers}})
        for task in tasks(_networks(asked), asked.rules.split(","), asked.batch.split(",")):
            if asdict(task) not in done:
                found = measured(task, peers, asked.rounds, asked.seconds)
                write({"task": asdict(task), "found": found})
                print(f"{task.network} {task.optimizer} M={task.batch}", file=sys.stderr)


if __name__ == "__main__":
    main()
