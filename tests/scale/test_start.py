"""Several processes that cannot start, or are ended while they do: one sentence, soon, and no process is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TRAIN = ["train", "--quiet", "--model", "mlp:8"]
# the command line with less patience
SHORT = (
    "from backbeat import join\njoin._FIND_SECONDS, join._NOTICE_SECONDS = 3, 1\nfrom backbeat.cli import main\nmain()"
)


def started(folder: Path, *arguments: str, code: str | None = None) -> subprocess.Popen[str]:
    command = ["-m", "backbeat"] if code is None else ["-c", code]
    return subprocess.Popen(
        [sys.executable, *command, *TRAIN, *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int) -> list[str]:
    """Returns the lines that a process wrote on standard error."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    return errors.strip().splitlines()


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize(
    "indices",
    [["1"], pytest.param(["0"], marks=pytest.mark.slow), pytest.param(["0", "1", "1"], marks=pytest.mark.slow)],
)
@pytest.mark.slow
def test_processes_that_do_not_find_each_other_say_so_after_a_while(tmp_path: Path, address: str, indices: list[str]):
    place = ["--coordinator", address, "--process-count", "4", "--process-index"]
    for process in [started(tmp_path, *place, index, code=SHORT) for index in indices]:
        lines = ended(process, 2)
        assert lines[-1].startswith(
            f"backbeat: the processes of this run did not find each other at {address} within 3 s"
        )
        assert lines[:-1] in (
            [],
            [f"backbeat: waiting for the other processes (4 in all) at {address}, for 3 s at most."],
        )


def test_waiting_for_the_others_can_be_interrupted(tmp_path: Path, address: str):
    code = SHORT.replace("= 3, 1", "= 300, 0.1")
    process = started(tmp_path, "--coordinator", address, "--process-count", "2", "--process-index", "1", code=code)
    assert process.stderr is not None
    assert "waiting for the other processes" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert ended(process, 130) == ["backbeat: interrupted."]


def test_a_port_that_is_taken_is_refused(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        where = ["--coordinator", f"127.0.0.1:{port}", "--process-count", "2", "--process-index", "0"]
        (line,) = ended(started(tmp_path, *where, code=SHORT), 2)
    assert line.startswith(f"backbeat: process 0 cannot use port {port} of this machine (Address already in use); give")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc, which is not here")
@pytest.mark.parametrize(
    "seconds", [0.0, pytest.param(0.7, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_an_interrupt_while_they_start_ends_all_of_them(tmp_path: Path, seconds: float):
    process = started(tmp_path, "--for", "300 s", "--processes", "2")
    while len(others := children(process)) < 2:
        assert process.poll() is None
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    assert ended(process, 130) == ["backbeat: interrupted."]
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)


def test_what_one_process_alone_is_refused_ends_all_with_its_sentence(tmp_path: Path):
    """Only process 0 looks at the run's folder."""
    (tmp_path / "runs/it").mkdir(parents=True)
    (tmp_path / "runs/it/notes.txt").touch()
    (line,) = ended(started(tmp_path, "--processes", "2", "--run", "it"), 2)
    assert line.startswith(f"backbeat: {Path('runs/it')} already holds something; choose another name")


@pytest.mark.slow
def test_a_reader_who_has_gone_is_no_failure(tmp_path: Path):
    process = started(tmp_path, "--for", "1 epoch", "--processes", "2")
    with process:
        assert process.stdout is not None
        process.stdout.close()
        errors = process.stderr.read() if process.stderr else "none was kept"
    assert (process.returncode, errors) == (0, "")
    assert os.listdir(tmp_path / "runs")
