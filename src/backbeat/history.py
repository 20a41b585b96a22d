"""What a run's events come to: a line for each event, and from these lines the history of the run.

The history is made from the lines and from nothing else, so that a run that is resumed goes on with the history that it
had: its lines are read again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MissingExtraError
from .events import Changed, Diverged, Evaluated, Event, Finished, Noted, Started, StretchDone

if TYPE_CHECKING:
    from .noise import NoiseSums

_CLOCKS = ("updates", "examples", "epochs", "wall_seconds")
_COLUMNS = (*_CLOCKS, "update_seconds", "loss_mean")
_NAMES = {
    StretchDone: "stretch", Evaluated: "evaluated", Noted: "noted", Changed: "changed", Finished: "finished",
    Diverged: "diverged",
}  # fmt: skip
_NORMS = ("gradient_norm_mean", "gradient_norm_sd")
_NOISE = ("gradient_squared", "gradient_trace", "noise_scale", "noise_scale_low", "noise_scale_high")
REPEATS = ("updates", "batch_loss_before", "batch_loss_after", "rest_loss_before", "rest_loss_after")


class History(dict):
    """Columns of a run, one row for each stretch or evaluation: a dict of equal-length NumPy arrays.

    `updates`, `examples`, `epochs`, `wall_seconds` (compilation left out), `update_seconds` (evaluations left out too),
    `loss_mean` (of the batches since the row before), where watched `gradient_norm_mean` and `gradient_norm_sd` (of the
    updates since then), `gradient_squared`, `gradient_trace`, `noise_scale`, `noise_scale_low` and `noise_scale_high`
    (of the updates since then, see `noise.NoiseScale`), `batch_size` (of a full batch since then; NaN where batches are
    repeated), `learning_rate` (of the last update; NaN where the optimizer holds its own), and where evaluated
    `train_loss_mean`, `held_out_loss_mean`, `held_out_accuracy` and so on; NaN where not.
    """

    def to_polars(self) -> Any:
        """Returns the columns as a Polars frame.

        Raises:
            MissingExtraError: Polars is not installed.
        """
        return _imported("polars").DataFrame({name: np.asarray(column) for name, column in self.items()})

    def to_pandas(self) -> Any:
        """Returns the columns as a pandas frame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return _imported("pandas").DataFrame(dict(self))


