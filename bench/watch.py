"""Times the live page: the first answer of a server that starts, and 200 runs drawn by a browser.

    python bench/watch.py                 # about a minute on two cores
    python bench/watch.py --rounds 3      # a first look
    python bench/watch.py --long          # also a run of a million recorded lines: seconds to read it, and memory

The runs are one real training's folder (300 rows of history, every row evaluated), copied 200 times with other losses;
ten of them lack their record, as runs that were cut off do, and are read from their events. *First answer* is from a
request to the whole page, *start* from the start of the process. *Drawn* is from navigation, in headless Chromium,
until the list of 200 rows and all 200 curves are on the screen (two frames after they were drawn); *at once* it is
asked for as soon as the server says its address, *warm* once more by a new tab.
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
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import backbeat as bb

N_RUNS, N_CUT_OFF, ROWS = 200, 10, 300
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
DRAWN = """() => document.querySelectorAll('#runs tbody tr').length === %d
    && /of %d runs/.test(document.querySelector('#curves .seen').textContent)"""


def made(parent: Path) -> Path:
    """Returns a folder of many runs."""
    model = parent / "model"
    bb.fit("mlp:16", "digits", duration=f"{ROWS} epochs", evaluate="1 epoch", run=model)
    record = json.loads((model / "record.json").read_text())
    events = [json.loads(line) for line in (model / "events.jsonl").read_text().splitlines()]
    for k in range(N_RUNS):
        folder, factor = parent / "runs" / f"run-{k:03d}", 1 + k / N_RUNS
        folder.mkdir(parents=True)
        history = dict(record["history"])
        for name in ("loss_mean", "train_loss_mean", "held_out_loss_mean", "wall_seconds"):
            history[name] = [None if value is None else value * factor for value in history[name]]
        (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        if k >= N_CUT_OFF:
            (folder / "record.json").write_text(json.dumps({**record, "seed": k, "history": history}))
    return parent / "runs"


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """Yields the address of a page and the number of its server's process."""
    command = [sys.executable, "-m", "backbeat", "watch", str(folder), "--no-open", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def asked(address: str) -> float:
    """Returns the seconds that an answer takes."""
    start = time.perf_counter()
    with urllib.request.urlopen(address) as answer:
        answer.read()
    return time.perf_counter() - start


def drawn(browser: Any, address: str) -> float:
    """Returns the seconds from navigation until all runs are drawn."""
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    try:
        start = time.perf_counter()
        tab.goto(address, wait_until="commit")
        tab.wait_for_selector("#runs tbody tr", state="attached")
        tab.evaluate("[...document.querySelectorAll('button')].find((one) => one.textContent === 'Draw all').click()")
        while not tab.evaluate(DRAWN % (N_RUNS, N_RUNS)):
            assert time.perf_counter() - start < 60
        tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.perf_counter() - start
    finally:
        tab.close()


def measured(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Returns seconds by what was timed, one of each round."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {name: [] for name in ("start", "first answer", "drawn at once", "drawn warm")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS
        )
        for _ in range(rounds):
            start = time.perf_counter()
            with served(folder) as (address, _):
                times["first answer"].append(asked(address))
                times["start"].append(time.perf_counter() - start)
            with served(folder) as (address, _):
                times["drawn at once"].append(drawn(browser, address))
                times["drawn warm"].append(drawn(browser, address))
        browser.close()
    return times


def long_run(parent: Path, n_lines: int = 1_000_000) -> dict[str, float]:
    """Returns how long the page takes to know a run of so many recorded lines, and the memory of its server."""
    folder = parent / "long" / "million"
    folder.mkdir(parents=True)
    lines = (parent / "model" / "events.jsonl").read_text().splitlines()
    stretch = json.loads(next(line for line in lines if '"stretch"' in line))
    with (folder / "events.jsonl").open("w") as file:
        file.write(lines[0] + "\n")
        for k in range(1, n_lines):
            clock = {"updates": k, "examples": 32 * k, "epochs": k / 45, "wall_seconds": k / 4}
            file.write(json.dumps({**stretch, **clock, "loss_mean": 1 / k}) + "\n")
    size = (folder / "events.jsonl").stat().st_size
    with served(folder.parent) as (address, pid):
        seconds = asked(f"{address}api/runs")
        again = asked(f"{address}api/runs/million")
        peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"file MB": size / 1e6, "seconds": seconds, "seconds again": again, "peak MB": int(peak.split()[1]) / 1024}


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        times: dict[str, Any] = measured(made(Path(parent)), given.rounds)
        if given.long:
            times["long"] = long_run(Path(parent))
    if given.json:
        print(json.dumps(times))
        return
    print("| | median, ms | least | most |\n|---|---|---|---|")
    for name, values in times.items():
        if name != "long":
            figures = " | ".join(
                f"{1000 * value:.0f}" for value in (statistics.median(values), min(values), max(values))
            )
            print(f"| {name} | {figures} |")
    if given.long:
        print(" ".join(f"{name} {value:.3g}" for name, value in times["long"].items()))


if __name__ == "__main__":
    main()
