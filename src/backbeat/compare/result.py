"""What a comparison found: of each cadence the tuned rate, the runs, and what they took to the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..measure import Spread, Timing
from .tune import Tuning

CLOCKS = ("examples", "updates", "seconds")


@dataclass(frozen=True)
class Reached:
    """When a run first met the target."""

    updates: int
    examples: int
    epochs: float
    seconds: float


@dataclass(frozen=True)
class MeasuredRun:
    """One run of a cadence at its tuned rate, on a seed that the tuning did not see.

    Attributes:
        seed: of weights, split and order.
        curve: columns by evaluation: updates, examples, epochs, seconds, train_loss_mean, held_out_loss_mean, scores,
            gradient_norm_mean and gradient_norm_sd of the updates since the evaluation before.
        reached: when it met the target, None where it did not.
        diverged_at: the update after which the loss was not finite, None where it always was.
    """

    seed: int
    curve: Mapping[str, np.ndarray] = field(repr=False)
    reached: Reached | None
    diverged_at: int | None

    def final(self) -> dict[str, float]:
        """Returns the scores of the last evaluation."""
        return {
            name: float(column[-1]) for name, column in self.curve.items() if name.startswith(("train_", "held_out_"))
        }

    def at(self, clock: str, amount: float, column: str) -> float:
        """Returns a column's value at the last evaluation up to an amount on a clock; NaN where it diverged before."""
        place = int(np.searchsorted(self.curve[clock], amount * (1 + 1e-9), side="right")) - 1
        return float(self.curve[column][place]) if place >= 0 else float("nan")


@dataclass(frozen=True)
class CadenceResult:
    """All that was measured of one cadence.

    Attributes:
        every: the cadence as text.
        batch_size: M.
        tuning: how its learning rate was found.
        timing: seconds per update and compilation.
        runs: one for each measuring seed.
        score_column: the curve's column of the target's score.
    """

    every: str
    batch_size: int
    n_examples: int
    tuning: Tuning
    timing: Timing
    runs: tuple[MeasuredRun, ...]
    score_column: str

    @property
    def usual_name(self) -> str:
        """What the literature calls it."""
        if self.batch_size == self.n_examples:
            return "gradient descent"
        return "stochastic gradient descent" if self.batch_size == 1 else "mini-batch gradient descent"

    @property
    def reached_share(self) -> float:
        """The share of runs that met the target."""
        return sum(run.reached is not None for run in self.runs) / len(self.runs)

    def to_target(self, clock: str) -> Spread | None:
        """Returns updates, examples, epochs or seconds to the target; None unless every run met it."""
        return Spread.of([getattr(run.reached, clock) for run in self.runs]) if self.reached_share == 1 else None

    def spread(self, values: Sequence[float]) -> Spread | None:
        """Returns median and range over the runs, None where a run has no value."""
        return Spread.of(values) if np.isfinite(values).all() else None

    @property
    def final_score(self) -> Spread | None:
        """The target's score at the end of the runs."""
        return self.spread([float(run.curve[self.score_column][-1]) for run in self.runs])

    def gradient_norm(self) -> dict[str, float | None]:
        """Returns the median norm of the mean gradient, and the coefficient of variation within an interval.

        Within, so that the slow fall of the norm along the run does not count as spread; intervals are pooled:
        √(Σ n sd² / Σ n mean²).
        """
        means = np.concatenate([run.curve["gradient_norm_mean"][1:] for run in self.runs])
        sds = np.concatenate([run.curve["gradient_norm_sd"][1:] for run in self.runs])
        counts = np.concatenate([np.diff(run.curve["updates"]) for run in self.runs])
        ok = np.isfinite(means) & np.isfinite(sds)
        if not ok.any():
            return {"median": None, "spread": None}
        spread = np.sqrt((counts * sds**2)[ok].sum() / max((counts * means**2)[ok].sum(), 1e-300))
        return {"median": float(np.median(means[ok])), "spread": float(spread)}

    def record(self) -> dict[str, Any]:
        """Returns the cadence as a report shows it."""
        spreads = {clock: self.to_target(clock) for clock in ("updates", "examples", "epochs", "seconds")}
        return {
            "every": self.every, "batch_size": self.batch_size, "usual_name": self.usual_name,
            **tuning_record(self.tuning),
            "runs": [
                {"seed": run.seed, "diverged_at": run.diverged_at,
                 "reached": asdict(run.reached) if run.reached else None, "final": run.final(), "curve": run.curve}
                for run in self.runs
            ],
            "to_target": {clock: asdict(s) for clock, s in spreads.items() if s} or None,
            "reached_share": self.reached_share, "final_score": asdict(self.final_score) if self.final_score else None,
            "diverged_share": sum(run.diverged_at is not None for run in self.runs) / len(self.runs),
            "gradient_norm": self.gradient_norm(), **timing_record(self.timing),
        }  # fmt: skip


