"""The live page in a browser: a training from start to end, every control, nothing asked for elsewhere, no error."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backbeat as bb

from .conftest import event_lines, until, write_events


@pytest.fixture
def opened(shown: Callable[..., Any], watching: Callable[[Path], str]):
    """Opens the page of a folder, checked as `shown` does."""
    return lambda folder, width=1440, theme="light": shown(watching(folder), width, theme)


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


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (360, "dark")])
@pytest.mark.sample(1)
def test_a_training_is_seen_from_start_to_end(opened: Any, tmp_path: Path, width: int, theme: str):
    (tmp_path / "runs").mkdir()
    with opened(tmp_path / "runs", width, theme) as tab:
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
        # a slow machine's last stretch ends later than asked for
        until(tab, "/Ran for \\d/.test(document.querySelector('#answer').textContent)", timeout=60_000)
        assert tab.locator("canvas").count() >= 3  # loss, accuracy, noise
        tab.wait_for_selector("#confusion")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
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


def test_seeds_become_one_line_with_a_band_and_colours_stay(opened: Any, three: Path):
    with opened(three) as tab:
        tab.wait_for_selector("#runs tbody tr")
        until(tab, "/of 3 runs/.test(document.querySelector('#curves .seen').textContent)")
        colours = (
            "() => [...document.querySelectorAll('#runs tbody tr')].map((tr) => tr.querySelector('.swatch').className)"
        )
        before = tab.evaluate(colours)
        assert len(set(before)) == 3
        tab.get_by_role("radio", name="median and band").check()
        until(tab, "/their median, the band/.test(document.querySelector('#curves .seen').textContent)")
        drawn = tab.evaluate(
            "() => document.querySelector('#curves .chart').plot.data.map((row) => row.filter(Number.isFinite))"
        )
        assert len(drawn) == 4  # one line: x, median, lowest, highest
        losses = np.array([[2.3 / (1 + (k + seed) / 20) for k in range(1, 41)] for seed in (0, 3, 6)])
        np.testing.assert_allclose(drawn[1], np.median(losses, axis=0), rtol=1e-5)  # six digits are sent
        np.testing.assert_allclose(drawn[2], losses.min(axis=0), rtol=1e-5)
        np.testing.assert_allclose(drawn[3], losses.max(axis=0), rtol=1e-5)
        tab.get_by_role("radio", name="one by one").check()
        tab.click("input[aria-label='Draw run-2']")
        until(tab, "/of 2 runs/.test(document.querySelector('#curves .seen').textContent)")
        after = tab.evaluate(colours)
        assert after[1:] == before[1:]
        tab.click("input[aria-label='Draw run-2']")
        until(tab, "/of 3 runs/.test(document.querySelector('#curves .seen').textContent)")
        assert tab.evaluate(colours) == before


def test_smoothing_is_the_formula_that_is_shown(opened: Any, three: Path):
    with opened(three) as tab:
        tab.wait_for_selector("#runs tbody tr")
        tab.click("text=Draw none")
        tab.click("input[aria-label='Draw run-0']")
        until(tab, "/of 1 run\\b/.test(document.querySelector('#curves .seen').textContent)")
        tab.locator(".smooth input").fill("0.9")
        assert tab.inner_text(".smooth output") == "0.90 × the mean before + 0.10 × the value"
        drawn = tab.evaluate("() => document.querySelector('#curves .chart').plot.data[1]")
        mean, means = None, []
        for k in range(1, 41):
            value = 2.3 / (1 + k / 20)
            mean = value if mean is None else 0.9 * mean + 0.1 * value
            means.append(mean)
        np.testing.assert_allclose(drawn, means, rtol=1e-5)


def test_a_chart_is_read_and_looked_into_by_keys_and_reset(opened: Any, three: Path):
    with opened(three) as tab:
        tab.wait_for_selector("#curves canvas")
        chart = tab.locator("#curves .chart")
        scale = (
            "() => { const { min, max } = document.querySelector('#curves .chart').plot.scales.x; return max - min; }"
        )
        chart.focus()
        tab.keyboard.press("ArrowRight")
        assert "run-0" in tab.inner_text("#curves .hover")
        assert "updates" in tab.inner_text("#curves .hover")
        tab.keyboard.press("Escape")
        assert not tab.locator("#curves .hover").is_visible()
        box = tab.locator("#curves .u-over").bounding_box()
        tab.mouse.move(box["x"] + 200, box["y"] + 60)
        assert "run-0" in tab.inner_text("#curves .hover")
        tab.mouse.move(0, 0)
        whole = tab.evaluate(scale)
        back = tab.locator("#curves .back")
        assert not back.is_visible()
        tab.keyboard.press("+")
        tab.keyboard.press("+")
        until(tab, f"({scale})() < {whole} * 0.3")
        assert back.is_visible()
        tab.keyboard.press("Escape")
        until(tab, f"({scale})() > {whole} * 0.9")
        assert not back.is_visible()
        tab.keyboard.press("+")
        back.focus()
        tab.keyboard.press("Enter")
        until(tab, f"({scale})() > {whole} * 0.9")


def test_light_and_dark_can_be_chosen(opened: Any, three: Path):
    with opened(three) as tab:
        tab.wait_for_selector("#curves canvas")
        ground = "getComputedStyle(document.body).backgroundColor"
        light, drawn = tab.evaluate(ground), ink(tab)
        tab.click("text=Dark")
        assert tab.evaluate(ground) != light
        assert ink(tab) != drawn
        tab.click("#runs a")
        tab.wait_for_selector("#answer")
        assert tab.evaluate(ground) != light
        tab.get_by_role("button", name="Change to light colours").click()
        assert tab.evaluate(ground) == light


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", 'it\'s "quoted" & größe-模型', "a%2fb?c#d"])
def test_odd_names_are_text_and_lead_to_their_run(opened: Any, tmp_path: Path, name: str):
    write_events(tmp_path / "runs" / name, event_lines(5))
    with opened(tmp_path / "runs") as tab:
        tab.wait_for_selector("#runs tbody tr")
        assert names(tab) == [name]
        assert tab.locator("main img").count() == 0
        tab.click("#runs a")
        tab.wait_for_selector("#answer")
        assert tab.inner_text("nav.where span >> nth=0") == name


def test_what_it_gets_wrong_and_what_its_updates_were_made_with(opened: Any, tmp_path: Path):
    given: Any = {"schedule": "cosine", "watch_gradient": True, "evaluate": "1 epoch"}
    bb.fit("mlp:8", "digits", duration="3 epochs", run=tmp_path / "runs/digits", **given)
    found = json.loads((tmp_path / "runs/digits/mistakes.json").read_text())
    with opened(tmp_path / "runs" / "digits", width=360, theme="dark") as tab:
        tab.wait_for_selector("#mistakes")
        assert f"{found['n_wrong']} of 359 labels wrong" in tab.inner_text("#mistakes")
        cells = tab.eval_on_selector_all(
            "#confusion tbody tr", "rows => rows.map((r) => [...r.cells].map((c) => c.innerText))"
        )
        shown = [[int(cell.replace("·", "0")) for cell in row[1:11]] for row in cells]
        assert shown == found["confusion"]
        pictures = tab.eval_on_selector_all("#worst img", "all => all.map((one) => [one.alt, one.naturalWidth])")
        assert len(pictures) == len(found["worst"])
        first = found["worst"][0]
        assert pictures[0][0].startswith(
            f"Example {first['number']}: {first['label']}, taken for {first['prediction']}, "
        )
        assert {width for _, width in pictures} == {8}
        text = tab.inner_text("#along")
        assert "Each batch had 32 examples all along." in text
        assert "Norm of the gradient" in text
        assert tab.locator("[aria-label^='Chart: learning rate γ against updates']").count() == 1
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_comes_while_an_answer_is_on_its_way_is_asked_for_again(opened: Any, tmp_path: Path):
    folder, delayed = tmp_path / "one", []
    write_events(folder, event_lines(20))

    def late(route: Any) -> None:
        answer = route.fetch()
        if not delayed:  # the page hears of what comes next before this answer has come
            delayed.append(write_events(folder, event_lines(22)[-2:], "a"))
            time.sleep(2)
        route.fulfill(response=answer)

    with opened(folder) as tab:
        until(tab, "document.querySelector('#answer')?.innerText.includes('200 updates')")
        tab.route("**/api/runs/one", late)
        write_events(folder, event_lines(21)[-2:], "a")
        until(tab, "document.querySelector('#answer')?.innerText.includes('220 updates')")


def test_one_point_of_a_schedule_is_not_called_constant(opened: Any, tmp_path: Path):
    for name, schedule in (("cosine", "cosine"), ("constant", None)):
        bb.fit("mlp:8", "digits", duration="30 updates", schedule=schedule, evaluate="never", run=tmp_path / name)
        with opened(tmp_path / name) as tab:
            tab.wait_for_selector("#along")
            assert ("learning rate was 0.1" in tab.inner_text("#along")) is (name == "constant")
            assert "ach batch had 32 examples" in tab.inner_text("#along")


def test_a_server_started_anew_at_its_port_is_found_again(browser: Any, three: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "backbeat", "watch", str(three), "--no-open", "--quiet", "--port", str(port)]
    where = {**os.environ, "BACKBEAT_CACHE": str(tmp_path / "cache")}
    tab = browser.new_page()

    @contextmanager
    def serving() -> Iterator[str]:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=where
        ) as process:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
            process.terminate()

    with serving() as first:
        tab.goto(first)
        tab.wait_for_selector("#runs tbody tr")
        until(tab, "/up to date/.test(document.querySelector('.fresh').textContent)")
        time.sleep(1)
    tab.wait_for_selector(".fresh.lost", timeout=20_000)
    write_events(three / "run-0", event_lines(60)[81:], "a")
    with serving() as second:
        assert second == first
        until(tab, "/600/.test(document.querySelector('#runs').textContent)", timeout=30_000)
        until(tab, "/up to date/.test(document.querySelector('.fresh').textContent)")
    tab.close()


def test_who_asks_for_little_motion_gets_none(opened: Any, three: Path):
    with opened(three) as tab:
        tab.emulate_media(reduced_motion="reduce")
        tab.wait_for_selector("#runs tbody tr")
        slow = "(e) => parseFloat(getComputedStyle(e).transitionDuration) > 0"
        moving = f"() => [...document.querySelectorAll('*')].filter({slow}).length"
        assert tab.evaluate(moving) == 0
