"""Independent trainings as units that any process can carry out, given the model, the data and the settings once."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..cadence import Cadence
from ..config import Job, Settings, resolve, with_cadence
from ..data import Dataset, reading_errors
from ..data.dataset import aligned
from ..errors import BackbeatError
from ..stretch import Data

_DECIDING = (  # settings of JAX that decide what is computed: a worker has those of the process that asks
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)


class Trainings:
    """What all units have in common; jobs are made of it where they are needed, one for each seed.

    Attributes:
        model: as in `backbeat.fit`, likewise `params`.
        dataset: read already.
        settings: of the first seed.
    """

    def __init__(self, model: Any, dataset: Dataset, settings: Settings, params: Any = None) -> None:
        self.model, self.dataset, self.settings, self.params = model, dataset, settings, params
        self._jobs: dict[int, Job] = {}

    def job(self, number: int) -> Job:
        """Returns the job of one seed, counted from the first."""
        if number not in self._jobs:
            settings = replace(self.settings, seed=self.settings.seed + number)
            self._jobs[number] = resolve(self.model, self.dataset, settings, self.params)
        return self._jobs[number]

    def jobs(self, numbers: Iterable[int], cadence: Cadence) -> list[Job]:
        """Returns the jobs of some seeds with a cadence."""
        return [with_cadence(self.job(number), cadence) for number in numbers]

    @cached_property
    def data(self) -> Data:
        """The data on the device."""
        return self.job(0).device_data()

    def __getstate__(self) -> dict[str, Any]:
        import jax

        x = self.dataset.x
        return {
            "given": (self.model, self.dataset, self.settings, self.params),
            "aligned": isinstance(x, np.ndarray) and x.ctypes.data % 64 == 0,  # else JAX copies a large one
            "jax": {name: getattr(jax.config, name) for name in _DECIDING},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        import jax

        for name, value in state["jax"].items():
            jax.config.update(name, value)
        self.__init__(*state["given"])
        if state["aligned"]:
            x = aligned(self.dataset.x.shape, self.dataset.x.dtype)
            x[...] = self.dataset.x
            self.dataset = replace(self.dataset, x=x)


@dataclass(frozen=True)
class Unit:
    """Trainings that are one program, or follow from one another, and need nothing of other units.

    Attributes:
        name: what is done, for sentences: "tuning every 32".
        every: the cadence as text, for the progress.
        work: (trainings, seconds=…, crowd=…, progress=…) -> what was found: a function of a module, or a partial of
            one. `seconds` is how long it may take; an update takes `crowd` times as long as alone, as others compute
            too.
        timed: whether seconds that it measures count: then nothing else may compute.
    """

    name: str
    every: str
    work: Callable[..., Any]
    timed: bool = False


def carried_out(work: Callable[..., Any], trainings: Trainings) -> tuple[str, Any]:
    """Returns ("done", what was found) or ("failed", the exception), of a unit's work with all but the trainings."""
    try:
        with reading_errors():
            return "done", work(trainings)
    except BackbeatError as error:
        return "failed", error
    except Exception as error:
        return "failed", RuntimeError(f"{error!r} in a worker:\n{traceback.format_exc()}")
