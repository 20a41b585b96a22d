"""Processes that train together on this machine, started and waited for."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("worker.py")
Work = Callable[..., list[list[dict[str, Any]]]]


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def started(jobs: list, index: int, processes: int, address: str, environment: dict[str, str]) -> Any:
    place = {
        "BACKBEAT_COORDINATOR": address, "BACKBEAT_PROCESS_COUNT": str(processes), "BACKBEAT_PROCESS_INDEX": str(index),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(jobs)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **environment, **(place if processes > 1 else {})},
    )  # fmt: skip


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Returns (jobs, processes, devices of each, environment) -> what each process printed, job by job."""

    def run(
        jobs: list, *, processes: int = 1, devices: int = 1, environment: dict[str, str] | None = None
    ) -> list[list[dict[str, Any]]]:
        cache = str(tmp_path_factory.mktemp("cache"))
        environment = {"JAX_NUM_CPU_DEVICES": str(devices), "BACKBEAT_CACHE": cache, **(environment or {})}
        address = free_address()
        all_of_them = [started(jobs, index, processes, address, environment) for index in range(processes)]
        with ThreadPoolExecutor(
            processes
        ) as pool:  # one that waits for another to read what it said would wait for ever
            said = list(pool.map(lambda process: process.communicate(timeout=150), all_of_them))
        for process, (_, errors) in zip(all_of_them, said, strict=True):
            assert process.returncode == 0, errors[-3000:]
        return [json.loads(out.splitlines()[-1]) for out, _ in said]

    return run
