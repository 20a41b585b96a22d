"""Runs spread over processes give the table of one process, whatever becomes of a worker."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import backbeat as bb
from backbeat.cli import run
from backbeat.compare import processes
from backbeat.compare.spread import Workers
from backbeat.compare.trainings import Unit
from backbeat.compare.where import Where, where
from backbeat.data import Packed
from backbeat.errors import DivergedError, SettingsError, WorkerError


@pytest.mark.reliability(row="workers")
def test_the_table_is_that_of_one_process_though_a_worker_is_killed(compared_on, on_one, table_of):
    killed, told = [], []

    def kill_one(at):
        told.append(at)
        if at.stage == "tuning" and not killed:
            killed.append(multiprocessing.active_children()[0])
            os.kill(killed[0].pid, signal.SIGKILL)

    found = compared_on(2, kill_one)
    assert table_of(found) == table_of(on_one)
    notes = [note for note in found.record["notes"] if note not in on_one.record["notes"]]
    assert len(killed) == 1
    assert "spread over 2 processes" in notes[0]
    assert notes[1].startswith("A worker was lost while tuning every ")
    assert notes[1].endswith("(ended by SIGKILL); another did it again, which changes no figure.")
    assert len(notes) == 2
    for stage in ("tuning", "measuring"):
        shares = [at.share for at in told if at.stage == stage]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)
        assert {at.every for at in told if at.stage == stage} == {cadence.every for cadence in found.cadences}
    assert not multiprocessing.active_children()


def each(trainings, works, n=2, said=lambda sentence: None, share=lambda waiting, at_once: 1.0):
    with Workers(Where(processes=n), trainings, said) as workers:
        return workers.each([Unit(f"errand {k}", "", work) for k, work in enumerate(works)], share, lambda *_: None)


def test_results_come_in_order_each_once_and_say_how_far_they_are(trainings, errands):
    given, told = [], []
    units = [Unit(f"errand {x}", str(x), partial(errands.twice, x=x), timed=x == 3) for x in range(6)]
    with Workers(Where(processes=2), trainings, pytest.fail) as workers:
        found = workers.each(units, lambda *_: 1.0, lambda *at: told.append(at), lambda *known: given.append(known))
    assert found == [0, 2, 4, 6, 8, 10]
    assert given == list(enumerate(found))
    assert told[-1][1] == 1.0
    assert not multiprocessing.active_children()


def test_the_data_is_sent_once_and_seeds_are_made_where_they_are_needed(trainings, errands):
    found = each(trainings, [errands.seen] * 6)
    assert len({pid for pid, *_ in found} - {os.getpid()}) <= 2
    assert {(total, seed) for _, total, seed in found} == {(trainings.dataset.x.sum(), 1)}


def test_units_have_the_time_that_they_would_have_alone(trainings, errands, monkeypatch):
    asked = []

    def share(waiting, at_once):
        asked.append((waiting, at_once))
        return at_once * 12 / waiting

    monkeypatch.setattr(processes, "n_cores", lambda: 2)
    found = each(trainings, [errands.allowed] * 3, share=share)
    assert asked == [(3, 2), (2, 2), (1, 1)]
    assert [seconds for seconds, _ in found] == [8, 12, 12]
    assert [crowd for _, crowd in found] == [2, 2, 2]  # two programs of two threads on two cores
    monkeypatch.setattr(processes, "n_cores", lambda: 16)
    assert [crowd for _, crowd in each(trainings, [errands.allowed] * 2)] == [1, 1]


@pytest.mark.reliability(row="workers")
def test_a_unit_whose_worker_is_lost_is_done_again_and_one_that_always_loses_it_is_named(trainings, errands, tmp_path):
    said = []
    works = [partial(errands.lost_at_first, x=x, marker=str(tmp_path / str(x))) for x in range(2)]
    assert each(trainings, works, said=said.append) == [0, 2]
    assert [sentence.split(" (")[0] for sentence in sorted(said)] == [
        f"A worker was lost while errand {x}" for x in range(2)
    ]
    said.clear()
    sentence = r"errand 1 has cost 3 workers, the last one ended by SIGKILL; it may need more memory"
    with pytest.raises(WorkerError, match=sentence):
        each(trainings, [partial(errands.twice, x=1), errands.always_lost], said=said.append)
    assert len(said) == 2
    assert not multiprocessing.active_children()


def test_signals_wait_while_workers_are_started():
    came, before = [], {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda number, frame: came.append(number))
        for number in before:
            with processes._uninterrupted():
                os.kill(os.getpid(), number)
                assert came == []
            assert [came.pop()] == [number]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_processes_that_the_system_does_not_start_are_refused_and_none_is_left(trainings, errands, monkeypatch):
    begin, begun = processes._Worker.__init__, []

    def third_fails(self):
        if len(begun) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        begun.append(self)
        begin(self)

    monkeypatch.setattr(processes._Worker, "__init__", third_fails)
    with pytest.raises(SettingsError, match=r"^3 processes cannot be started here \(Resource .*\); give fewer\.$"):
        each(trainings, [partial(errands.twice, x=x) for x in range(3)], n=3)
    assert not multiprocessing.active_children()


def test_a_worker_whose_asker_is_gone_ends_without_a_word():
    """As its pipe shows it, before its thread has seen it."""
    code = (
        "from backbeat.compare import processes\nfrom multiprocessing import Pipe\n"
        "processes._end_with_parent = lambda: None\nmine, theirs = Pipe()\nmine.close()\nprocesses._serve(theirs)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_goes_wrong_in_a_worker_goes_wrong_here(trainings, errands):
    with pytest.raises(DivergedError, match="diverges at update 7"):
        each(trainings, [errands.diverges, errands.waits])
    with pytest.raises(RuntimeError, match=r"(?s)KeyError\('seven'\) in a worker:\n.*errands.py") as caught:
        each(trainings, [errands.mistaken], n=1)
    assert not isinstance(caught.value, WorkerError)
    assert not multiprocessing.active_children()


def test_packed_data_is_opened_again_by_another_process(tmp_path):
    rows = np.arange(40, dtype=np.uint8).reshape(10, 4)
    np.save(tmp_path / "0.npy", rows)
    packed = Packed([tmp_path / "0.npy"], rows.shape, np.uint8, 10, "content", divisor=255).keep(8)
    again = pickle.loads(pickle.dumps(packed))
    np.testing.assert_array_equal(again[:], packed[:])
    assert (again.sha256, again.dtype, again.bytes_kept) == ("content", np.float32, 0)
    assert pickle.loads(pickle.dumps(packed.as_type(np.int32))).dtype == np.int32


@pytest.mark.parametrize("on", [0, -1, True, 2.5, 5000, "0", "two", "4 threads", "", "ray:", "ray://host", ["2"]])
def test_other_places_are_refused_in_a_sentence(on):
    with pytest.raises(SettingsError, match=r"^on=.*give a number of processes, such as 4; .* leave it out\.$"):
        where(on)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"model": (lambda key: {}, lambda params, x: x)}, "model"),
        ({"loss": lambda prediction, label: ((prediction - label) ** 2).mean(-1)}, "loss"),
        ({"optimizer": lambda rate: None}, "optimizer"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_measured(diabetes, given, name):
    sentence = (
        rf"^{name} cannot be sent to 2 processes \(.*\); define it at the top of a module and give it by name, or"
    )
    with pytest.raises(SettingsError, match=sentence):
        bb.compare(
            given.pop("model", bb.linear()),
            tuple(diabetes),
            **given,
            on=2,
            on_progress=lambda at: pytest.fail(at.stage),
        )


def test_accelerators_are_not_shared(digits, monkeypatch):
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(SettingsError, match=r"spreads runs over processor cores, and here JAX computes on gpu"):
        bb.compare(bb.linear(), tuple(digits), on=2)


def test_wrong_places_at_the_command_line(capsys):
    for command in ("compare", "advise"):
        assert run([command, "--on", "elsewhere"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("backbeat: on='elsewhere' is no place to work; give a number of processes")


def started(tmp_path, *arguments, code=None):
    command = ["-c", code] if code else ["-m", "backbeat", *arguments]
    return subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for_workers(process, processes_of, tmp_path):
    """Returns the processes of a comparison that tunes."""
    for _ in range(1200):  # a minute: a loaded machine takes its time to import and compile
        events = tmp_path / "runs" / "spread" / "events.jsonl"
        workers = processes_of(process.pid)
        if len(workers) >= 2 and events.exists() and '"timed"' in events.read_text():
            return workers
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return pytest.fail("no workers were started")


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("end", ["Ctrl-C", "kill"])
@pytest.mark.sample(1)
def test_no_worker_outlives_the_command(tmp_path, processes_of, gone, end):
    process = started(
        tmp_path, "compare", "--budget", "300 s", "--on", "2", "--run", "spread", "--target", "accuracy>=1"
    )
    workers = wait_for_workers(process, processes_of, tmp_path)
    if end == "kill":
        process.kill()
        process.communicate(timeout=60)
    else:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.strip() == "backbeat: interrupted."
        assert not (tmp_path / "runs" / "spread").exists()
    gone(lambda: [pid for pid in workers if not ended(pid)])


def test_a_script_that_asks_for_workers_at_its_top_is_told_where_to_do_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text('import backbeat as bb\nbb.compare(bb.linear(), "iris", every=[8], budget="5 s", on=1)\n')
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "WorkerError: a worker could not start (ended with exit code 1" in done.stderr
    assert 'put what it does under `if __name__ == "__main__":`.' in done.stderr
