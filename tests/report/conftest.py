"""Made-up but plausible records, so that pages and pictures are tested without training anything."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

Record = dict
ENVIRONMENT = {
    "python": "3.11.7",
    "jax": "0.10.2",
    "numpy": "2.3.4",
    "platform": "Linux-6.1-x86_64",
    "processor": "Example CPU @ 2.60GHz",
    "cores": 2,
    "device": "cpu",
}
USUAL_NAMES = {"1": "stochastic gradient descent", "dataset": "gradient descent, full batch"}
N_TRAIN = 1437
S_MIN, B_CRIT = 84.0, 22.0


def _middle(values: list[float]) -> dict[str, float] | None:
    """The median with its range, as records carry it; None without a value."""
    if not values:
        return None
    return {"median": float(np.median(values)), "low": float(min(values)), "high": float(max(values))}


def _run(
    rng: np.random.Generator,
    seed: int,
    size: int,
    n_points: int,
    n_updates: int,
    score: str,
    diverges: bool,
    target: float | None,
) -> Record:
    """One training: a loss that falls as a power of the noise-adjusted number of updates."""
    grid = np.unique(np.geomspace(1, n_updates, n_points).astype(int))
    updates = np.concatenate([[0], grid])
    pace = updates / (1 + B_CRIT / size) * rng.uniform(0.9, 1.1)
    noise = rng.normal(0, 1, len(updates)) * 0.25 / math.sqrt(size) * np.minimum(1, pace / 5)
    train = 2.32 * (1 + pace / 12) ** -1.25 * np.exp(noise)
    held_out = train + 0.05 + 0.02 * np.abs(rng.normal(0, 1, len(updates)))
    accuracy = np.clip(1 - 0.9 * (1 + pace / 14) ** -1.42 - 0.01 * np.abs(noise), 0, 1)
    per_update = 1.3e-6 * (1 + 0.09 * size) * rng.uniform(0.95, 1.08)
    norm = (0.3 + 1.6 * (1 + pace / 20) ** -0.6) * np.sqrt(1 + B_CRIT / size)
    stop = len(updates) // 2 if diverges else len(updates)
    score_values = {"accuracy": accuracy, "r2": accuracy * 1.2 - 0.25}[score]
    curve = {
        "updates": updates,
        "examples": updates * size,
        "epochs": updates * size / N_TRAIN,
        "seconds": updates * per_update,
        "train_loss_mean": train,
        "held_out_loss_mean": held_out,
        f"held_out_{score}": score_values,
        "gradient_norm_mean": norm,
        "gradient_norm_sd": norm * 0.8 / math.sqrt(size),
    }
    curve = {name: values[:stop].tolist() for name, values in curve.items()}
    there = np.flatnonzero(np.array(curve[f"held_out_{score}"]) >= target) if target is not None else []
    reached = None
    if len(there):
        at = int(there[0])
        reached = {name: curve[name][at] for name in ("updates", "examples", "epochs", "seconds")}
    final_names = ("train_loss_mean", "held_out_loss_mean", f"held_out_{score}")
    return {
        "seed": seed,
        "diverged_at": int(updates[stop - 1]) if diverges else None,
        "reached": reached,
        "final": {name: None if diverges else curve[name][-1] for name in final_names},
        "curve": curve,
        "seconds_per_update": float(per_update),
    }


def _tuning(rng: np.random.Generator, size: int, chosen: float) -> list[Record]:
    """A learning-rate grid in which `chosen` is the best and the largest one diverges."""
    rows = []
    for power in (-2, -1, 0, 1, 2):
        rate = chosen * 3.16**power
        need = S_MIN * (1 + B_CRIT / size) * 1.6 ** abs(power)
        times = [None if power == 2 else round(float(need * rng.uniform(0.9, 1.1))) for _ in range(3)]
        rows.append(
            {
                "learning_rate": float(f"{rate:.2g}"),
                "updates_to_target": times,
                "score": 0.1 * 1.6 ** abs(power),
                "diverged": 2 if power == 2 else 0,
                "chosen": power == 0,
            }
        )
    return rows


def _cadence(every: str, runs: list[Record], tuning: list[Record], size: int) -> Record:
    reached = [run["reached"] for run in runs if run["reached"]]
    score = next(name for name in runs[0]["final"] if name not in ("train_loss_mean", "held_out_loss_mean"))
    finals = [run["final"][score] for run in runs if run["final"][score] is not None]
    clocks = ("updates", "examples", "epochs", "seconds")
    speed = [run.pop("seconds_per_update") for run in runs]
    return {
        "every": every,
        "batch_size": size,
        "usual_name": USUAL_NAMES.get(every, "mini-batch gradient descent"),
        "learning_rate": next(row["learning_rate"] for row in tuning if row["chosen"]),
        "on_edge": every == "dataset",
        "widened": 1,
        "tuning": tuning,
        "runs": runs,
        "to_target": {name: _middle([r[name] for r in reached]) for name in clocks} if reached else None,
        "reached_share": len(reached) / len(runs),
        "final_score": _middle(finals),
        "diverged_share": sum(run["diverged_at"] is not None for run in runs) / len(runs),
        "gradient_norm": {"median": 0.9 + 1 / size, "spread": 0.8 / math.sqrt(size)},
        "seconds_per_update": _middle(speed),
        "compile_seconds": 0.4,
    }


def _equal(cadences: list[Record], score: str) -> Record:
    equal = {}
    for clock in ("examples", "updates", "seconds"):
        at = min(max(run["curve"][clock][-1] for run in cadence["runs"]) for cadence in cadences)
        rows = []
        for cadence in cadences:
            losses, scores = [], []
            for run in cadence["runs"]:
                curve = run["curve"]
                if curve[clock][-1] < at:
                    continue
                losses.append(float(np.interp(at, curve[clock], curve["train_loss_mean"])))
                scores.append(float(np.interp(at, curve[clock], curve[f"held_out_{score}"])))
            rows.append({"every": cadence["every"], "train_loss_mean": _middle(losses), "score": _middle(scores)})
        equal[clock] = {"at": at, "rows": rows}
    return equal


def comparison(
    every: tuple[str, ...] = ("1", "8", "32", "128", "256", "dataset"),
    *,
    n_seeds: int = 3,
    n_points: int = 80,
    score: str = "accuracy",
    name: str = "digits",
    troubles: bool = True,
    fit: bool = True,
    goal: bool = True,
) -> Record:
    """A comparison; with `troubles` one run of the second cadence diverges and the full batch never arrives.

    Without a `goal` there is no target, so that nothing reaches it.
    """
    rng = np.random.default_rng(7)
    target = {"accuracy": 0.95, "r2": 0.8}[score] if goal else None
    cadences = []
    for position, text in enumerate(every):
        size = N_TRAIN if text == "dataset" else int(text)
        n_updates = max(150, int(260 * (1 + B_CRIT / size))) if text != "dataset" or not troubles else 60
        runs = [
            _run(rng, 3 + i, size, n_points, n_updates, score, troubles and position == 1 and i == 1, target)
            for i in range(n_seeds)
        ]
        cadences.append(_cadence(text, runs, _tuning(rng, size, 0.03 * math.sqrt(size)), size))
    comparing = len(every) > 1
    return {
        "kind": "comparison",
        "format": 1,
        "backbeat": "0.1.0",
        "created": "2026-11-23T12:00:00+00:00",
        "data": {
            "name": name,
            "n_examples": 1797,
            "n_train": N_TRAIN,
            "n_held_out": 360,
            "input_shape": [64],
            "n_classes": 10 if score == "accuracy" else None,
            "sha256": "c0ffee" * 10 + "0123",
        },
        "model": "mlp:32",
        "n_parameters": 2410,
        "loss": "cross_entropy" if score == "accuracy" else "squared_error",
        "optimizer": "sgd",
        "order": "reshuffled",
        "target": f"held-out {score}>={target}" if goal else None,
        "score": score,
        "seeds": list(range(3, 3 + n_seeds)),
        "tuning_seeds": [0, 1, 2],
        "budget_seconds": 60.0,
        "took_seconds": 48.2,
        "answer": [
            "Update after every 8 examples: it reached 95 % held-out accuracy first, in 0.7 ms.",
            "One example at a time needs the fewest examples; beyond about 32 examples a batch, larger batches save "
            "hardly any updates.",
        ],
        "notes": ["The full batch did not reach the target within its budget."] if troubles else [],
        "cadences": cadences,
        "equal": _equal(cadences, score),
        "fit": {
            "s_min": S_MIN,
            "s_min_low": 75.0,
            "s_min_high": 96.0,
            "b_crit": B_CRIT,
            "b_crit_low": 16.0,
            "b_crit_high": 31.0,
            "residual": 0.08,
            "n_points": len(every),
        }
        if fit and goal and comparing
        else None,
        "environment": dict(ENVIRONMENT),
    }


def run(*, n_rows: int = 400, score: str = "accuracy", name: str = "digits", repeats: bool = False) -> Record:
    """One training of `n_rows` history rows, evaluated in every tenth one; with `repeats` updates repeat on a batch."""
    rng = np.random.default_rng(11)
    every = 1 if repeats else 32
    updates = np.arange(1, n_rows + 1) * 5
    loss = 2.3 * (1 + updates / 60) ** -1.1 * np.exp(rng.normal(0, 0.25, n_rows))
    evaluated = [i % 10 == 9 or i == n_rows - 1 for i in range(n_rows)]
    train = 2.3 * (1 + updates / 55) ** -1.1

    def where_evaluated(values: np.ndarray) -> list[float | None]:
        return [float(value) if keep else None for value, keep in zip(values, evaluated, strict=True)]

    history = {
        "updates": updates.tolist(),
        "examples": (updates * every).tolist(),
        "epochs": (updates * every / N_TRAIN).tolist(),
        "wall_seconds": (updates * 9e-6).tolist(),
        "loss_mean": loss.tolist(),
        "train_loss_mean": where_evaluated(train),
        "held_out_loss_mean": where_evaluated(train + 0.06),
        f"held_out_{score}": where_evaluated(1 - 0.9 * (1 + updates / 70) ** -1.1),
    }
    return {
        "kind": "run",
        "format": 1,
        "backbeat": "0.1.0",
        "created": "2026-11-23T12:00:00+00:00",
        "data": {
            "name": name,
            "n_examples": 1797,
            "n_train": N_TRAIN,
            "n_held_out": 360,
            "input_shape": [8, 8],
            "n_classes": 10,
            "sha256": None,
        },
        "model": "mlp:32",
        "n_parameters": 2410,
        "loss": "cross_entropy",
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "every": "1 repeat until loss<0.1 at most 10" if repeats else "32",
        "seed": 0,
        "settings": {"held_out": 0.2, "order": "reshuffled", "duration": "20 epochs", "block": None},
        "finished": {
            "reason": "ran for 20 epochs",
            "diverged": False,
            **{name: history[name][-1] for name in ("updates", "examples", "epochs")},
            "seconds": history["wall_seconds"][-1],
        },
        "compile_seconds": 0.41,
        "history": history,
        "repeats": {
            "updates_per_batch": {"0": 812, "1": 301, "2": 122, "3": 60, "4": 33, "5": 18, "10": 91},
            "batch_loss_before": 0.83,
            "batch_loss_after": 0.06,
            "rest_loss_before": 0.71,
            "rest_loss_after": 0.78,
        }
        if repeats
        else None,
        "environment": dict(ENVIRONMENT),
    }


@pytest.fixture
def fake_comparison() -> Callable[..., Record]:
    """The maker of comparison records."""
    return comparison


@pytest.fixture
def fake_run() -> Callable[..., Record]:
    """The maker of run records."""
    return run
