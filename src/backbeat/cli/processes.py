"""Several processes for one run: started on this machine by `--processes`, or by hand, by Slurm or by Kubernetes.

The processes of `--processes` are started again with the same command line; the environment says which one each is.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO, Any, NoReturn

from ..errors import BackbeatError, SettingsError
from ..join import (
    COORDINATOR,
    COUNT,
    INDEX,
    LAUNCHER,
    LostProcessError,
    as_lost,
    end_with,
    failed,
    join,
    leave,
    place_of,
)
from .console import say, silence

_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 15.0  # for the others, after one ended in order
_SETTLE_SECONDS = 0.3
_STOPPED = (130, 143)
_ENDED = (0, 2, 3, *_STOPPED)  # exit codes of a process that said itself why


def with_others(command: Callable[[], Any], options: dict[str, Any], arguments: Sequence[str]) -> Any:
    """Returns what a command returns, run as one of several processes where its options or the environment say so.

    Args:
        command: to be run.
        options: as they were given; `processes`, `coordinator`, `process_count` and `process_index` count here.
        arguments: the whole command line, for processes to start.

    Raises:
        SettingsError: options that do not go together.
    """
    if "processes" not in options and "coordinator" not in options and COORDINATOR not in os.environ:
        by_hand = [options.get("process_count"), options.get("process_index")]
        if by_hand == [None, None]:
            return command()
    launched = LAUNCHER in os.environ
    processes = None if launched else options.get("processes")
    if processes is not None:
        if "coordinator" in options or COORDINATOR in os.environ:
            raise SettingsError(
                "--processes starts processes on this machine, and --coordinator joins others; give one of them."
            )
        if processes < 1:
            raise SettingsError(f"--processes {processes} must be a whole number of processes, 1 or more.")
        return launch(arguments, processes) if processes > 1 else command()
    place = place_of(options.get("coordinator"), options.get("process_count"), options.get("process_index"))
    if place is None:
        return command()
    if launched:
        end_with(int(os.environ[LAUNCHER]))
    return _as_one_of_several(command, place, launched=launched)


def _as_one_of_several(command: Callable[[], Any], place: Any, *, launched: bool) -> Any:
    join(place)
    import jax

    from ..mesh import leads

    with ExitStack() as stack:
        if not leads():
            silence()
            sys.stdout = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.callback(setattr, sys, "stdout", sys.__stdout__)
        try:
            code = command()
            leave()
        except KeyboardInterrupt:  # before the first update: each process ends by itself
            raise
        except BaseException as error:
            _fail(as_lost(error) if isinstance(error, jax.errors.JaxRuntimeError) else error, launched=launched)
    return code


def _fail(error: BaseException, *, launched: bool) -> NoReturn:
    """Ends this process with what went wrong; a tidy end of Python would wait for processes that do not end."""
    if isinstance(error, LostProcessError) and launched:
        time.sleep(_GRACE_SECONDS)  # who started this process saw which one died: says so, and ends this one
    if isinstance(error, BackbeatError):
        print(f"backbeat: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    if not isinstance(error, LostProcessError):
        failed(" ".join(str(error).split()) if isinstance(error, BackbeatError) else f"{error!r}.")
    os._exit(error.exit_code if isinstance(error, BackbeatError) else 1)


def launch(arguments: Sequence[str], n: int) -> int:
    """Starts the same command `n` times on this machine, waits for all, and returns the exit code.

    Where one dies the others are stopped. SIGINT and SIGTERM go to all of them, and again to end them at once.

    Args:
        arguments: the command line.
        n: how many processes.
    """
    group = _Group()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        read, write = os.pipe()  # closed with this process, however it ends
        before = {number: signal.signal(number, group.pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            address = f"127.0.0.1:{_free_port()}"
            for index in range(n):
                said = stack.enter_context(open(os.path.join(folder, str(index)), "w+", encoding="utf-8"))
                group.start(arguments, {COORDINATOR: address, COUNT: str(n), INDEX: str(index)}, read, said)
            return group.wait()
        finally:
            group.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(read)
            os.close(write)


class _Group:
    """The processes that were started."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[str]] = []
        self.said: list[IO[str]] = []
        self.asked: list[int] = []  # signals that came

    def start(self, arguments: Sequence[str], place: dict[str, str], pipe: int, said: IO[str]) -> None:
        """Starts one more; only the first one's output and errors are shown at once."""
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ)  # what the runtime logs of a lost peer is said below
        first = not self.children
        child = subprocess.Popen(
            [sys.executable, "-m", "backbeat", *arguments], env=quiet | place | {LAUNCHER: str(pipe)},
            pass_fds=[pipe], process_group=0, text=True, stdin=subprocess.DEVNULL,
            stdout=None if first else subprocess.DEVNULL, stderr=None if first else said,
        )  # fmt: skip
        self.children.append(child)
        self.said.append(said)

    def pass_on(self, number: int, frame: Any) -> None:
        """Passes a signal on to all."""
        self.asked.append(number)
        for child in self.children:
            if child.poll() is None:
                child.send_signal(number)

    def kill(self) -> None:
        """Ends those that still run."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
        for child in self.children:
            child.wait()

    def wait(self) -> int:
        """Returns the exit code when all have ended, by themselves or because one did not end in order."""
        ended: dict[int, int] = {}  # exit codes, in the order in which they were seen
        deadline = float("inf")
        while len(ended) < len(self.children) and time.monotonic() < deadline:
            self._look(ended)
            bad = next((index for index, code in ended.items() if code), None)
            if bad is not None and ended[bad] not in _ENDED and deadline == float("inf"):
                time.sleep(_SETTLE_SECONDS)  # it may have died of another one's end
                self._look(ended)
                if not any(code in _ENDED for code in ended.values() if code):
                    return self._died(bad, ended[bad])
            if bad is not None:
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
            time.sleep(_LOOK_SECONDS)
        wrong = [index for index, code in ended.items() if code in _ENDED[1:]]
        if wrong and ended.get(0) not in _ENDED[1:]:  # process 0 did not say what went wrong
            self._repeat(wrong[0])
        code = ended[0] if ended.get(0) in _ENDED[1:] else ended[wrong[0]] if wrong else 0
        return 128 + self.asked[0] if self.asked and code in _STOPPED else code

    def _look(self, ended: dict[int, int]) -> None:
        for index, child in enumerate(self.children):
            if index not in ended and child.poll() is not None:
                ended[index] = child.returncode

    def _died(self, index: int, code: int) -> int:
        self.kill()
        if self.asked:  # a second signal ended it at once
            return 128 + self.asked[0]
        if index:
            self._repeat(index)
        how = f"was killed by {_name(-code)}" if code < 0 else f"ended with exit code {code}"
        say(
            f"process {index} of {len(self.children)} (numbered from 0) {how}, so the others were stopped. What was "
            "saved is kept; to go on from there: backbeat resume RUN (`backbeat runs` lists the newest first)"
        )
        return 1

    def _repeat(self, index: int) -> None:
        """Shows what a process wrote on standard error."""
        self.said[index].seek(0)
        sys.stderr.write(self.said[index].read())
        sys.stderr.flush()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
