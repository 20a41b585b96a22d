"""`on_divergence="halve-lr"`: where a run that diverged goes back to, and with which learning rate it goes on.

The places to go back to are epochs' ends at least 100 updates apart: they do not depend on time or on how the run was
cut into stretches, so that a repeated or resumed run goes back to the same ones. Where a place has been gone back to
four times it is taken to be too far gone itself, and the run begins anew with the learning rate as it is then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .clock import Clock, Duration, next_multiple
from .config import STOP, Job
from .nonfinite import NotFinite
from .snapshot import Snapshot

_UPDATES_APART, _TRIES, _HALVINGS = 100, 4, 20


@dataclass(frozen=True)
class WaysBack:
    """The places to go back to.

    Attributes:
        interval: between them; None where a run that diverges stops.
    """

    interval: Duration | None

    @classmethod
    def of(cls, job: Job) -> WaysBack:
        """Returns those of a job."""
        if job.settings.on_divergence == STOP:
            return cls(None)
        largest = max(job.plan.cadence.batch_sizes(job.n_train))
        return cls(Duration(float(math.ceil(_UPDATES_APART * largest / job.n_train)), "epochs"))

    def __bool__(self) -> bool:
        return self.interval is not None

    def next(self, clock: Clock) -> list[Duration]:
        """Returns where the next place is."""
        return [] if self.interval is None else [next_multiple(self.interval, clock)]

    def passed(self, before: Clock, at: Snapshot) -> Snapshot:
        """Returns a snapshot that goes back to itself, where it is at such a place; else as it was."""
        if self.interval is None or at.clock.epochs < next_multiple(self.interval, before).amount - 1e-9:
            return at
        at = replace(at, halved=(at.halved[0], 0), safe=None)
        return replace(at, safe=at)

    def after(self, at: Snapshot, first: Snapshot, error: NotFinite, rate: float) -> tuple[Snapshot, str] | None:
        """Returns where a run that diverged goes on, and the sentence that says so; None where it stops.

        Args:
            at: where it stood before the stretch that diverged.
            first: where it began.
            error: what happened.
            rate: γ as it was last set.
        """
        n, here = at.halved
        if at.safe is None or error.update == 0 or n >= _HALVINGS:
            return None
        back = at.safe if here < _TRIES else first
        factor = at.rate_factor / 2
        where = f"update {back.clock.updates:,}" if back.clock.updates else "the beginning"
        note = f"diverged {error.sentence}; goes on from {where} with the learning rate {rate * factor:g}"
        halved = (n + 1, here + 1 if here < _TRIES else 0)
        back = replace(back, rate_factor=factor, halved=halved, safe=replace(back, safe=None), block=at.block)
        return replace(back, changed=at.changed), note  # what a person changed stays so
