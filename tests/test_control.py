"""A run that a person pauses, stops or changes on its way, and its repetition to the same bits."""

import _thread
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest

import backbeat as bb
from backbeat.changes import Change, changes_of
from backbeat.checkpoint import numbered
from backbeat.cli import run as command
from backbeat.errors import SettingsError
from backbeat.events import Changed, Event, Noted, Started, StretchDone
from backbeat.recorded import list_runs
from backbeat.wishes import Wish, Wishes, ask

SLOWER, PAUSE, GO_ON, STOP = Wish("learning_rate", 0.02), Wish("pause"), Wish("go_on"), Wish("stop")
BASE: Any = {"seed": 3, "duration": "6 epochs", "checkpoint": "37 updates", "keep": 100}
CASES: Any = {
    "sgd": {},
    "adam, cosine, warm-up": {"optimizer": "adam", "learning_rate": 0.01, "schedule": "cosine", "warm_up": "2 epochs"},
    "the whole data set": {"every": "dataset", "duration": "300 updates"},
    "changing": {"every": "16 then 64 after 2 epochs"},
    "noise": {"every": "noise 8 to 128", "duration": "30 epochs"},
    "watched, fixed order": {"watch_noise": True, "deterministic": True},
    "repeated": {"every": bb.every(4).repeat(until="loss<0.1", at_most=6), "duration": "2 epochs"},
    "halved": {"loss": "squared_error", "learning_rate": 3.0, "on_divergence": "halve-lr", "duration": "20 epochs"},
}


@pytest.fixture(autouse=True)
def looks_after_each_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbeat.wishes._LOOK_SECONDS", 0.0)


def wishing(folder: Path, *each: tuple[int, Wish]) -> Callable[[Event], None]:
    """Returns a consumer of events that wishes something after the first stretch that ends at so many updates."""
    left = list(each)

    def consume(event: Event) -> None:
        while left and isinstance(event, StretchDone) and event.clock.updates >= left[0][0]:
            ask(folder, left.pop(0)[1])

    return consume


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def settings_of(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "settings.toml").read_text())


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def cut_off(folder: Path, after: int) -> None:
    """Makes of a finished run's folder what SIGKILL would have left after so many checkpoints."""
    for path in numbered(folder)[after:]:
        shutil.rmtree(path)
    for name in ("record.json", "model.safetensors"):
        (folder / name).unlink()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(2)
def test_a_changed_run_is_repeated_and_resumed_to_the_same_bits(name: str, tmp_path: Path):
    settings, first = BASE | CASES[name], tmp_path / "first"
    asking = wishing(first, (100, SLOWER), (150, Wish("learning_rate", 0.05)))
    run = bb.fit("mlp:16", "digits", run=first, on_event=asking, **settings)
    changes = settings_of(first)["changes"]
    assert [change.value for change in changes_of(changes)] == [0.02, 0.05]
    assert changes_of(changes)[0].after >= 100
    bb.fit("mlp:16", "digits", run=tmp_path / "unchanged", **settings)
    assert weights(tmp_path / "unchanged") != weights(first)

    again = bb.fit("mlp:16", "digits", run=tmp_path / "again", changes=changes, **settings)
    assert weights(tmp_path / "again") == weights(first)
    assert [c["sentence"] for c in again.changes] == [c["sentence"] for c in run.changes]
    assert settings_of(tmp_path / "again")["changes"] == changes

    for after in (1, 3, len(numbered(first)) - 1):  # before the changes, between or behind them, and long after
        shutil.copytree(first, tmp_path / f"cut-{after}")
        cut_off(tmp_path / f"cut-{after}", after)
        resumed = bb.fit("mlp:16", "digits", resume=tmp_path / f"cut-{after}", **settings)
        assert weights(tmp_path / f"cut-{after}") == weights(first)
        assert [c["sentence"] for c in resumed.changes] == [c["sentence"] for c in run.changes]


