"""How a process joins the others of its run, waits for them at the end, and learns that one is gone."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from .errors import BackbeatError, SettingsError

COORDINATOR, COUNT, INDEX = "BACKBEAT_COORDINATOR", "BACKBEAT_PROCESS_COUNT", "BACKBEAT_PROCESS_INDEX"
LAUNCHER = "BACKBEAT_LAUNCHER"  # the pipe by which a process that `--processes` started sees that its starter is gone
AUTO = "auto"
ECHO_SECONDS = 0.5  # a signal may come twice, from the terminal and from a program that passes it on
HEARTBEAT_SECONDS = 10  # a process that has not been heard of for so long is gone, and the others end
# exit codes towards the process that started this one: another one has said why, and: this one said it, of another one
FOLLOWED, LOST = 75, 76
_FIND_SECONDS, _FIND_HERE_SECONDS = 300, 120  # for all to have started; the same on one machine
_NOTICE_SECONDS = 10.0  # after which a process says that it waits for others
_FAILED = "backbeat/failed"  # under which a process says why it ends
_LOOK_SECONDS, _LATE_SECONDS, _MEET_SECONDS = 0.5, 1.0, 4.0
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_ending = threading.Event()
_GONE = re.compile(
    r"gloo|UNAVAILABLE|connection|socket|broken pipe|heartbeat|coordination service|peer|ABORTED|CANCELLED", re.I
)
_kept: list[Any] = []  # C has it, and Python would throw it away


class LostProcessError(BackbeatError):
    """Another process of the run, or the network to it, is gone."""

    exit_code = 1


@dataclass(frozen=True)
class Place:
    """Which process this is.

    Attributes:
        coordinator: HOST:PORT at which process 0 can be reached by all; "auto": Slurm, Open MPI or Kubernetes says all.
        count: how many processes there are; None where that is found.
        index: the number of this one, from 0; None likewise.
    """

    coordinator: str
    count: int | None = None
    index: int | None = None


def place_of(
    coordinator: str | None, count: int | None, index: int | None, environment: Mapping[str, str] = os.environ
) -> Place | None:
    """Returns which process of a run this is, by options or else by the environment; None for an ordinary run.

    Raises:
        SettingsError: part of it is missing or wrong.

    Example:
        >>> place_of("10.0.0.1:9911", 2, 1)
        Place(coordinator='10.0.0.1:9911', count=2, index=1)
        >>> place_of(None, None, None, {}) is None
        True
    """
    coordinator = coordinator or environment.get(COORDINATOR)
    count = _whole(environment, COUNT) if count is None else count
    index = _whole(environment, INDEX) if index is None else index
    if coordinator is None:
        if count is not None or index is not None:
            raise SettingsError(
                "--process-count and --process-index need --coordinator HOST:PORT, where process 0 can be reached."
            )
        return None
    if coordinator == AUTO:
        if count is not None or index is not None:
            raise SettingsError(
                f"--coordinator {AUTO} finds the number of processes by itself; leave --process-count and "
                "--process-index out."
            )
        return Place(AUTO)
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise SettingsError(
            f"--coordinator {coordinator!r} is no address; give HOST:PORT of process 0, for example node1:9911, or "
            f"{AUTO} under Slurm, Open MPI or Kubernetes."
        )
    if count is None or index is None:
        raise SettingsError(
            "--coordinator HOST:PORT needs --process-count N and --process-index I too: how many processes there are, "
            "and which one this is, from 0."
        )
    if count < 1 or not 0 <= index < count:
        raise SettingsError(
            f"--process-index {index} of --process-count {count} is none of the processes; they are numbered from 0 to "
            "one less than their number."
        )
    return Place(coordinator, count, index)


def _whole(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if text is not None and not text.strip().isdecimal():
        raise SettingsError(f"{name}={text!r} must be a whole number, or not be set.")
    return None if text is None else int(text)


def join(place: Place) -> None:
    """Connects this process to the others; before anything is computed.

    Raises:
        SettingsError: they cannot be found.
    """
    here, auto = LAUNCHER in os.environ, place.coordinator == AUTO
    host, _, port = place.coordinator.rpartition(":")
    if place.index == 0 and not here:
        _check_free(int(port))
    if os.environ.get(_LOG_LEVEL) != "0":  # else nothing: what the runtime says of a lost process is one sentence here
        os.environ[_LOG_LEVEL] = "4"
    import jax

    # JAX's own would keep SIGTERM to itself, and the run would go on
    jax.config.update("jax_enable_preemption_service", False)
    if not auto:  # no proxy is between the processes of a run
        jax.config.update("jax_check_proxy_envs", False)
        others = [os.environ.get(name) for name in ("no_grpc_proxy", "no_proxy")]
        os.environ.update(no_grpc_proxy=",".join([*filter(None, others), host]))
    seconds = _FIND_HERE_SECONDS if here else _FIND_SECONDS
    where = "in this job" if auto else f"at {place.coordinator}"
    _instead_of_aborting(
        f"the processes of this run did not find each other {where} within {seconds} s, or two have the same number; "
        "start all of them with the same address and count, each with an index of its own.", SettingsError.exit_code,
    )  # fmt: skip

    def connect() -> None:
        jax.distributed.initialize(
            None if auto else place.coordinator, place.count, place.index,
            cluster_detection_method=None if auto else "deactivate",
            coordinator_bind_address=place.coordinator if host in ("127.0.0.1", "localhost") else None,
            initialization_timeout=seconds, heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )  # fmt: skip

    count = "" if place.count is None else f" ({place.count} in all)"
    notice = f"waiting for the other processes{count} {where}, for {seconds} s at most"
    try:
        _in_thread(connect, None if here else notice)
    except ValueError:
        raise SettingsError(
            f"--coordinator {AUTO} found no Slurm, Open MPI or Kubernetes job here; give HOST:PORT with "
            "--process-count and --process-index."
        ) from None
    except RuntimeError as error:
        raise SettingsError(
            f"this process cannot join the others {where} ({_first_line(error)}); give an address of process 0's "
            "machine with a port that is free there."
        ) from None
    _instead_of_aborting(str(_lost(f"JAX's runtime says so, and more with {_LOG_LEVEL}=0")), LOST if here else 1)
    threading.Thread(target=_watch, daemon=True, name="backbeat others").start()


def _check_free(port: int) -> None:
    """Refuses a port at which another process listens: the runtime would share it, and half of all calls be lost."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else one that was left just now would count
        try:
            probe.bind(("", port))
        except OSError as error:
            raise SettingsError(
                f"process 0 cannot use port {port} of this machine ({error.strerror}); give all processes another one."
            ) from None


