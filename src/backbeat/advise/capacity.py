"""How many examples can be computed at once in the memory that there is: as the compiler plans it, then run once.

A batch of any size can be computed, in blocks; what memory bounds is the block. How much a program takes is known when
it is compiled, before anything is allocated, so that nothing is tried that could end the process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import jax

from ..advance import Engine
from ..cadence import every
from ..clock import Duration
from ..config import Job, with_cadence
from ..nonfinite import NotFinite
from ..report.style import count
from ..room import free_bytes
from ..stretch import Data

_SHARE = 0.8  # of the memory that is free, so that something is left for all else
_TRIES = 6


@dataclass(frozen=True)
class Capacity:
    """The most examples that can be computed at once.

    Attributes:
        block: how many; None where it is not known.
        n_train: |D|, the largest batch.
        needed: bytes that the program of a batch of the whole data takes with such blocks, beside the data.
        free: bytes of the device's memory that were free; None where it does not say.
        confirmed: whether an update was run so.
    """

    block: int | None
    n_train: int
    needed: int | None
    free: int | None
    confirmed: bool

    @property
    def sentences(self) -> list[str]:
        """What was found, in words."""
        if self.block is None or self.needed is None or self.free is None:
            return ["How large a batch fits into memory was not measured: the device does not say how much it has."]
        run = "as compiled and as run once" if self.confirmed else "as compiled; not run, for lack of time"
        takes = f"which takes {_size(self.needed)} beside the data, of {_size(self.free)} free ({run})"
        if self.block >= self.n_train:
            return [f"The whole data set fits into memory as one batch in one block, {takes}."]
        return [
            f"At most {count(self.block)} examples fit into memory at once, {takes}; larger batches are computed in "
            "blocks of that size or less."
        ]

    def record(self) -> dict[str, Any]:
        """Returns it as plain numbers."""
        return {**vars(self), "sentences": self.sentences}


def largest_batch(job: Job, data: Data, *, seconds: float, confirm: bool = True) -> Capacity:
    """Returns the most examples that fit into the device's memory at once.

    Args:
        job: what is trained; its cadence does not matter.
        data: on the device.
        seconds: how long it may take; one program is compiled in any case.
        confirm: whether to run one update of the result.

    Example:
        >>> import backbeat as bb
        >>> from backbeat.config import Settings, resolve
        >>> job = resolve(bb.linear(), "digits", Settings())
        >>> found = largest_batch(job, job.device_data(), seconds=5)
        >>> found.block in (1438, None)
        True
    """
    end, n, free = time.perf_counter() + seconds, job.n_train, free_bytes()
    if free is None:
        return Capacity(None, n, None, None, False)
    block, engine, needed = n, *_planned(job, data, n)
    for _ in range(_TRIES):
        if needed is None or needed <= _SHARE * free or block == 1 or time.perf_counter() > end:
            break
        block = max(1, min(block - 1, int(0.95 * block * _SHARE * free / needed)))  # nearly in proportion
        engine, needed = _planned(job, data, block)
    if needed is None or needed > _SHARE * free:
        return Capacity(None, n, needed, free, False)
    return Capacity(block, n, needed, free, confirm and time.perf_counter() < end and _runs(engine))


def _planned(job: Job, data: Data, block: int) -> tuple[Engine, int | None]:
    """Returns an engine of the whole data set in blocks, and the bytes that its program takes."""
    whole = replace(with_cadence(job, every("dataset")), settings=replace(job.settings, block=block))
    engine = Engine(whole, data)
    return engine, engine.program_bytes(job.n_train)


def _runs(engine: Engine) -> bool:
    try:
        engine.advance([Duration(1.0, "updates")])
    except NotFinite:
        return True  # it fitted; whether its rate is any good is another matter
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"
