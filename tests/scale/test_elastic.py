"""A run that was stopped on some processes goes on with more or fewer: to the same bits with `--deterministic`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backbeat.resume import _elsewhere

SETTINGS = {
    "adam": ["--every", "64", "--optimizer", "adam", "--lr", "0.001", "--schedule", "cosine", "--watch-noise"],
    "noise": ["--every", "noise 16 to 64", "--lr", "0.05", "--clip", "1", "--weight-decay", "1e-4"],
}
COMMON = ["--model", "mlp:8", "--for", "1500 updates", "--checkpoint", "150 updates", "--quiet", "--keep", "99"]
FIXED = ["--deterministic"]


def backbeat(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "backbeat", *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def done(process: subprocess.Popen[str], code: int = 0) -> str:
    """Returns what a process wrote on standard error, once it has ended as it should."""
    _, errors = process.communicate(timeout=150)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return errors


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def stopped(folder: Path, name: str, processes: int, settings: list[str], number: int = signal.SIGTERM) -> Path:
    """Returns the folder of a run of several processes that was ended in the middle, after a checkpoint."""
    started = backbeat(folder, "train", *COMMON, *settings, "--run", name, "--processes", str(processes))
    run, end = folder / "runs" / name, time.monotonic() + 120
    while len(list(run.glob("checkpoints/0*/SHA256SUMS"))) < 2:
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < end, "it does not train"
        time.sleep(0.02)
    if number == signal.SIGKILL:
        child = next(p for p in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()[1:])
        os.kill(int(child), signal.SIGKILL)
        assert "was killed by SIGKILL" in done(started, 1)
    else:
        started.send_signal(number)
        assert "terminated after" in done(started, 143)
    return run


def gone_on(run: Path, processes: int) -> tuple[bytes, str]:
    """Returns the weights that a copy of a run comes to on some processes, and what was said about it."""
    copy = run.with_name(f"{run.name}-{processes}")
    shutil.copytree(run, copy)
    said = done(backbeat(run.parent.parent, "resume", copy.name, "--quiet", "--processes", str(processes)))
    assert "resumed after" in said
    events = [json.loads(line) for line in (copy / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("resumed") == 1  # written once, whatever the processes
    assert events[-1]["updates"] == 1500
    return weights(copy), said


@pytest.fixture(scope="module", params=["adam", pytest.param("noise", marks=pytest.mark.slow)])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], bytes]:
    """A folder, settings, and the weights that a run of one process comes to with them, undisturbed."""
    folder, settings = tmp_path_factory.mktemp(request.param), [*SETTINGS[request.param], *FIXED]
    done(backbeat(folder, "train", *COMMON, *settings, "--run", "whole"))
    return folder, settings, weights(folder / "runs/whole")


@pytest.mark.reliability(row="elastic")
def test_two_processes_stopped_are_one_and_one_is_two(whole: tuple[Path, list[str], bytes], record_property: Any):
    record_property("tried", 2)
    folder, settings, wanted = whole
    two = stopped(folder, "two", 2, settings)
    found, said = gone_on(two, 1)
    assert found == wanted
    assert "last bits" not in said
    one = folder / "runs/one"
    shutil.copytree(folder / "runs/whole", one)
    for path in sorted(one.glob("checkpoints/0*"))[4:]:
        shutil.rmtree(path)
    (one / "record.json").unlink()
    assert gone_on(one, 2)[0] == wanted


@pytest.mark.reliability(row="processes")
@pytest.mark.slow
def test_a_killed_process_costs_nothing_but_time(whole: tuple[Path, list[str], bytes]):
    folder, settings, wanted = whole
    assert gone_on(stopped(folder, "killed", 2, settings, signal.SIGKILL), 2)[0] == wanted


@pytest.mark.parametrize(("deterministic", "said"), [(False, 1), (True, 0)])
def test_without_the_fixed_order_another_number_of_devices_is_said(deterministic: bool, said: int):
    now = {"cores": 2, "pjrt_nproc": None}
    notes = _elsewhere(now | {"shared_by": 2}, now | {"shared_by": 1}, deterministic=deterministic)
    assert len(notes) == said
    if notes:
        assert "devices for each batch 2, and goes on with devices for each batch 1: the last bits" in notes[0]
    (other,) = _elsewhere(now, now | {"pjrt_nproc": "1"}, deterministic=deterministic)
    assert "PJRT_NPROC not set, and goes on with PJRT_NPROC 1" in other


@pytest.mark.slow
@pytest.mark.reliability(row="elastic")
def test_four_processes_stopped_are_one_two_or_three(whole: tuple[Path, list[str], bytes], record_property: Any):
    record_property("tried", 3)
    folder, settings, wanted = whole
    run = stopped(folder, "four", 4, settings)
    found: dict[int, Any] = {processes: gone_on(run, processes)[0] for processes in (1, 2, 3)}
    assert [n for n in found if found[n] != wanted] == []
