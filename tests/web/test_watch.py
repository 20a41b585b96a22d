"""The live page in a browser: a training from start to end, every control, nothing asked for elsewhere, no error."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import event_lines, write_events

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium_path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, watching: Callable[[Path], str]):
    """Opens the page of a folder; at the end nothing may have gone wrong, and nothing been asked for elsewhere."""

    @contextmanager
    def open_page(folder: Path, width: int = 1440, theme: str = "light") -> Iterator[Any]:
        address = watching(folder)
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        wrong: list[str] = []
        tab.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda r: None if r.url.startswith((address, "data:")) else wrong.append(r.url))
        tab.goto(address)
        yield tab
        tab.close()
        assert wrong == []

    return open_page


def until(tab: Any, expression: str, timeout: float = 30_000) -> None:
    """Waits until an expression is true on the page (Playwright's own way needs `eval`, which the page forbids)."""
    end = time.monotonic() + timeout / 1000
    while not tab.evaluate(expression):
        assert time.monotonic() < end, (expression, tab.evaluate("document.body.innerText")[:2000])
        tab.wait_for_timeout(50)


def ink(tab: Any) -> str:
    tab.wait_for_timeout(100)  # drawing is asynchronous
    return tab.evaluate("() => [...document.querySelectorAll('canvas')].map((c) => c.toDataURL()).join()")


def names(tab: Any) -> list[str]:
    return tab.eval_on_selector_all("#runs tbody a", "links => links.map((link) => link.textContent)")


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for k in range(3):
        write_events(tmp_path / f"runs/run-{k}", event_lines(40, seed=3 * k))
    return tmp_path / "runs"


def test_a_training_is_seen_from_start_to_end(opened: Any, tmp_path: Path):
    (tmp_path / "runs").mkdir()
    with opened(tmp_path / "runs") as tab:
        tab.wait_for_selector(".empty:not([hidden])")
        command = ["train", "--every", "8", "--for", "6 s", "--run", "live", "--quiet", "--watch-noise"]
        with subprocess.Popen(
            [sys.executable, "-m", "backbeat", *command], cwd=tmp_path, stdout=subprocess.DEVNULL
        ) as p:
            tab.wait_for_selector("#runs .state.running", timeout=60_000)
            until(tab, "document.querySelector('#runs progress')?.value > 0.1", timeout=30_000)
            tab.click("#runs a")
            tab.wait_for_selector("#answer")
            assert "under way" in tab.inner_text("#answer")
            more = "#answer .more"
            first = tab.inner_text(more)
            tab.mouse.move(0, 0)
            until(tab, f"document.querySelector('{more}')?.textContent !== {first!r}", timeout=20_000)
            assert p.wait() == 0
        until(tab, "/Ran for 6/.test(document.querySelector('#answer').textContent)", timeout=20_000)
        assert tab.locator("canvas").count() >= 3  # loss, accuracy, noise
        tab.click("text=All runs")
        tab.wait_for_selector("#runs .state.finished")
        assert names(tab) == ["live"]


def test_every_switch_changes_the_drawing(opened: Any, three: Path):
    with opened(three) as tab:
        tab.wait_for_selector("#runs tbody tr")
        tab.wait_for_selector("canvas")
        assert names(tab) == ["run-2", "run-1", "run-0"]
        before = ink(tab)
        for label in ("training loss", "held-out accuracy", "examples", "time"):
            tab.get_by_role("radio", name=label, exact=True).check()
            after = ink(tab)
            if label != "training loss":  # which is made up to be the same
                assert after != before, label
            before = after
        for legend in ("horizontal axis", "vertical axis"):
            for label in ("logarithmic", "linear"):
                tab.get_by_role("group", name=legend).get_by_role("radio", name=label, exact=True).check()
            assert ink(tab)
        tab.locator(".smooth input").fill("0.9")
        smoothed = ink(tab)
        assert smoothed != before
        tab.click("text=Draw none")
        until(tab, "/None of the chosen/.test(document.querySelector('.card .seen').textContent)")
        tab.click("text=Draw all")
        until(tab, "/of 3 runs/.test(document.querySelector('.card .seen').textContent)")
        tab.click("input[aria-label='Draw run-1']")
        until(tab, "/of 2 runs/.test(document.querySelector('.card .seen').textContent)")
        tab.get_by_role("radio", name="held-out R²").check()
        until(tab, "/has a held-out R² yet/.test(document.querySelector('.card .seen').textContent)")


def test_who_looks_closer_is_not_disturbed(opened: Any, three: Path):
    with opened(three) as tab:
        tab.wait_for_selector("canvas")
        box = tab.locator(".u-over").bounding_box()
        tab.mouse.move(box["x"] + 100, box["y"] + 50)
        tab.mouse.down()
        tab.mouse.move(box["x"] + 300, box["y"] + 50, steps=4)
        tab.mouse.up()
        tab.mouse.move(0, 0)
        closer = ink(tab)
        write_events(three / "run-0", event_lines(60)[81:], "a")
        tab.wait_for_selector(".fresh.held", timeout=20_000)
        assert ink(tab) == closer
        tab.mouse.dblclick(box["x"] + 200, box["y"] + 50)
        tab.mouse.move(0, 0)
        until(tab, "/600/.test(document.querySelector('#runs').textContent)", timeout=20_000)


def test_a_run_has_an_address_of_its_own_and_the_keyboard_reaches_all(opened: Any, three: Path):
    with opened(three, width=360, theme="dark") as tab:
        tab.wait_for_selector("#runs tbody tr")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.locator("#runs a").first.focus()
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#answer")
        assert tab.url.endswith("#/run-2")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.reload()
        tab.wait_for_selector("#answer")
        tab.go_back()
        tab.wait_for_selector("#runs tbody tr")
        tab.goto(tab.url.split("#")[0] + "#/none")
        until(tab, "/There is no such run: none/.test(document.body.textContent)")
        tab.evaluate("location.hash = '#/'")
        tab.wait_for_selector("#runs tbody tr")


def test_a_server_that_ends_is_said(browser: Any, three: Path):
    command = [sys.executable, "-m", "backbeat", "watch", str(three), "--no-open", "--quiet"]
    tab = browser.new_page()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        tab.goto(process.stdout.readline().strip())
        tab.wait_for_selector("#runs tbody tr")
        time.sleep(0.5)
        process.terminate()
    tab.wait_for_selector(".fresh.lost", timeout=20_000)
    tab.close()


def test_two_hundred_runs_are_drawn(opened: Any, tmp_path: Path):
    for k in range(200):
        write_events(tmp_path / f"runs/run-{k:03d}", event_lines(50, seed=k))
    with opened(tmp_path / "runs") as tab:
        tab.wait_for_selector("#runs tbody tr")
        tab.click("text=Draw all")
        until(tab, "/of 200 runs/.test(document.querySelector('.card .seen').textContent)", timeout=30_000)
        assert len(names(tab)) == 200
