"""What labels ask for: the loss that fits them, how many numbers the network has to give, which scores there are."""

from __future__ import annotations

import math

import numpy as np

from .data import Dataset
from .errors import DataError
from .losses import Loss

_SURELY_CLASSES = 1000  # numbers up to here may be classes that these examples lack


def recognised_loss(dataset: Dataset) -> str:
    """Returns the loss for labels of this kind: cross-entropy for classes, the squared error for values."""
    if dataset.task == "labels":
        return "binary_cross_entropy"
    return "cross_entropy" if dataset.y.dtype.kind == "i" else "squared_error"


def outputs_for(loss: Loss, dataset: Dataset) -> int:
    """Returns how many numbers the network has to give, and refuses labels that the loss cannot take."""
    y = dataset.y
    if y.dtype.kind == "i" and loss.kind in ("classification", "other"):
        counted = y if loss.ignore is None else y[y != loss.ignore]
        if loss.kind == "other" and counted.size and counted.min() < 0:
            return math.prod(y.shape[1:])  # numbers such as −1 and 1: not the numbers of classes
        if counted.size == 0 or counted.min() < 0:
            found = f"{counted.min()} is among them" if counted.size else "none counts"
            leave = f', or leave it out with the loss "cross_entropy:ignore={counted.min()}"' if counted.size else ""
            raise DataError(f"{dataset.name}: class labels run from 0 on, but {found}; number them from 0{leave}.")
        if dataset.classes is not None and len(dataset.classes) > 1:  # all are known, whichever these examples hold
            return len(dataset.classes)
        if counted.max() == counted.min() and loss.kind == "classification":
            only = dataset.classes[0] if dataset.classes else counted.max()
            raise DataError(
                f"{dataset.name}: all labels are the same class, {only}; classification needs at least two."
            )
        if counted.ndim == 1 and counted.max() > _SURELY_CLASSES:
            _refuse_gaps(dataset, np.unique(counted))
        return int(counted.max()) + 1
    if loss.kind == "classification" and (y.ndim < 2 or (y < 0).any()):
        raise DataError(
            f"{dataset.name}: {loss} needs whole numbers as labels, or soft labels [examples, classes]; for values "
            "use squared_error."
        )
    if (
        loss.kind == "binary"
        and not np.isin(y, (0, 1)).all()
        and not (y.dtype.kind == "f" and y.min() >= 0 and y.max() <= 1)
    ):
        raise DataError(
            f"{dataset.name}: binary_cross_entropy needs labels of 0 and 1 (or shares between), but they run from "
            f"{y.min()} to {y.max()}."
        )
    return int(y.shape[-1]) if loss.kind == "classification" else int(math.prod(y.shape[1:]))


def _refuse_gaps(dataset: Dataset, numbers: np.ndarray) -> None:
    """Refuses class numbers that lie far apart: the network would need an output for each number between."""
    if numbers[-1] >= 10 * len(numbers) + _SURELY_CLASSES:
        raise DataError(
            f"{dataset.name}: the labels are {len(numbers)} different whole numbers up to {numbers[-1]}, which cannot "
            'be the numbers of classes from 0 on; number the classes, or say task="regression" if they are values.'
        )


def scores_of(loss: Loss) -> tuple[str, ...]:
    """Returns the names of the scores that are measured with a loss, the main one first."""
    return {
        "classification": ("accuracy", "loss"),
        "binary": ("accuracy", "loss"),
        "regression": ("r2", "mse", "loss"),
    }.get(loss.kind, ("loss",))