def test_the_command_line_repeats_a_changed_and_stopped_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asking = wishing(tmp_path / "first", (100, SLOWER), (200, STOP))
    run = bb.fit("mlp:16", "digits", run=tmp_path / "first", on_event=asking, **(BASE | {"duration": "1000 epochs"}))
    assert command(["train", "--settings", str(tmp_path / "first"), "--run", str(tmp_path / "again"), "--quiet"]) == 0
    said = capsys.readouterr()
    assert weights(tmp_path / "again") == weights(tmp_path / "first")
    rate, stop = changes_of(settings_of(tmp_path / "first")["changes"])
    assert f"learning rate 0.02 from update {rate.after + 1:,} on" in said.out
    assert f"stopped after {run.clock.updates:,} updates; to go on: backbeat resume" in said.err
    assert stop.after == run.clock.updates
    record = json.loads((tmp_path / "again/record.json").read_text())
    assert [(c["what"], c["value"]) for c in record["changes"]] == [("learning_rate", 0.02), ("stop", None)]
    assert "learning rate 0.02 from update" in (tmp_path / "again/report.html").read_text()


def test_a_change_is_kept_and_said_before_the_next_update(tmp_path: Path):
    seen: list[Event] = []
    kept: dict[str, Any] = {}
    asking = wishing(tmp_path / "it", (80, SLOWER))

    def consume(event: Event) -> None:
        asking(event)
        seen.append(event)
        if isinstance(event, Changed):
            kept[event.what] = settings_of(tmp_path / "it").get("changes"), lines_of(tmp_path / "it")[-1]

    run = bb.fit("mlp:16", "digits", run=tmp_path / "it", on_event=consume, **BASE)
    (at,) = [number for number, event in enumerate(seen) if isinstance(event, Changed)]
    changed, after = seen[at], next(event for event in seen[at:] if isinstance(event, StretchDone))
    assert isinstance(changed, Changed)
    before = [event for event in seen[:at] if isinstance(event, StretchDone)][-1]
    assert before.clock.updates == changed.clock.updates < after.clock.updates
    assert (before.learning_rate, after.learning_rate) == (0.1, 0.02)
    n = changed.clock.updates
    settings, line = kept["learning_rate"]
    assert settings == [f"learning_rate 0.02 after {n} updates"]
    assert (line["event"], line["updates"], line["value"]) == ("changed", n, 0.02)
    assert line["sentence"] == f"learning rate 0.02 from update {n + 1:,} on"
    assert run.changes[0]["sentence"] in run.notes


def test_with_a_schedule_the_base_rate_is_replaced(tmp_path: Path):
    rates: list[tuple[int, float]] = []
    asking = wishing(tmp_path / "it", (80, SLOWER))

    def consume(event: Event) -> None:
        asking(event)
        if isinstance(event, StretchDone):
            rates.append((event.clock.updates, event.learning_rate))

    run = bb.fit("mlp:16", "digits", run=tmp_path / "it", schedule="linear", on_event=consume, **BASE)
    n = run.changes[0]["updates"]
    for updates, rate in rates:
        base = 0.1 if updates <= n else 0.02
        epochs, batches = divmod(updates - 1, 45)  # of 1,438 examples, before the update
        assert rate == pytest.approx(base * (1 - (epochs + batches * 32 / 1438) / 6), rel=1e-5)


def test_a_pause_is_saved_and_its_seconds_are_not_counted(tmp_path: Path):
    """The clock leaves out at least what the pause took: what it counts is at most all the rest."""
    waited = 1.0
    times: dict[str, float] = {}
    asking = wishing(tmp_path / "it", (80, PAUSE))
    saved: list[str] = []

    def go_on() -> None:
        time.sleep(waited)
        saved.extend(path.name for path in numbered(tmp_path / "it"))
        ask(tmp_path / "it", GO_ON)

    def consume(event: Event) -> None:
        asking(event)
        if isinstance(event, Started):
            times["start"] = time.perf_counter()
        if isinstance(event, Changed) and event.what == "pause":
            threading.Thread(target=go_on).start()

    run = bb.fit("mlp:16", "digits", run=tmp_path / "it", on_event=consume, **(BASE | {"checkpoint": "1 h"}))
    assert run.clock.seconds <= time.perf_counter() - times["start"] - waited
    assert [change["what"] for change in run.changes] == ["pause", "go_on"]
    paused = run.changes[0]["updates"]
    assert saved[-1].split("-")[1] == str(paused)
    assert "changes" not in settings_of(tmp_path / "it")  # nothing that a repetition needs
    straight = bb.fit("mlp:16", "digits", run=tmp_path / "straight", **BASE)
    assert weights(tmp_path / "it") == weights(tmp_path / "straight")
    assert straight.changes == ()
    assert not (tmp_path / "it/control").exists()


