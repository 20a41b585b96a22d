"""From what a person gives to a data set: read, divided into a training and a held-out part, prepared, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import DataError
from .dataset import Dataset, from_arrays
from .held_out import Split, split
from .preparation.prepare import Preparation
from .raw import Raw, Reading
from .readers.arrays import Arrays, NpyFile, NpzFile
from .readers.columns import held_out_kind
from .readers.sources import open_source
from .readers.tables import Table
from .streaming.memory import larger_than_memory


def load(
    data: Any = None,
    reading: Reading | None = None,
    seed: int = 0,
    *,
    on_progress: Callable[[float, str], None] | None = None,
) -> Dataset:
    """Returns the data set that a user's value stands for.

    Args:
        data: None or "digits" for scikit-learn's 1,797 handwritten digits (8×8 pixels, scaled to 0..1); the name of
            another of its tables; a pair (x, y) or a triple (x, y, weight) of arrays, where x may be a frame; a pandas
            or Polars frame; the path of a `.csv`, `.tsv` (also `.gz`), `.parquet`, `.npz`, `.npy` or IDX file, or of a
            folder of images, of Parquet files or of a saved Hugging Face data set; such a data set; one with `__len__`
            and `__getitem__`; or a `Dataset`.
        reading: how it is read, None for the defaults.
        seed: what decides the held-out part, where a preparation is fitted on the rest.
        on_progress: is told (share done, what is done) where data larger than the memory given is packed.

    Raises:
        DataError: anything else, a file that is not there or cannot be read, or data that cannot be used.

    Example:
        >>> load("digits").x.shape
        (1797, 8, 8)
    """
    if isinstance(data, Dataset):
        return data
    reading = Reading() if reading is None else reading
    source = open_source(data, reading)
    if reading.resize is not None and isinstance(source, (Arrays, NpyFile, NpzFile, Table)):
        raise DataError(f"{source.name} is no folder, table or file of images, so resize does nothing; leave it out.")
    if larger_than_memory(source, reading.memory):
        from .streaming.pack import packed

        return packed(source, reading, seed, on_progress=on_progress)
    try:
        raw = source.read()
    except MemoryError:
        raise DataError(
            f"{source.name} does not fit into this machine's memory; give it a limit such as memory='2 GB' (--memory), "
            "with which it is streamed from files."
        ) from None
    if raw.y is None:
        raise DataError(
            getattr(source, "without_labels", f"{raw.name} has no labels, which training needs; give (x, y).")
        )
    preparation = Preparation.of(reading, raw.kind)
    kind = held_out_kind(reading.held_out, getattr(source, "names", None), raw.name)
    if kind == "data":
        return _with_own_held_out(raw, reading, preparation)
    parts = None
    if raw.held is not None:
        parts = _by_mask(raw)
        preparation.fit_labels([raw.take(parts.train)])
        y = preparation.labels(raw)
        _refuse_unseen(y[parts.train], y[parts.held_out], raw.name, preparation)
    else:
        preparation.fit_labels([raw])
        y = preparation.labels(raw)
        if preparation.fitted_on_a_part:
            parts = split(y, reading.held_out, seed)
    if preparation.fitted_on_a_part and parts is not None:
        train = raw.take(parts.train)
        preparation.scale_labels(train).fit_inputs([train])
        y = preparation.labels(raw)  # values are scaled by the training part's
    return _dataset(raw, preparation.inputs(raw), y, raw.weight, preparation, parts)


def _with_own_held_out(raw: Raw, reading: Reading, preparation: Preparation) -> Dataset:
    """Returns training examples followed by those of another file, which are held out."""
    if raw.held is not None:
        raise DataError(
            f"{raw.name} says itself which examples are held out, and held_out={reading.held_out!s} gives others; give "
            "one of them."
        )
    preparation.fit([raw])
    label = None if str(reading.label).endswith(".npy") else reading.label
    other = open_source(
        reading.held_out, replace(reading, held_out=0.0, label=label), preparation if raw.kind == "table" else None
    )
    held = other.read()
    if held.y is None:
        raise DataError(
            getattr(other, "without_labels", f"{held.name} has no labels, which the held-out part needs; add them.")
        )
    if (raw.weight is None) != (held.weight is None):
        having, lacking = (raw, held) if held.weight is None else (held, raw)
        raise DataError(f"{having.name} has weights, but {lacking.name} has none; give both or neither.")
    x, x_held = preparation.inputs(raw), preparation.inputs(held)
    y, y_held = preparation.labels(raw), preparation.labels(held)
    for what, one, two in (("inputs", x, x_held), ("labels", y, y_held)):
        if one.shape[1:] != two.shape[1:]:
            raise DataError(
                f"{held.name}: one example's {what} have the shape {list(two.shape[1:])}, but {list(one.shape[1:])} in "
                f"{raw.name}; they must be the same."
            )
    _refuse_unseen(y, y_held, held.name, preparation)
    parts = Split(np.arange(len(x), dtype=np.int32), np.arange(len(x), len(x) + len(x_held), dtype=np.int32))
    weight = None if raw.weight is None else np.concatenate([raw.weight, held.weight])  # pyright: ignore[reportCallIssue, reportArgumentType]
    notes = [note for note in held.notes if note not in raw.notes]
    raw = replace(raw, notes=(*raw.notes, *notes, f"{held.name} is the held-out part, {len(x_held)} examples."))
    made = _dataset(raw, np.concatenate([x, x_held]), np.concatenate([y, y_held]), weight, preparation, parts)
    return replace(made, held_out_source=held.source)


def _by_mask(raw: Raw) -> Split:
    held = np.asarray(raw.held)
    parts = Split(np.flatnonzero(~held).astype(np.int32), np.flatnonzero(held).astype(np.int32))
    for part, what in zip(parts, ("to train on", "held out"), strict=True):
        if not len(part):
            raise DataError(f"{raw.name}: no example is {what}; both parts need some.")
    return parts


def _refuse_unseen(y: np.ndarray, held: np.ndarray, name: str, preparation: Preparation) -> None:
    """Refuses class numbers of arrays in the held-out part that training never saw."""
    if preparation.task != "classification" or y.ndim != 1 or y.dtype.kind not in "iu":
        return
    unseen = np.setdiff1d(held, y)
    if len(unseen):
        classes = preparation.classes
        called = [str(i) if classes is None else classes[i] for i in unseen[:5]]
        raise DataError(
            f"{name}: the label {called[0]!r} is held out, but training never saw it; train on examples of it too, or "
            "leave these out."
        )


def _dataset(
    raw: Raw, x: np.ndarray, y: np.ndarray, weight: Any, preparation: Preparation, parts: Split | None
) -> Dataset:
    labels = preparation.labels_are
    dataset = from_arrays(x, y, weight, name=raw.name, source=raw.source, classes=preparation.classes)
    said = () if labels is None else labels.notes
    notes = (*raw.notes, *said, *preparation.notes, *preparation.said_of_new(), *dataset.notes)
    if preparation.kept_whole:
        dataset = replace(dataset, whole=True)
    return replace(
        dataset,
        parts=parts,
        preparation=preparation if preparation.needed else None,
        task=preparation.task,
        notes=notes,
    )
