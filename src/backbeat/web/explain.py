"""The server of the explanation: lessons by their choices, and what is seen in each update. No state of a page is kept.

A lesson is a pure function of its choices, which stand in every request; the newest ones are kept.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import BackbeatError
from ..explain import PROBLEMS, Choices, Lesson, told
from ..explain.lesson import LOSSES
from ..explain.sentences import shown
from .guard import Guard
from .server import page_files

_KEPT = 12
CADENCES = ("2", "4", "8", "16", "32", "25%", "1 repeat until loss<0.1 at most 10", "1 repeat until correct at most 10")
NETWORKS = {
    "plane": ("linear", "mlp:4", "mlp:8", "mlp:16", "mlp:8,8", "mlp:8:tanh"),
    "curve": ("linear", "mlp:4:tanh", "mlp:8:tanh", "mlp:16", "mlp:8,8"),
    "images": ("linear", "mlp:16", "mlp:32", "cnn:4"),
}
RATES = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
SCRIPTS = (
    "words.js",
    "vendor/uplot/uPlot.iife.min.js",
    "charts.js",
    "backbeat.js",
    "explain_pictures.js",
    "explain.js",
)
STYLES = ("vendor/uplot/uPlot.min.css", "backbeat.css", "explain.css")


class Lessons:
    """The newest lessons, each made once, however many ask for it at a time."""

    def __init__(self, made: Callable[[Choices], Any] = Lesson) -> None:
        self._made, self._lock = made, threading.Lock()
        self._kept: OrderedDict[Choices, tuple[threading.Lock, list[Any]]] = OrderedDict()

    def __getitem__(self, choices: Choices) -> Any:
        """Returns the lesson of some choices."""
        choices = choices.settled()
        with self._lock:
            lock, kept = self._kept.setdefault(choices, (threading.Lock(), []))
            self._kept.move_to_end(choices)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        with lock:
            if not kept:
                kept.append(self._made(choices))
            return kept[0]


def application(token: str, hosts: list[str]) -> Any:
    """Returns the ASGI application of the explanation, guarded.

    Args:
        token: what every path begins with.
        hosts: what Host may say.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    lessons, files = Lessons(), {name: (text, kind) for name, text, kind in page_files("explain.html", SCRIPTS, STYLES)}

    async def page(request: Any) -> Any:
        return Response(files["explain.html"][0], media_type="text/html")

    async def static(request: Any) -> Any:
        found = files.get(request.path_params["name"])
        if found is None:
            return JSONResponse({"error": "There is no such file."}, 404)
        return Response(found[0], media_type=found[1])

    async def choices(request: Any) -> Any:
        return JSONResponse(offered())

    def answered(work: Callable[[Lesson, Any], Any]) -> Callable[[Any], Any]:
        def answer(query: Any) -> Any:
            return work(lessons[_choices(query)], query)

        async def handler(request: Any) -> Any:
            try:
                return JSONResponse(plain(await asyncio.to_thread(answer, request.query_params)))
            except BackbeatError as error:
                return JSONResponse({"error": str(error)}, 400)
            except (ValueError, IndexError) as error:
                return JSONResponse({"error": f"The request is not understood: {error}."}, 400)

        return handler

    routes = [
        Route("/", page), Route("/static/{name:path}", static), Route("/api/choices", choices),
        Route("/api/lesson", answered(lambda lesson, query: overview(lesson))),
        Route("/api/frames", answered(frames)),
    ]  # fmt: skip
    return Guard(Starlette(routes=routes), token, hosts)


def offered() -> dict[str, Any]:
    """Returns what the page offers to choose from."""
    problems = [
        {
            "name": name, "title": problem.title, "view": problem.view, "networks": list(NETWORKS[problem.view]),
            "losses": list(LOSSES if problem.classes else LOSSES[:1]),
            "settled": vars(Choices(name).settled()), "epochs": problem.epochs,
        }
        for name, problem in PROBLEMS.items()
    ]  # fmt: skip
    return {"problems": problems, "cadences": list(CADENCES), "rates": list(RATES)}


def _choices(query: Any) -> Choices:
    given = {name: query[name] for name in ("problem", "network", "loss", "every") if query.get(name)}
    for name, kind in (("learning_rate", float), ("seed", int)):
        if query.get(name):
            given[name] = kind(query[name])
    return Choices(**given)


def overview(lesson: Lesson) -> dict[str, Any]:
    """Returns what is the same in all updates of a lesson: data, paths, the surface, and the loss on three clocks."""
    columns = []
    for column, share in zip(lesson.columns, lesson.plane.shares, strict=True):
        columns.append({
            "every": column.cadence, "share": share, "diverged": column.diverged, "seconds": column.seconds,
            "sizes": [len(update.batch) for update in column.updates],
            "examples": [0, *(update.examples for update in column.updates)],
            "loss": column.losses.mean(axis=1),
            "path": [lesson.plane.of(theta) for theta in column.thetas],
        })  # fmt: skip
    view, plane = lesson.problem.view, lesson.plane
    about = {
        "choices": vars(lesson.choices), "view": view, "title": lesson.problem.title, "n": len(lesson.y),
        "n_parameters": lesson.n_parameters, "epochs": lesson.problem.epochs, "x": lesson.x, "y": lesson.y,
        "columns": columns, "surface": lesson.surface, "xs": plane.xs, "ys": plane.ys,
    }  # fmt: skip
    if view == "images":
        about["labels"] = [shown(lesson, label) for label in range(int(lesson.y.max()) + 1)]
    if view == "plane":
        about["bounds"] = lesson.bounds
    if view == "curve":
        about["curve_x"] = lesson.curve_points[:, 0]
    return about


def frames(lesson: Lesson, query: Any) -> list[Any]:
    """Returns a frame for each column, at the numbers of updates that `k=12,3,0` gives."""
    numbers = [int(k) for k in query.get("k", "").split(",")]
    if len(numbers) != len(lesson.columns):
        raise ValueError(f"k has {len(numbers)} numbers where there are {len(lesson.columns)} columns")
    return [told(lesson, column, k) for column, k in enumerate(numbers)]


def plain(value: Any) -> Any:
    """Returns arrays and numbers as JSON has them, floats with six digits, what is not finite as None."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def serve(port: int | None, tell: Callable[[str], None]) -> None:
    """Serves the explanation until the process is interrupted.

    Args:
        port: which; None for any that is free.
        tell: is given the address as soon as it can be opened.

    Raises:
        SettingsError: the port cannot be used.
    """
    from .server import run_server

    run_server(application, port, tell)
