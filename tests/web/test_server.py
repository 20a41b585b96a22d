"""The server answers whoever has the token, from this machine, short and politely; all else it refuses and survives."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backbeat.cli import run
from backbeat.errors import SettingsError
from backbeat.web.server import listening

from .conftest import event_lines, write_events


class Page:
    """The page's address, and requests to it."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host, self.port, self.path = parts.hostname, parts.port, parts.path

    def get(
        self, path: str = "", method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Returns (status, body, headers) of a request below the token, or at a path that begins with /."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            where = path if path.startswith("/") else self.path + path
            connection.request(method, where, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Returns what comes back for bytes that are sent as they are."""
        with socket.create_connection((self.host, self.port), timeout=20) as connection:
            connection.sendall(data)
            got = b""
            try:
                while more := connection.recv(4096):
                    got += more
            except (TimeoutError, ConnectionResetError):
                pass
            return got


@pytest.fixture
def page(watching: Callable[[Path], str], tmp_path: Path) -> Page:
    write_events(tmp_path / "runs/one", event_lines(30))
    (tmp_path / "secret.txt").write_text("nobody may read this")
    return Page(watching(tmp_path / "runs"))


def test_the_page_its_files_and_its_records_are_there(page: Page):
    status, body, headers = page.get()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'src="static/live.js"' in body
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
    for name in ("live.js", "backbeat.css", "vendor/uplot/uPlot.iife.min.js"):
        assert page.get(f"static/{name}")[0] == 200
    (row,) = json.loads(page.get("api/runs")[1])["runs"]
    assert (row["name"], row["state"], row["updates"]) == ("one", "cut off", 300)
    record = json.loads(page.get("api/runs/one")[1])
    assert record["history"]["updates"][-1] == 300
    (curve,) = json.loads(page.get("api/curves?run=one&run=none")[1])
    assert curve["history"]["held_out_accuracy"][-1] == pytest.approx(1 - 2.3 / 2.5 / 2.5)


@pytest.mark.parametrize(
    ("path", "how", "status"),
    [
        ("/", {}, 403),
        ("/wrong/", {}, 403),
        ("/wrong/api/runs", {}, 403),
        ("", {"Host": "example.org"}, 421),
        ("", {"Host": "127.0.0.1"}, 421),
        ("", {"Origin": "http://example.org"}, 403),
        ("", {"Origin": "null"}, 403),
        ("api/runs", {"method": "POST"}, 405),
        ("api/runs", {"method": "DELETE"}, 405),
        ("api/runs", {"body": b"x" * 10}, 413),
        ("api/runs?" + "x" * 4000, {}, 414),
        ("static/../../../../../../etc/passwd", {}, 404),
        ("static/..%2f..%2f..%2fsecret.txt", {}, 404),
        ("static/live.html.bak", {}, 404),
        ("api/runs/..%2fsecret.txt", {}, 404),
        ("api/runs/%00", {}, 404),
        ("nowhere", {}, 404),
    ],
)
def test_what_is_not_allowed_is_refused(page: Page, path: str, how: dict, status: int):
    got, body, headers = page.get(path, **how)
    assert got == status
    assert b"Traceback" not in body
    assert b"nobody may read" not in body
    assert b"root:" not in body
    assert "default-src 'none'" in headers["content-security-policy"]
    assert page.get("api/runs")[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_survived(page: Page, data: bytes):
    assert b"200 OK" not in page.raw(data)
    assert page.get("api/runs")[0] == 200


def test_two_hundred_idle_streams_are_survived(page: Page):
    request = f"GET {page.path}api/changes HTTP/1.1\r\nHost: {page.host}:{page.port}\r\n\r\n".encode()
    with ExitStack() as stack:
        streams = [stack.enter_context(socket.create_connection((page.host, page.port), 20)) for _ in range(200)]
        for one in streams:
            one.sendall(request)
        for one in streams:
            got = b""
            while b"event: changed" not in got:
                more = one.recv(4096)
                assert more, got
                got += more
        assert page.get("api/runs")[0] == 200
    assert page.get("api/runs")[0] == 200


def test_a_stream_says_what_changed(page: Page, tmp_path: Path):
    request = f"GET {page.path}api/changes HTTP/1.1\r\nHost: {page.host}:{page.port}\r\n\r\n".encode()
    page.get("api/runs")
    with socket.create_connection((page.host, page.port), 20) as stream:
        stream.sendall(request)
        text = b""
        while b"event: changed" not in text:
            text += stream.recv(4096)
        write_events(tmp_path / "runs/two", event_lines(3))
        end = time.monotonic() + 20
        while b'"two"' not in text and time.monotonic() < end:
            text += stream.recv(4096)
    assert b'"two": ' in text


def test_nothing_listens_beyond_this_machine():
    with listening(None) as one:
        assert one.getsockname()[0] == "127.0.0.1"
        one.listen()
        with pytest.raises(SettingsError, match="cannot be used"):
            listening(one.getsockname()[1])
    with pytest.raises(SettingsError, match="from 1 to 65535"):
        listening(70000)


def test_a_folder_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert run(["watch", str(tmp_path / "none" / "x"), "--no-open"]) == 2
    assert "is not there; `backbeat train` makes runs" in capsys.readouterr().err