def test_an_interrupt_and_a_stop_end_a_run_that_is_paused(tmp_path: Path):
    for name, end in (("interrupted", _thread.interrupt_main), ("stopped", lambda: ask(tmp_path / "stopped", STOP))):
        asking = wishing(tmp_path / name, (80, PAUSE))

        def consume(event: Event, asking: Any = asking, end: Any = end) -> None:
            asking(event)
            if isinstance(event, Changed) and event.what == "pause":
                threading.Timer(0.5, end).start()

        def train(name: str = name, consume: Any = consume) -> Any:
            return bb.fit("mlp:16", "digits", run=tmp_path / name, on_event=consume, **BASE)

        if name == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                train()
        else:
            assert train().reason == "stopped"
        record = json.loads((tmp_path / name / "record.json").read_text())
        assert record["finished"]["reason"] == name
        assert record["finished"]["updates"] == record["changes"][0]["updates"]
        bb.fit("mlp:16", "digits", resume=tmp_path / name, **BASE)
    bb.fit("mlp:16", "digits", run=tmp_path / "straight", **BASE)
    for name in ("interrupted", "stopped"):
        assert weights(tmp_path / name) == weights(tmp_path / "straight")


def test_a_run_that_was_stopped_has_all_that_a_finished_one_has_and_goes_on(tmp_path: Path):
    folder = tmp_path / "it"
    settings = BASE | {"target": "accuracy>=0.9999"}
    run = bb.fit("mlp:16", "digits", run=folder, on_event=wishing(folder, (80, STOP)), **settings)
    assert (run.reason, run.reached, run.diverged) == ("stopped", None, False)
    assert run.history["updates"][-1] == run.clock.updates
    assert run.history["held_out_accuracy"][-1] > 0.5  # it was evaluated where it ended
    assert [row["state"] for row in list_runs(tmp_path)] == ["stopped"]
    assert run.predict(np.zeros((5, 8, 8), np.float32)).shape == (5,)
    assert settings_of(folder)["changes"] == [f"stop after {run.clock.updates} updates"]
    again = bb.fit("mlp:16", "digits", resume=folder, **settings)
    straight = bb.fit("mlp:16", "digits", run=tmp_path / "straight", **settings)
    assert weights(folder) == weights(tmp_path / "straight")
    assert again.clock.updates == straight.clock.updates
    assert "changes" not in settings_of(folder)
    with pytest.raises(SettingsError, match="is over"):
        bb.fit("mlp:16", "digits", resume=folder, **settings)


def test_a_run_is_stopped_before_its_first_update(tmp_path: Path):
    def consume(event: Event) -> None:
        if isinstance(event, Started):
            ask(tmp_path / "it", STOP)

    run = bb.fit("mlp:16", "digits", run=tmp_path / "it", on_event=consume, **BASE)
    assert (run.reason, run.clock.updates) == ("stopped", 0)
    assert run.changes[0]["sentence"] == "stopped after 0 updates"


KILLED = ["train", "digits", "--model", "mlp:16", "--for", "10 min", "--checkpoint", "1 h", "--quiet", "--run", "it"]


