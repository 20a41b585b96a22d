"""`backbeat advise` as a user meets it: what it prints and records, and one sentence for a mistake."""

import json
from pathlib import Path

import pytest

from backbeat.cli import run

IRIS = ["advise", "iris", "--model", "linear", "--target", "train loss<=0.3"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """A working folder of its own."""
    monkeypatch.chdir(tmp_path)


def test_advice_is_printed_recorded_and_listed(capsys):
    given = ["--within", "20 s", "--devices", "8", "--json", "--run", "first", "--quiet"]
    assert run([*IRIS, *given]) == 0
    found = json.loads(capsys.readouterr().out)
    best = found["finish_first"]
    assert 1 <= best["batch_size"] <= 120
    assert best["updates"]["low"] <= best["updates"]["value"] <= best["updates"]["high"]
    assert found["target"].startswith("train")
    assert "8 devices" in found["what_if"]["name"]
    folder = Path("runs") / "first"
    assert json.loads((folder / "record.json").read_text())["kind"] == "advice"
    assert "recommended" in (folder / "report.html").read_text()
    assert run(["runs"]) == 0
    assert "first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--within", "0.001 s"], "too short to measure anything"),
        (["--within", "soon"], "soon"),
        (["--hardware", "alpha=20us"], "alpha and beta without the other"),
        (["--hardware", "alpha=20us,beta=fast"], "not a number with a unit"),
        (["--hardware", "gamma=1us"], "not one of its parts"),
        (["--devices", "0"], "whole number from 1"),
        (["--target", "acuracy>=0.9"], "accuracy"),
        (["--optimizer", "sgdd"], "did you mean"),
        (["--devises", "8"], "Did you mean --devices?"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, arguments: list[str], said: str):
    assert run(["advise", "iris", "--model", "linear", "--quiet", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
