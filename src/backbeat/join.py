"""How a process joins the others of its run, waits for them at the end, and learns that one is gone."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import BackbeatError, SettingsError

COORDINATOR, COUNT, INDEX = "BACKBEAT_COORDINATOR", "BACKBEAT_PROCESS_COUNT", "BACKBEAT_PROCESS_INDEX"
LAUNCHER = "BACKBEAT_LAUNCHER"  # the pipe by which a process that `--processes` started sees that its starter is gone
AUTO = "auto"
HEARTBEAT_SECONDS = 10  # a process that has not been heard of for so long is gone, and the others end
_FIND_SECONDS = 300  # for all to have started
_FAILED = "backbeat/failed"  # under which a process says why it ends
_LOOK_SECONDS, _LATE_SECONDS, _MEET_SECONDS = 1.0, 2.0, 4.0
_ending = threading.Event()
_DAY_SECONDS = 24 * 3600.0
_GONE = re.compile(
    r"gloo|UNAVAILABLE|connection|socket|broken pipe|heartbeat|coordination service|peer|ABORTED|CANCELLED", re.I
)


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
        SettingsError: they cannot be found, or are not all there in time.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what it logs of a lost process is said in one sentence
    import jax

    # JAX's own would keep SIGTERM to itself, and the run would go on
    jax.config.update("jax_enable_preemption_service", False)
    auto = place.coordinator == AUTO
    host = place.coordinator.rpartition(":")[0]
    try:
        jax.distributed.initialize(
            None if auto else place.coordinator, place.count, place.index,
            cluster_detection_method=None if auto else "deactivate",
            coordinator_bind_address=place.coordinator if host in ("127.0.0.1", "localhost") else None,
            initialization_timeout=_FIND_SECONDS, heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )  # fmt: skip
    except ValueError:
        raise SettingsError(
            f"--coordinator {AUTO} found no Slurm, Open MPI or Kubernetes job here; give HOST:PORT with "
            "--process-count and --process-index."
        ) from None
    except RuntimeError as error:
        raise SettingsError(
            f"the processes of this run did not find each other at {place.coordinator} ({_first_line(error)}); start "
            "all of them with the same address and number, each with an index of its own."
        ) from None
    threading.Thread(target=_watch, args=(place,), daemon=True, name="backbeat others").start()


def _watch(place: Place) -> None:
    """Ends this process soon after another one said that it failed, unless this one ends by itself."""
    import jax
    from jax._src import distributed

    while not _ending.wait(_LOOK_SECONDS):
        try:
            client: Any = distributed.global_state.client
            found = client.key_value_dir_get(_FAILED)
        except (
            jax.errors.JaxRuntimeError,
            AttributeError,
        ):  # the end of the run, or of process 0, which shows elsewhere
            return
        if found and not _ending.wait(_LATE_SECONDS):  # this one may be about to fail of the same
            name, what = found[0]
            if LAUNCHER not in os.environ:
                index = name.rpartition("/")[2]
                print(
                    f"backbeat: process {index} of this run ended: {what} This one ends too.",
                    file=sys.stderr,
                    flush=True,
                )
            os._exit(LostProcessError.exit_code)


def failed(what: str) -> None:
    """Tells the other processes that this one fails, and waits a little for them: all may fail alike.

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
        meet("done", _DAY_SECONDS)
        _ending.set()
        jax.distributed.shutdown()


def meet(where: str, seconds: float) -> bool:
    """Returns whether all processes came to a place in that time; true in an ordinary run."""
    import jax
    from jax._src import distributed

    client = distributed.global_state.client
    try:
        if client is not None:
            client.wait_at_barrier(f"backbeat/{where}", int(1000 * seconds))
    except jax.errors.JaxRuntimeError:
        if seconds == _DAY_SECONDS:
            raise
        return False
    return True


def as_lost(error: BaseException) -> BaseException:
    """Returns what an error of JAX's means in a run of several processes: that one is gone, or the error itself."""
    if not _GONE.search(str(error)):
        return error
    return LostProcessError(
        f"another process of this run is gone, or the network to it ({_first_line(error)}); this one ends too. What "
        "was saved is kept: start all of them again, with `backbeat resume RUN`."
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
