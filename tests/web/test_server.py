"""The server answers whoever has the token, from this machine, short and politely; all else it refuses and survives."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from backbeat.cli import run
from backbeat.errors import SettingsError
from backbeat.web.guard import token_for
from backbeat.web.live import Watched
from backbeat.web.server import News, listening

from .conftest import event_lines, serving, write_events


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


def runs_in(folder: Path) -> Path:
    """Writes a run into a folder's runs and a secret beside them."""
    write_events(folder / "runs/one", event_lines(30))
    (folder / "secret.txt").write_text("nobody may read this")
    return folder / "runs"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Returns the page of one server, which goes on to answer whatever it was asked before."""
    with serving() as start:
        yield Page(start("watch", str(runs_in(tmp_path_factory.mktemp("page")))))


@pytest.fixture
def own_page(watching: Callable[[Path], str], tmp_path: Path) -> Page:
    """Returns the page of a test's own folder."""
    return Page(watching(runs_in(tmp_path)))


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


def test_a_stream_says_what_changed(own_page: Page, tmp_path: Path):
    request = f"GET {own_page.path}api/changes HTTP/1.1\r\nHost: {own_page.host}:{own_page.port}\r\n\r\n".encode()
    own_page.get("api/runs")
    with socket.create_connection((own_page.host, own_page.port), 20) as stream:
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


@pytest.mark.parametrize(
    "path",
    [
        "static/%2e%2e/%2e%2e/secret.txt", "static/..%252f..%252fsecret.txt", "static/..\\..\\secret.txt",
        "static/..%5c..%5csecret.txt", "static//etc/passwd", "static/%2fetc%2fpasswd", "api/runs/..",
        "api/runs/../secret.txt",
        "api/runs/%2e%2e%2fsecret.txt", "api/runs/one/../../secret.txt", "../secret.txt", "..%2f..%2fsecret.txt",
        "static/live.js%00.txt", "static/LIVE.js", "api/runs/one/record.json", "api", "api/", "static/",
    ],
)  # fmt: skip
def test_no_path_leads_out(page: Page, path: str):
    request = f"GET {page.path}{path} HTTP/1.1\r\nHost: {page.host}:{page.port}\r\nConnection: close\r\n\r\n"
    answer = page.raw(request.encode())
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 403", b"HTTP/1.1 307")), answer[:200]
    assert b"nobody may read" not in answer
    assert b"root:" not in answer
    assert page.get("api/runs")[0] == 200


def test_a_whole_address_in_the_request_line_leads_nowhere_else(page: Page):
    answer = page.raw(b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize("token", ["", "x", "a" * 32, "A" * 2000, "%00", "é", "../", "%E2%80%AE"])
def test_another_token_is_refused(page: Page, token: str):
    answer = page.raw(f"GET /{token}/ HTTP/1.1\r\nHost: {page.host}:{page.port}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400", b"HTTP/1.1 414")), answer[:200]
    assert b"live.js" not in answer


def test_a_body_in_pieces_is_refused(page: Page):
    head = f"GET {page.path}api/runs HTTP/1.1\r\nHost: {page.host}:{page.port}\r\nConnection: close\r\n"
    answer = page.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413")
    both = page.raw(f"{head}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n".encode())
    assert b"200 OK" not in both
    assert page.get("api/runs")[0] == 200


def test_who_sends_half_a_request_keeps_nobody_waiting(page: Page):
    with ExitStack() as stack:
        for _ in range(100):
            one = stack.enter_context(socket.create_connection((page.host, page.port), 20))
            one.sendall(f"GET {page.path}api/runs HTTP/1.1\r\nHost: {page.host}".encode())
        assert page.get("api/runs")[0] == 200
    assert page.get("api/runs")[0] == 200


def test_streams_that_were_closed_are_forgotten(tmp_path: Path):
    watched = Watched(runs_in(tmp_path))
    news = News(watched)

    async def open_and_close() -> None:
        streams = [news.stream() for _ in range(50)]
        for one in streams:
            assert "event: changed" in await anext(one)
        assert news._looking == 50
        for one in streams:
            await one.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    asyncio.run(open_and_close())
    assert news._looking == 0


