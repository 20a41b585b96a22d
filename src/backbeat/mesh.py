"""The devices that train one network together, and the processes that they belong to.

Every process runs the same program on the same plan and makes the same updates; what a clock or a person decides, the
process with the number 0 decides for all (`Team.agree`), because a process that made one update more would wait for
the others for ever. It alone writes and prints (`leads`).

Parameters and optimizer state stay, outside the compiled stretches, ordinary arrays on the first device of each
process, the same in all of them: one process can save them, and each can be started from what was saved.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .data import foreseen
from .errors import SettingsError, Terminated
from .join import ECHO_SECONDS
from .losses import Loss
from .models import Model
from .optimizer import Optimizer
from .shares import AXIS, Layout, fetches, n_updates, part_of, shared_program
from .stretch import Data, Form, Rows
from .update import Seen, State

_DAY_MS = 24 * 3600 * 1000  # a process that is gone is found by its heartbeat, so waiting needs no end of its own
_KEPT = 64  # decisions that stay readable for processes that are behind

_numbers = itertools.count()  # of decisions; every process makes them in the same order
_caught: list[tuple[int, Any]] = []  # signals that wait for the next decision, with what handles them
_runs = [0]  # how many runs have begun: a signal that one was told of is none for the next


def _client() -> Any:
    """Returns the connection to the other processes, None where this one is alone."""
    from jax._src import distributed  # the runtime's store of keys and values has no public name

    return distributed.global_state.client


def n_processes() -> int:
    """Returns how many processes train together; 1 for an ordinary run.

    Example:
        >>> n_processes()
        1
    """
    from jax._src import distributed

    return distributed.global_state.num_processes if _client() is not None else 1


def process_index() -> int:
    """Returns which process this is, from 0; 0 for an ordinary run.

    Example:
        >>> process_index()
        0
    """
    from jax._src import distributed

    return distributed.global_state.process_id if _client() is not None else 0


def leads() -> bool:
    """Returns whether this process is the one that decides, writes and prints; true for an ordinary run.

    Example:
        >>> leads()
        True
    """
    return process_index() == 0


def agreed(value: Any) -> Any:
    """Returns the value that process 0 gave: numbers, texts, lists and dicts of them. All must call it, in one order.

    Example:
        >>> agreed(0.25)
        0.25
    """
    client = _client()
    if client is None or n_processes() == 1:
        return value
    number = next(_numbers)
    if leads():
        client.key_value_set(f"backbeat/{number}", json.dumps(value))
    else:
        value = json.loads(client.blocking_key_value_get(f"backbeat/{number}", _DAY_MS))
    if number and number % _KEPT == 0:  # those before have been read by all
        client.wait_at_barrier(f"backbeat/read/{number}", _DAY_MS)
        for old in range(number - _KEPT, number) if leads() else ():
            client.key_value_delete(f"backbeat/{old}")
    return value


def check_alike(given: dict[str, Any]) -> None:
    """Refuses a run whose processes were given different things; they would wait for each other, or train nonsense.

    Args:
        given: what must be the same in all, by name.

    Raises:
        SettingsError: something is not, in all processes.

    Example:
        >>> check_alike({"every": 32})
    """
    client = _client()
    if client is None:
        return
    number, differs = next(_numbers), None
    if not leads():
        client.key_value_set(f"backbeat/given/{number}/{process_index()}", json.dumps(given))
    for index in range(1, n_processes()) if leads() else ():
        other = json.loads(client.blocking_key_value_get(f"backbeat/given/{number}/{index}", _DAY_MS))
        names = [name for name in {**given, **other} if given.get(name) != other.get(name)]
        if names and differs is None:
            name = names[0]
            differs = f"process {index} was given {name}={other.get(name)!r}, and process 0 {given.get(name)!r}"
    differs = agreed(differs)
    if differs is not None:
        raise SettingsError(f"{differs}; start all processes of a run with the same command line and data.")


def _asked(client: Any) -> int:
    """Returns the signal that process 0 or another one caught, 0 for none; process 0 is told of the others'."""
    own, where = _caught[0][0] if _caught else 0, f"backbeat/asked/{_runs[0]}"
    if leads():
        return own or next((int(number) for _, number in client.key_value_dir_get(where)), 0)
    if own:
        client.key_value_set(f"{where}/{process_index()}", str(own), allow_overwrite=True)
    return own


