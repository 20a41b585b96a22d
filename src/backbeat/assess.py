"""How good a trained run is on data with labels: loss and scores, class by class, and who is taken for whom.

`loss`, `accuracy`, `mse` and `r2` are those of `evaluate`, computed by the same program as in training, so that the
held-out part scores here what it scored there. Precision, recall, F1 and the confusion matrix are scikit-learn's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .data import Dataset, load, split
from .data.readers.columns import listed
from .errors import DataError, SettingsError
from .evaluate import block_for, evaluator, scores
from .predictor import unseen_texts
from .saved import SavedRun
from .stretch import Data


@dataclass(frozen=True, eq=False)
class Assessment:
    """What an evaluation came to.

    Attributes:
        part: what was evaluated, in words.
        n: how many examples.
        scores: by name: loss, then accuracy and f1_macro, or r2, mse and mae.
        names: of the classes, of the labels, or of the outputs.
        rows: for each of these, precision, recall, f1 and support, or r2, mse and mae; NaN where undefined.
        confusion: `[true class, predicted class]` counts; None where an example has several labels, or for values.
        label: what was right, numbers of classes or values.
        prediction: what was predicted.
        notes: sentences that who reads the scores should know.
    """

    part: str
    n: int
    scores: dict[str, float]
    names: tuple[str, ...]
    rows: list[dict[str, float]]
    confusion: np.ndarray | None
    label: np.ndarray = field(repr=False)
    prediction: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()


def assess(saved: SavedRun, data: Any = None) -> Assessment:
    """Returns how good a run's network is.

    Args:
        saved: see `saved.load_run`.
        data: with labels, whatever `backbeat.fit` takes; None for the part that the run held out itself, read again.

    Raises:
        DataError: no labels, labels that training never saw, or data of the run's that is not there or has changed.

    Example:
        >>> import tempfile, backbeat as bb
        >>> from backbeat.saved import load_run
        >>> folder = tempfile.mkdtemp()
        >>> run = bb.fit("mlp:8", "digits", duration="1 epoch", run=folder)
        >>> found = assess(load_run(folder))
        >>> found.n, found.confusion.shape
        (359, (10, 10))
        >>> bool(abs(found.scores["accuracy"] - run.history["held_out_accuracy"][-1]) < 1e-6)
        True
    """
    notes = list(saved.notes)
    if data is None:
        part, dataset = "held-out part", held_out(saved)
    else:
        dataset = with_labels(saved, data)
        part = dataset.name
        notes += dataset.notes
        if dataset.sha256 == saved.record["data"]["sha256"]:
            notes.append(f"{dataset.name} is what the run was trained on: the scores are not those of new data.")
    found = _scores(saved, dataset)
    outputs = saved.outputs(dataset.x)
    label, prediction = dataset.y, saved.decided(outputs)
    if saved.kind in ("classification", "binary"):
        return _of_classes(saved, part, found, dataset, label, prediction, tuple(notes))
    if label.size != prediction.size:
        raise SettingsError(
            f"{saved.folder} was trained with a loss of its own, and what its outputs of shape "
            f"{list(prediction.shape)} mean for labels of shape {list(label.shape)} is not known; use predict."
        )
    label = saved.in_own_units(label)
    return _of_values(saved, part, found, label, prediction.reshape(label.shape), tuple(notes))


def held_out(saved: SavedRun) -> Dataset:
    """Returns the part that the run held out, read again from where it was read then.

    Raises:
        DataError: the run held nothing out or was given arrays, or its data is not there or has changed.
    """
    source, about = saved.record["saved"]["source"], saved.record["data"]
    if source is None:
        raise DataError(f"{saved.folder} was trained on arrays in memory; name the data to evaluate.")
    if not about["n_held_out"]:
        raise DataError(f"{saved.folder} held nothing out; name the data to evaluate.")
    seed = saved.record["seed"]
    dataset = load(source, saved.reading, seed)
    if saved.input_dtype != str(dataset.x.dtype):
        dataset = dataset.as_whole() or dataset
    if dataset.sha256 != about["sha256"]:
        raise DataError(
            f"{about['name']} has changed since the run, so its held-out part is not what it was; name the data to "
            f"evaluate (backbeat evaluate RUN {source})."
        )
    parts = split(dataset.y, saved.reading.held_out, seed) if dataset.parts is None else dataset.parts
    return part_of(dataset, parts.held_out)


def part_of(dataset: Dataset, where: np.ndarray) -> Dataset:
    """Returns some of the examples."""
    weight = None if dataset.weight is None else dataset.weight[where]
    return replace(dataset, x=dataset.x[where], y=dataset.y[where], weight=weight, source=None, parts=None)


def with_labels(saved: SavedRun, data: Any) -> Dataset:
    """Returns new data with labels, prepared as the run's own was."""
    raw = saved.source(data).read()
    if raw.y is None:
        names = saved.label_names
        column = "" if names is None else f" (no column {listed(map(repr, names))})"
        raise DataError(f"{raw.name} has no labels to compare with{column}; add them, or use predict.")
    if not len(raw):
        raise DataError(f"{raw.name}: there are no examples in it; give at least one.")
    x, y = saved.inputs(raw), labels(saved, raw)
    weight = None if raw.weight is None else np.asarray(raw.weight, np.float32)
    notes = (*raw.notes, *unseen_texts(saved))
    return Dataset(x, y, weight, raw.name, saved.classes, preparation=saved.preparation, notes=notes)


