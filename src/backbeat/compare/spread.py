"""Units spread over workers: each is done once, again where its worker was lost, and the results are in order.

Workers share the machine, so nothing that they find is a time: seconds are measured in this process, before they
start or while they have nothing to do.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

from ..errors import SettingsError, WorkerError
from .trainings import Trainings, Unit
from .where import Where, check_sent

MOST_LOST = 3  # workers that one unit may cost
_THREADS = 2  # of a vectorised sweep

Share = Callable[[int, int], float]  # (units that have not begun, how many at once) -> seconds for the next one
Told = Callable[[str, float], None]  # (cadence, share of all units that is done)


def check_place(place: Where | None, trainings: Trainings) -> None:
    """Refuses workers that could not do as this process does, before anything is measured.

    Args:
        place: where they would be; None for none.
        trainings: what they would be sent.

    Raises:
        SettingsError: something cannot be sent, or JAX computes on an accelerator.
    """
    import jax

    if place is None:
        return
    if jax.default_backend() != "cpu":
        raise SettingsError(
            f"on={str(place)!r} spreads runs over processor cores, and here JAX computes on {jax.default_backend()}, "
            "which one process has to itself; leave on out, or set JAX_PLATFORMS=cpu."
        )
    settings = trainings.settings
    check_sent(place, {"model": trainings.model, "loss": settings.loss, "optimizer": settings.optimizer,
                       "params": trainings.params, "prepare": trainings.dataset.preparation})  # fmt: skip


@runtime_checkable
class Pool(Protocol):
    """Workers, each with at most one unit at a time.

    Attributes:
        n: how many there are.
        n_cores: how many cores they share.
    """

    n: int
    n_cores: int

    def start(self, number: int, work: Callable[..., Any]) -> None:
        """Gives a unit's work, with all but the trainings and `progress`, to a worker that has nothing to do."""
        ...

    def events(self) -> list[tuple[int, str, Any]]:
        """Waits a while; returns (unit, "progress" | "done" | "failed" | "lost", share | result | exception | why)."""
        ...

    def close(self) -> None:
        """Ends all workers, at once."""
        ...


class Workers:
    """Where units are carried out: in this process, or on workers, which are started when they are first needed.

    A cluster that runs already is joined at once; nothing of this machine is used by that. Used as a context: at its
    end, however it comes, no worker is left.
    """

    def __init__(self, place: Where | None, trainings: Trainings, said: Callable[[str], None]) -> None:
        """Makes it; starts nothing.

        Args:
            place: where; None for this process.
            trainings: what all units share.
            said: is told in a sentence when a worker was lost.
        """
        self.place, self.trainings, self.said = place, trainings, said
        self._pool: Pool | None = None

    def __enter__(self) -> Workers:
        if self.place is not None and self.place.address not in (None, "local"):
            self._pool = self._started(1)  # a cluster that cannot be reached is known before anything is measured
        return self

    def __exit__(self, *_: Any) -> None:
        if self._pool is not None:
            self._pool.close()

    @property
    def notes(self) -> list[str]:
        """Where the runs were made, and so what seconds are, as sentences; none for this process."""
        if self._pool is None:
            return []
        return [f"Runs were spread over {self.place}. Seconds were measured in one process, while no other computed."]

    def each(
        self,
        units: Sequence[Unit],
        share: Share,
        told: Told,
        known: Callable[[int, Any], None] = lambda number, found: None,
    ) -> list[Any]:
        """Returns what was found of each unit, in their order.

        Args:
            units: what to do; they may be done in any order.
            share: says how many seconds the next one may take.
            told: is told how far all of them are.
            known: is given what was found of each, in their order, as soon as it is known.

        Raises:
            WorkerError: a unit has cost three workers.
        """
        shares, found, given = [0.0] * len(units), {}, []

        def tell(number: int, done: float) -> None:
            shares[number] = max(shares[number], min(done, 1.0))
            told(units[number].every, sum(shares) / len(units))

        def take(number: int, value: Any) -> None:
            found[number] = value
            tell(number, 1.0)
            while len(given) in found:
                given.append(found[len(given)])
                known(len(given) - 1, given[-1])

        spread = [] if self.place is None else [k for k, unit in enumerate(units) if not unit.timed]
        if spread:
            self._spread(units, spread, share, tell, take)
        here = [k for k in range(len(units)) if k not in spread]
        for begun, number in enumerate(here):
            seconds = share(len(here) - begun, 1)
            work = partial(units[number].work, seconds=seconds, crowd=1.0, progress=partial(tell, number))
            take(number, work(self.trainings))
        return given

    def _spread(
        self,
        units: Sequence[Unit],
        numbers: Sequence[int],
        share: Share,
        tell: Callable[[int, float], None],
        take: Callable[[int, Any], None],
    ) -> None:
        """Has some of the units done by workers."""
        pool = self._pool = self._pool or self._started(len(numbers))
        waiting, lost, running = deque(numbers), Counter(), set()
        at_once = min(pool.n, len(numbers))
        crowd = max(1.0, at_once * min(_THREADS, pool.n_cores) / pool.n_cores)
        while waiting or running:
            while waiting and len(running) < pool.n:
                number = waiting.popleft()
                seconds = share(len(waiting) + 1, min(at_once, len(waiting) + 1))
                pool.start(number, partial(units[number].work, seconds=seconds, crowd=crowd))
                running.add(number)
            for number, kind, value in pool.events():
                if kind == "progress":
                    tell(number, value)
                    continue
                running.discard(number)
                if kind == "done":
                    take(number, value)
                elif kind == "failed":
                    raise value
                else:
                    lost[number] += 1
                    self._lost(units[number], value, lost[number])
                    waiting.appendleft(number)

    def _started(self, n_units: int) -> Pool:
        assert self.place is not None
        if self.place.processes is None:
            from .ray_tasks import RayTasks

            return RayTasks(self.place, self.trainings)
        from .processes import Processes

        return Processes(min(self.place.processes, n_units), self.trainings)

    def _lost(self, unit: Unit, why: str, times: int) -> None:
        if times == MOST_LOST:
            raise WorkerError(
                f"{unit.name} has cost {times} workers, the last one {why}; it may need more memory than there is for "
                "so many at once: give fewer workers, or leave on out."
            )
        self.said(f"A worker was lost while {unit.name} ({why}); another did it again, which changes no figure.")
