"""The explanation in a browser: every control, every problem, numbers as the library has them, and what is refused."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from backbeat.explain import PROBLEMS, Choices, Lesson, told
from backbeat.web.explain import CADENCES, Lessons, offered

from .conftest import until

READY = "document.querySelector('.where')?.textContent.startsWith('Example') && !document.querySelector('[aria-busy]')"


def get(address: str, path: str, **headers: str) -> tuple[int, Any]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=120)
    try:
        connection.request("GET", parts.path + path, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def at(tab: Any) -> str:
    return tab.inner_text(".where")


def press(tab: Any, name: str) -> None:
    """Clicks a button of the toolbar and waits for what it shows."""
    before = at(tab)
    tab.get_by_role("button", name=name, exact=True).click()
    until(tab, f"document.querySelector('.where').textContent !== {before!r}")


def texts_in(tab: Any, column: int, what: str) -> list[str]:
    return tab.eval_on_selector_all(
        f".columns .card:nth-child({column + 1}) {what}", "found => found.map((each) => each.textContent)"
    )


def told_in(tab: Any, column: int) -> list[str]:
    return texts_in(tab, column, ".told")


def counted(tab: Any, column: int) -> list[str]:
    return texts_in(tab, column, "dd")


def test_what_is_served_is_what_the_library_computes(explaining: str) -> None:
    lesson = Lesson(Choices("clouds"))
    status, about = get(explaining, "api/lesson?problem=clouds")
    assert status == 200
    assert about["n_parameters"] == 6
    for column, mine in zip(about["columns"], lesson.columns, strict=True):
        assert column["loss"] == pytest.approx(mine.losses.mean(axis=1), rel=1e-5)
        assert column["path"] == [pytest.approx(lesson.plane.of(theta), rel=1e-4, abs=1e-6) for theta in mine.thetas]
    status, frames = get(explaining, "api/frames?problem=clouds&k=100,12,2")
    assert status == 200
    for number, (frame, k) in enumerate(zip(frames, (100, 12, 2), strict=True)):
        mine = told(lesson, number, k)
        assert frame["sentences"] == mine["sentences"]
        assert frame["gradients"] == [pytest.approx(each, rel=1e-4, abs=1e-6) for each in mine["gradients"]]
        assert frame["mean_length"] == pytest.approx(mine["mean_length"], rel=1e-5)


def test_each_step_goes_where_it_says(shown: Callable[..., Any], explaining: str) -> None:
    lesson = Lesson(Choices("clouds"))
    with shown(explaining) as tab:
        until(tab, READY)
        assert at(tab).startswith("Example 0 of 576, epoch 1: nothing")
        press(tab, "Phase")
        assert at(tab).endswith("it goes forward")
        first = told(lesson, 1, 0)["sentences"]
        assert told_in(tab, 1)[0] == first["forward"][0]
        press(tab, "Phase")
        assert told_in(tab, 1)[:2] == [first["back"][0], first["gathered"][0]]
        press(tab, "Phase")
        assert [counted(tab, column)[0] for column in range(3)] == ["1", "0", "0"]
        assert told_in(tab, 0)[1:] == [told(lesson, 0, 0)["sentences"][name] for name in ("average", "move")]
        press(tab, "Example")
        assert at(tab).startswith("Example 2 of 576")
        press(tab, "Update")
        assert at(tab).startswith("Example 8 of 576")
        assert told_in(tab, 1)[1:] == [first["average"], first["move"]]
        assert [counted(tab, column)[0] for column in range(3)] == ["8", "1", "0"]
        press(tab, "← Back")
        assert at(tab).startswith("Example 7 of 576")
        press(tab, "Epoch")
        assert [counted(tab, column)[0] for column in range(3)] == ["48", "6", "1"]
        assert told_in(tab, 2)[2] == told(lesson, 2, 0)["sentences"]["move"]
        for _ in range(11):
            press(tab, "Epoch")
        assert at(tab).startswith("Example 576 of 576, epoch 12")
        assert tab.get_by_role("button", name="Example", exact=True).is_disabled()
        press(tab, "Start over")
        assert at(tab).startswith("Example 0 of 576")


def test_stopping_stops_at_what_is_seen(shown: Callable[..., Any], explaining: str) -> None:
    with shown(explaining) as tab:
        until(tab, READY)
        held: list[Any] = []
        tab.route("**/api/frames?**", lambda route: held.append(route))  # an answer that takes long
        tab.get_by_role("button", name="Run").click()
        end = time.monotonic() + 60
        while not held:
            assert time.monotonic() < end
            tab.wait_for_timeout(20)
        tab.get_by_role("button", name="Stop").click()
        held.pop().continue_()
        tab.wait_for_timeout(700)
        assert at(tab).startswith("Example 0 of 576")
        assert not held
        tab.unroute("**/api/frames?**")
        press(tab, "Example")
        assert at(tab).startswith("Example 1 of 576")


def test_keys_and_running(shown: Callable[..., Any], explaining: str) -> None:
    with shown(explaining) as tab:
        until(tab, READY)
        goes = {"ArrowRight": 1, "p": 2, "u": 8, "e": 48, "ArrowLeft": 47, "Home": 0}
        for key, e in goes.items():
            tab.keyboard.press(key)
            until(tab, f"document.querySelector('.where').textContent.startsWith('Example {e} ')")
        tab.get_by_label("How fast it runs").select_option("update")
        tab.keyboard.press("r")
        until(tab, "document.querySelector('.steps .go').textContent === 'Stop'")
        until(tab, "+document.querySelector('.where').textContent.split(' ')[1] >= 24")
        tab.get_by_role("button", name="Stop").click()
        stopped = at(tab)
        tab.wait_for_timeout(700)
        assert at(tab) == stopped
        tab.get_by_label("How fast it runs").select_option("epoch")
        tab.get_by_role("button", name="Run").click()
        until(tab, "document.querySelector('.where').textContent.startsWith('Example 576 of 576')", timeout=60_000)
        until(tab, "document.querySelector('.steps .go').textContent === 'Run'")


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (360, "dark")])
@pytest.mark.parametrize("problem", ["wave", "two digits"])
@pytest.mark.sample(2)
def test_every_kind_of_problem_is_drawn(
    shown: Callable[..., Any], explaining: str, problem: str, width: int, theme: str
) -> None:
    with shown(explaining, width, theme) as tab:
        until(tab, READY)
        tab.select_option("[name=problem]", problem)
        tab.wait_for_timeout(100)
        until(tab, READY, timeout=120_000)
        blank = tab.evaluate("[...document.querySelectorAll('canvas.picture')].map((c) => c.toDataURL())")
        press(tab, "Update")
        tab.wait_for_timeout(200)
        drawn = tab.evaluate("[...document.querySelectorAll('canvas.picture')].map((c) => c.toDataURL())")
        assert len(drawn) == 9
        assert all(one != other for one, other in zip(blank[:8], drawn[:8], strict=True))
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.evaluate(
            "[...document.querySelectorAll('canvas.picture')].every((c) => c.getAttribute('aria-label').length > 20)"
        )
        before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.get_by_role("button", name="Change to").click()
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_a_repeated_example_and_what_it_forgets(shown: Callable[..., Any], explaining: str) -> None:
    with shown(explaining) as tab:
        until(tab, READY)
        tab.select_option("[name=every]", "1 repeat until loss<0.1 at most 10")
        tab.wait_for_timeout(100)
        until(tab, READY, timeout=120_000)
        press(tab, "Update")
        assert "this example's loss goes" in tab.inner_text(".forgets:not([hidden])")
        assert "every=1+repeat" in tab.evaluate("location.hash")
        tab.reload()
        until(tab, READY, timeout=120_000)
        assert tab.input_value("[name=every]") == "1 repeat until loss<0.1 at most 10"


def test_choices_change_the_lesson(shown: Callable[..., Any], explaining: str) -> None:
    with shown(explaining) as tab:
        until(tab, READY)
        chosen = {"network": "mlp:4", "loss": "squared_error", "learning_rate": "0.02", "seed": "3", "every": "16"}
        for name, value in chosen.items():
            tab.select_option(f"[name={name}]", value)
            tab.wait_for_timeout(100)
            until(tab, READY, timeout=120_000)
        press(tab, "Update")
        lesson = Lesson(Choices("clouds", "mlp:4", "squared_error", 0.02, "16", 3))
        assert told_in(tab, 1)[2] == told(lesson, 1, 0)["sentences"]["move"]


def test_a_rate_that_is_too_large_is_said_on_the_page(shown: Callable[..., Any], explaining: str) -> None:
    with shown(f"{explaining}#problem=line&learning_rate=20&every=8") as tab:
        until(tab, READY, timeout=120_000)
        press(tab, "Epoch")
        assert "The loss grew without bound" in told_in(tab, 0)[0]
        assert "NaN" not in tab.inner_text("body")


def test_bad_choices_are_refused_with_a_sentence(shown: Callable[..., Any], explaining: str) -> None:
    with shown(f"{explaining}#problem=clouds&network=mlp:99999", expected="400") as tab:
        until(tab, "!document.querySelector('.problem-said')?.hidden")
        assert "parameters; take one of at most" in tab.inner_text(".problem-said")
        tab.select_option("[name=network]", "linear")
        until(tab, READY, timeout=120_000)
        assert tab.locator(".problem-said").is_hidden()
    for wrong in (
        {"problem": "cloud"}, {"network": "net.py:Net"}, {"learning_rate": "nan"}, {"learning_rate": "x"},
        {"seed": "1e3"}, {"every": "often"}, {"loss": "hinge"},
    ):  # fmt: skip
        status, answer = get(explaining, f"api/lesson?{urlencode(wrong)}")
        assert (status, list(answer)) == (400, ["error"]), wrong
        assert "Traceback" not in answer["error"]
    for k in ("", "1", "1,2,x", "0,0,0,0"):
        assert get(explaining, f"api/frames?problem=clouds&k={k}")[0] == 400
    assert get(explaining, f"static/{quote('../server.py', safe='')}")[0] == 404
    assert get(explaining, "api/choices", Host="elsewhere.example")[0] == 421
    assert get(explaining.replace(urlsplit(explaining).path, "/wrong/"), "api/choices")[0] == 403


def test_all_that_is_offered_can_be_chosen() -> None:
    for problem in offered()["problems"]:
        for network in problem["networks"]:
            for loss in problem["losses"]:
                Choices(problem["name"], network, loss).settled()
        for cadence in CADENCES:
            Choices(problem["name"], every=cadence).settled()
    assert [problem["name"] for problem in offered()["problems"]] == list(PROBLEMS)


def test_a_lesson_is_made_once_and_the_newest_are_kept() -> None:
    made: list[Choices] = []

    def make(choices: Choices) -> Any:
        made.append(choices)
        return len(made)

    lessons = Lessons(make)
    assert [lessons[Choices(seed=seed)] for seed in (0, 1, 0)] == [1, 2, 1]
    for seed in range(2, 20):
        assert lessons[Choices(seed=seed)]
    assert lessons[Choices(seed=19)] == 20
    assert lessons[Choices(seed=0)] == 21
