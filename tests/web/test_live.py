"""A run is followed as its folder grows: half lines, runs that are resumed, ended, damaged, or very long."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import backbeat as bb
from backbeat.config import Settings, resolve
from backbeat.record import Recorder, read_record
from backbeat.web import live
from backbeat.web.live import Followed, Watched

from .conftest import event_lines, write_events


def test_what_is_added_is_read_and_a_half_line_waits(tmp_path: Path):
    lines = event_lines(20)
    write_events(tmp_path, lines[:11])
    run = Followed(tmp_path)
    assert run.refresh()
    assert run.record()["history"]["updates"] == [10 * k for k in range(1, 6)]
    assert not run.refresh()
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(json.dumps(lines[11])[:40])
    assert run.refresh()
    assert run.record()["history"]["updates"][-1] == 50
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(json.dumps(lines[11])[40:] + "\n")
    write_events(tmp_path, lines[12:], "a")
    assert run.refresh()
    late = Followed(tmp_path)
    late.refresh()
    assert run.record()["history"] == late.record()["history"]
    assert late.record()["history"]["updates"][-1] == 200


def test_a_run_that_is_resumed_goes_back_first(tmp_path: Path):
    lines = event_lines(20)
    write_events(tmp_path, lines)
    run = Followed(tmp_path)
    run.refresh()
    write_events(tmp_path, [*lines[:21], {**lines[0], "event": "resumed"}])  # cut after 100 updates
    assert run.refresh()
    assert run.record()["history"]["updates"][-1] == 100
    write_events(tmp_path, lines[21:31], "a")
    run.refresh()
    assert run.record()["history"]["updates"] == [10 * k for k in range(1, 16)]


def test_damaged_lines_are_left_out(tmp_path: Path):
    write_events(tmp_path, event_lines(3))
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "stretch"}\nnonsense\n[]\n"text"\n')
    run = Followed(tmp_path)
    run.refresh()
    assert run.record()["history"]["updates"] == [10, 20, 30]


def test_a_real_run_is_seen_running_and_then_as_it_was_recorded(tmp_path: Path):
    folder, run, seen = tmp_path / "real", Followed(tmp_path / "real"), []

    def look(event: object) -> None:
        run.refresh()
        seen.append((run.state, run.row().get("progress")))

    bb.fit("mlp:8", "digits", duration="3 epochs", evaluate="1 epoch", run=folder, watch_noise=True, on_event=look)
    assert {state for state, _ in seen} == {"running"}
    shares = [share for _, share in seen if share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    run.refresh()
    assert run.state == "finished"
    record = read_record(folder)
    shown = run.record()
    assert shown["history"] == json.loads(json.dumps(record["history"]))
    assert shown["finished"]["updates"] == record["finished"]["updates"]


def test_states(tmp_path: Path):
    write_events(tmp_path / "cut", event_lines(3))
    write_events(tmp_path / "bad", event_lines(3))
    (tmp_path / "bad/record.json").write_text('{"kind": ')
    (tmp_path / "nothing").mkdir()
    watched = Watched(tmp_path)
    watched.refresh()
    assert {row["name"]: row["state"] for row in watched.rows()} == {"cut": "cut off", "bad": "damaged"}
    with Recorder(tmp_path / "cut", resolve("mlp:8", "digits", Settings())):
        assert watched.refresh()
        assert watched.rows()[0]["state"] == "running"
        assert 0 < watched.rows()[0]["progress"] < 1
        assert watched.rows()[0]["seconds_left"] == pytest.approx(0.75 * (1 - 0.03) / 0.03)
    assert watched.refresh()
    assert [row["state"] for row in watched.rows()] == ["cut off", "damaged"]
    (tmp_path / "bad/record.json").unlink()
    (tmp_path / "bad/events.jsonl").unlink()
    assert watched.refresh()
    assert [row["name"] for row in watched.rows()] == ["cut"]


def test_one_run_alone(tmp_path: Path):
    write_events(tmp_path / "runs/one", event_lines(3))
    watched = Watched(tmp_path / "runs/one")
    assert watched.one
    watched.refresh()
    assert [row["name"] for row in watched.rows()] == ["one"]


def test_a_long_run_is_thinned_for_drawing_and_keeps_its_extremes(tmp_path: Path):
    lines = event_lines(5000)
    lines[6001]["loss_mean"] = 40.0
    write_events(tmp_path, lines)
    before = (tmp_path / "events.jsonl").read_bytes()
    run = Followed(tmp_path)
    run.refresh()
    record, curve = run.record(), json.loads(run.curve())
    assert record["thinned"]["rows"] == 5000
    for history, most in ((record["history"], 1000), (curve["history"], 300)):
        assert len(history["updates"]) <= most
        assert (history["updates"][0], history["updates"][-1]) == (10, 50_000)
        assert max(value for value in history["loss_mean"] if value is not None) == 40.0
        assert np.all(np.diff(history["updates"]) > 0)
    assert (tmp_path / "events.jsonl").read_bytes() == before


def test_of_a_very_long_run_a_bounded_number_of_rows_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "_HELD", 400)
    monkeypatch.setattr(live, "_MOST_HELD", 2000)
    lines = event_lines(9000)
    low, high = lines[7001], lines[12_001]
    low["loss_mean"], high["loss_mean"] = 1e-6, 40.0
    held = []
    run = Followed(tmp_path)
    for start in range(0, len(lines), 4000):  # as it grows
        write_events(tmp_path, lines[start : start + 4000], "a")
        run.refresh()
        held.append(len(run._account.rows))
    assert max(held) <= 2000 + live._LINES
    record = run.record()
    assert record["thinned"]["rows"] == 9000
    assert record["thinned"]["shown"] == len(record["history"]["updates"]) <= 1000
    losses = [value for value in record["history"]["loss_mean"] if value is not None]
    assert (max(losses), min(losses)) == (40.0, 1e-6)
    assert (record["history"]["updates"][0], record["history"]["updates"][-1]) == (10, 90_000)
    write_events(tmp_path, lines[:101])  # and it goes back
    run.refresh()
    assert run.record()["history"]["updates"] == [10 * k for k in range(1, 51)]
    assert "thinned" not in run.record()


@pytest.mark.parametrize(
    ("duration", "share", "left"),
    [
        ("1000 updates", 0.2, 20.0), ("1000 updates or 400 updates", 0.5, 5.0), ("25 s", 0.2, 20.0),
        ("1000 updates or 10 s", 0.5, 5.0), ("25600 examples or 1 hour", 0.5, 5.0), ("100 updates", 1.0, 0.0),
    ],
)  # fmt: skip
def test_the_time_left_is_that_to_the_first_end(tmp_path: Path, duration: str, share: float, left: float):
    lines = event_lines(20)  # 200 updates, 12,800 examples, 5 s
    lines[0]["settings"]["duration"] = duration
    write_events(tmp_path, lines)
    run = Followed(tmp_path)
    run.refresh()
    assert run._progress() == {"progress": share, "seconds_left": pytest.approx(left), "at_most": False}
    lines[0]["settings"]["target"] = "accuracy>=0.9"
    write_events(tmp_path, lines)
    run = Followed(tmp_path)
    run.refresh()
    assert run._progress()["at_most"]


def test_of_a_resumed_run_the_speed_is_that_of_the_process_that_trains_now(tmp_path: Path):
    lines = event_lines(20)
    for line in lines[21:]:  # the second half is ten times as fast
        line["wall_seconds"] = 2.5 + (line["wall_seconds"] - 2.5) / 10
    write_events(tmp_path, [*lines[:21], {**lines[0], "event": "resumed"}, *lines[21:]])
    run = Followed(tmp_path)
    run.refresh()
    assert run._progress()["progress"] == 0.2
    assert run._progress()["seconds_left"] == pytest.approx(800 * 0.0025)


def test_runs_that_differ_only_in_the_seed_are_alike(tmp_path: Path):
    base = event_lines(3)
    about = {**base[0], "settings": {**base[0]["settings"], "seed": 0}}
    changed = {
        "a": {}, "b": {"seed": 1, "settings": {**about["settings"], "seed": 1}}, "c": {"learning_rate": 0.2},
        "d": {"settings": {**about["settings"], "momentum": 0.9}}, "e": {"model": "mlp:9"},
    }  # fmt: skip
    for name, change in changed.items():
        write_events(tmp_path / name, [{**about, **change}, *base[1:]])
    watched = Watched(tmp_path)
    watched.refresh()
    alike = {row["name"]: row["alike"] for row in watched.rows()}
    assert alike["a"] == alike["b"]
    assert len(set(alike.values())) == 4


def test_two_who_look_at_once_read_each_line_once(tmp_path: Path):
    for k in range(5):
        write_events(tmp_path / f"run-{k}", event_lines(200))
    watched = Watched(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: watched.refresh(), range(8)))
    for run in watched.followed.values():
        assert run.record()["history"]["updates"] == [10 * k for k in range(1, 201)]


def test_what_a_run_gets_wrong_is_seen_while_it_goes_on(tmp_path: Path):
    write_events(tmp_path, event_lines(3))
    run = Followed(tmp_path)
    run.refresh()
    assert run.record()["mistakes"] is None
    (tmp_path / "mistakes.json").write_text(json.dumps({"format": 1, "updates": 20, "worst": []}))
    assert run.refresh()
    assert run.record()["mistakes"]["updates"] == 20
    assert not run.refresh()
