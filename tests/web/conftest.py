"""A server of the live page in a process of its own, and folders of runs that are written by hand."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Lines = list[dict[str, Any]]


def event_lines(n: int, seed: int = 0) -> Lines:
    """Returns the events of a run of n stretches: made up, in the form in which runs write them."""
    data = {
        "name": "digits",
        "n_examples": 1797,
        "n_train": 1438,
        "n_held_out": 359,
        "input_shape": [8, 8],
        "notes": [],
    }
    settings = {"duration": "1000 updates", "every": "64"}
    lines: Lines = [{
        "event": "started", "time": "2026-11-27T07:00:00+00:00", "data": data, "model": "mlp:8",
        "loss": "cross_entropy", "optimizer": "sgd", "settings": settings, "every": "64", "seed": seed,
        "learning_rate": 0.1, "n_parameters": 610, "batch_sizes": [64], "compile_seconds": 0.5,
    }]  # fmt: skip
    for k in range(1, n + 1):
        clock = {"updates": 10 * k, "examples": 640 * k, "epochs": 640 * k / 1438, "wall_seconds": 0.25 * k}
        loss = 2.3 / (1 + (k + seed) / 20)
        lines.append({
            "event": "stretch", **clock, "loss_mean": loss, "update_seconds": 0.2, "learning_rate": 0.1, "set_aside": 0,
            "batch_size": 64, "compile_seconds": 0.0,
        })  # fmt: skip
        scores = {"loss": loss, "accuracy": 1 - loss / 2.5}
        lines.append({"event": "evaluated", **clock, "train": scores, "held_out": scores, "seconds": 0.01})
    return lines


def write_events(folder: Path, lines: Lines, mode: str = "w") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "events.jsonl").open(mode) as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def shown(browser: Any) -> Callable[..., Any]:
    """Opens an address; at the end nothing may have gone wrong, and nothing been asked for elsewhere."""

    @contextmanager
    def open_page(address: str, width: int = 1440, theme: str = "light", *, expected: str = "\n") -> Iterator[Any]:
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        wrong: list[str] = []
        tab.on("console", lambda m: None if expected in m.text else wrong.append(f"{m.type}: {m.text}"))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        below = address.partition("#")[0]
        tab.on("request", lambda r: None if r.url.startswith((below, "data:")) else wrong.append(r.url))
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


@contextmanager
def serving() -> Iterator[Callable[..., str]]:
    """Gives a function that starts a command which serves a page, and returns the address."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "backbeat", *arguments, "--no-open", "--quiet"], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.communicate()
        return address

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert errors == "backbeat: interrupted.\n"


@pytest.fixture
def watching() -> Iterator[Callable[[Path], str]]:
    """Returns a function that starts a server for a folder and gives the page's address."""
    with serving() as start:
        yield lambda folder: start("watch", str(folder))


@pytest.fixture(scope="module")
def explaining() -> Iterator[str]:
    """Returns the address of the explanation."""
    with serving() as start:
        yield start("explain")