@pytest.mark.slow
def test_a_run_that_is_killed_while_paused_goes_on_from_there(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-m", "backbeat", *KILLED], cwd=tmp_path, stderr=subprocess.PIPE)
    folder = tmp_path / "runs/it"
    wait_for(lambda: '"stretch"' in (folder / "events.jsonl").read_text())
    ask(folder, SLOWER)
    wait_for(lambda: "changes" in settings_of(folder))
    ask(folder, PAUSE)
    wait_for(lambda: lines_of(folder)[-1].get("what") == "pause")
    paused = lines_of(folder)[-1]
    wait_for(
        lambda: any(
            path.name.split("-")[1] == str(paused["updates"]) and (path / "SHA256SUMS").exists()
            for path in numbered(folder)
        )
    )
    process.kill()
    process.communicate()
    ask(folder, STOP)  # to nobody: a wish for a process that is gone
    again = subprocess.Popen(
        [sys.executable, "-m", "backbeat", "resume", "it"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(line["event"] == "stretch" for line in after_resumed(folder)))
    ask(folder, STOP)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0
    assert f"resumed after {paused['updates']:,} updates" in errors
    assert "1 wish from before this process began: left out" in errors
    done = json.loads((folder / "record.json").read_text())["finished"]
    assert (done["reason"], done["updates"] > paused["updates"]) == ("stopped", True)
    assert command(["train", "--settings", str(folder), "--run", str(tmp_path / "again"), "--quiet"]) == 0
    assert weights(tmp_path / "again") == weights(folder)


def after_resumed(folder: Path) -> list[dict[str, Any]]:
    lines = lines_of(folder)
    places = [number for number, line in enumerate(lines) if line["event"] == "resumed"]
    return lines[places[0] :] if places else []


def wait_for(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            if true():
                return
        except (OSError, ValueError):  # not there yet, or half written
            pass
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_ends_a_run_that_is_paused(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-m", "backbeat", *KILLED], cwd=tmp_path, stderr=subprocess.PIPE)
    folder = tmp_path / "runs/it"
    wait_for(lambda: '"stretch"' in (folder / "events.jsonl").read_text())
    ask(folder, PAUSE)
    wait_for(lambda: lines_of(folder)[-1].get("what") == "pause")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert json.loads((folder / "record.json").read_text())["finished"]["reason"] == "terminated"


@pytest.mark.slow
def test_processes_that_train_together_obey_together(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "backbeat", *KILLED, "--processes", "2"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    folder = tmp_path / "runs/it"
    wait_for(lambda: '"stretch"' in (folder / "events.jsonl").read_text())
    ask(folder, SLOWER)
    ask(folder, PAUSE)
    wait_for(lambda: lines_of(folder)[-1].get("what") == "pause")
    ask(folder, GO_ON)
    wait_for(lambda: lines_of(folder)[-1]["event"] == "stretch")
    ask(folder, STOP)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors.count("paused after") == 1
    again = [sys.executable, "-m", "backbeat", "train", "--settings", "it", "--run", "again", "--processes", "2"]
    again[5] = str(folder)
    subprocess.run([*again, "--quiet"], cwd=tmp_path, check=True, capture_output=True, timeout=240)
    assert weights(tmp_path / "runs/again") == weights(folder)


def test_what_is_no_wish_is_put_aside_and_said(tmp_path: Path):
    folder = tmp_path / "it"
    secret = tmp_path / "secret"
    secret.write_text('{"what": "stop"}')
    deep = b"[" * 1000
    written = {
        "empty.json": b"", "text": b"hello", "list.json": b"[1]", "deep.json": deep, "long.json": b" " * 2000,
        "bytes.json": b"\xff\xfe", "nan.json": b'{"what": "learning_rate", "value": NaN}',
        "more.json": b'{"what": "stop", "path": "x"}', "kind.json": b'{"what": ["stop"]}',
        "other.json": b'{"what": "delete"}', "none.json": b'{"what": "learning_rate"}',
    }  # fmt: skip
    notes: list[str] = []

    def consume(event: Event) -> None:
        if isinstance(event, Started):
            place = folder / "control"
            place.mkdir()
            for name, data in written.items():
                (place / name).write_bytes(data)
            (place / "folder").mkdir()
            (place / "link.json").symlink_to(secret)
            if hasattr(os, "mkfifo"):
                os.mkfifo(place / "pipe.json")
        if isinstance(event, Noted):
            notes.append(event.note)

    run = bb.fit("mlp:16", "digits", run=folder, on_event=consume, **BASE)
    assert run.reason == "ran for 6 epochs"
    assert run.changes == ()
    assert len(notes) == len(written) + 2 + hasattr(os, "mkfifo")
    assert all("is no wish for this run, and was put aside" in note for note in notes)
    assert {path.suffix for path in (folder / "control").iterdir()} == {".aside"}
    assert secret.read_text() == '{"what": "stop"}'


def test_a_folder_of_wishes_that_is_a_link_is_left_alone(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{1:020d}-01234567.json").write_text('{"what": "stop"}')
    (tmp_path / "run").mkdir()
    (tmp_path / "run/control").symlink_to(elsewhere)
    wishes = Wishes(tmp_path / "run")
    assert wishes.look() == ([], [])
    with pytest.raises(SettingsError, match="cannot be written"):
        ask(tmp_path / "run", STOP)
    wishes.close()
    assert len(list(elsewhere.iterdir())) == 1


def test_wishes_come_in_their_order(tmp_path: Path):
    wishes = Wishes(tmp_path)
    each = [PAUSE, SLOWER, GO_ON, STOP] * 5
    for wish in each:
        ask(tmp_path, wish)
    assert wishes.look() == (each, [])
    assert wishes.look() == ([], [])


def test_a_rate_that_is_not_the_runs_to_change_is_refused(tmp_path: Path):
    notes: list[str] = []
    asking = wishing(tmp_path / "it", (80, SLOWER))

    def consume(event: Event) -> None:
        asking(event)
        if isinstance(event, Noted):
            notes.append(event.note)

    run = bb.fit("mlp:16", "digits", run=tmp_path / "it", optimizer=optax.sgd(0.1), on_event=consume, **BASE)
    assert notes == ["The optimizer is a transformation that holds its own learning rate, so it cannot be changed"]
    assert run.changes == ()
    with pytest.raises(SettingsError, match="holds its own learning rate"):
        bb.fit("mlp:16", "digits", optimizer=optax.sgd(0.1), changes="learning_rate 0.1 after 5 updates")
    with pytest.raises(SettingsError, match="function of the updates"):
        bb.fit("mlp:16", "digits", learning_rate=lambda n: 0.1, changes="learning_rate 0.1 after 5 updates")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("faster", "'faster' is not understood"), ("learning_rate 0 after 5 updates", "no learning rate above 0"),
        ("learning_rate nan after 5 updates", "above 0"), ("learning_rate x after 5 updates", "above 0"),
        ("learning_rate 1e300 after 5 updates", "above 0"), ("stop after -1 updates", "not understood"),
        ("stop after ٣ updates", "not understood"), (5, "is not a list of texts"), ([5], "5 is not understood"),
        ({"stop": 5}, "is not a list"),
        (["stop after 5 updates", "learning_rate 0.1 after 4 updates"], "put the earlier one first"),
    ],
)  # fmt: skip
def test_changes_that_are_not_understood_are_refused(changes: Any, message: str):
    with pytest.raises(SettingsError, match=message):
        bb.fit("linear", "iris", changes=changes)


def test_changes_are_read_as_they_are_written():
    for text in ("learning_rate 0.05 after 1 update", "stop after 0 updates", "stop after 3 updates and 2 divergences"):
        assert str(Change.parse(text)) == text
    assert Change.parse("learning_rate 5E-2 after 1_000 updates and 1 divergence") == Change(
        "learning_rate", 0.05, 1000, 1
    )


def test_other_changes_than_the_runs_own_are_refused_where_it_goes_on(tmp_path: Path):
    folder = tmp_path / "it"
    bb.fit("mlp:16", "digits", run=folder, on_event=wishing(folder, (40, SLOWER), (80, STOP)), **BASE)
    own = settings_of(folder)["changes"]
    with pytest.raises(SettingsError, match=r"was not trained with changes='learning_rate 0\.5 after 9 updates'"):
        bb.fit("mlp:16", "digits", resume=folder, changes="learning_rate 0.5 after 9 updates", **BASE)
    bb.fit("mlp:16", "digits", resume=folder, changes=own, **BASE)
    assert settings_of(folder)["changes"] == own[:1]
