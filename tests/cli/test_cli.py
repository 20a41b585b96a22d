"""The command line as a user meets it: exit codes, one sentence for a mistake, records, interrupts, pipes."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import backbeat as bb
from backbeat.cli import run

QUICK = ["--model", "linear", "--for", "2 epochs", "--every", "100"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """Runs are recorded below the working folder, so each test has one of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def regression_file(tmp_path):
    """Returns the path of a small regression task whose inputs are so large that SGD at 0.1 cannot stay finite."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32) * 100
    np.savez(tmp_path / "steep.npz", x=x, y=x @ np.array([1.0, -2.0, 0.5], np.float32))
    return tmp_path / "steep.npz"


def record_of(name):
    return json.loads(Path("runs", name, "record.json").read_text(encoding="utf-8"))


def events_of(name):
    return [json.loads(line) for line in Path("runs", name, "events.jsonl").read_text(encoding="utf-8").splitlines()]


def refused(capsys, *arguments):
    """Returns the one sentence that a wrong command prints; nothing else may be printed or left behind."""
    before = sorted(os.listdir())
    code = run(arguments)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("backbeat: ")
    assert "Traceback" not in err
    left = sorted(os.listdir())
    assert left == before or (left == sorted([*before, "runs"]) and not os.listdir("runs"))
    return err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--every", "0"], ["every=0", "1 or more"]),
        (["train", "--every", "5000"], ["every=5000", "1438", "'dataset'"]),
        (["train", "--every", "datset"], ["datset", '"dataset"']),
        (["train", "--loss", "cross_entorpy"], ["cross_entorpy", "did you mean 'cross_entropy'"]),
        (["train", "--optimizer", "sdg"], ["sdg", "did you mean 'sgd'"]),
        (["train", "--model", "mpl"], ["mpl", "did you mean 'mlp'"]),
        (["train", "--lr", "-1"], ["-1", "above 0", "did you mean 1"]),
        (["train", "--target", "accuracy>=1.5"], ["can never be reached", "accuracy>=0.95"]),
        (["train", "--target", "acuracy>=0.9"], ["did you mean 'accuracy'"]),
        (["train", "--target", "r2>=0.9"], ["cross_entropy", "accuracy"]),
        (["train", "--for", "ten"], ["ten", "20 epochs"]),
        (["train", "--for", "10 epohcs"], ["unknown unit", "did you mean 'epochs'"]),
        (["train", "--held-out", "1"], ["held_out=1", "0.2"]),
        (["train", "--seed", "-1"], ["seed=-1", "0"]),
        (["train", "--at-most", "3"], ["--repeat-until", "--at-most"]),
        (["train", "--order", "shuffled"], ["order='shuffled'", "did you mean"]),
        (["train", "--schedule", "cosine", "--for", "1 s"], ["cosine over 20 epochs"]),
        (["train", "--evry", "3"], ["--evry", "--every"]),
        (["train", "nowhere.npz"], ["nowhere.npz", "not there"]),
        (["train", "letters.parquet"], ["letters.parquet", "not there"]),
        (["train", "--settings", "nowhere.toml"], ["nowhere.toml"]),
        (["compare", "--budget", "ten"], ["budget='ten'", "60 s"]),
        (["compare", "--budget", "3 epochs"], ["3 epochs", "60 s"]),
        (["compare", "--seeds", "2"], ["seeds=2", "from 3 to 100"]),
        (["compare", "--every", "32,32"], ["32", "once"]),
        (["compare", "--every", "1,0"], ["every=0"]),
        (["compare", "--lr", "0.1,-2"], ["learning_rates=-2", "above 0"]),
        (["report", "nowhere"], ["nowhere", "cannot be read"]),
        (["runs", "nowhere"], ["nowhere", "not there"]),
        (["frobnicate"], ["frobnicate"]),
    ],
)
def test_a_wrong_setting_is_one_sentence(arguments, said, capsys):
    sentence = refused(capsys, *arguments)
    for words in said:
        assert words in sentence


def test_broken_files_are_named_and_never_unpickled(tmp_path, capsys):
    good = tmp_path / "good.npz"
    np.savez(good, x=np.ones((4, 2)), y=np.array([0, 1, 0, 1]))
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:100])
    (tmp_path / "pickled.npz").write_bytes(pickle.dumps({"x": 1}))
    np.savez(tmp_path / "objects.npz", x=np.array([{}, {}], object), y=np.array([0, 1]))
    np.savez(tmp_path / "lone.npz", x=np.ones((4, 2)))
    np.savez(tmp_path / "nan.npz", x=np.array([[1.0], [np.nan]]), y=np.array([0, 1]))
    for name in ("cut", "pickled", "objects", "lone", "nan"):
        assert f"{name}.npz" in refused(capsys, "train", f"{name}.npz")


def test_a_run_is_recorded_and_repeated_to_the_same_weights(capsys):
    assert run(["train", *QUICK, "--run", "first", "--lr", "0.2", "--schedule", "cosine", "--seed", "7"]) == 0
    assert "recorded in" in capsys.readouterr().out
    files = {"settings.toml", "environment.json", "events.jsonl", "record.json", "model.safetensors"}
    assert files | {"checkpoints", "mistakes.json", "report.html", "run.png"} == set(os.listdir("runs/first"))
    lines = events_of("first")
    assert [lines[0]["event"], lines[-1]["event"]] == ["started", "finished"]
    assert all(a["updates"] <= b["updates"] for a, b in pairwise(lines[1:]))
    assert lines[0]["data"]["sha256"] == record_of("first")["data"]["sha256"]

    assert run(["train", "--settings", "runs/first", "--run", "second"]) == 0
    one, two = (load_file(f"runs/{name}/model.safetensors") for name in ("first", "second"))
    assert one.keys() == two.keys() == {"dense_0/weight", "dense_0/bias"}
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_an_option_beside_settings_counts_instead(capsys):
    assert run(["train", *QUICK, "--run", "first", "--lr", "0.2", "--seed", "7"]) == 0
    # 0.1 is the default learning rate: given, it counts all the same
    assert run(["train", "--settings", "runs/first", "--lr", "0.1", "--run", "other"]) == 0
    one, two = (record_of(name)["settings"] for name in ("first", "other"))
    assert (one.pop("learning_rate"), two.pop("learning_rate")) == (0.2, 0.1)
    assert one == two


@pytest.mark.slow
def test_settings_find_their_data_from_anywhere(tmp_path, monkeypatch, capsys):
    (tmp_path / "deep").mkdir()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "deep" / "few.npz", x=x, y=x[:, 0])
    assert run(["train", "deep/few.npz", *QUICK[:4], "--every", "8", "--run", "one"]) == 0
    few = ["--every", "8", "--target", "train r2>=0.5", "--lr", "0.1", "--budget", "60 s"]
    assert run(["compare", "deep/few.npz", "--model", "linear", *few, "--run", "both"]) == 0
    monkeypatch.chdir(tmp_path / "deep")
    for command, name in (("train", "one"), ("compare", "both")):
        assert run([command, "--settings", f"../runs/{name}", "--run", "./again-" + command]) == 0
        again = json.loads((tmp_path / "deep" / f"again-{command}" / "record.json").read_text(encoding="utf-8"))
        first = json.loads((tmp_path / "runs" / name / "record.json").read_text(encoding="utf-8"))
        assert again["data"] == first["data"]


def test_settings_of_arrays_ask_for_the_data(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    bb.fit(bb.linear(), (x, x[:, 0]), every=8, duration="2 epochs", run=tmp_path / "mine")
    assert "names no data" in refused(capsys, "train", "--settings", "mine")
    np.savez(tmp_path / "few.npz", x=x, y=x[:, 0])
    assert run(["train", "few.npz", "--settings", "mine", "--run", "./again"]) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("mine", "again"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_watched_gradients_are_in_the_record(capsys):
    assert run(["train", *QUICK, "--watch-gradient", "--evaluate", "1 update", "--run", "seen"]) == 0
    history = record_of("seen")["history"]
    norms = [value for value in history["gradient_norm_mean"] if value is not None]
    assert len(norms) == 30
    assert min(norms) > 0
    assert [line["gradient_norm_mean"] for line in events_of("seen") if line["event"] == "stretch"] == norms


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("keep")
    assert "already holds something" in refused(capsys, "train", *QUICK, "--run", "./full")
    assert (tmp_path / "full" / "precious.txt").read_text() == "keep"


def test_json_is_one_object_and_nothing_else(capsys):
    assert run(["train", *QUICK, "--json"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert err == ""
    assert record["finished"]["updates"] == 30  # 1438 examples in batches of 100 are 15 an epoch
    assert run(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["state"] == "finished"


def test_a_target_that_was_not_reached_is_exit_code_2_with_the_results_kept(capsys):
    assert run(["train", *QUICK, "--target", "accuracy>=0.999", "--run", "short"]) == 2
    out, err = capsys.readouterr()
    assert "not reached" in err
    assert "the best was" in err
    assert "held-out part" in out
    assert os.path.exists("runs/short/model.safetensors")


def test_a_run_that_diverges_is_exit_code_3_and_keeps_the_last_finite_weights(regression_file, capsys):
    code = run(["train", str(regression_file), "--model", "linear", "--every", "1", "--run", "wild"])
    _, err = capsys.readouterr()
    assert code == 3
    assert err.count("\n") == 1
    assert "diverged at update" in err
    weights = load_file("runs/wild/model.safetensors")
    assert all(np.isfinite(values).all() for values in weights.values())
    last = events_of("wild")[-1]
    assert last["event"] == "diverged"
    assert f"update {last['update']}" in err
    assert run(["runs"]) == 0
    assert "diverged" in capsys.readouterr().out


def test_scores_that_are_not_of_the_last_weights_say_of_which(regression_file, capsys):
    assert run(["train", str(regression_file), "--model", "linear", "--every", "1", "--run", "wild"]) == 3
    assert "held-out part at update 0, last evaluated there: loss" in capsys.readouterr().out
    assert run(["train", str(regression_file), "--model", "linear", "--lr", "1e-4", "--for", "1 epoch"]) == 0
    assert "held-out part: loss" in capsys.readouterr().out


def test_compare_writes_its_report_and_is_repeated_from_its_settings(capsys):
    few = ["--model", "linear", "--every", "64,dataset", "--target", "accuracy>=0.8", "--lr", "0.1,0.3,1"]
    assert run(["compare", *few, "--budget", "120 s", "--run", "both"]) == 0
    out = capsys.readouterr().out
    assert "To held-out accuracy>=0.8" in out
    files = {"settings.toml", "environment.json", "events.jsonl", "record.json", "report.html"}
    assert files | {"comparison.png", "comparison.svg"} == set(os.listdir("runs/both"))
    assert run(["compare", "--settings", "runs/both", "--run", "again", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    first = record_of("both")
    assert [c["every"] for c in again["cadences"]] == ["64", "dataset"]
    # the sweep may take its other form the second time, so a rate is not compared to the bit but as the same choice
    assert [c["learning_rate"] for c in again["cadences"]] == [c["learning_rate"] for c in first["cadences"]]
    for name in ("report.html", "picture.png", "picture.svg"):
        assert run(["report", "both", "--no-open", "--output", name]) == 0
        assert os.path.getsize(name) > 10_000
    assert run(["report", "both", "--no-open", "--output", "picture.gif"]) == 2


def test_what_no_cadence_reaches_is_said_and_kept(capsys):
    few = ["--model", "linear", "--every", "dataset", "--target", "accuracy>=0.9999", "--lr", "0.1", "--budget", "2 s"]
    assert run(["compare", *few, "--run", "far"]) == 2
    assert "came nearest" in capsys.readouterr().err
    assert os.path.exists("runs/far/report.html")


def command(*arguments, **more):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", "backbeat", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, **more,
    )  # fmt: skip


def wait_for(path, process):
    for _ in range(1200):  # a minute: a loaded machine takes its time to import and compile
        if os.path.exists(path) and "stretch" in Path(path).read_text(encoding="utf-8"):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail(f"{path} was never written")


def test_an_interrupt_ends_a_run_in_order():
    process = command("train", "--for", "10000000 updates", "--run", "long", "--model", "linear")
    wait_for("runs/long/events.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "interrupted after" in err
    assert "Traceback" not in err
    record = record_of("long")
    assert record["finished"]["reason"] == "interrupted"
    assert record["finished"]["updates"] > 0
    assert load_file("runs/long/model.safetensors")


def test_an_interrupt_of_a_comparison_leaves_nothing_half_written():
    process = command("compare", "--budget", "120 s", "--run", "half")
    for _ in range(1200):
        if os.path.exists("runs/half/environment.json"):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130
    assert err.strip() == "backbeat: interrupted."
    assert not os.path.exists("runs/half")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from backbeat.cli import run; code = run(sys.argv[1:]); "
        "print(sorted({'jax', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules))); sys.exit(code)"
    )
    for arguments in (
        [],
        ["--help"],
        ["train", "--help"],
        ["compare", "--help"],
        ["report", "--help"],
        ["runs", "--help"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
        assert "Usage: backbeat" in done.stdout


def test_without_a_terminal_there_is_no_colour_and_no_progress():
    out, err = command("train", *QUICK).communicate(timeout=180)
    assert err == ""
    assert "\x1b" not in out


def test_progress_is_drawn_in_a_terminal_on_standard_error():
    import pty

    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "backbeat", "train", *QUICK[:-4], "--for", "2 s"], stdout=subprocess.PIPE, stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(mine, 4096):
            seen += chunk
    except OSError:  # Linux says so when the other side is closed
        pass
    os.close(mine)
    assert process.communicate(timeout=180)[0]
    assert process.returncode == 0
    assert b"updates" in seen


def test_a_reader_that_leaves_is_no_error():
    assert run(["train", *QUICK, "--quiet"]) == 0
    process = command("runs")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(timeout=180) in (0, 1)  # 1 where rich meets the closed pipe first


def test_version_and_completion(tmp_path, capsys):
    done = subprocess.run([sys.executable, "-m", "backbeat", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.1.0"
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    done = subprocess.run(
        [sys.executable, "-m", "backbeat", "--install-completion", "--shell", "bash"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "backbeat" in path.read_text()]
    assert written
