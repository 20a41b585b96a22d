"""A page beside what it shows, `--watch`: of a run, a comparison and advice, from their start to Ctrl-C at the end."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backbeat.cli import run
from backbeat.recorded import in_use, list_runs
from backbeat.web.live import Followed
from backbeat.web.server import listening

from .conftest import event_lines, until, write_events

LINE = "backbeat: watch it at "
COMPARE = ["compare", "iris", "--model", "linear", "--every", "4,dataset", "--lr", "0.1,0.3,1", "--budget", "6 s"]
ADVISE = ["advise", "iris", "--model", "linear", "--target", "train loss<=0.4", "--within", "10 s"]


@contextmanager
def beside(folder: Path, *command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts a command with --watch; gives its process and the page's address."""
    whole = [sys.executable, "-m", "backbeat", *command, "--watch", "--no-open", "--run", "it"]
    with (
        (folder / "printed").open("w") as printed,
        subprocess.Popen(whole, cwd=folder, text=True, stdout=printed, stderr=subprocess.PIPE) as process,
    ):
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith(LINE), line + process.stderr.read()
            yield process, line.removeprefix(LINE).strip()
        finally:
            process.kill()


def end_its_page(process: subprocess.Popen[str]) -> None:
    """Presses Ctrl-C once nothing but the page is left."""
    assert process.stderr is not None
    assert process.stderr.readline() == "backbeat: the page stays until Ctrl-C.\n"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


def reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def gone(address: str) -> bool:
    """Returns whether a page ends within some seconds."""
    end = time.monotonic() + 20
    while reachable(address):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_training_is_watched_to_its_end_and_after_it(shown: Callable[..., Any], tmp_path: Path):
    with beside(tmp_path, "train", "iris", "--for", "4 s") as (process, address):
        with shown(address) as tab:
            until(tab, "document.querySelector('#answer')?.innerText.includes('under way')", 60_000)
            until(tab, "!document.querySelector('#answer')?.innerText.includes('under way')", 60_000)
            assert "held-out accuracy" in tab.inner_text("#answer")
        end_its_page(process)
    assert "recorded in" in (tmp_path / "printed").read_text()
    assert gone(address)


@pytest.mark.parametrize(
    ("command", "stages", "table", "answer"),
    [
        (COMPARE, ("costs", "Tuning", "Measuring at"), "#main-table", "Updating after"),
        (ADVISE, ("costs", "Finding", "for real"), "#sizes-table", "update after"),
    ],
    ids=["compare", "advise"],
)
@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (360, "dark")])
@pytest.mark.sample(2)
def test_what_is_measured_is_seen_as_soon_as_it_is_known(
    shown: Callable[..., Any], tmp_path: Path, command: list[str], stages: tuple[str, ...], table: str, answer: str,
    width: int, theme: str,
):  # fmt: skip
    with beside(tmp_path, *command, "--json") as (process, address):
        with shown(address, width, theme) as tab:
            seen: list[str] = []
            shares: list[float] = []
            rows = 0
            end = time.monotonic() + 400
            while not (text := tab.evaluate("document.querySelector('#answer:not(.underway)')?.innerText || ''")):
                assert time.monotonic() < end, (set(seen), shares[-1:], tab.inner_text("body")[-300:])
                seen.append(tab.evaluate("document.querySelector('.underway')?.innerText || ''"))
                share = tab.evaluate("document.querySelector('.underway progress')?.value ?? null")
                shares += [] if share is None else [share]  # the answer may have come since
                rows = max(rows, tab.evaluate(f"document.querySelectorAll('{table} tbody tr').length"))
                tab.wait_for_timeout(100)
            assert answer in text or "No clear winner" in text
            assert rows >= 2
            assert shares
            assert shares == sorted(shares)
            # a stage that is over within a second need not be seen, on a busy machine even two of them
            assert any(stage in one for one in seen for stage in stages), set(seen)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        record = json.loads((tmp_path / "runs/it/record.json").read_text())
        end_its_page(process)
    assert json.loads((tmp_path / "printed").read_text())["answer"] == record["answer"]
    assert not (tmp_path / "runs/it/.lock").exists()


def test_what_is_interrupted_takes_its_page_with_it(tmp_path: Path):
    with beside(tmp_path, "train", "iris", "--for", "10 min") as (process, address):
        wait_for(tmp_path / "runs/it/events.jsonl", '"stretch"')
        assert reachable(address)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "to go on: backbeat resume" in errors
    assert "stays" not in errors
    assert gone(address)


def test_what_is_killed_takes_its_page_with_it(tmp_path: Path):
    with beside(tmp_path, *COMPARE) as (process, address):
        wait_for(tmp_path / "runs/it/events.jsonl", '"tuned"')
        assert [(row["kind"], row["state"]) for row in list_runs(tmp_path / "runs")] == [("comparison", "running")]
        process.kill()
        process.communicate()
    assert gone(address)
    run = Followed(tmp_path / "runs/it")
    run.refresh()
    assert (run.state, run.kind) == ("cut off", "comparison")
    assert run.record()["cadences"][0]["learning_rate"] > 0
    assert not in_use(tmp_path / "runs/it")


def wait_for(path: Path, text: str) -> None:
    end = time.monotonic() + 60
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("command", ["train", "compare", "advise"])
@pytest.mark.parametrize("option", [["--port", "8123"], ["--no-open"]])
def test_options_of_a_page_that_is_not_asked_for_are_refused(
    capsys: pytest.CaptureFixture[str], command: str, option: list[str]
):
    assert run([command, "iris", *option]) == 2
    assert f"{' '.join(option)} is for the page that --watch shows" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with listening(None) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["train", "iris", "--watch", "--port", str(port)]) == 2
    assert f"--port {port} cannot be used" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_every_beginning_of_a_journal_can_be_shown(tmp_path: Path):
    """Whatever is known when somebody looks: each line that has come, and a damaged one among them."""
    from backbeat import advise, compare, linear

    compare(linear(), "iris", every=[4, "dataset"], learning_rates=(0.1, 1.0), budget="3 s", run=tmp_path / "compare")
    advise(linear(), "iris", target="train loss<=0.5", within="6 s", run=tmp_path / "advise")
    for name, kind in (("compare", "comparison"), ("advise", "advice")):
        lines = (tmp_path / name / "events.jsonl").read_text().splitlines()
        for n in range(1, len(lines) + 1):
            folder = tmp_path / f"{name}-{n}"
            write_events(folder, [])
            (folder / "events.jsonl").write_text("\n".join([*lines[:n], '{"event": "tuned"', ""]))
            followed = Followed(folder)
            followed.refresh()
            shown = followed.record()
            assert shown["kind"] == kind
            assert json.loads(json.dumps(shown, allow_nan=False)) == shown
        whole = json.loads((tmp_path / name / "record.json").read_text())
        for part in ("cadences", "target"):  # of advice, a setting that is run again is timed anew
            assert shown.get(part) == whole.get(part)


def test_a_run_that_is_not_there_yet_is_waited_for(shown: Callable[..., Any], tmp_path: Path):
    from backbeat.web.beside import page_beside

    with page_beside(tmp_path / "late") as address, shown(address) as tab:
        until(tab, "document.querySelector('.empty')?.innerText.includes('not begun')")
        write_events(tmp_path / "late", event_lines(3))
        until(tab, "document.querySelector('h1')?.innerText === 'mlp:8 on digits'")
