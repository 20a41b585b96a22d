"""The live page in a process of its own, beside the one that trains: neither waits for the other.

The page's process ends with the one that started it, however that ends: it reads from a pipe that closes then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BackbeatError, SettingsError

_END_SECONDS = 5.0


@contextmanager
def page_beside(folder: Path, port: int | None = None, *, control: bool = False) -> Iterator[str]:
    """Serves the page of one run, comparison or advice in another process, until the end; gives its address.

    Args:
        folder: of it; need not be there yet.
        port: which; None for any that is free.
        control: whether the page may pause, stop and change what goes on.

    Raises:
        SettingsError: the port cannot be used.
    """
    command = [sys.executable, "-m", "backbeat.web.beside", str(folder.absolute()), str(port or 0)]
    command += ["control"] if control else []
    with subprocess.Popen(  # in a session of its own, so that Ctrl-C reaches the training alone
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline() or '{"error": "The page could not be started."}')
            if "error" in said:
                raise SettingsError(said["error"])
            yield said["address"]
        finally:
            process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def main(folder: str, port: str, control: str = "") -> None:
    """Serves a folder's page until standard input ends; what could be said of it stands in one line of JSON."""
    from .live import Watched
    from .server import application, run_server

    def end_with_the_other() -> None:
        sys.stdin.read()
        os._exit(0)  # nothing is written here that could be half done

    threading.Thread(target=end_with_the_other, daemon=True).start()
    watched = Watched(Path(folder), one=True)

    def tell(address: str) -> None:
        print(json.dumps({"address": address}), flush=True)

    try:
        run_server(
            lambda token, hosts: application(watched, token, hosts, control=bool(control)), int(port) or None, tell
        )
    except BackbeatError as error:
        print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