@dataclass(frozen=True)
class Team:
    """The devices that share a run's batches.

    Attributes:
        devices: of all processes, in their order; none: one device, by the ordinary program.
        deterministic: whether sums are added in an order that does not depend on the devices.
    """

    devices: tuple[Any, ...] = ()
    deterministic: bool = False

    @property
    def alone(self) -> bool:
        """Whether this process decides everything by itself."""
        return not self.devices or len({device.process_index for device in self.devices}) == 1

    def agree(self, value: Any) -> Any:
        """Returns a value as process 0 has it; see `agreed`.

        Example:
            >>> Team().agree([1, 2])
            [1, 2]
        """
        return value if self.alone else agreed(value)

    def check_alike(self, given: dict[str, Any]) -> None:
        """Refuses a run whose processes were given different things; see `check_alike`.

        Example:
            >>> Team().check_alike({"every": 32})
        """
        if not self.alone:
            check_alike(given)

    def handed_out(self, about: Any, arrays: list[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
        """Returns numbers and texts, and arrays, as process 0 has them; what the others give does not count.

        Example:
            >>> Team().handed_out("two", [np.zeros(2)])
            ('two', [array([0., 0.])])
        """
        if self.alone:
            return about, arrays
        about, kinds = agreed([about, [[array.shape, array.dtype.name] for array in arrays]])
        sizes = [math.prod(shape) * np.dtype(kind).itemsize for shape, kind in kinds]
        parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays] if leads() else []
        own = np.concatenate([*parts, np.zeros(0 if parts else sum(sizes), np.uint8)])
        cut = np.split(_from_first(self.devices, own), np.cumsum(sizes)[:-1]) if kinds else []
        return about, [part.view(kind).reshape(shape) for part, (shape, kind) in zip(cut, kinds, strict=True)]

    def check(self) -> None:
        """Raises what a signal asked for, in all processes at the same place; process 0 says whether."""
        if self.alone:
            return
        number = self.agree(_asked(_client()))
        if number:
            handler = next((handler for caught, handler in _caught if caught == number), None)
            _caught.clear()
            if callable(handler):
                handler(number, None)  # raises what the command line makes of it
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    @contextmanager
    def together(self) -> Iterator[None]:
        """While this lasts, a signal to end the run waits for `check`, so that all processes end at the same update.

        A second one ends the process at once, by itself: to end in order without the others would be to wait for them.
        """
        if self.alone:
            yield
            return
        _runs[0] += 1
        _caught.clear()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        since = [0.0]
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def catch(number: int, frame: FrameType | None) -> None:
            if not _caught:
                _caught.append((number, before[signal.Signals(number)]))
                since[0] = time.monotonic()
            elif time.monotonic() - since[0] > ECHO_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, catch)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def shared(self, job: Any, data: Data) -> Shared | None:
        """Returns what runs the stretches of a job; None where the ordinary program does.

        Args:
            job: what is trained.
            data: its data, as this process has it.
        """
        if job.plan.cadence.repeated is not None or not (self.devices or self.deterministic):
            return None
        return Shared(self, job, data)


ALONE = Team()


