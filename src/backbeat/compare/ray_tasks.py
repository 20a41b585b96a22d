"""Workers that are tasks of a Ray cluster: one that is started here for this, or one that runs.

The trainings lie once in Ray's object store; a worker process fetches and unpacks them for its first unit. Shares done
go to a small actor, which is asked now and then.
"""

from __future__ import annotations

import logging
import os
import sys
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..cores import n_cores
from ..errors import SettingsError
from .where import Where, packer

if TYPE_CHECKING:
    from .trainings import Trainings

_WAIT = 0.25  # seconds between two looks at what is done
_held: dict[str, Any] = {}  # in a worker: the trainings that it unpacked last


class RayTasks:
    """As many tasks at once as the cluster has cores.

    Attributes:
        n: how many at once.
        n_cores: of the cluster.
    """

    def __init__(self, place: Where, trainings: Trainings) -> None:
        """Starts or joins the cluster and lays the trainings into its store.

        Args:
            place: which.
            trainings: what all units share.

        Raises:
            SettingsError: the cluster cannot be reached.
        """
        self._ray, self._ours = _connected(place)
        self.n_cores = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self.n, self._running = self.n_cores, {}
        self._pack, self._key = packer(place), uuid.uuid4().hex
        self._trainings = self._ray.put(self._pack(trainings))
        self._task = self._ray.remote(num_cpus=1, max_retries=0)(_carry_out)  # what is lost is counted, and done again
        self._board = self._ray.remote(num_cpus=0)(Board).remote()

    def start(self, number: int, work: Callable[..., Any]) -> None:
        """Gives a unit's work to the cluster."""
        # in a list, so that it is not fetched where it is known already
        task = self._task.remote(self._key, sys.path, [self._trainings], self._pack(work), self._board, number)
        self._running[task] = number

    def events(self) -> list[tuple[int, str, Any]]:
        """Waits a moment; returns what was told, found and lost."""
        from ray.exceptions import RayError, RayTaskError

        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_WAIT)
        found: list[tuple[int, str, Any]] = [(number, "progress", share) for number, share in self._told().items()]
        for task in done:
            number = self._running.pop(task)
            try:
                found.append((number, *self._ray.get(task)))
            except RayError as error:
                ours = isinstance(error, RayTaskError) and not isinstance(error.cause, RayError)
                found.append((number, "failed", RuntimeError(str(error))) if ours else (number, "lost", _how(error)))
        return found

    def close(self) -> None:
        """Ends what still runs; and the cluster, if it was started for this."""
        with suppress(Exception):  # a cluster that is gone has nothing to end
            for task in self._running:
                self._ray.cancel(task, force=True)
            self._ray.kill(self._board)
        if self._ours:
            self._ray.shutdown()

    def _told(self) -> dict[int, float]:
        from ray.exceptions import RayError

        try:
            told = self._ray.get(self._board.take.remote(), timeout=1.0)
        except RayError:  # its node was lost, or it is slow: only the progress shows it
            return {}
        return {number: share for number, share in told.items() if number in self._running.values()}


class Board:
    """The newest share done of each unit: an actor."""

    def __init__(self) -> None:
        self._shares: dict[int, float] = {}

    def put(self, number: int, share: float) -> None:
        """Notes a share."""
        self._shares[number] = share

    def take(self) -> dict[int, float]:
        """Returns what was noted since it was last asked."""
        shares, self._shares = self._shares, {}
        return shares


def _connected(place: Where) -> tuple[Any, bool]:
    """Returns Ray's module, connected, and whether it was so because of this."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of it
    import ray

    if ray.is_initialized():
        return ray, False
    own = {"num_cpus": n_cores(), "include_dashboard": False} if place.address == "local" else {}
    try:
        with warnings.catch_warnings():
            # JAX warns of the fork by which Ray starts its processes (exec follows at once), Ray of what it raises too
            warnings.simplefilter("ignore")
            ray.init(address=place.address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise SettingsError(
            f"{place} cannot be reached ({said}); look at it with `ray status` (one that asks for a token "
            "needs RAY_AUTH_MODE=token here too), or leave on out."
        ) from None
    return ray, True


def _how(error: Exception) -> str:
    """Returns how a worker was lost, in a few words."""
    known = {
        "WorkerCrashedError": "its process ended",
        "OutOfMemoryError": "ended by Ray, which was short of memory",
        "NodeDiedError": "its node was lost",
    }
    return known.get(type(error).__name__, type(error).__name__)


def _carry_out(
    key: str, paths: list[str], trainings: list[Any], packed: bytes, board: Any, number: int
) -> tuple[str, Any]:
    """Carries out a unit: what a task does."""
    import pickle
    from functools import partial

    import ray

    from .processes import Throttled
    from .trainings import carried_out

    sys.path += [path for path in paths if path not in sys.path]  # Ray passes on only some of them
    try:
        if key not in _held:
            _held.clear()
            _held[key] = pickle.loads(ray.get(trainings[0]))
        work = pickle.loads(packed)
    except (ImportError, AttributeError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return "failed", SettingsError(
            f"a worker cannot find what it was sent ({said}): backbeat, your own modules and data in files have to be "
            "on the cluster as they are here."
        )
    told = Throttled(lambda share: board.put.remote(number, share))
    return carried_out(partial(work, progress=told), _held[key])
