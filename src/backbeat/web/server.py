"""The server of the live page: a list of runs, the record of each, and a stream that says when one of them changed."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..report.page import SCRIPTS, STYLES
from .asked import wished
from .guard import Guard, token_for
from .live import DAMAGED, Watched

_LOOK_SECONDS = 0.5
_ALIVE_SECONDS = 15.0  # a comment on a stream that is idle, so that what is gone is noticed
_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}


class News:
    """Looks at the folder twice a second while somebody looks at the page, and wakes those who wait."""

    def __init__(self, watched: Watched) -> None:
        self.watched, self._changed, self._looking = watched, asyncio.Event(), 0

    async def look(self) -> None:
        """Looks for ever; at once, so that whoever comes first does not wait for all to be read."""
        await asyncio.to_thread(self.watched.refresh)
        told = self.watched.version
        while True:
            if self._looking:
                await asyncio.to_thread(self.watched.refresh)
                if self.watched.version != told:  # whoever found it: a request looks as well
                    told = self.watched.version
                    self.wake()
            await asyncio.sleep(_LOOK_SECONDS)

    def wake(self) -> None:
        """Wakes all who wait."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def stream(self) -> AsyncIterator[str]:
        """Yields server-sent events: the versions of all runs, at once and whenever one changes."""
        self._looking += 1
        try:
            while True:
                changed = self._changed
                each = {name: run.version for name, run in self.watched.followed.items()}
                text = json.dumps({"version": self.watched.version, "runs": each})
                yield f"id: {self.watched.version}\nevent: changed\ndata: {text}\n\n"
                while True:
                    try:
                        await asyncio.wait_for(changed.wait(), _ALIVE_SECONDS)
                        break
                    except TimeoutError:
                        yield ": alive\n\n"
        finally:
            self._looking -= 1


def application(watched: Watched, token: str, hosts: list[str], *, control: bool = False) -> Any:
    """Returns the ASGI application of the page, guarded.

    Args:
        watched: the runs.
        token: what every path begins with.
        hosts: what Host may say.
        control: whether the page may pause, stop and change runs.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    news = News(watched)
    files = {name: (text, kind) for name, text, kind in _files()}

    async def page(request: Any) -> Any:
        return Response(files["live.html"][0], media_type="text/html")

    async def static(request: Any) -> Any:
        found = files.get(request.path_params["name"])
        if found is None:
            return JSONResponse({"error": "There is no such file."}, 404)
        return Response(found[0], media_type=found[1])

    async def runs(request: Any) -> Any:
        await asyncio.to_thread(watched.refresh)
        rows = await asyncio.to_thread(watched.rows)
        return JSONResponse({"version": watched.version, "one": watched.one, "control": control, "runs": rows})

    async def record(request: Any) -> Any:
        run = watched.followed.get(request.path_params["name"])
        if run is None:
            return JSONResponse({"error": "There is no such run."}, 404)
        try:
            return JSONResponse(await asyncio.to_thread(run.record))
        except DAMAGED:
            return JSONResponse({"error": f"{run.folder.name} is damaged; it cannot be shown."}, 422)

    async def changed(request: Any) -> Any:
        body = await request.body()
        await asyncio.to_thread(watched.refresh)
        run = watched.followed.get(request.path_params["name"])
        if run is None:
            return JSONResponse({"error": "There is no such run."}, 404)
        return JSONResponse(*await asyncio.to_thread(wished, run, body))

    async def curves(request: Any) -> Any:
        names = request.query_params.getlist("run") or list(watched.followed)
        known = [watched.followed[name] for name in names if name in watched.followed]
        text = await asyncio.to_thread(lambda: ",".join(filter(None, (run.curve_or_none(len(known)) for run in known))))
        return Response(f"[{text}]", media_type="application/json")

    async def stream(request: Any) -> Any:
        return StreamingResponse(news.stream(), media_type="text/event-stream")

    @asynccontextmanager
    async def alive(app: Any) -> AsyncIterator[None]:
        looking = asyncio.create_task(news.look())
        yield
        looking.cancel()

    routes = [
        Route("/", page), Route("/static/{name:path}", static), Route("/api/runs", runs),
        Route("/api/runs/{name}", record), Route("/api/curves", curves), Route("/api/changes", stream),
    ]  # fmt: skip
    if control:
        routes.append(Route("/api/runs/{name}/control", changed, methods=["POST"]))
    return Guard(Starlette(routes=routes, lifespan=alive), token, hosts, control=control)


def _files() -> list[tuple[str, str, str]]:
    return page_files(
        "live.html", (*SCRIPTS, "underway.js", "overview.js", "control.js", "live.js"), (*STYLES, "live.css")
    )


def page_files(page: str, scripts: Sequence[str], styles: Sequence[str]) -> list[tuple[str, str, str]]:
    """Returns the files of a page: (name, text, kind). Nothing else is ever served, whatever the path.

    Args:
        page: the name of its HTML file.
        scripts: names of its scripts, in their order.
        styles: likewise.
    """
    static = resources.files("backbeat").joinpath("web", "static")
    names = [*styles, *scripts, page]
    texts = {name: static.joinpath(*name.split("/")).read_text(encoding="utf-8") for name in names}
    lines = [f'<link rel="stylesheet" href="static/{name}">' for name in styles]
    lines += [f'<script defer src="static/{name}"></script>' for name in scripts]
    texts[page] = texts[page].replace("{{files}}", "\n".join(lines))
    return [(name, text, _KINDS[Path(name).suffix]) for name, text in texts.items()]


def listening(port: int | None) -> socket.socket:
    """Returns a socket on this machine's own address.

    Args:
        port: which; None for any that is free.

    Raises:
        SettingsError: it is taken, or not allowed.

    Example:
        >>> with listening(None) as one:
        ...     one.getsockname()[0]
        '127.0.0.1'
    """
    if port is not None and not 0 < port < 1 << 16:
        raise SettingsError(f"--port {port} must be a number from 1 to 65535.")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port or 0))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"--port {port} cannot be used ({error.strerror}); choose another, or leave it out."
        ) from None
    return listener


def serve(folder: Path, port: int | None, tell: Callable[[str], None], *, control: bool = False) -> None:
    """Serves the page of a folder until the process is interrupted.

    Args:
        folder: of runs, or of one.
        port: which; None for any that is free.
        tell: is given the address as soon as it can be opened.
        control: whether the page may pause, stop and change runs.

    Raises:
        SettingsError: the port cannot be used.
    """
    run_server(lambda token, hosts: application(Watched(folder), token, hosts, control=control), port, tell)


def run_server(made: Callable[[str, list[str]], Any], port: int | None, tell: Callable[[str], None]) -> None:
    """Serves an application on this machine's own address until the process is interrupted.

    Args:
        made: (token, hosts) -> the application.
        port: which; None for any that is free.
        tell: is given the address as soon as it can be opened.
    """
    import uvicorn

    listener, token = listening(port), token_for(port)
    with listener:
        port = listener.getsockname()[1]
        app = made(token, [f"127.0.0.1:{port}", f"localhost:{port}"])
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False, date_header=False, ws="none",
            h11_max_incomplete_event_size=16384, timeout_graceful_shutdown=1, loop="asyncio", http="h11",
        )  # fmt: skip
        server = uvicorn.Server(config)
        listener.listen(256)
        tell(f"http://127.0.0.1:{port}/{token}/")
        server.run(sockets=[listener])
