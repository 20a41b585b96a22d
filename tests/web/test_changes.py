"""Runs changed from the page: only where that was asked for, only by the page itself, and every button in a browser."""

import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from backbeat.cli import run as command
from backbeat.recorded import CHECKPOINTS, LOCK
from backbeat.wishes import Wish, Wishes

from .conftest import event_lines, serving, until, write_events
from .test_server import Page


@contextmanager
def trained(folder: Path, **about: Any) -> Iterator[None]:
    """Makes a folder look like that of a run that goes on."""
    lines = event_lines(30)
    lines[0] |= about
    write_events(folder, lines)
    (folder / CHECKPOINTS).mkdir()
    with FileLock(folder / CHECKPOINTS / LOCK):
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("changes") / "runs"
    write_events(folder / "over", event_lines(30))
    with (
        trained(folder / "live"),
        trained(folder / "asked"),
        trained(folder / "fixed", rate_fixed="The optimizer holds its own."),
    ):
        yield folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Iterator[Page]:
    """Returns the page of one server, which goes on to answer whatever it was asked before."""
    with serving() as start:
        yield Page(start("watch", str(runs), "--control"))


def post(page: Page, text: str | bytes, run: str = "live", **headers: str) -> tuple[int, Any]:
    given = {"Content_Type": "application/json", "Origin": f"http://{page.host}:{page.port}"} | headers
    body = text.encode() if isinstance(text, str) else text
    status, answer, _ = page.get(
        f"api/runs/{run}/control", "POST", body, **{k: v for k, v in given.items() if v != "left out"}
    )
    return status, json.loads(answer)


def test_what_the_page_asks_lies_where_the_run_looks(page: Page, runs: Path):
    wishes = Wishes(runs / "asked")
    assert json.loads(page.get("api/runs")[1])["control"] is True
    for text in ('{"what": "pause"}', '{"what": "learning_rate", "value": 0.05}', '{"what": "go_on", "value": null}'):
        assert post(page, text, "asked")[0] == 202
    assert wishes.look() == ([Wish("pause"), Wish("learning_rate", 0.05), Wish("go_on")], [])


@pytest.mark.parametrize(
    ("text", "how", "status", "said"),
    [
        ('{"what": "stop"}', {"Origin": "left out"}, 403, "Only the page itself"),
        ('{"what": "stop"}', {"Origin": "http://example.org"}, 403, ""),
        ('{"what": "stop"}', {"Origin": "null"}, 403, ""),
        ('{"what": "stop"}', {"Host": "example.org"}, 421, ""),
        ('{"what": "stop"}', {"Content_Type": "text/plain"}, 415, "must be JSON"),
        ('{"what": "stop"}', {"Content_Type": "application/x-www-form-urlencoded"}, 415, ""),
        ('{"what": "stop"}' + " " * 2000, {}, 413, "1,024 bytes"),
        ('{"what": "stop"}', {"run": "none"}, 404, "no such run"),
        ('{"what": "stop"}', {"run": "over"}, 409, "over is over"),
        ('{"what": "stop"}', {"run": "..%5csecret"}, 404, "no such run"),
        ('{"what": "learning_rate", "value": 0.1}', {"run": "fixed"}, 409, "holds its own"),
        ('{"what": "delete"}', {}, 400, "delete"),
        ('{"what": "stop", "value": 1}', {}, 400, "takes no value"),
        ('{"what": "learning_rate", "value": 0}', {}, 400, "above 0"),
        ('{"what": "learning_rate", "value": NaN}', {}, 400, "above 0"),
        ('{"what": "learning_rate", "value": "0.1"}', {}, 400, "above 0"),
        ('{"what": "learning_rate", "value": 1e999}', {}, 400, "above 0"),
        ('{"what": "stop", "path": "/etc"}', {}, 400, "like"),
        ("[" * 1000, {}, 400, "no JSON"),
        ("stop", {}, 400, "no JSON"),
        ("", {}, 400, "no JSON"),
        (b"\xff\xfe", {}, 400, "no JSON"),
    ],
)
def test_what_may_not_be_asked_is_refused(page: Page, runs: Path, text: Any, how: Any, status: int, said: str):
    got, answer = post(page, text, **how)
    assert (got, said in answer["error"]) == (status, True), answer
    assert not (runs / "live/control").exists()
    assert page.get("api/runs")[0] == 200