def _in_thread(work: Any, notice: str | None) -> None:
    """Does what waits for others, so that Ctrl-C is heard meanwhile; says that it waits, where it takes long."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # raised again below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True, name="backbeat join")
    thread.start()
    since = time.monotonic()
    while thread.is_alive():
        thread.join(0.1)
        if notice is not None and time.monotonic() - since > _NOTICE_SECONDS:
            print(f"backbeat: {notice}.", file=sys.stderr, flush=True)
            notice = None
    if raised:
        raise raised[0]


def _instead_of_aborting(sentence: str, code: int) -> None:
    """Has this process end with a sentence where the runtime aborts it, as it does when others are gone.

    It does so from a thread of its own and asks nobody; only a signal handler of C is called then.
    """
    if os.name != "posix":
        return
    import ctypes

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def end(number: int) -> None:
        _end(sentence, code)

    _kept[:] = [end]
    system = ctypes.CDLL(None)
    system.signal.restype, system.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    system.signal(signal.SIGABRT, ctypes.cast(end, ctypes.c_void_p))


def _end(sentence: str | None, code: int) -> NoReturn:
    """Ends this process, whatever its other threads do."""
    clear_line()
    if sentence is not None:
        os.write(2, f"backbeat: {sentence}\n".encode())
    os._exit(code)


def clear_line() -> None:
    """Takes away, on a terminal, a progress bar whose process could not do so, and shows the cursor again."""
    if os.isatty(2):
        os.write(2, b"\r\x1b[K\x1b[?25h")


def _watch() -> None:
    """Ends this process soon after another one said that it failed, unless this one ends by itself."""
    import jax
    from jax._src import distributed

    here = LAUNCHER in os.environ
    while not _ending.wait(_LOOK_SECONDS):
        try:
            client: Any = distributed.global_state.client
            found = client.key_value_dir_get(_FAILED)
        except (jax.errors.JaxRuntimeError, AttributeError):  # the end of the run, or of process 0: shows elsewhere
            return
        if found and not _ending.wait(_LATE_SECONDS):  # this one may be about to fail of the same
            meet("failed", _MEET_SECONDS)
            name, what = found[0]
            index = name.rpartition("/")[2]
            _end(
                None if here else f"process {index} of this run ended: {what} This one ends too.",
                FOLLOWED if here else 1,
            )


def failed(what: str) -> None:
    """Tells the other processes that this one fails, and waits a little for them: they are to learn why.

    Args:
        what: a sentence.
    """
    import jax
    from jax._src import distributed

    _ending.set()
    client: Any = distributed.global_state.client
    try:
        client.key_value_set(f"{_FAILED}/{distributed.global_state.process_id}", what)
    except (jax.errors.JaxRuntimeError, AttributeError):  # process 0 is gone, and the others know
        return
    meet("failed", _MEET_SECONDS)


def leave() -> None:
    """Waits until all processes are done, then disconnects; does nothing in an ordinary run."""
    import jax
    from jax._src import distributed

    if distributed.global_state.client is not None:
        meet("done")
        _ending.set()
        jax.distributed.shutdown()


def meet(where: str, seconds: float | None = None) -> bool:
    """Returns whether all processes came to a place in that time; true in an ordinary run.

    Args:
        where: the place.
        seconds: None for as long as it takes; then one that is gone is an error of JAX's.
    """
    import jax
    from jax._src import distributed

    client = distributed.global_state.client
    try:
        if client is not None:
            client.wait_at_barrier(f"backbeat/{where}", int(1000 * (24 * 3600 if seconds is None else seconds)))
    except jax.errors.JaxRuntimeError:
        if seconds is None:
            raise
        return False
    return True


def as_lost(error: BaseException) -> BaseException:
    """Returns what an error of JAX's means in a run of several processes: that one is gone, or the error itself."""
    return _lost(_first_line(error)) if _GONE.search(str(error)) else error


def _lost(why: str) -> LostProcessError:
    return LostProcessError(
        f"another process of this run is gone, or the network to it ({why}); this one ends too. What was saved is "
        "kept: start all of them again, with `backbeat resume RUN`."
    )


def end_with(pipe: int) -> None:
    """Ends this process as soon as the one that started it is gone, which closes its end of a pipe.

    Args:
        pipe: the end that is read.
    """

    def wait() -> None:
        os.read(pipe, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="backbeat launcher").start()


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= 160 else f"{line[:157]}..."