def team_of(devices: Any, *, deterministic: bool = False) -> Team:
    """Returns the team that a setting stands for.

    Args:
        devices: how many of each process: a number, "all", or None for 1, and for all in a run of several processes.
        deterministic: see `Team`.

    Raises:
        SettingsError: no number of devices that there is.

    Example:
        >>> team_of(None).devices, len(team_of(2).devices)
        ((), 2)
    """
    local, several = jax.local_devices(), n_processes() > 1
    devices = "all" if devices is None and several else 1 if devices is None else devices
    n = _number(devices, len(local))
    if n == 1 and not several:
        return Team((), deterministic)
    by_process: dict[int, list[Any]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    least = min(len(each) for each in by_process.values())
    if n > least:
        raise SettingsError(
            f"devices={devices!r}, but a process of this run has {least}; give the same number to all, {least} or less."
        )
    return Team(tuple(d for i in sorted(by_process) for d in by_process[i][:n]), deterministic)


def _number(devices: Any, there: int) -> int:
    if devices == "all":
        return there
    try:
        n = int(devices)
        exact = not isinstance(devices, (bool, float)) and str(n) == str(devices).strip()
    except (TypeError, ValueError):
        exact, n = False, 0
    if not exact or n < 1:
        raise SettingsError(f'devices={devices!r} must be a whole number of devices, 1 or more, or "all".')
    if n > there:
        kind = jax.local_devices()[0].platform
        hint = f"; JAX_NUM_CPU_DEVICES={n} divides the processor into as many" if kind == "cpu" else ""
        choice = "choose 1" if there == 1 else f'choose 1 to {there}, or "all"'
        raise SettingsError(f"devices={n}, but this process has {there} ({kind}); {choice}{hint}.")
    return n


class Shared:
    """Runs the stretches of a job on the devices of a team: takes and gives arrays of this process's first device."""

    def __init__(self, team: Team, job: Any, data: Data) -> None:
        devices = team.devices or (jax.local_devices()[0],)
        here = jax.process_index()
        self.team, self.job = team, job
        self.mesh = Mesh(np.array(devices), (AXIS,))
        self.own = range(*_bounds([device.process_index == here for device in devices]))
        self._local = [devices[k] for k in self.own]
        self._alike = NamedSharding(self.mesh, PartitionSpec())
        self.data = data._replace(**{
            name: self._spread(value) for name, value in data._asdict().items() if isinstance(value, jax.Array)
        })  # fmt: skip
        if not team.alone:
            _greet(self.mesh)
        self._newest: tuple[Any, Any] = (None, None)  # a state as it was given back, and the same on all devices
        self._reading: Any = None

    def __call__(self, form: Form, state: State, rows: Rows, rate: Any) -> tuple[State, Seen]:
        """Returns the state after a stretch and what each update saw, as `stretch.program` does."""
        job = self.job
        layout = Layout.of(form, self.mesh.size, job.example_floats, deterministic=self.team.deterministic)
        self._reading = foreseen(self.data, fetches(layout, form, rows, self.own))  # held while the program runs
        rows = rows._replace(n_segments=np.int32(n_updates(form, rows)))
        run = self._program(layout, form, job.model, job.loss, job.optimizer)
        start = self._newest[1] if state is self._newest[0] else jax.tree.map(self._spread, state)
        spread, seen = run(start, self._reading, rows, np.float32(rate), part_of(layout, form))
        state, seen = jax.tree.map(lambda array: array.addressable_data(0), (spread, seen))
        self._newest = (state, spread)
        return state, seen

    def _program(self, layout: Layout, form: Form, model: Model, loss: Loss, optimizer: Optimizer) -> Callable:
        return shared_program(self.mesh, layout, form, model, loss, optimizer)

    def _spread(self, array: Any) -> Any:
        """Returns an array of one device as one that all devices hold."""
        each = [jax.device_put(array, device) for device in self._local]
        return jax.make_array_from_single_device_arrays(np.shape(array), self._alike, each)


def _total(mesh: Mesh) -> Callable[[Any], Any]:
    """Returns the function that adds up the rows of an array, of which each device has one."""
    spec = PartitionSpec(AXIS)
    total = jax.shard_map(
        lambda x: jax.lax.psum(x[0], AXIS), mesh=mesh, in_specs=spec, out_specs=PartitionSpec(), check_vma=False
    )
    return jax.jit(total)


def _from_first(devices: tuple[Any, ...], own: np.ndarray) -> np.ndarray:
    """Returns the bytes that process 0 has: a sum to which the others add zeros."""
    mesh = Mesh(np.array(devices), (AXIS,))
    _greet(mesh)
    here = [device for device in devices if device.process_index == jax.process_index()]
    first = devices[0]
    rows = [jax.device_put((own if device == first else np.zeros_like(own))[None], device) for device in here]
    spread = NamedSharding(mesh, PartitionSpec(AXIS))
    whole = jax.make_array_from_single_device_arrays((len(devices), len(own)), spread, rows)
    return np.asarray(_total(mesh)(whole).addressable_data(0))


@lru_cache
def _greet(mesh: Mesh) -> None:
    """Connects the devices of several processes, of which the runtime tells standard output, where results belong."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        _total(mesh)(np.zeros((mesh.size, 1), np.float32)).block_until_ready()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _bounds(mine: list[bool]) -> tuple[int, int]:
    """Returns where the devices of this process begin and end among all."""
    first = mine.index(True)
    return first, first + sum(mine)
