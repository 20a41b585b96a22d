"""What a request must be like before anything answers it: from this machine, with the token, short, and read-only."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from typing import Any

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


class Guard:
    """Passes a request on to an application, or refuses it.

    A page of another site can make a browser send requests here, and by a name of its own that leads to this machine
    even read the answers. So the Host must be one of ours, an Origin too where there is one, and the path has to begin
    with the token, which no other page knows.

    Args:
        app: the application (ASGI).
        token: what every path begins with.
        hosts: what Host may say, such as 127.0.0.1:8000.
    """

    def __init__(self, app: Any, token: str, hosts: Iterable[str]) -> None:
        self._app, self._token, self._hosts = app, token.encode(), frozenset(hosts)

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
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "This page is read-only."
        if headers.get("content-length", ["0"])[0] != "0" or "transfer-encoding" in headers:
            return 413, "A request here has no body."
        return None


async def _answer(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
