"""Runs spread over a real Ray give the table of one process, whatever becomes of a worker."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from backbeat.compare.spread import Workers
from backbeat.compare.trainings import Unit
from backbeat.compare.where import Where
from backbeat.errors import DivergedError, SettingsError, WorkerError

pytestmark = [
    pytest.mark.usefixtures("ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files and sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def titled(pid):
    """Returns what a process calls itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
    except OSError:
        return ""


@pytest.mark.reliability(row="workers")
@pytest.mark.slow
def test_the_table_is_that_of_one_process_though_a_worker_is_killed(
    ray, compared_on, on_one, table_of, processes_of, gone
):
    killed, told = [], []

    def kill_one(at):
        told.append(at)
        if at.stage == "tuning" and 0 < at.share < 1 and not killed:
            workers = [pid for pid in processes_of(os.getpid()) if titled(pid).startswith("ray::_carry_out")]
            for pid in workers[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    found = compared_on("ray", kill_one)
    assert table_of(found) == table_of(on_one)
    notes = [note for note in found.record["notes"] if note not in on_one.record["notes"]]
    assert len(killed) == 1
    assert "spread over Ray on this machine" in notes[0]
    assert notes[1].startswith("A worker was lost while tuning every ")
    assert notes[1].endswith("(its process ended); another did it again, which changes no figure.")
    for stage in ("tuning", "measuring"):
        shares = [at.share for at in told if at.stage == stage]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)
    assert not ray.is_initialized()
    gone(lambda: [pid for pid in processes_of(os.getpid()) if "ray" in titled(pid)])


@pytest.fixture
def cluster(ray):
    """A Ray that runs already, as a user's own would."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def each(trainings, works, said=lambda sentence: None):
    with Workers(Where(address="auto"), trainings, said) as workers:
        return workers.each(
            [Unit(f"errand {k}", "", work) for k, work in enumerate(works)], lambda *_: 1.0, lambda *_: None
        )


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_cluster_that_runs_is_used_and_left_running(cluster, ray, trainings, errands, tmp_path):
    said = []
    assert each(trainings, [partial(errands.twice, x=x) for x in range(5)]) == [0, 2, 4, 6, 8]
    assert {(total, seed) for _, total, seed in each(trainings, [errands.seen] * 3)} == {(trainings.dataset.x.sum(), 1)}
    works = [partial(errands.lost_at_first, x=x, marker=str(tmp_path / str(x))) for x in range(2)]
    assert each(trainings, works, said.append) == [0, 2]
    assert len(said) == 2
    with pytest.raises(WorkerError, match=r"errand 0 has cost 3 workers, the last one its process ended"):
        each(trainings, [errands.always_lost, errands.waits])
    with pytest.raises(DivergedError, match="diverges at update 7"):
        each(trainings, [errands.diverges, errands.waits])
    with pytest.raises(RuntimeError, match=r"(?s)missing 1 required positional argument: 'more'"):
        each(trainings, [partial(errands.takes_strange, strange=errands.Strange())], said.append)
    assert len(said) == 2, "a mistake is no lost worker"
    assert ray.is_initialized()


def test_a_cluster_that_is_not_there_is_said_in_a_sentence(trainings, errands, monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where Ray notes which clusters run here
    with pytest.raises(
        SettingsError, match=r"the Ray cluster auto cannot be reached \(.*\); look at it with `ray status`"
    ):
        each(trainings, [errands.seen])


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_running(tmp_path, processes_of, gone):
    process = subprocess.Popen(
        [sys.executable, "-m", "backbeat", "compare", "--budget", "300 s", "--on", "ray", "--run", "half", "--target",
         "accuracy>=1"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    for _ in range(1200):
        if any(titled(pid).startswith("ray::_carry_out") for pid in processes_of(process.pid)):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    started = processes_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "backbeat: interrupted."
    assert not (tmp_path / "runs" / "half").exists()
    gone(lambda: [pid for pid in started if "ray" in titled(pid)])
