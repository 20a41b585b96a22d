"""Times training from files against training in memory, and measures the memory that data 8 times as large needs.

    python bench/stream.py                                   # both; about five minutes and 10 GB of disk
    python bench/stream.py --only speed --batch 256,1 --rounds 15
    python bench/stream.py --only memory --limit "1 GB"      # 8 GB of inputs

Speed: 784-128-10, plain SGD, on a page cache that holds the packed files. In memory the array is one that JAX takes as
it is. Both take turns, round after round, so that what else the machine does falls on both alike; a ratio is the median
of the rounds' ratios. Compilation and evaluation are left out.

Memory: the peak of a process of its own that packs an `.npy` file 8 times as large as the limit, trains on it and
evaluates it, and of others that find it packed. All files are made in a temporary folder and removed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from memory import own_peak

FEATURES, HIDDEN, CLASSES = 784, 128, 10
BATCHES, ROUNDS, ROUND_SECONDS = "256,32,1,dataset", 15, 0.4
WANTED = 0.8  # of the speed in memory, at M = 256


def write_data(folder: Path, n: int) -> Path:
    """Writes random inputs `[n, 784]` float32 and labels 0 to 9 as `.npy` files; returns the inputs' path."""
    generator, step = np.random.default_rng(0), 8192
    with (folder / "x.npy").open("wb") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": (n, FEATURES)}
        np.lib.format.write_array_header_1_0(file, about)
        for start in range(0, n, step):
            file.write(generator.random((min(step, n - start), FEATURES), np.float32).tobytes())
    np.save(folder / "y.npy", generator.integers(0, CLASSES, n, np.int32))
    return folder / "x.npy"


# --- speed


def engine(dataset: Any, every: str) -> Any:
    """Returns a run at its beginning, compiled."""
    import backbeat as bb
    from backbeat.advance import Engine
    from backbeat.config import Settings, resolve

    settings = Settings(every=every, learning_rate=1e-3, held_out=0.0, duration="1000000000 updates")
    made = Engine(resolve(bb.mlp(hidden=(HIDDEN,)), dataset, settings))
    made.compile()
    return made


def timed(run: Any, n: int) -> float:
    """Returns the seconds per update of `n` more."""
    from backbeat.clock import Duration

    end, start = run.clock.updates + n, time.perf_counter()
    while run.clock.updates < end:
        run.advance([Duration(float(end), "updates")])
    return (time.perf_counter() - start) / n


def speed(folder: Path, n: int, limit: str, batches: list[str], rounds: int) -> list[dict[str, Any]]:
    """Returns, for each cadence, the seconds per update of every round in memory and from files."""
    from backbeat.data import Reading
    from backbeat.data.dataset import aligned
    from backbeat.data.readers.sources import open_source
    from backbeat.data.streaming.pack import packed

    streamed = packed(open_source(write_data(folder, n), Reading()), Reading(memory=limit), 0)
    print(f"files: {streamed.x.nbytes / 1e9:.2f} GB, of which {streamed.x.bytes_kept / 1e9:.2f} GB stay in memory")
    x = aligned(streamed.x.shape, np.float32)
    for start in range(0, n, 8192):  # this also brings all of it into the page cache
        x[start : start + 8192] = streamed.x[start : start + 8192]
    forms = {"memory": replace(streamed, x=x), "files": streamed}
    results = []
    for every in batches:
        runs = {name: engine(dataset, every) for name, dataset in forms.items()}
        updates = max(1, round(ROUND_SECONDS / timed(runs["memory"], 1 if every == "dataset" else 64)))
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(-1, rounds):  # one round more to warm up
            for name in list(runs)[:: 1 if turn % 2 else -1]:
                value = timed(runs[name], updates)
                seconds[name] += [value] if turn >= 0 else []
        results.append({"every": every, "updates": updates, **seconds})
        show_speed(results[-1])
    return results


