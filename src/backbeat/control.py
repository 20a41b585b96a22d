"""What a run does between two stretches because a person asked for it: now, or when the run was made the first time.

A change is made where the run stands, is emitted as an event, and joins the changes that its settings name, so that a
repetition makes it at the same update. Stretches end where a change is known beforehand; how a run is cut into them
does not matter to its bits. A pause leaves no trace but its event: its seconds are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from .allowed import rate_fixed
from .changes import GO_ON, PAUSE, RATE, STOP, Change, as_texts, changes_of, with_change
from .clock import Clock, Duration
from .config import Job
from .events import Changed, Event, Noted
from .snapshot import Snapshot
from .wishes import Wish, Wishes

_WAIT_SECONDS = 0.1


class Control:
    """The changes of a run, those to come and those that are wished.

    Args:
        job: what is trained.
        wishes: where wishes are looked for; None for a run that nobody can reach.

    Attributes:
        stopping: whether the run is to end here.
    """

    def __init__(self, job: Job, wishes: Wishes | None = None) -> None:
        self._job, self._wishes = job, wishes
        self._changes = changes_of(job.settings.changes)
        self._fixed = rate_fixed(job.optimizer, job.schedule)
        self._paused = self.stopping = False

    def rate(self, divergences: int, updates: int) -> float:
        """Returns γ for the update after so many, before any schedule.

        Args:
            divergences: how often the run has gone back after it diverged.
            updates: that count.
        """
        made = [c.value for c in self._changes if c.what == RATE and c.place <= (divergences, updates)]
        return self._job.learning_rate if not made or made[-1] is None else made[-1]

    def next(self, divergences: int, clock: Clock) -> list[Duration]:
        """Returns where the stretch after a clock has to end for a change that is known beforehand."""
        later = [c.after for c in self._changes if c.divergences == divergences and c.after > clock.updates]
        return [Duration(float(min(later)), "updates")] if later else []

    def between(self, at: Snapshot, watch: Any) -> Iterator[tuple[Snapshot, Event]]:
        """Yields what happens where a run stands, each with where it stands then; while it is paused, waits.

        Args:
            at: where it stands.
            watch: the run's `Stopwatch`, which does not count what is waited.
        """
        at = yield from self._due(at)
        while not self.stopping:
            wishes, notes = self._asked()
            for note in notes:
                yield at, Noted(at.clock, note)
            for what, value in wishes:
                at = yield from self._obeyed(at, Wish(what, value))
            if not self._paused:
                return
            watch.pause()
            time.sleep(_WAIT_SECONDS)
            self._job.team.check()
            watch.go_on()

    def _asked(self) -> tuple[list[Any], list[str]]:
        """Returns wishes and notes as process 0, which alone reads them, has them."""
        if self._wishes is None:
            return [], []
        wishes, notes = self._wishes.look()
        wishes, notes = self._job.team.agree([[[wish.what, wish.value] for wish in wishes], notes])
        return wishes, notes

    def _obeyed(self, at: Snapshot, wish: Wish) -> Generator[tuple[Snapshot, Event], None, Snapshot]:
        """Yields what a wish leads to; returns where the run stands then."""
        if self.stopping:
            return at
        if wish.what in (PAUSE, GO_ON):
            if self._paused != (wish.what == PAUSE):
                self._paused = wish.what == PAUSE
                yield at, self._changed(at, wish.what)
        elif wish.what == RATE and self._fixed is not None:
            yield at, Noted(at.clock, self._fixed.rstrip("."))
        else:
            change = Change(wish.what, wish.value, at.clock.updates, at.halved[0])
            self._changes = with_change(self._changes, change)
            return (yield from self._due(at))
        return at

    def _due(self, at: Snapshot) -> Generator[tuple[Snapshot, Event], None, Snapshot]:
        """Yields the changes that belong to where a run stands, and were not made yet; returns where it stands then."""
        here = at.halved[0], at.clock.updates
        due = [change for change in self._changes if change.place <= here]
        for change in [change for change in due if change.what == RATE][at.changed :]:
            at = replace(at, changed=at.changed + 1)
            yield at, self._changed(at, RATE, change.value)
        if not self.stopping and any(change.what == STOP for change in due):
            self.stopping = True
            yield at, self._changed(at, STOP)
        return at

    def _changed(self, at: Snapshot, what: str, value: float | None = None) -> Changed:
        texts = as_texts(self._changes)
        return Changed(at.clock, what, value, None if texts is None else tuple(texts), at)
