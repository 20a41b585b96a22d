"""A run's folder repeats the run, is read by other tools, and is never half written."""

import hashlib
import json
import math
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import load_file

import backbeat as bb
from backbeat import record as module
from backbeat.cli import run as command
from backbeat.done import Run
from backbeat.errors import DataError, DivergedError, SettingsError
from backbeat.folder import create_folder, named_folder, new_folder, read_settings, write_json, write_whole
from backbeat.record import FORMAT, flat_params, list_runs, read_record
from backbeat.recorded import in_use


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    """The path of a file of 60 examples whose labels have names with letters outside ASCII."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "zwölf.npz"
    np.savez(path, x=x, y=np.array(["ä", "b"])[(x[:, 0] > 0).astype(int)])
    return path


@pytest.fixture(scope="module")
def recorded(arrays, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return bb.fit(
        "mlp:3", arrays, every=7, duration="3 epochs", seed=4, optimizer="adam", learning_rate=0.01, run=folder
    )


def hashed(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_settings_repeat_the_run_to_the_bit(recorded, arrays, tmp_path):
    # the command line names the data in settings.toml; fit was given a path, which it cannot know the name of
    first, again = tmp_path / "first", tmp_path / "again"
    options = ["--model", "mlp:3", "--every", "7", "--for", "3 epochs", "--seed", "4", "--optimizer", "adam"]
    assert command(["train", str(arrays), *options, "--lr", "0.01", "--run", str(first), "--quiet"]) == 0
    assert command(["train", "--settings", str(first), "--run", str(again), "--quiet"]) == 0
    assert hashed(first) == hashed(again) == hashed(recorded.folder)
    texts = [(folder / "settings.toml").read_text(encoding="utf-8") for folder in (first, again)]
    assert texts[0] == texts[1]
    assert tomllib.loads(texts[0])["data"] == str(arrays)


def test_weights_are_read_back_by_their_own_format_s_reader(recorded):
    found = load_file(recorded.folder / "model.safetensors")
    expected = flat_params(recorded.params)
    assert sorted(found) == sorted(expected) == ["dense_0/bias", "dense_0/weight", "dense_1/bias", "dense_1/weight"]
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32


def test_events_are_one_json_object_a_line_in_order(recorded):
    text = (recorded.folder / "events.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    events = [json.loads(line) for line in text.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "started"
    assert names[-1] == "finished"
    assert set(names[1:-1]) == {"stretch", "evaluated"}
    updates = [event["updates"] for event in events[1:]]
    assert updates == sorted(updates)
    assert updates[-1] == recorded.clock.updates == 3 * math.ceil(48 / 7)
    stretches = [event for event in events if event["event"] == "stretch"]
    assert sum(event["weight_sum"] for event in stretches) == recorded.clock.examples == 3 * 48


def test_the_record_says_what_was_run_on_what(recorded, arrays):
    found = read_record(recorded.folder)
    assert found["kind"] == "run"
    assert found["settings"]["every"] == 7
    assert found["finished"]["updates"] == recorded.clock.updates
    assert found["data"]["name"] == "zwölf.npz"
    assert (found["data"]["n_train"], found["data"]["n_held_out"]) == (48, 12)
    digest = hashlib.sha256()
    dataset = recorded.job.dataset
    for array in (dataset.x, dataset.y):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    assert found["data"]["sha256"] == digest.hexdigest()
    for column, values in recorded.history.items():
        np.testing.assert_array_equal(np.array(found["history"][column], float), values)
    environment = json.loads((recorded.folder / "environment.json").read_text())
    assert {"python", "backbeat", "jax", "numpy", "platform", "processor", "cores", "device"} <= environment.keys()
    assert environment == found["environment"]


def test_a_run_that_diverged_keeps_its_last_finite_weights(arrays, tmp_path):
    x = np.load(arrays)["x"]
    with pytest.raises(DivergedError):
        bb.fit(
            bb.linear(), (x, x[:, 0]), every=8, learning_rate=1e6, optimizer="momentum", duration="50 epochs",
            run=tmp_path / "run",
        )  # fmt: skip
    found = read_record(tmp_path / "run")
    assert found["finished"]["diverged"]
    assert all(np.isfinite(array).all() for array in load_file(tmp_path / "run" / "model.safetensors").values())
    assert [row["state"] for row in list_runs(tmp_path)] == ["diverged"]


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(arrays, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="already holds something"):
        bb.fit("linear", arrays, duration="1 epoch", run=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    create_folder(tmp_path / "empty")
    create_folder(tmp_path / "empty")  # one that is empty may be used


def test_a_file_in_the_place_of_a_folder_is_one_sentence(arrays, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(SettingsError, match="cannot be made"):
            create_folder(folder)
    with pytest.raises(SettingsError, match="cannot be written"):
        write_json(tmp_path / "file" / "record.json", {})


def test_names_of_runs(monkeypatch, tmp_path):
    assert named_folder("mine") == Path("runs/mine")
    assert named_folder("./mine") == Path("mine")
    assert named_folder(str(tmp_path)) == tmp_path
    taken = new_folder(tmp_path)
    assert taken.parent == tmp_path
    assert not taken.exists()
    # the same words at the same second: the first name is taken, so another has to be found
    names = iter([taken, taken.with_name(taken.name + "-b")])
    monkeypatch.setattr(Path, "__truediv__", lambda self, name: next(names))
    os.mkdir(taken)
    assert new_folder(tmp_path) == taken.with_name(taken.name + "-b")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": np.float32(1), "b": np.array([1.0, np.inf]), "c": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1.0, "b": [1.0, None], "c": None}

    def fails(file):
        file.write("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(SettingsError, match=r"No space left on device.*unchanged"):
        write_whole(path, fails)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, lambda file: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert json.loads(path.read_text())["a"] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"], "no temporary file is left"


def test_files_get_the_rights_that_others_have(tmp_path):
    old = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


GOOD = {
    "kind": "run",
    "format": FORMAT,
    "data": {"name": "d"},
    "model": "m",
    "every": "1",
    "finished": {},
    "history": {},
}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"kind": "run", "form', "is damaged"),
        (b"[]", "is not the record"),
        (b'{"kind": "song"}', "is not the record"),
        (b"\xff\xfe\x00", "is not the record"),
        (json.dumps(GOOD | {"format": 99}).encode(), "format 99, and this version reads format 1"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "history"}).encode(), "has no 'history'"),
    ],
)
def test_a_record_that_cannot_be_read_is_one_sentence(tmp_path, content, words):
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(DataError, match=r"^[^\n]+$") as caught:
        read_record(tmp_path)
    assert words in str(caught.value)
    assert [row["state"] for row in list_runs(tmp_path.parent) if row["name"] == tmp_path.name] == ["damaged"]


def test_no_record_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="give the folder of a finished run"):
        read_record(tmp_path)


@pytest.mark.parametrize("content", ["every = [", "\udcff"])
def test_settings_that_cannot_be_read_are_one_sentence(tmp_path, content):
    (tmp_path / "settings.toml").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match="is not a settings file"):
        read_settings(tmp_path, ["every"])
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(tmp_path / "none.toml", ["every"])


def test_runs_are_listed_while_they_run_and_where_a_line_is_half_written(recorded, tmp_path):
    lines = (recorded.folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    for name, content in {
        "half": b"".join(lines[:3]) + lines[3][: len(lines[3]) // 2],
        "cut in a letter": lines[0][: lines[0].index("ö".encode()) + 1],
        "empty": b"",
        "number": lines[1] + b"12",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").write_bytes(content)
    (tmp_path / "other").mkdir()  # something else, which is no run
    (tmp_path / "file").write_text("")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "record.json").write_text(json.dumps(GOOD))  # a record without what is shown of it
    rows = {row["name"]: row for row in list_runs(tmp_path)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "half": "not finished", "cut in a letter": "not finished", "empty": "not finished",
        "number": "not finished", "odd": "damaged",
    }  # fmt: skip
    assert rows["half"]["updates"] == json.loads(lines[2])["updates"]
    (row,) = list_runs(recorded.folder.parent)
    assert (row["name"], row["state"], row["every"], row["updates"]) == ("first", "finished", "7", 21)
    with pytest.raises(DataError, match="is not there"):
        list_runs(tmp_path / "none")


def test_event_lines_have_no_arrays_of_single_updates(recorded):
    event = bb.train(bb.linear(), "digits", every=8, duration="2 updates", evaluate="never")
    lines = [module.event_line(e) for e in event]
    assert {line["event"] for line in lines} == {"started", "stretch", "finished"}
    assert not any(isinstance(value, (list, np.ndarray)) for line in lines[1:] for value in line.values())


def test_asking_whether_a_folder_is_in_use_leaves_no_lock_behind(tmp_path, monkeypatch):
    lock = tmp_path / ".lock"
    with FileLock(lock):
        assert in_use(tmp_path)
        assert lock.exists()
    lock.unlink(missing_ok=True)
    monkeypatch.setattr(Path, "exists", lambda path: path == lock)  # was there a moment ago
    assert not in_use(tmp_path)
    monkeypatch.undo()
    assert not lock.exists()
