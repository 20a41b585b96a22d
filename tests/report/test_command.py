"""`backbeat report` and `backbeat runs` on the folder of a record of each kind."""

import json
from pathlib import Path

import pytest

from backbeat.cli import run
from backbeat.report import advice_figure, comparison_figure, page, run_figure, save_figure


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_comparison, fake_run, fake_advice) -> dict:
    """Records by kind, each in the folder runs/<kind>."""
    monkeypatch.chdir(tmp_path)
    records = {"comparison": fake_comparison(), "run": fake_run(), "advice": fake_advice()}
    for kind, record in records.items():
        Path("runs", kind).mkdir(parents=True)
        Path("runs", kind, "record.json").write_text(json.dumps(record), encoding="utf-8")
    return records


def test_report_writes_the_page_and_the_picture_of_each_kind(folders, capsys):
    figures = {"comparison": comparison_figure, "run": run_figure, "advice": advice_figure}
    for kind, record in folders.items():
        assert run(["report", kind, "--no-open"]) == 0
        assert Path("runs", kind, "report.html").read_text(encoding="utf-8") == page(record)
        assert run(["report", kind, "-o", f"{kind}.svg"]) == 0
        own = save_figure(figures[kind](record), "own.svg").read_bytes()
        assert Path(f"{kind}.svg").read_bytes() == own
    assert capsys.readouterr().err == ""


def test_runs_lists_advice_with_what_it_recommends(folders, fake_advice, capsys):
    Path("runs", "vain").mkdir()
    Path("runs", "vain", "record.json").write_text(json.dumps(fake_advice(reached=False)), encoding="utf-8")
    assert run(["runs", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert set(rows) == {"comparison", "run", "advice", "vain"}
    shown = {name: (rows[name]["kind"], rows[name]["state"], rows[name]["every"]) for name in ("advice", "vain")}
    assert shown == {"advice": ("advice", "finished", "16"), "vain": ("advice", "finished", "–")}
    assert run(["runs"]) == 0
    assert "advice" in capsys.readouterr().out