def labels(saved: SavedRun, raw: Any) -> np.ndarray:
    """Returns labels as training had them: the numbers of classes `[n, ...]`, or values.

    Raises:
        DataError: labels that training never saw, or of another form.
    """
    about = saved.record["saved"]
    y = np.asarray(raw.y if saved.preparation is None else saved.preparation.labels(raw))
    names = raw.classes if saved.preparation is None else None
    if names is not None and y.dtype.kind in "iu":
        y = np.asarray(names)[y]
    if y.dtype.kind in "USO":
        y = _numbers(saved, y.astype(str), raw.name)
    if list(y.shape[1:]) != list(about["label_shape"]):
        raise DataError(
            f"{raw.name}: the labels of one example have the shape {list(y.shape[1:])}, but the run was trained with "
            f"{list(about['label_shape'])}; give labels like that."
        )
    if saved.kind == "classification" and y.dtype.kind in "iub":
        ignored = saved.loss.ignore if saved.loss is not None else None
        unknown = ((y < 0) | (y >= saved.n_outputs)) & (y != ignored if ignored is not None else True)
        if unknown.any():
            _refuse(raw.name, y[unknown], y.size, f"0 to {saved.n_outputs - 1}")
    if y.dtype.kind == "f" and about["label_dtype"].startswith("int"):
        raise DataError(f"{raw.name}: the labels are no whole numbers, but the run was trained with classes.")
    return y.astype(about["label_dtype"], copy=False)


def _numbers(saved: SavedRun, names: np.ndarray, source: str) -> np.ndarray:
    known = {name: number for number, name in enumerate(saved.classes or map(str, range(saved.n_outputs)))}
    found = np.array([known.get(str(name), -1) for name in names.reshape(-1)], np.int32).reshape(names.shape)
    if (found < 0).any():
        _refuse(source, names[found < 0], names.size, ", ".join(known) if len(known) <= 26 else f"{len(known)} classes")
    return found


def _refuse(source: str, unknown: np.ndarray, n: int, known: str) -> None:
    values = [str(value) for value in np.unique(unknown)]
    shown = ", ".join(values[:5]) + (f" and {len(values) - 5} others" if len(values) > 5 else "")
    raise DataError(
        f"{source}: {unknown.size:,} of {n:,} labels are {shown}, which training never saw (it saw {known}); leave "
        "these examples out, or train anew with them."
    )


def _scores(saved: SavedRun, dataset: Dataset) -> dict[str, float]:
    """Returns loss and main scores, by the program that measures them in training."""
    if saved.loss is None:
        return {}
    run = evaluator(saved.model, saved.loss, block_for(saved.example_floats))
    data = Data(*jax.device_put((dataset.x, dataset.y, dataset.weight)))
    (sums,) = run(saved.params, data, (jnp.arange(len(dataset), dtype=jnp.int32),))
    return scores(saved.loss, sums, dataset.y, dataset.label_scale)


def _of_classes(
    saved: SavedRun, part: str, found: dict[str, float], dataset: Dataset, y: np.ndarray, guess: np.ndarray, notes: Any
) -> Assessment:
    import sklearn.metrics

    metrics: Any = sklearn.metrics
    several = saved.kind == "binary" and guess.ndim > 1
    if saved.kind == "classification" and y.ndim > guess.ndim:  # soft labels
        y = y.argmax(axis=-1)
    if saved.kind == "binary":
        y = (y.reshape(guess.shape) > 0.5).astype(np.int32)
    if saved.loss is not None and saved.loss.ignore is not None:
        counted = y != saved.loss.ignore
        y, guess = y[counted], guess[counted]
    if several:
        names = tuple(saved.label_names or map(str, range(guess.shape[1])))
        numbers = list(range(guess.shape[1]))
    else:
        y, guess = y.reshape(-1), guess.reshape(-1)
        names = tuple(saved.classes or map(str, range(max(2, saved.n_outputs))))
        numbers = list(range(len(names)))
    columns = metrics.precision_recall_fscore_support(y, guess, labels=numbers, zero_division=np.nan)
    rows = _rows(("precision", "recall", "f1", "support"), columns)
    _, _, mean, _ = metrics.precision_recall_fscore_support(y, guess, labels=numbers, average="macro", zero_division=0)
    matrix = None if several else metrics.confusion_matrix(y, guess, labels=numbers)
    return Assessment(part, len(dataset), {**found, "f1_macro": float(mean)}, names, rows, matrix, y, guess, notes)


def _of_values(
    saved: SavedRun, part: str, found: dict[str, float], y: np.ndarray, guess: np.ndarray, notes: Any
) -> Assessment:
    import sklearn.metrics

    metrics: Any = sklearn.metrics
    y, guess = (values.reshape(len(y), -1).astype(np.float64) for values in (y, guess))
    r2 = metrics.r2_score(y, guess, multioutput="raw_values") if len(y) > 1 else [float("nan")] * y.shape[1]
    errors = (metrics.mean_squared_error, metrics.mean_absolute_error)
    rows = _rows(("r2", "mse", "mae"), [r2, *(error(y, guess, multioutput="raw_values") for error in errors)])
    known = saved.label_names
    names = known if known is not None and len(known) == len(rows) else [str(number) for number in range(len(rows))]
    total = {**{name: float(np.mean([row[name] for row in rows])) for name in ("r2", "mse", "mae")}, **found}
    return Assessment(part, len(y), total, tuple(names), rows, None, y, guess, notes)


def _rows(names: tuple[str, ...], columns: Any) -> list[dict[str, float]]:
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]
