"""A comparison in logs: each measured run below it, by cadence and seed, from its recorded curve."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..logs import FAILED, FINISHED, Log, LoggedRun, Named, Place, Written, named, opened_places, places_of
from .result import CadenceResult, MeasuredRun


class ComparisonLog:
    """The logs of a comparison; written while it goes on, as its cadences are measured.

    Args:
        given: "tensorboard:DIR", "mlflow:URI" or a list of these; None for none.
        run: the folder it is recorded in; None for none.

    Attributes:
        notes: what has to be said of them, in sentences.

    Raises:
        SettingsError: one of them cannot be written.
        MissingExtraError: its library is not installed.

    Example:
        >>> with ComparisonLog(None) as log:
        ...     log.begin({"model": "linear"})
        >>> log.notes
        []
    """

    def __init__(self, given: Any, run: str | Path | None = None) -> None:
        self.notes: list[str] = []
        self._name = time.strftime("%Y-%m-%d-%H%M%S") if run is None else Path(run).name
        self._each = [_Logged(place, log, self.notes) for place, log in opened_places(places_of(given))]
        self._known: dict[str, Any] = {}

    def begin(self, known: Mapping[str, Any]) -> None:
        """Begins it, with what is known of it."""
        self._known = dict(known)
        for each in self._each:
            each.begin(Named(self._name, self._known, time.time()))

    def measured(self, result: CadenceResult) -> None:
        """Logs the runs of one cadence."""
        known = {"every": result.every, "batch_size": result.batch_size}
        known["learning_rate"] = result.tuning.best.learning_rate
        for run in result.runs:
            for each in self._each:
                each.run({**self._known, **known, "seed": run.seed}, run)

    def finished(self, answer: list[str]) -> None:
        """Logs the answer."""
        for each in self._each:
            each.finished(answer)

    def __enter__(self) -> ComparisonLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all logs; a comparison that told of no answer has failed."""
        while self._each:
            self._each.pop().close()


class _Logged:
    """A comparison in one log."""

    def __init__(self, place: Place, log: Log, notes: list[str]) -> None:
        self._log, self._written = log, Written(place, notes.append)
        self._whole: LoggedRun | None = None
        self._state = FAILED

    def begin(self, whole: Named) -> None:
        def begin() -> None:
            self._whole = self._log.begin(whole)

        self._written.later(begin)

    def run(self, known: Mapping[str, Any], run: MeasuredRun) -> None:
        self._written.later(lambda: self._run(known, run))

    def _run(self, known: Mapping[str, Any], run: MeasuredRun) -> None:
        assert self._whole is not None
        seconds = run.curve["seconds"]
        name = f"every-{str(known['every']).replace(' ', '-')}/seed-{known['seed']}"
        began = time.time() - float(seconds[-1])
        child = self._log.begin(Named(name, known, began, parent=self._whole.kept))
        for k, updates in enumerate(run.curve["updates"]):
            child.numbers(
                int(updates),
                float(seconds[k]),
                named({column: float(values[k]) for column, values in run.curve.items()}),
            )
        end = int(run.curve["updates"][-1]), float(seconds[-1])
        if run.reached is not None:
            at = run.reached
            child.numbers(
                at.updates,
                at.seconds,
                {
                    f"to_target/{clock}": float(getattr(at, clock))
                    for clock in ("updates", "examples", "epochs", "seconds")
                },
            )
        if run.diverged_at is not None:
            child.say(*end, f"diverged at update {run.diverged_at:,}")
        child.end(FINISHED if run.diverged_at is None else FAILED)

    def finished(self, answer: list[str]) -> None:
        def say() -> None:
            assert self._whole is not None
            for sentence in answer:
                self._whole.say(0, 0.0, sentence)
            self._state = FINISHED

        self._written.later(say)

    def close(self) -> None:
        self._written.close(lambda: None if self._whole is None else self._whole.end(self._state))