def test_what_a_request_saw_first_is_told_to_those_who_wait(tmp_path: Path):
    write_events(tmp_path / "runs/one", event_lines(3))
    watched = Watched(tmp_path / "runs")

    async def told() -> list[str]:
        news = News(watched)
        looking, stream = asyncio.create_task(news.look()), news.stream()
        first = await anext(stream)
        await asyncio.sleep(1.0)  # it has looked, and seen nothing new
        write_events(tmp_path / "runs/one", event_lines(5)[-2:], "a")
        watched.refresh()  # as a request does
        second = await asyncio.wait_for(anext(stream), 60)
        while second == first:  # what was told before the change
            second = await asyncio.wait_for(anext(stream), 60)
        looking.cancel()
        await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]
        return [first, second]

    first, second = asyncio.run(told())
    assert first != second
    assert f'"one": {watched.followed["one"].version}' in second


@pytest.mark.parametrize(
    "name", ["<script>alert(1)<", 'it\'s "quoted"', "größe-模型-🎈", "..hidden", "a%2fb", "sp ace", "a#b?c&d=e", "-rf"]
)
def test_runs_may_have_any_name(own_page: Page, tmp_path: Path, name: str):
    write_events(tmp_path / "runs" / name, event_lines(3))
    assert name in {row["name"] for row in json.loads(own_page.get("api/runs")[1])["runs"]}
    if "%2f" not in name:
        assert json.loads(own_page.get(f"api/runs/{quote(name, safe='')}")[1])["name"] == name
    curves = json.loads(own_page.get(f"api/curves?run={quote(name, safe='')}")[1])
    assert [curve["name"] for curve in curves] == [name]


def test_damaged_folders_are_shown_as_what_they_are(own_page: Page, tmp_path: Path):
    runs = tmp_path / "runs"
    (runs / "empty").mkdir()
    (runs / "file").write_text("no folder")
    (runs / "events-is-a-folder/events.jsonl").mkdir(parents=True)
    for name, text in {
        "half": '{"kind": "run", ',
        "other": '["no", "record"]',
        "old": '{"kind": "run", "format": 0}',
    }.items():
        write_events(runs / name, event_lines(3))
        (runs / name / "record.json").write_text(text)
    write_events(runs / "strange", [{"event": "started", "data": "text", "settings": [1]}, {"event": ["list"]}])
    whole = {
        "kind": "run",
        "format": 1,
        "data": [],
        "model": 1,
        "every": None,
        "finished": 3,
        "history": {"updates": 7},
    }
    write_events(runs / "wrong", [])
    (runs / "wrong/record.json").write_text(json.dumps(whole))
    write_events(runs / "nonsense", [])
    (runs / "nonsense/events.jsonl").write_bytes(b"\xff\xfe\x00 no text\n" * 100)
    (runs / "gone").symlink_to(tmp_path / "nowhere")
    states = {row["name"]: row["state"] for row in json.loads(own_page.get("api/runs")[1])["runs"]}
    assert {name: states[name] for name in ("half", "other", "old")} == dict.fromkeys(
        ("half", "other", "old"), "damaged"
    )
    assert states["nonsense"] == "cut off"
    assert states["one"] == "cut off"
    assert states["strange"] == states["wrong"] == "damaged"
    for name in states:
        assert own_page.get(f"api/runs/{name}")[0] == (422 if name in ("wrong", "strange") else 200), name
        assert own_page.get(f"api/curves?run={name}")[0] == 200, name


def test_a_port_that_was_asked_for_keeps_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BACKBEAT_CACHE", str(tmp_path / "cache"))
    first = token_for(8123)
    assert len(first) == 32
    assert token_for(8123) == first
    assert token_for(8124) != first
    assert token_for(None) != token_for(None)
    file = tmp_path / "cache/watch/8123"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.chmod(0o644)  # somebody may have read it
    second = token_for(8123)
    assert second != first
    assert token_for(8123) == second
    file.write_text("short")
    assert token_for(8123) not in (second, "short")
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    token_for(8123)
    assert not file.is_symlink()
    assert not (tmp_path / "elsewhere").exists()
    file.parent.chmod(0o777)
    assert token_for(8123) != token_for(8123)