def timing_record(timing: Timing) -> dict[str, Any]:
    """Returns what a cadence costs, as a report shows it.

    Example:
        >>> timing_record(Timing((Spread(2e-6, 1e-6, 3e-6),), 0.5))["seconds_per_update"]["median"]
        2e-06
    """
    return {"seconds_per_update": asdict(timing.seconds_per_update), "compile_seconds": timing.compile_seconds}


def tuning_record(tuning: Tuning) -> dict[str, Any]:
    """Returns how a cadence's learning rate was found, as a report shows it.

    Example:
        >>> from backbeat.compare.tune import Tried
        >>> best = Tried(0.5, (7, 9), 0.9, 0)
        >>> tuning_record(Tuning((best,), best, False, 0, 1.0))["tuning"][0]["chosen"]
        True
    """
    return {
        "learning_rate": tuning.best.learning_rate, "on_edge": tuning.on_edge, "widened": tuning.widened,
        "tuning": [
            {"learning_rate": t.learning_rate, "updates_to_target": t.updates_to_target, "score": t.score,
             "diverged": t.diverged, "chosen": t is tuning.best}
            for t in tuning.tried
        ],
    }  # fmt: skip


def at_equal(cadences: Sequence[CadenceResult]) -> dict[str, dict[str, Any]]:
    """Returns loss and score of every cadence after the same examples, updates and seconds: as far as all ran."""
    result: dict[str, dict[str, Any]] = {}
    for clock in CLOCKS:
        amount = min(float(run.curve[clock][-1]) for c in cadences for run in c.runs if run.diverged_at is None) if any(
            run.diverged_at is None for c in cadences for run in c.runs) else 0.0  # fmt: skip
        rows = []
        for cadence in cadences:
            row: dict[str, Any] = {"every": cadence.every}
            for name, column in (("train_loss_mean", "train_loss_mean"), ("score", cadence.score_column)):
                spread = cadence.spread([run.at(clock, amount, column) for run in cadence.runs])
                row[name] = asdict(spread) if spread else None
            rows.append(row)
        result[clock] = {"at": amount, "rows": rows}
    return result


@dataclass
class Comparison:
    """Several cadences on one model, data set and machine.

    Attributes:
        record: everything, as text, numbers and lists (what `record.json` holds and a report shows).
        cadences: the results, in the order in which they were asked for.
        folder: where it is recorded, None for nowhere.
    """

    record: dict[str, Any] = field(repr=False)
    cadences: tuple[CadenceResult, ...] = field(repr=False)
    folder: Path | None = None

    @property
    def answer(self) -> list[str]:
        """The answer in words, a sentence each."""
        return self.record["answer"]

    @property
    def reached(self) -> bool | None:
        """Whether at least one cadence met the target on every seed; None where there was no target."""
        return None if self.record["target"] is None else any(c.reached_share == 1 for c in self.cadences)

    def plot(self) -> Any:
        """Returns a matplotlib figure: loss on three clocks, and updates to the target against the batch size."""
        from ..report import comparison_figure

        return comparison_figure(self.record)

    def _repr_html_(self) -> str:
        """Returns what a notebook shows of it."""
        from ..report import comparison_fragment

        return comparison_fragment(self.record, self.plot())

    def __str__(self) -> str:
        return "\n".join(self.answer)
