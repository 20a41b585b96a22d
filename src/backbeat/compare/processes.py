"""Workers that are processes of this machine, each started afresh (spawned), with a pipe to it.

A worker gets the trainings once and then one unit after another; it answers with shares done and what it found. Its
end of the pipe closes with it, however it ends, which is how its loss is noticed. It ends with the process that started
it, and leaves Ctrl-C to that.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import connection, resource_tracker
from typing import Any

from ..cores import n_cores
from ..errors import SettingsError, WorkerError
from .trainings import Trainings, carried_out
from .where import GUARD, WORKER

_APART = 0.1  # seconds between two shares that are told
_HELD = (signal.SIGINT, signal.SIGTERM)


class Processes:
    """Some worker processes; one that is lost is replaced when its place is needed.

    Attributes:
        n: how many.
        n_cores: how many cores they share.
    """

    def __init__(self, n: int, trainings: Trainings) -> None:
        """Starts them; they import what they need while the first is sent the data.

        Args:
            n: how many.
            trainings: what each is sent once.

        Raises:
            SettingsError: the system starts no more of them.
        """
        self.n, self.n_cores, self._trainings = n, n_cores(), trainings
        self._failed: list[tuple[int, str, Any]] = []  # to start at all
        self._workers: list[_Worker] = []
        try:
            with _uninterrupted():
                for _ in range(n):
                    self._workers.append(_Worker())
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise SettingsError(f"{n} processes cannot be started here ({error.strerror}); give fewer.") from None
            raise

    def start(self, number: int, work: Callable[..., Any]) -> None:
        """Gives a unit's work to a worker that has nothing to do, or to a fresh one in place of one that was lost."""
        worker = next(worker for worker in self._workers if worker.unit is None)
        worker.unit = number
        try:
            if not worker.knows:
                worker.pipe.send(self._trainings)
                worker.knows = True
            worker.pipe.send(work)
        except OSError:  # it has ended already
            self._failed.append((number, "lost", self._replaced(worker)))

    def events(self) -> list[tuple[int, str, Any]]:
        """Waits until a worker says something or is lost; returns what."""
        found, self._failed = self._failed, []
        busy = {worker.pipe: worker for worker in self._workers if worker.unit is not None}
        for pipe in connection.wait(list(busy), 0.0 if found else None):
            worker = busy[pipe]  # pyright: ignore[reportArgumentType]
            number = worker.unit
            assert number is not None
            try:
                kind, value = worker.pipe.recv()
            except (OSError, EOFError, pickle.UnpicklingError):
                kind, value = "lost", self._replaced(worker)
            if kind == "ready":
                worker.ready = True
                continue
            if kind != "progress":
                worker.unit = None
            found.append((number, kind, value))
        return found

    def close(self) -> None:
        """Ends all workers, at once: they hold nothing that is wanted."""
        for worker in self._workers:
            worker.unit = None
            worker.end()

    def _replaced(self, worker: _Worker) -> str:
        """Puts a fresh worker in place of one that was lost; returns how that one ended.

        Raises:
            WorkerError: it could not even start, so that another could not either.
        """
        code = worker.end()
        if not worker.ready and code >= 0:
            raise WorkerError(
                f"a worker could not start (ended with exit code {code}; it says itself why). Where a script asks for "
                f"it: {GUARD}"
            )
        with _uninterrupted():
            self._workers[self._workers.index(worker)] = _Worker()
        if code < 0:
            with suppress(ValueError):
                return f"ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


class _Worker:
    """A process and the pipe to it.

    Attributes:
        ready: whether it runs.
        knows: whether it was sent the trainings.
        unit: what it works on.
    """

    def __init__(self) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(theirs,), name=WORKER, daemon=True)
        self.ready, self.knows = False, False
        self.unit: int | None = None
        self._process.start()
        theirs.close()  # so that the pipe ends with the process

    def end(self) -> int:
        """Ends the process; returns its exit code, or the number of the signal that ended it as a negative one."""
        if self.unit is not None:  # its pipe may be closed a moment before it has ended
            self._process.join(0.5)
        self._process.kill()
        self._process.join()
        self.pipe.close()
        assert self._process.exitcode is not None
        return self._process.exitcode


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back: a process that is just being started would be left half made.

    What is started meanwhile has them blocked.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held: list[int] = []
    resource_tracker.ensure_running()  # which multiprocessing would start otherwise, and let signals in thereby
    before = [(number, signal.getsignal(number)) for number in _HELD]
    for number in _HELD:  # other threads may get it
        signal.signal(number, lambda number, frame: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before:
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])


def _serve(pipe: connection.Connection) -> None:
    """Works off units until there are no more: what a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to all: the process that asks says what to do
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send(("ready", None))
        trainings = pipe.recv()
        while True:
            work = partial(pipe.recv(), progress=Throttled(lambda share: pipe.send(("progress", share))))
            answer = carried_out(work, trainings)
            try:
                pipe.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError):  # an exception with something strange in it
                pipe.send(("failed", WorkerError(str(answer[1]))))
    except (EOFError, ConnectionError):  # no more units, or nobody to tell
        return
    except (ImportError, AttributeError, OSError, pickle.UnpicklingError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        pipe.send(("failed", SettingsError(
            f"a worker cannot find what it was sent ({said}); define it at the top of a module, or leave on out."
        )))  # fmt: skip


class Throttled:
    """Passes a share on, at most ten times a second."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell, self._last = tell, 0.0

    def __call__(self, share: float) -> None:
        """Passes it on, if the last one was long enough ago."""
        if time.perf_counter() - self._last > _APART:
            self._tell(share)
            self._last = time.perf_counter()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
