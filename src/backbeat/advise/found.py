"""Everything that advice found, as one value, and the record and the answer that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..compare.asked import target_text
from ..compare.critical import CriticalFit
from ..config import Job, Settings
from ..folder import environment, plain
from ..models import n_parameters
from ..record import FORMAT, recorded_columns
from .answer import about_confirmed, about_critical, about_wish, next_measurement, not_measured
from .capacity import Capacity
from .confirm import Confirmed
from .hardware import HardwareCurve
from .laws import RateLaw
from .noise_run import NoiseAlong
from .replan import Elsewhere
from .search import SEEDS, Budget, Sized
from .time_model import TimeModel
from .wishes import Wish


@dataclass(frozen=True)
class Found:
    """What the stages of advice found.

    Attributes:
        job: of the first seed, with the target.
        budget: the time given and spent.
        curve: seconds per update over the batch size.
        sizes: batch size -> what it took, real runs included.
        law: how the tuned rates depend on the batch size; None where they are not tuned.
        wishes: by name; empty where no size met the target.
        confirmed: real runs.
        noise: the noise scale along a run; None where it was not measured.
        fit: of updates over the batch size; None with too few sizes.
        capacity: what fits into memory.
        plan_for: a machine that is not here, None where none was asked for.
        notes: what else has to be said.
    """

    job: Job
    budget: Budget
    curve: HardwareCurve
    sizes: Mapping[int, Sized]
    law: RateLaw | None
    wishes: Mapping[str, Wish]
    confirmed: tuple[Confirmed, ...]
    noise: NoiseAlong | None
    fit: CriticalFit | None
    capacity: Capacity
    plan_for: Elsewhere | None
    notes: tuple[str, ...]

    @property
    def target(self) -> str:
        """The target, with the part of the data that it is scored on."""
        return str(target_text(self.job))

    def record(self) -> dict[str, Any]:
        """Returns all of it as plain numbers and text, which a report shows."""
        job, curve, n = self.job, self.curve, self.job.n_train
        parameters = n_parameters(job.initial_state().params)
        there = None if self.plan_for is None else self.plan_for.record(self.fit, self.sizes, curve, n, parameters)
        shown = {name: wish.record() for name, wish in self.wishes.items()}
        law, doubts = self.law, not_measured(self.sizes, n)
        return plain({
            "kind": "advice", "format": FORMAT, "backbeat": environment()["backbeat"],
            "created": datetime.now(UTC).isoformat(timespec="seconds"), **recorded_columns(job),
            "n_parameters": parameters, "seed": job.settings.seed, "seeds": SEEDS, "target": self.target,
            "within_seconds": self.budget.seconds, "took_seconds": self.budget.spent,
            "tunable": job.optimizer.tunable, "kept": _kept(job), "answer": self._answer(there),
            "notes": [*self.notes, *doubts, *curve.sentences, *self.capacity.sentences],
            "next": next_measurement(self.wishes, self.fit, self.confirmed, self.sizes),
            **{name: shown.get(name) for name in ("finish_first", "fewest_examples", "fewest_updates")},
            "critical_batch": _critical_record(self.fit),
            "noise_scale": None if self.noise is None else self.noise.record(), "hardware": curve.record(),
            "sizes": [
                size.record(n, curve.seconds(m)) | {"seconds_how": curve.how(m)}
                for m, size in sorted(self.sizes.items())
            ],
            "rate_law": None if law is None else law.record(self.sizes),
            "time_model": self._time_model(), "confirmed": [one.record() for one in self.confirmed],
            "capacity": self.capacity.record(), "what_if": there, "environment": environment(),
        })  # fmt: skip

    def _answer(self, there: Mapping[str, Any] | None) -> list[str]:
        """Returns the advice, a sentence each."""
        if not self.wishes:
            return [f"No batch size met {self.target} with every seed in the time given, so there is no advice yet."]
        n = self.job.n_train
        return [
            *(about_wish(wish, n) for wish in self.wishes.values()),
            *about_confirmed(self.confirmed, n),
            about_critical(self.fit),
            "The noise scale was not measured." if self.noise is None else self.noise.sentence,
            *(() if there is None else there["sentences"]),
            f"All of this holds with {self.job.optimizer}, to {self.target}, from {self.budget.spent:.0f} s of "
            "measuring.",
        ]

    def _time_model(self) -> dict[str, Any] | None:
        if self.fit is None or not self.fit.known:
            return None
        model = TimeModel(self.fit.s_min, self.fit.b_crit, self.curve.alpha.value, self.curve.beta.value)
        return model.record(list(self.sizes))


def _kept(job: Job) -> dict[str, Any]:
    """Returns the settings that the advice was measured with and `fit` needs too, where they are not its defaults."""
    given, usual = job.settings, Settings()
    names = ("loss", "optimizer", "order", "short_batch", "held_out", "weight_decay", "clip", "class_weight")
    return {name: getattr(given, name) for name in names if getattr(given, name) != getattr(usual, name)}


def _critical_record(fit: CriticalFit | None) -> dict[str, Any] | None:
    if fit is None:
        return None
    return fit.as_dict() | {"value": fit.b_crit, "low": fit.b_crit_low, "high": fit.b_crit_high}
