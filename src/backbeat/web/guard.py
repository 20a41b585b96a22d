"""What a request must be like before anything answers it: from this machine, with the token, short, and read-only.

Where a page may control runs, it may also be a short JSON text that the page itself sends.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..places import cache_folder
from ..wishes import LONGEST as LONGEST_WISH

LONGEST = 2048  # characters of a path with its query
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()), (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip


def token_for(port: int | None) -> str:
    """Returns what every path begins with: a new one; for a port that was asked for, that of the last time.

    So a page that stays open goes on when its server was started again at the same port. The token is kept in a file
    of the user's cache that nobody else can read; where that is not so, it is a new one.

    Example:
        >>> token_for(None) == token_for(None)
        False
    """
    new = secrets.token_urlsafe(24)
    if port is None:
        return new
    folder = cache_folder() / "watch"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / str(port)
        if not _own(folder):
            return new
        if not _own(path):
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(new)
        kept = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return new
    return kept if len(kept) == len(new) else new


def _own(path: Path) -> bool:
    """Returns whether something is there, is no link, and is its user's alone."""
    try:
        found = path.lstat()
    except OSError:
        return False
    mine = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return mine and (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode))


class Guard:
    """Passes a request on to an application, or refuses it.

    A page of another site can make a browser send requests here, and by a name of its own that leads to this machine
    even read the answers. So the Host must be one of ours, an Origin too where there is one, and the path has to begin
    with the token, which no other page knows.

    Args:
        app: the application (ASGI).
        token: what every path begins with.
        hosts: what Host may say, such as 127.0.0.1:8000.
        control: whether the page may ask for changes, by POST.
    """

    def __init__(self, app: Any, token: str, hosts: Iterable[str], *, control: bool = False) -> None:
        self._app, self._token, self._hosts = app, token.encode(), frozenset(hosts)
        self._control = control

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refused = self.refusal(scope)
        if refused is not None:
            await _answer(send, *refused)
            return
        _, _, rest = scope["path"].lstrip("/").partition("/")
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode(), "root_path": ""}

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in _HEADERS if name not in own]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(inner, receive, with_headers)

    def refusal(self, scope: Any) -> tuple[int, str] | None:
        """Returns (status, sentence) for a request that is refused; None for one that is answered.

        Example:
            >>> guard = Guard(None, "secret", ["127.0.0.1:8000"])
            >>> request = {"method": "GET", "path": "/secret/", "query_string": b"", "headers": []}
            >>> guard.refusal(request)
            (421, 'This server answers to its own address only.')
            >>> guard.refusal({**request, "headers": [(b"host", b"127.0.0.1:8000")]}) is None
            True
        """
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if len(scope["path"]) + len(scope["query_string"]) > LONGEST:
            return 414, "The address is too long."
        if len(headers.get("host", [])) != 1 or headers["host"][0].lower() not in self._hosts:
            return 421, "This server answers to its own address only."
        if any(
            origin.lower() not in {f"http://{host}" for host in self._hosts} for origin in headers.get("origin", [])
        ):
            return 403, "A page of another site may not read this."
        given, slash, _ = scope["path"].lstrip("/").partition("/")
        if not slash or not hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            return 403, "The address lacks the token; use the one that `backbeat watch` printed."
        if scope["method"] == "POST" and self._control:
            return _refused_wish(headers)
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "This page is read-only."
        if headers.get("content-length", ["0"])[0] != "0" or "transfer-encoding" in headers:
            return 413, "A request here has no body."
        return None


def _refused_wish(headers: dict[str, list[str]]) -> tuple[int, str] | None:
    """Returns why a request that asks for a change is refused, of one with our token and Host; None for an answer."""
    if len(headers.get("origin", [])) != 1:  # one that is there is ours
        return 403, "Only the page itself may ask for a change."
    kind = headers.get("content-type", [""])
    if len(kind) != 1 or kind[0].partition(";")[0].strip().lower() != "application/json":
        return 415, "What is asked must be JSON."
    length = headers.get("content-length", [])
    if len(length) != 1 or "transfer-encoding" in headers or not length[0].isdecimal():
        return 411, "What is asked must say how long it is."
    if int(length[0][:9]) > LONGEST_WISH:
        return 413, f"What is asked may have {LONGEST_WISH:,} bytes."
    return None


async def _answer(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
