"""What a picture draws of several runs: the median over seeds, and the range from the lowest to the highest."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Record = dict[str, Any]
LOSSES = {"train_loss_mean": "training loss", "held_out_loss_mean": "held-out loss"}


class Band(NamedTuple):
    """One cadence over one clock: arrays of equal length, in the order of the updates."""

    x: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(cadence: Record, clock: str, measure: str) -> Band:
    """Returns the median and the range of `measure` over the runs of a cadence.

    All runs of a cadence share their updates; a run that diverged is shorter, and from there on the others speak.
    A point without any value is left out.

    Example:
        >>> runs = [{"curve": {"updates": [0, 1], "loss": [3.0, 1.0]}}, {"curve": {"updates": [0], "loss": [5.0]}}]
        >>> [values.tolist() for values in band({"runs": runs}, "updates", "loss")]
        [[0.0, 1.0], [4.0, 1.0], [3.0, 1.0], [5.0, 1.0]]
    """
    curves = [run["curve"] for run in cadence.get("runs") or [] if run.get("curve")]
    curves = [curve for curve in curves if curve.get(clock) and curve.get(measure)]
    n_points = max((len(curve[clock]) for curve in curves), default=0)
    rows = []
    for i in range(n_points):
        pairs = [(c[clock][i], c[measure][i]) for c in curves if i < min(len(c[clock]), len(c[measure]))]
        known = [(x, y) for x, y in pairs if x is not None and y is not None and np.isfinite(y)]
        if known:
            xs, ys = zip(*known, strict=True)
            rows.append((float(np.median(xs)), float(np.median(ys)), min(ys), max(ys)))
    columns = np.array(rows, dtype=float).reshape(-1, 4).T
    return Band(*columns)


def loss_measure(record: Record) -> str:
    """Returns the loss that a comparison has curves of: the training loss, or else the held-out loss.

    Example:
        >>> loss_measure({"cadences": [{"runs": [{"curve": {"held_out_loss_mean": [1.0]}}]}]})
        'held_out_loss_mean'
    """
    runs = [run for cadence in record.get("cadences") or [] for run in cadence.get("runs") or []]
    has_training_loss = any(
        any(value is not None for value in (run.get("curve") or {}).get("train_loss_mean") or []) for run in runs
    )
    return "train_loss_mean" if has_training_loss or not runs else "held_out_loss_mean"


def score_column(columns: Record) -> str | None:
    """Returns the name of the held-out score among a history's columns, such as `held_out_accuracy`; None without one.

    Example:
        >>> score_column({"updates": [1], "held_out_loss_mean": [0.3], "held_out_r2": [0.9]})
        'held_out_r2'
    """
    names = [name for name in columns if name.startswith("held_out_") and name not in LOSSES]
    return next((name for name in names if any(value is not None for value in columns[name])), None)
