"""`predict`, `evaluate` and `export` as a user meets them: tables, files, pictures, and one sentence for a mistake."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from backbeat.cli import run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a table, images of digits, and a run on each."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    colour = rng.choice(["red", "blue", "green"], 300)
    size, weight = rng.normal(50, 10, 300), rng.normal(0, 0.01, 300)
    table = pl.DataFrame({"size": size, "weight": weight, "colour": colour})
    label = np.where((size - 50) / 10 + 2 * (colour == "red") > 0.5, "yes", "no")
    table.with_columns(label=label).write_csv(folder / "table.csv")
    table.with_columns(price=size * 3 - weight * 100).write_parquet(folder / "prices.parquet")
    digits: Any = load_digits()
    for i in range(120):
        (folder / "letters" / str(digits.target[i])).mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray((digits.images[i] * 15).astype(np.uint8))
        pixels.save(folder / "letters" / str(digits.target[i]) / f"{i}.png")
    pixels.resize((20, 20)).save(folder / "large.png")
    before = os.getcwd()
    os.chdir(folder)
    try:
        common = ["--for", "5 epochs", "--quiet"]
        assert run(["train", "table.csv", "--model", "mlp:8", "--lr", "0.3", "--run", "table", *common]) == 0
        assert run(["train", "letters", "--model", "linear", "--run", "letters", *common]) == 0
        assert run(["train", "prices.parquet", "--label", "price", "--lr", "0.001", "--run", "prices", *common]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def inside(place, tmp_path, monkeypatch) -> Path:
    """The working folder: a copy of that one."""
    shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def printed(capsys, *arguments: str) -> tuple[str, str]:
    """Returns what a command that succeeds prints."""
    capsys.readouterr()
    assert run(arguments) == 0
    return capsys.readouterr()


def refused(capsys, *arguments: str) -> str:
    """Returns the one sentence of a command that fails, and leaves the folders as they were."""
    before = sorted(path for path in Path().rglob("*") if path.is_file())
    capsys.readouterr()
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("backbeat: ")
    assert sorted(path for path in Path().rglob("*") if path.is_file()) == before
    return err


def test_a_table_is_prepared_as_in_training_whatever_the_order_of_its_columns(inside, capsys):
    table = pl.read_csv("table.csv")
    table.select("colour", "weight", "size").head(20).write_parquet("new.parquet")
    out, _ = printed(capsys, "predict", "table", "new.parquet")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["row"] for row in rows] == [str(i) for i in range(1, 21)]
    truth = table["label"].to_list()[:20]
    assert np.mean([row["prediction"] == label for row, label in zip(rows, truth, strict=True)]) > 0.7
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    whole, _ = printed(capsys, "predict", "runs/table", "table.csv")
    assert list(csv.DictReader(io.StringIO(whole)))[:20] == rows


def test_text_that_training_never_saw_is_counted(inside, capsys):
    table = pl.read_csv("table.csv").head(5).with_columns(colour=pl.lit("pink"))
    table.write_csv("pink.csv")
    _, err = printed(capsys, "predict", "table", "pink.csv")
    assert "'colour': 5 cells" in err
    assert "Traceback" not in err
    _, err = printed(capsys, "predict", "table", "pink.csv", "--quiet")
    assert err == ""


def test_every_file_holds_the_same(inside, capsys):
    out, _ = printed(capsys, "predict", "table", "table.csv", "--proba")
    rows = [
        {"row": int(row.pop("row")), "prediction": row.pop("prediction"), **{k: float(v) for k, v in row.items()}}
        for row in csv.DictReader(io.StringIO(out))
    ]
    assert list(rows[0]) == ["row", "prediction", "probability", "probability_no", "probability_yes"]
    for ending in ("csv", "parquet", "json", "jsonl", "npy"):
        said, _ = printed(capsys, "predict", "table", "table.csv", "--proba", "-o", f"out.{ending}")
        assert said == f"out.{ending}\n"
    assert pl.read_csv("out.csv").to_dicts() == rows
    assert pl.read_parquet("out.parquet").to_dicts() == rows
    assert json.loads(Path("out.json").read_text()) == rows
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == rows
    shares = np.load("out.npy", allow_pickle=False)
    # the columns are written with the digits of float32
    np.testing.assert_allclose(shares, [[r["probability_no"], r["probability_yes"]] for r in rows], rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    said, _ = printed(capsys, "predict", "table", "table.csv", "--proba", "--json")
    assert json.loads(said)["predictions"] == rows


def test_images_are_named_by_their_paths(inside, capsys):
    out, _ = printed(capsys, "predict", "letters", "letters")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 120
    one, _ = printed(capsys, "predict", "letters", rows[7]["path"])
    assert list(csv.DictReader(io.StringIO(one))) == [rows[7]]
    Path("letters/0/broken.png").write_text("no image")
    assert "broken.png" in refused(capsys, "predict", "letters", "letters")
    again, err = printed(capsys, "predict", "letters", "letters", "--skip-bad")
    assert again == out
    assert "1 of 121 images" in err


def test_an_image_of_another_size_or_in_colours(inside, capsys):
    sentence = refused(capsys, "predict", "letters", "large.png")
    assert "20x20" in sentence
    assert "--resize 8x8" in sentence
    out, _ = printed(capsys, "predict", "letters", "large.png", "--resize", "8x8")
    assert out.count("\n") == 2
    grey = Path("letters/0/0.png")
    Image.open(grey).convert("RGB").save("colours.png")
    same = [printed(capsys, "predict", "letters", str(path))[0].split(",", 3)[3] for path in (grey, "colours.png")]
    assert same[0] == same[1]


def test_values_have_no_probability(inside, capsys):
    out, _ = printed(capsys, "predict", "prices", "prices.parquet")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["row", "prediction"]
    assert "--proba is for classes" in refused(capsys, "predict", "prices", "prices.parquet", "--proba")


def test_an_evaluation_prints_what_it_returns_as_json_and_draws(inside, capsys):
    out, err = printed(capsys, "evaluate", "table", "--json")
    found = json.loads(out)
    assert err == ""
    assert found["n_examples"] == 60
    assert np.sum(found["confusion"]) == 60
    accuracy = np.trace(found["confusion"]) / 60
    assert found["scores"]["accuracy"] == pytest.approx(accuracy)
    record = json.loads(Path("runs/table/record.json").read_text())
    assert record["history"]["held_out_accuracy"][-1] == pytest.approx(accuracy)
    assert found["picture"] == "runs/table/confusion.png"
    assert Path("runs/table/confusion.png").read_bytes().startswith(b"\x89PNG")
    out, _ = printed(capsys, "evaluate", "table")  # draws over its own picture
    assert f"accuracy {accuracy:.4g}" in out
    assert "true \\ predicted" in out
    out, _ = printed(capsys, "evaluate", "prices", "-o", "prices.svg")
    assert "R² " in out
    assert "<svg" in Path("prices.svg").read_text()


def test_an_evaluation_on_other_data_and_on_the_run_s_own(inside, capsys):
    pl.read_csv("table.csv").tail(50).write_csv("tail.csv")
    out, err = printed(capsys, "evaluate", "table", "tail.csv", "--json")
    assert json.loads(out)["n_examples"] == 50
    _, err = printed(capsys, "evaluate", "table", "table.csv")
    assert "is what the run was trained on" in err


def test_an_export_is_checked_and_says_what_its_inputs_are(inside, capsys):
    out, err = printed(capsys, "export", "letters", "--to", "stablehlo")
    assert err == ""
    assert "checked on 24 held-out examples" in out
    assert "uint8 [batch, 8, 8], pixels from 0 to 255" in out
    out, _ = printed(capsys, "export", "table", "--to", "safetensors", "--json")
    done = json.loads(out)
    assert (done["path"], done["n_checked"], done["difference"]) == ("runs/table/exported.safetensors", 60, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "nowhere", "table.csv"], ["runs/nowhere", "backbeat runs"]),
        (["predict", "table", "nowhere.csv"], ["nowhere.csv", "not there"]),
        (["predict", "table"], ["data"]),
        (["predict", "table", "prices.csv"], ["prices.csv has no column 'colour'"]),
        (["predict", "table", "empty.csv"], ["empty.csv"]),
        (["predict", "table", "head.csv"], ["head.csv"]),
        (["predict", "table", "arrays.npz"], ["arrays.npz", "table"]),
        (["predict", "letters", "table.csv"], ["table.csv"]),
        (["predict", "table", "letters"], ["letters"]),
        (["predict", "table", "table.csv", "-o", "out.xls"], [".csv", ".parquet"]),
        (["predict", "table", "table.csv", "-o", "table.csv"], ["would replace what is read"]),
        (["predict", "table", "table.csv", "-o", "runs/table/record.json"], ["would replace what is read"]),
        (["predict", "table", "table.csv", "-o", "nowhere/out.csv"], ["nowhere", "not there"]),
        (["predict", "letters", "large.png", "--resize", "huge"], ["huge"]),
        (["evaluate", "table", "unlabelled.csv"], ["no labels", "'label'"]),
        (["evaluate", "table", "new labels.csv"], ["never saw", "maybe"]),
        (["evaluate", "table", "-o", "out.pdf"], [".png or .svg"]),
        (["evaluate", "table", "-o", "table.png"], ["is no picture of an evaluation"]),
        (["export", "table", "--to", "onxx"], ["did you mean 'onnx'"]),
        (["export", "table"], ["--to"]),
        (["export", "table", "--to", "safetensors", "-o", "net.pt"], [".safetensors"]),
    ],
)
def test_a_mistake_is_one_sentence(inside, arguments, said, capsys):
    table = pl.read_csv("table.csv")
    table.drop("colour").write_csv("prices.csv")
    table.drop("label").write_csv("unlabelled.csv")
    table.with_columns(label=pl.lit("maybe")).write_csv("new labels.csv")
    table.head(0).write_csv("head.csv")
    Path("empty.csv").write_text("")
    Path("table.png").write_text("no picture")
    np.savez("arrays.npz", x=np.zeros((3, 5), np.float32))
    sentence = refused(capsys, *arguments)
    for words in said:
        assert words in sentence


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(inside, capsys):
    Path("closed").mkdir(mode=0o500)
    for arguments in (
        ["predict", "table", "table.csv", "-o", "closed/a.csv"],
        ["evaluate", "table", "-o", "closed/a.png"],
    ):
        assert "cannot be written" in refused(capsys, *arguments)


def test_a_write_that_fails_leaves_what_was_there(inside, capsys, monkeypatch):
    Path("out.csv").write_text("mine")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    for arguments in (
        ["predict", "table", "table.csv", "-o", "out.csv"],
        ["evaluate", "table", "-o", "out.png"],
        ["export", "table", "--to", "safetensors", "-o", "out.safetensors"],
    ):
        assert "No space left on device" in refused(capsys, *arguments)
    assert Path("out.csv").read_text() == "mine"


def test_a_terminal_shows_a_table_of_the_first_rows(inside):
    import pty

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "backbeat", "predict", "table", "table.csv"]
    done = subprocess.Popen(command, stdout=slave, stderr=subprocess.DEVNULL)
    os.close(slave)
    seen = b""
    while True:
        try:
            read = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        seen += read
    os.close(master)
    assert done.wait() == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())
    assert "row  prediction  probability" in text
    assert "and 276 rows more" in text


def test_an_interrupt_is_one_sentence_and_leaves_nothing(inside):
    code = (
        "import os, signal, sys, backbeat.saved as saved, backbeat.cli as cli\n"
        "saved.SavedRun.outputs = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.main(['predict', 'table', 'table.csv', '-o', 'out.csv'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "backbeat: interrupted.\n"
    assert not Path("out.csv").exists()
