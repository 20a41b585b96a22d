"""What grows with the data and with the number of runs: microseconds an example, peak memory, microseconds a run.

    python bench/growth.py                  # ten minutes; 5 GB of memory and 5 GB of disk
    python bench/growth.py --most 1e5

64-32-10 at M = 32, plain SGD, random inputs. Every size is a process of its own, so that its peak memory is its own; in
each of the rounds all sizes take turns, and a figure is the median of the rounds. *streamed* reads the same examples
from packed files; the memory given for it is a quarter of the data's size, at least 64 MB. Runs are learning rates ×
seeds that are trained together, as `backbeat.compare` does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from memory import own_peak
from pairs import Running

import backbeat as bb
from backbeat.compare.sweep import Together
from backbeat.config import Settings, resolve
from backbeat.data import Reading
from backbeat.data.readers.sources import open_source
from backbeat.data.streaming.pack import packed

INPUTS, BATCH = 64, 32
SECONDS = 0.5
RUNS = (1, 10, 100, 1000)


def files(folder: Path, n: int) -> None:
    """Writes `n` random examples, a part at a time."""
    folder.mkdir()
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (n, INPUTS))
    generator = np.random.default_rng(0)
    for start in range(0, n, 1 << 17):
        x[start : start + (1 << 17)] = generator.standard_normal((min(1 << 17, n - start), INPUTS), dtype=np.float32)
    x.flush()
    np.save(folder / "y.npy", np.arange(n, dtype=np.int32) % 10)


def running(folder: Path, streamed: bool) -> Running:
    """Returns a run over the examples of a folder."""
    if streamed:
        limit = f"{max(64, (folder / 'x.npy').stat().st_size // 4_000_000)} MB"
        data: Any = packed(open_source(folder / "x.npy", Reading()), Reading(memory=limit), 0)
    else:
        data = (np.load(folder / "x.npy"), np.load(folder / "y.npy"))
    return Running(bb.mlp(hidden=(32,)), data, BATCH)


def answer(folder: Path, streamed: bool) -> None:
    """Answers every line with the microseconds of an example and the megabytes that the process had at most."""
    run, n = running(folder, streamed), 1024
    while (took := run.advance(n)) < SECONDS / 2:
        n *= 2
    n = max(1, round(n * SECONDS / took))
    print("ready", flush=True)
    for _ in sys.stdin:
        took = run.advance(n)
        print(json.dumps([1e6 * took / (n * BATCH), own_peak() / 1e6]), flush=True)


def by_examples(sizes: list[int], rounds: int) -> None:
    """Prints the table of sizes of the data."""
    with tempfile.TemporaryDirectory() as folder:
        processes: dict[tuple[int, bool], subprocess.Popen[str]] = {}
        for n in sizes:
            here = Path(folder, str(n))
            files(here, n)
            for streamed in (False, True):
                command = [sys.executable, __file__, "--one", str(here), *(["--streamed"] if streamed else [])]
                process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                processes[n, streamed] = process
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise SystemExit(f"{n:,} examples, {'streamed' if streamed else 'in memory'}: no answer")
        taken: dict[tuple[int, bool], list[list[float]]] = {key: [] for key in processes}
        for k in range(rounds):
            for key in processes if k % 2 else reversed(processes):
                process = processes[key]
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                taken[key].append(json.loads(process.stdout.readline()))
        for process in processes.values():
            process.communicate()
    print("| examples | in memory, µs an example | peak, MB | streamed, µs an example | peak, MB |")
    print("|---:|---:|---:|---:|---:|")
    for n in sizes:
        cells = [f"{n:,}"]
        for streamed in (False, True):
            times, peaks = zip(*taken[n, streamed], strict=True)
            cells += [f"{statistics.median(times):.3f}", f"{max(peaks):,.0f}"]
        print(f"| {' | '.join(cells)} |")


def by_runs(rounds: int) -> None:
    """Prints the table of numbers of runs."""
    x = np.random.default_rng(0).standard_normal((1797, INPUTS), dtype=np.float32)
    data = (x, np.arange(1797, dtype=np.int32) % 10)
    forms, steps = {}, {}
    for n in RUNS:
        seeds = min(n, 10)
        settings = [Settings(every=BATCH, seed=seed, duration="1000000000 updates") for seed in range(seeds)]
        jobs = [resolve(bb.mlp(hidden=(32,)), data, each) for each in settings]
        rates = tuple(np.geomspace(1e-6, 1e-4, n // seeds).tolist())
        forms[n], steps[n] = Together(jobs, rates, jobs[0].device_data()), max(16, 8192 // n)
    taken: dict[int, list[float]] = {n: [] for n in RUNS}
    for k in range(-1, rounds):  # one round more to warm up
        for n, form in forms.items():
            start = time.perf_counter()
            form.advance((k + 2) * steps[n])
            taken[n] += [1e6 * (time.perf_counter() - start) / (steps[n] * n)] if k >= 0 else []
    print("\n| runs together | µs an update of one run |\n|---:|---:|")
    for n, each in taken.items():
        print(f"| {n:,} | {statistics.median(each):.2f} |")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=1e7, help="examples")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--streamed", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        answer(asked.one, asked.streamed)
        return
    by_examples([10**k for k in range(3, 8) if 10**k <= asked.most], asked.rounds)
    by_runs(asked.rounds)


if __name__ == "__main__":
    main()
