"""`backbeat train --processes`: one record of a run, no hang where a process dies, an end in order on Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backbeat.cli import run

LONG = ["--for", "300 s", "--every", "64", "--model", "mlp:8"]


def backbeat(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "backbeat", "train", "--quiet", *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def events(folder: Path) -> list[dict[str, Any]]:
    file = folder / "runs/it/events.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def training(folder: Path, *arguments: str) -> subprocess.Popen:
    """Returns a run of two processes that has made some updates."""
    started = backbeat(folder, *LONG, "--processes", "2", "--run", "it", *arguments)
    end = time.monotonic() + 90
    while not any(event["event"] == "stretch" for event in events(folder)):
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < end, "it does not train"
        time.sleep(0.1)
    return started


def children(process: subprocess.Popen) -> list[int]:
    stats = (path.read_text() for path in Path("/proc").glob("[0-9]*/stat"))
    fields = [(int(text.split()[0]), text.rpartition(")")[2].split()) for text in stats]
    return sorted(pid for pid, rest in fields if int(rest[1]) == process.pid)


def test_two_processes_make_the_run_of_one_and_write_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where a proxy is set, which is not asked for the way to this machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    settings = ["--for", "2 epochs", "--deterministic", "--model", "mlp:8", "--json"]
    one, two = (backbeat(tmp_path, *settings, "--run", name, *more) for name, more in (
        ("one", []), ("two", ["--processes", "2"]),
    ))  # fmt: skip
    (out, errors), (one_out, _) = two.communicate(timeout=120), one.communicate(timeout=120)
    assert (one.returncode, two.returncode, errors) == (0, 0, "")
    assert json.loads(out)["finished"]["updates"] == json.loads(one_out)["finished"]["updates"] == 90
    weights = [(tmp_path / "runs" / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    assert sorted(os.listdir(tmp_path / "runs")) == ["one", "two"]
    assert sorted(os.listdir(tmp_path / "runs/two")) == sorted(os.listdir(tmp_path / "runs/one"))
    environment = json.loads((tmp_path / "runs/two/environment.json").read_text())
    assert (environment["processes"], environment["devices"]) == (2, 2)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc, which is not here")
@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.reliability(row="processes")
def test_a_process_that_is_killed_ends_the_run_with_one_sentence(tmp_path: Path, which: int):
    started = training(tmp_path)
    others = children(started)
    os.kill(others[which], signal.SIGKILL)
    since = time.monotonic()
    _, errors = started.communicate(timeout=60)
    assert time.monotonic() - since < 10
    assert started.returncode == 1
    assert f"process {which} of 2 (numbered from 0) was killed by SIGKILL" in errors
    assert "backbeat resume" in errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.reliability(row="processes")
@pytest.mark.sample(1)
def test_a_signal_ends_all_processes_at_one_update(tmp_path: Path, number: int, code: int):
    started = training(tmp_path)
    started.send_signal(number)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == code, errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert events(tmp_path)[-1]["event"] == "finished"
    assert (tmp_path / "runs/it/model.safetensors").exists()


@pytest.mark.slow
def test_a_second_signal_ends_them_at_once_and_an_echo_of_the_first_does_not(tmp_path: Path):
    for name, apart, said in (("once", 0.1, "interrupted after"), ("twice", 0.7, "ended at once, as was asked twice")):
        (tmp_path / name).mkdir()
        started = training(tmp_path / name)
        others = children(started)
        os.kill(others[0], signal.SIGSTOP)  # it does not end by itself
        started.send_signal(signal.SIGINT)
        time.sleep(apart)
        started.send_signal(signal.SIGINT)
        time.sleep(0.2)
        if name == "once":
            os.kill(others[0], signal.SIGCONT)
        _, errors = started.communicate(timeout=60)
        assert started.returncode == 130, errors
        assert said in errors
        assert len(errors.strip().splitlines()) == 1, errors
        assert not any(Path(f"/proc/{pid}").exists() for pid in others)


@pytest.mark.reliability(row="processes")
@pytest.mark.slow
def test_a_launcher_that_is_killed_leaves_no_process(tmp_path: Path):
    started = training(tmp_path)
    others = children(started)
    started.kill()
    started.communicate(timeout=60)
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in others):
        assert time.monotonic() < end, "a process goes on"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--processes", "0"], "--processes 0 must be a whole number of processes, 1 or more."),
        (["--processes", "2", "--coordinator", "a:1"], "--processes starts processes on this machine"),
        (["--coordinator", "node"], "--coordinator 'node' is no address"),
        (["--coordinator", "node:99999"], "--coordinator 'node:99999' is no address"),
        (["--coordinator", "node:99"], "needs --process-count N and --process-index I too"),
        (["--process-index", "1"], "need --coordinator HOST:PORT"),
        (["--coordinator", "a:1", "--process-count", "2", "--process-index", "2"], "is none of the processes"),
        (["--coordinator", "auto", "--process-count", "2"], "--coordinator auto finds the number"),
        (["--devices", "0"], "devices='0' must be a whole number of devices, 1 or more, or \"all\"."),
        (["--devices", "1.5"], "devices='1.5' must be a whole number"),
        (["--devices", "99"], "devices=99, but this process has 2 (cpu); choose 1 to 2, or \"all\"; JAX_NUM"),
        (["--devices", "2", "--repeat-until", "correct", "--at-most", "3"], "repeats batches, which one device does"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--lr", "0.2"], "process 1 was given learning_rate=0.2, and process 0 None; start all processes"),
        pytest.param(["--process-count", "3"], "was given process-count=3, and process 0 2", marks=pytest.mark.slow),
        pytest.param(["iris"], "process 1 was given data (its SHA-256)=", marks=pytest.mark.slow),
    ],
)
def test_processes_that_were_given_different_things_are_refused(tmp_path: Path, given: list[str], sentence: str):
    place = ["--coordinator", free_address(), "--process-count", "2", "--process-index"]
    both = [backbeat(tmp_path, *LONG, *place, str(index), *(given if index else [])) for index in (0, 1)]
    for process in both:
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 2, errors
        assert sentence in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_slurm_says_who_is_who(tmp_path: Path):
    job = {"SLURM_JOB_ID": str(70000 + os.getpid() % 4000), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "backbeat", "train", "--for", "1 epoch", "--run", "it", "--coordinator", "auto"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **job, "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)},
        )
        for index in range(2)
    ]  # fmt: skip
    said = [task.communicate(timeout=120) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "Ran for 1 epoch" in said[0][0]
    assert said[1] == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.reliability(row="processes")
def test_processes_started_by_hand_end_when_one_is_gone(tmp_path: Path, number: int, which: int):
    """One that is killed is seen at once; one that is stopped, as if its network were cut, by its heartbeat."""
    place = ["--run", "it", "--coordinator", free_address(), "--process-count", "2", "--process-index"]
    both = [backbeat(tmp_path, *LONG, *place, index) for index in ("0", "1")]
    end = time.monotonic() + 90
    while not any(event["event"] == "stretch" for event in events(tmp_path)):
        assert time.monotonic() < end, "it does not train"
        time.sleep(0.1)
    gone, left = both[which], both[1 - which]
    gone.send_signal(number)
    since = time.monotonic()
    _, errors = left.communicate(timeout=90)
    gone.kill()
    gone.communicate()
    assert time.monotonic() - since < (15 if number == signal.SIGKILL else 40)
    assert left.returncode == 1, errors
    assert "another process of this run is gone, or the network to it" in errors
    assert len(errors.strip().splitlines()) == 1, errors