def test_a_wish_needs_the_token_and_says_how_long_it_is(page: Page, runs: Path, monkeypatch: pytest.MonkeyPatch):
    path = page.path
    monkeypatch.setattr(page, "path", "/wrong/")
    assert post(page, '{"what": "stop"}')[0] == 403
    head = (
        f"POST {path}api/runs/live/control HTTP/1.1\r\nHost: {page.host}:{page.port}\r\n"
        f"Origin: http://{page.host}:{page.port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    chunked = f'{head}Transfer-Encoding: chunked\r\n\r\n10\r\n{{"what": "stop"}}\r\n0\r\n\r\n'
    assert b" 411 " in page.raw(chunked.encode()).split(b"\r\n")[0]
    longer = f'{head}Content-Length: 999999999999\r\n\r\n{{"what": "stop"}}'
    assert b" 413 " in page.raw(longer.encode()).split(b"\r\n")[0]
    assert not (runs / "live/control").exists()


def test_without_control_the_page_is_read_only(watching: Callable[[Path], str], tmp_path: Path, shown: Any):
    with trained(tmp_path / "runs/live"):
        address = watching(tmp_path / "runs")
        page = Page(address)
        assert post(page, '{"what": "stop"}') == (405, {"error": "This page is read-only."})
        assert json.loads(page.get("api/runs")[1])["control"] is False
        with shown(f"{address}#live") as tab:
            tab.wait_for_selector("#answer")
            assert tab.locator("#control").count() == 0
    assert not (tmp_path / "runs/live/control").exists()


def test_control_without_a_page_is_refused(capsys: pytest.CaptureFixture[str]):
    assert command(["train", "--control", "--for", "1 epoch"]) == 2
    assert "--control is for the page that --watch shows" in capsys.readouterr().err


TOLD = "document.querySelector('#control .told').innerText"


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (360, "dark")])
@pytest.mark.sample(1)
def test_a_run_is_paused_changed_and_stopped_from_its_page(shown: Any, tmp_path: Path, width: int, theme: str):
    arguments = ["--for", "10 min", "--run", "it", "--watch", "--control", "--no-open"]
    with subprocess.Popen(
        [sys.executable, "-m", "backbeat", "train", "digits", "--model", "mlp:16", *arguments],
        cwd=tmp_path, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        address = process.stderr.readline().split(" at ")[1].strip()
        with shown(address, width, theme) as tab:
            until(tab, "document.querySelector('#control') && !document.querySelector('#control').hidden", 120_000)
            assert tab.inner_text("#control .wait") == "Pause"
            tab.click("#control .wait")
            until(tab, f"{TOLD}.startsWith('Paused after ')", 60_000)
            until(tab, "document.querySelector('#answer').innerText.includes('paused')")
            assert tab.inner_text("#control .wait") == "Go on"

            for wrong in ("", "abc", "-1", "0", "1e999"):
                tab.fill("#control-rate", wrong)
                tab.keyboard.press("Enter")
                assert "must be a number above 0" in tab.inner_text("#control .told")
                assert tab.get_attribute("#control-rate", "aria-invalid") == "true"
            tab.fill("#control-rate", "0.02")
            tab.keyboard.press("Enter")
            until(tab, f"{TOLD}.startsWith('Learning rate 0.02 from update ')", 60_000)
            tab.click("#control .wait")
            until(tab, f"{TOLD}.startsWith('Went on after ')", 60_000)
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

            tab.click("#control .stop")
            assert tab.evaluate("document.activeElement.className") == "not"  # Enter twice stops nothing
            tab.keyboard.press("Escape")
            assert tab.evaluate("document.activeElement.className") == "stop"
            tab.keyboard.press("Enter")
            tab.keyboard.press("Shift+Tab")
            assert tab.evaluate("document.activeElement.className") == "sure"
            tab.keyboard.press("Enter")
            until(tab, "document.querySelector('#answer').innerText.includes('Stopped')", 60_000)
            until(tab, f"{TOLD}.startsWith('Stopped after ')")
            assert not tab.is_visible("#control button")
            assert "learning rate 0.02 from update" in tab.inner_text("#answer")
        while process.stderr.readline() != "backbeat: the page stays until Ctrl-C.\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    changes = tomllib.loads((tmp_path / "runs/it/settings.toml").read_text())["changes"]
    assert [text.split(" after ")[0] for text in changes] == ["learning_rate 0.02", "stop"]


def test_a_rate_that_cannot_be_changed_has_no_field(shown: Any, tmp_path: Path):
    with (
        trained(tmp_path / "runs/it", rate_fixed="The optimizer holds its own."),
        serving() as start,
        shown(start("watch", str(tmp_path / "runs/it"), "--control")) as tab,
    ):
        tab.wait_for_selector("#control .fixed:not([hidden])")
        assert tab.inner_text("#control .fixed") == "The optimizer holds its own."
        assert not tab.is_visible("#control-rate")
        assert tab.is_visible("#control .wait")