def _imported(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(f"this needs {name}, which is not installed; run: pip install {name}") from None


def event_line(event: Event) -> dict[str, Any]:
    """Returns an event as one JSON object; the arrays of single updates are left out, those of repeated batches not."""
    if isinstance(event, Started):
        return {
            "event": "resumed" if event.resumed else "started",
            "time": datetime.now(UTC).isoformat(timespec="seconds"), **event.about,
            "n_parameters": event.n_parameters, "batch_sizes": event.batch_sizes,
            "compile_seconds": event.compile_seconds,
        }  # fmt: skip
    clock = event.clock
    line: dict[str, Any] = {
        "event": _NAMES[type(event)],
        "updates": clock.updates, "examples": clock.examples, "epochs": clock.epochs, "wall_seconds": clock.seconds,
    }  # fmt: skip
    if isinstance(event, StretchDone):
        line |= {
            "loss_sum": event.loss_sum, "weight_sum": event.weight_sum, "loss_mean": event.loss_mean,
            "update_seconds": event.update_seconds, "learning_rate": event.learning_rate,
            "set_aside": event.set_aside, "batch_size": event.batch_size, "compile_seconds": event.compile_seconds,
            **_norm_columns(event), **_noise_columns(event),
        }  # fmt: skip
        if event.repeats is not None:
            line["repeats"] = dict(event.repeats)
    elif isinstance(event, Evaluated):
        line |= {"train": event.train, "held_out": event.held_out, "seconds": event.seconds}
    elif isinstance(event, Noted):
        line |= {"note": event.note} if event.back_to is None else {"note": event.note, "back_to": event.back_to}
    elif isinstance(event, Changed):
        line |= {"what": event.what, "value": event.value, "sentence": event.sentence}
    else:
        line["reason"] = event.reason
        if isinstance(event, Finished):
            line["reached"] = event.reached
        else:
            line |= {"update": event.update, "batch": event.batch, "layer": event.layer}
    return line


def _norm_columns(event: StretchDone) -> dict[str, float]:
    """Returns mean and standard deviation of the gradient norms of a stretch's updates; nothing where not watched."""
    norms = event.gradient_norms
    if norms is None or not len(norms):
        return {}
    return dict(zip(_NORMS, (float(np.mean(norms)), float(np.std(norms))), strict=True))


def _noise_columns(event: StretchDone) -> dict[str, float]:
    """Returns the noise of a stretch's updates, as the history names it; nothing where it is not watched."""
    if event.noise is None:
        return {}
    found = event.noise.scale()
    return dict(zip(_NOISE, (found.gradient_squared, found.trace, found.scale, found.low, found.high), strict=True))


class Account:
    """Adds up what the events of a run say, one after another.

    Attributes:
        rows: of the history so far, a dict each.
        compile_seconds: what compiling took.
        set_aside: how many examples dropped short batches left out.
        notes: what was noted on the way, in sentences.
        changes: what a person changed on the way: when, what, to which value, and in words.
        noise: the sums of what was measured of the noise; None where it is not watched.

    Example:
        >>> account = Account()
        >>> account.take({"event": "evaluated", "updates": 0, "examples": 0, "epochs": 0.0, "wall_seconds": 0.0,
        ...               "train": {"loss": 2.5}, "held_out": {}})
        >>> account.history()["train_loss_mean"]
        array([2.5])
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._repeats: list[tuple[int, Mapping[str, Any]]] = []  # with the updates at the end of each stretch
        self._update_seconds, self.compile_seconds, self.set_aside = 0.0, 0.0, 0
        self.notes: list[str] = []
        self.changes: list[dict[str, Any]] = []
        self.noise: NoiseSums | None = None

    def take(self, line: Mapping[str, Any]) -> None:
        """Counts an event in, given as `event_line` makes it or as it stands in events.jsonl."""
        what = line["event"]
        if what in ("started", "resumed", "stretch"):
            self.compile_seconds += line.get("compile_seconds") or 0.0
        if what == "noted":
            self.notes.append(line["note"])
            if "back_to" in line:  # what was undone is no part of the run
                self.rows = [row for row in self.rows if row["updates"] <= line["back_to"]]
                self._repeats = [each for each in self._repeats if each[0] <= line["back_to"]]
        elif what == "changed":
            self.changes.append({name: line[name] for name in ("what", "value", "sentence", *_CLOCKS)})
        elif what == "stretch":
            self._stretch(line)
        elif what == "evaluated":
            if not self.rows or self.rows[-1]["updates"] != line["updates"]:
                self.rows.append(self._times(line) | {"loss_mean": math.nan})
            for part in ("train", "held_out"):
                self.rows[-1] |= score_columns(part, line[part])

    def _stretch(self, line: Mapping[str, Any]) -> None:
        self._update_seconds += line["update_seconds"]
        self.set_aside += line["set_aside"]
        row = self._times(line)
        for name in ("loss_mean", *_NORMS, *_NOISE):
            if name in line or name == "loss_mean":  # a file has null for what is not finite
                none = math.inf if name == "noise_scale_high" else math.nan
                row[name] = none if line[name] is None else line[name]
        for name in ("batch_size", "learning_rate"):
            row[name] = math.nan if line.get(name) is None else line[name]
        self.rows.append(row)
        if line.get("repeats") is not None:
            self._repeats.append((line["updates"], line["repeats"]))

    def _times(self, line: Mapping[str, Any]) -> dict[str, Any]:
        times = {name: line[name] for name in _CLOCKS}
        return times | {"update_seconds": self._update_seconds}

    def history(self) -> History:
        """Returns the columns so far."""
        names = list(dict.fromkeys([*_COLUMNS, *(name for row in self.rows for name in row)]))
        columns: dict[str, np.ndarray] = {
            name: np.array([row.get(name, np.nan) for row in self.rows], np.float64) for name in names
        }
        for name in ("updates", "examples"):
            columns[name] = columns[name].astype(np.int64)
        return History(columns)

    def repeats(self) -> dict[str, np.ndarray] | None:
        """Returns what happened to each repeated batch, columns of one entry a batch; None where none is repeated."""
        if not self._repeats:
            return None
        return {
            name: np.concatenate([
                np.asarray(each[name], np.int32 if name == "updates" else np.float32) for _, each in self._repeats
            ])
            for name in REPEATS
        }  # fmt: skip


def score_columns(part: str, scores: Mapping[str, float | None]) -> dict[str, float]:
    """Returns an evaluation's scores of one part under the names of the history's columns.

    Example:
        >>> score_columns("held_out", {"loss": 0.5, "accuracy": 0.75})
        {'held_out_loss_mean': 0.5, 'held_out_accuracy': 0.75}
    """
    return {
        f"{part}_{'loss_mean' if name == 'loss' else name}": math.nan if value is None else value
        for name, value in scores.items()
    }


def read_lines(text: str) -> tuple[list[dict[str, Any]], int]:
    r"""Returns the event lines of a text, and how many lines of it are damaged and left out.

    Example:
        >>> read_lines('{"event": "noted", "note": "x"}\n{"event": "str')
        ([{'event': 'noted', 'note': 'x'}], 1)
    """
    lines, damaged = [], 0
    for line in text.splitlines():
        try:
            found = json.loads(line)
            found["event"]
            lines.append(found)
        except (ValueError, TypeError, KeyError):
            damaged += 1
    return lines, damaged


def replayed(account: Account, lines: Iterable[Mapping[str, Any]]) -> int:
    """Counts the lines of a run so far in; returns how many could not be, as something is missing in them."""
    left_out = 0
    for line in lines:
        try:
            account.take(line)
        except (KeyError, TypeError, ValueError):
            left_out += 1
    return left_out
