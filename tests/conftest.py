"""Fixtures for what a machine may lack: PyTorch, Ray and a browser.

A test that needs one of them takes the fixture and is skipped, with the reason, where it cannot be had. Where
BACKBEAT_REQUIRE names it (a comma list, such as "torch,ray,browser"; `make check` sets it on CI), the test fails
instead.
"""

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest


def lacking(name: str, reason: str) -> NoReturn:
    """Skips the running test with the reason, or fails it where BACKBEAT_REQUIRE names what is lacking."""
    if name in os.environ.get("BACKBEAT_REQUIRE", "").split(","):
        pytest.fail(f"BACKBEAT_REQUIRE names {name}, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """Returns PyTorch's module, for tests of its adapter."""
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError:
        note = Path(sys.prefix, "no-torch.txt")  # written by scripts/install_torch.py
        why = note.read_text().strip() if note.exists() else "`make torch` installs it"
        lacking("torch", f"PyTorch is not installed: {why}")


@pytest.fixture(scope="session")
def ray() -> ModuleType:
    """Returns Ray's module, not connected to anything, for tests of work on a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        lacking("ray", "Ray is not installed: `pip install ray` brings it where there is a build of it")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Returns the path of a Chromium to start, for tests of the pages; CHROMIUM names one in an unusual place."""
    for name in (os.environ.get("CHROMIUM", "/usr/bin/chromium"), "chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    lacking("browser", "no Chromium was found: `make browser` installs it on Debian, CHROMIUM=path names one")


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Any]:
    """Gives a browser, which is closed after each module: while Playwright is at work nothing else can use asyncio."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update"]  # fmt: skip
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium_path, args=flags)
        yield opened
        opened.close()


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses among them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves cases beyond a test's sample to the slow suite, and says which row of docs/reliability.md a test is for.

    Of a test with `@pytest.mark.sample(n)`, n cases, from the first to the last, are in the default run.
    """
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        for mark in item.iter_markers("reliability"):  # for scripts/reliability.py
            item.user_properties.append(("reliability", mark.kwargs["row"]))
        if item.get_closest_marker("sample"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for group in cases.values():
        mark = group[0].get_closest_marker("sample")
        assert mark is not None
        (n,) = mark.args
        kept = {i * (len(group) - 1) // max(1, n - 1) for i in range(n)}
        for i in set(range(len(group))) - kept:
            group[i].add_marker("slow")