def show_speed(result: dict[str, Any]) -> None:
    """Prints one line of the table."""
    ratios = sorted(a / b for a, b in zip(result["memory"], result["files"], strict=True))
    ratio, quarter = statistics.median(ratios), len(ratios) // 4
    medians = [statistics.median(result[name]) * 1e6 for name in ("memory", "files")]
    lows = [min(result[name]) * 1e6 for name in ("memory", "files")]
    print(
        f"{result['every']:>8} {medians[0]:>12.1f} {medians[1]:>12.1f} {lows[0]:>12.1f} {lows[1]:>12.1f}   "
        f"{ratio:.2f} ({ratios[quarter]:.2f}-{ratios[-1 - quarter]:.2f})",
        flush=True,
    )


# --- memory


def child(path: str, limit: str, every: str, duration: str) -> None:
    """Trains and evaluates in this process, and prints what it took."""
    import backbeat as bb

    start = time.perf_counter()
    run = bb.fit(bb.mlp(hidden=(HIDDEN,)), path, every=every, memory=limit, held_out=0.1, duration=duration,
                 learning_rate=1e-3, evaluate="never" if every == "1" else duration)  # fmt: skip
    assert type(run.job.dataset.x).__name__ == "Packed", "the data was not packed"
    print(json.dumps({"peak": own_peak(), "seconds": time.perf_counter() - start, "updates": run.clock.updates}))


def memory(folder: Path, limit: str, times: float) -> bool:
    """Prints the peak of processes that train on data so many times as large as the limit; returns whether all fit."""
    from backbeat.data.streaming.memory import memory_bytes

    most = memory_bytes(limit)
    n = int(times * most / (4 * FEATURES))
    path = write_data(folder, n)
    print(
        f"\n{n} examples of {FEATURES} numbers, {path.stat().st_size / 1e9:.2f} GB, {times:g} times the limit {limit}"
    )
    print(f"{'every':>8} {'for':>14} {'peak, MB':>9} {'limit':>7} {'seconds':>8}")
    fits = True
    cases = [("256", "2000 updates", " (packing)"), ("256", "2000 updates", ""), ("1", "20000 updates", ""),
             ("dataset", "1 epoch", "")]  # fmt: skip
    for every, duration, note in cases:
        arguments = json.dumps([str(path), limit, every, duration])
        done = subprocess.run([sys.executable, __file__, "--child", arguments], capture_output=True, text=True)
        if done.returncode:
            print(done.stderr)
            return False
        said = json.loads(done.stdout.splitlines()[-1])
        fits &= said["peak"] < most
        print(
            f"{every:>8} {duration:>14} {said['peak'] / 1e6:9.0f} {most / 1e6:7.0f} {said['seconds']:8.1f}{note}",
            flush=True,
        )
    return fits


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("speed", "memory"), help="one of the two")
    parser.add_argument("--batch", default=BATCHES, help="cadences, separated by commas (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=400_000, help="examples for the speed (default: %(default)s)")
    parser.add_argument("--speed-limit", default="1 GB", help="the memory given for the speed (default: %(default)s)")
    parser.add_argument("--limit", default="600 MB", help="the memory given (default: %(default)s)")
    parser.add_argument("--times", type=float, default=8, help="how much larger the data is (default: %(default)s)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*json.loads(given.child))
        return 0
    met = True
    with tempfile.TemporaryDirectory() as name:
        os.environ["BACKBEAT_CACHE"] = str(Path(name) / "cache")
        if given.only != "speed":  # first: a child's peak on Linux cannot be less than what this process took
            met = memory(Path(name), given.limit, given.times)
            print("every peak is below the limit" if met else "missed: a peak is above the limit, or a run failed")
    if given.only == "memory":
        return 0 if met else 1
    with tempfile.TemporaryDirectory() as name:
        os.environ["BACKBEAT_CACHE"] = str(Path(name) / "cache")
        print(f"\n784-128-10, {given.examples} examples, {given.rounds} rounds; µs an update: medians, least, and the")
        print("speed from files by that in memory: median of the rounds (middle half)")
        print(f"{'every':>8} {'memory':>12} {'files':>12} {'least':>12} {'least':>12}   ratio")
        results = speed(Path(name), given.examples, given.speed_limit, given.batch.split(","), given.rounds)
    for result in results:
        ratio = statistics.median(a / b for a, b in zip(result["memory"], result["files"], strict=True))
        if result["every"] == "256":
            print(f"wanted at M = 256: at least {WANTED:g}; " + ("met" if ratio >= WANTED else f"missed, {ratio:.2f}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
