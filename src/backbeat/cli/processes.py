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
from importlib.metadata import version
from typing import IO, Any, NoReturn

from ..errors import BackbeatError, SettingsError
from ..join import (
    COORDINATOR,
    COUNT,
    ECHO_SECONDS,
    FOLLOWED,
    INDEX,
    LAUNCHER,
    LOST,
    LostProcessError,
    Place,
    as_lost,
    clear_line,
    end_with,
    failed,
    join,
    leave,
    place_of,
)
from .console import say, silence

_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 15.0  # for process 0, which has it all written, after another one ended in order
_REST_SECONDS = 3.0  # for the others, after process 0 did
_SETTLE_SECONDS = 0.3
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPED = (130, 143)
_SAID = (2, 3, *_STOPPED)  # exit codes of a process that said itself why


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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # which were held back until there is who handles them
    return _as_one_of_several(command, arguments[0], place, launched=launched)


def _as_one_of_several(command: Callable[[], Any], name: str, place: Place, *, launched: bool) -> Any:
    join(place)
    import jax

    from ..mesh import check_alike, leads, n_processes

    with ExitStack() as stack:
        if not leads():
            silence()
            sys.stdout = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.callback(setattr, sys, "stdout", sys.__stdout__)
        try:
            check_alike({
                "process-count": n_processes(), "command": name, "backbeat": version("backbeat"),
                "jaxlib": version("jaxlib"),
            })  # fmt: skip
            code = command()
            leave()
        except KeyboardInterrupt:  # not in the midst of updates: the others are told there
            if not launched:
                failed("it was interrupted.")
            raise
        except BrokenPipeError:  # the reader of the results has gone: no failure
            leave()
            raise
        except BaseException as error:
            _fail(as_lost(error) if isinstance(error, jax.errors.JaxRuntimeError) else error, launched=launched)
    return code


def _fail(error: BaseException, *, launched: bool) -> NoReturn:
    """Ends this process with what went wrong; a tidy end of Python would wait for processes that do not end."""
    lost = isinstance(error, LostProcessError)
    if lost and launched:
        time.sleep(_GRACE_SECONDS)  # who started this process saw which one died: says so, and ends this one
    if isinstance(error, BackbeatError):
        print(f"backbeat: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    if not lost:
        failed(" ".join(str(error).split()) if isinstance(error, BackbeatError) else f"{error!r}.")
    os._exit(LOST if lost and launched else error.exit_code if isinstance(error, BackbeatError) else 1)


def launch(arguments: Sequence[str], n: int) -> int:
    """Starts the same command `n` times on this machine, waits for all, and returns the exit code.

    Where one dies the others are stopped. SIGINT and SIGTERM go to all of them; a second one ends them at once.

    Args:
        arguments: the command line.
        n: how many processes.

    Raises:
        SettingsError: the system is none that processes can be started on in this way.
    """
    if os.name != "posix":
        raise SettingsError(
            "--processes needs Linux or macOS; elsewhere start each process with --coordinator, --process-count and "
            "--process-index."
        )
    group = _Group()
    with ExitStack() as stack:
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS))
        for number in _SIGNALS:
            stack.callback(signal.signal, number, signal.signal(number, group.pass_on))
        read, write = os.pipe()  # closed with this process, however it ends
        stack.callback(os.close, read)
        stack.callback(os.close, write)
        stack.callback(group.kill)
        address = f"127.0.0.1:{_reserved_port(stack)}"
        for index in range(
            n
        ):  # with signals blocked, which each has as it starts: none is lost, none finds it half made
            said = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            group.start(arguments, {COORDINATOR: address, COUNT: str(n), INDEX: str(index)}, read, said)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return group.wait()


class _Group:
    """The processes that were started."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []
        self.said: list[IO[str]] = []
        self.asked: tuple[int, float] | None = None  # the first signal that came, and when
        self.insisted = False  # whether another one came

    def start(self, arguments: Sequence[str], place: dict[str, str], pipe: int, said: IO[str]) -> None:
        """Starts one more; only the first one's output and errors are shown at once."""
        first = not self.children
        child = subprocess.Popen(
            [sys.executable, "-m", "backbeat", *arguments], env={**os.environ, **place, LAUNCHER: str(pipe)},
            pass_fds=[pipe], process_group=0, stdin=subprocess.DEVNULL,
            stdout=None if first else subprocess.DEVNULL, stderr=None if first else said,
        )  # fmt: skip
        self.children.append(child)
        self.said.append(said)

    def pass_on(self, number: int, frame: Any) -> None:
        """Passes a signal on to all; a second one, which is no echo of the first, ends all of them at once."""
        if self.asked is not None:
            self.insisted = time.monotonic() - self.asked[1] > ECHO_SECONDS
            return
        self.asked = number, time.monotonic()
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
        while len(ended) < len(self.children) and time.monotonic() < deadline and not self.insisted:
            time.sleep(_LOOK_SECONDS)
            self._look(ended)
            if ended.get(0) in (0, *_SAID):  # all is written
                deadline = min(deadline, time.monotonic() + _REST_SECONDS)
            elif any(code in _SAID for code in ended.values()):
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
            elif any(code not in (0, FOLLOWED) for code in ended.values()):
                time.sleep(_SETTLE_SECONDS)  # it may have died of another one's end
                self._look(ended)
                if not any(code in _SAID for code in ended.values()):
                    return self._died(ended)
        asked = None if self.asked is None else 128 + self.asked[0]
        if asked is not None and self.insisted:
            self.kill()
            clear_line()
            say("ended at once, as was asked twice; what was saved before is kept.")
            return asked
        said = [index for index in sorted(ended) if ended[index] in _SAID]
        if ended.get(0) == 0 or not said:
            return 0
        if said[0]:  # process 0 has not said what went wrong
            self._repeat(said[0])
        code = ended[said[0]]
        return asked if asked is not None and code in _STOPPED else code

    def _look(self, ended: dict[int, int]) -> None:
        for index, child in enumerate(self.children):
            if index not in ended and child.poll() is not None:
                ended[index] = child.returncode

    def _died(self, ended: dict[int, int]) -> int:
        """Stops the others and says which one died: one that was killed before one that noticed."""
        self.kill()
        clear_line()
        index, code = min(
            (each for each in ended.items() if each[1] not in (0, FOLLOWED)),
            key=lambda each: (each[1] == LOST, each[1] >= 0),
        )
        if index:
            self._repeat(index)
        if code == LOST:  # it said so
            return 1
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


def _reserved_port(stack: ExitStack) -> int:
    """Returns a port that is free and stays so: others cannot have it, and process 0 can share it."""
    kept = stack.enter_context(socket.socket())
    if hasattr(socket, "SO_REUSEPORT"):
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind(("127.0.0.1", 0))
    port = kept.getsockname()[1]
    if not hasattr(socket, "SO_REUSEPORT"):
        kept.close()
    return port
