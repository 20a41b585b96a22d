"""Writes docs/reliability.md: what was tried against runs, and how often they came through, by the tests that do it.

The tests carry the mark `reliability(row=...)`; most count for one try, and those that try more say how many. All of
them run, the slow ones too, which takes about half an hour on two cores. Where one fails the page stays as it was, the
failures are shown, and the exit code is 1.

    python scripts/reliability.py
"""

import datetime
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
ROWS = {
    "kills": "processes killed by SIGKILL, at random moments and in the middle of a checkpoint, the run resumed each "
    "time: final weights to the bit those of a run that nobody killed",
    "resumed": "settings (optimizers, schedules, changing batches, repeats, noise, ...) cut off at three points each, "
    "and resumed to the same bits",
    "damaged": "damaged checkpoints and records: cut short, a bit flipped, files missing, an older format, half a "
    "line: found, said, the newest good one used",
    "storage": "disks that are full (from the start, at events, at a checkpoint, at the end) and read-only: said at "
    "once, what was is kept, resumed after to the same bits",
    "memory": "memory too short for the block, by a limit on the process: the block is made smaller, the updates stay",
    "splits": "splits into blocks, devices (1 to 8) and processes (1 to 4) with `--deterministic`: the same bits",
    "elastic": "runs stopped on some processes (1, 2, 4) and resumed on more or fewer: the same bits",
    "processes": "processes of a run killed, hung or asked to end: the others end within seconds with one sentence, "
    "and the run goes on after",
    "workers": "workers of a comparison killed, processes and Ray's: the same table",
}
ALL = "reliability and (slow or not slow)"


def tried() -> tuple[int, Counter[str], Counter[str], Counter[str]]:
    """Runs the tests; returns pytest's exit code and, by row, what was tried, survived, and met inside a checkpoint."""
    counts: tuple[Counter[str], Counter[str], Counter[str]] = (Counter(), Counter(), Counter())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", ALL, "tests", f"--junitxml={file}"]
        code = subprocess.run([*command, "-o", "junit_family=xunit1"], cwd=ROOT, check=False).returncode
        for case in ET.parse(file).getroot().iter("testcase"):
            said = {each.get("name"): each.get("value") for each in case.iter("property")}
            row, skipped = said.get("reliability"), case.find("skipped") is not None
            if row is None or skipped:
                continue
            n = int(said.get("tried") or 1)
            failed = case.find("failure") is not None or case.find("error") is not None
            for counter, amount in zip(
                counts, (n, 0 if failed else n, said.get("inside a checkpoint") or 0), strict=True
            ):
                counter[row] += int(amount)
    return code, *counts


def processor() -> str:
    """Returns what the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def page(all_tried: Counter[str], survived: Counter[str], inside: Counter[str]) -> str:
    """Returns the page as text."""
    lines = [
        "# Reliability", "",
        "What was done to runs, and how often they came through. `make reliability` runs the tests that do it and",
        "writes this page; what is saved, how to go on and what is refused is in [resuming.md](resuming.md).", "",
        "| what was tried | survived / tried | again |", "|---|---|---|",
    ]  # fmt: skip
    for row, words in ROWS.items():
        more = f", {inside[row]} of them inside a checkpoint" if inside[row] else ""
        lines.append(f'| {words} | {survived[row]} / {all_tried[row]}{more} | `python -m pytest -m "{one(row)}"` |')
    libraries = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "orbax-checkpoint", "ray"))
    lines += [
        "", f"{datetime.date.today()}; {processor()}, {os.cpu_count()} cores; {platform.system()}, Python "
        f"{platform.python_version()}, {libraries}.", "",
        "The commands run the slow tests too, in a clone after `make setup`, with `.venv/bin/python`. The default run",
        "of the tests tries a part of each row: 6 kills in place of 61, for example.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def one(row: str) -> str:
    """Returns the expression that selects the tests of a row."""
    return f"reliability(row='{row}')"


def main() -> int:
    """Writes the page, or says what failed."""
    code, all_tried, survived, inside = tried()
    missing = [row for row in ROWS if not all_tried[row]]
    if code or missing or all_tried != survived:
        print(f"docs/reliability.md stays as it was: pytest ended with {code}; tried nothing of: {missing or 'none'}")
        print(f"survived {dict(survived)} of {dict(all_tried)}")
        return 1
    PAGE.write_text(page(all_tried, survived, inside), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
