"""A weight for each class, so that rare ones count as much as frequent ones: the loss is Σ w ℓ / Σ w."""

from __future__ import annotations

from typing import Any

import numpy as np

from .data import Dataset, Split
from .errors import SettingsError, nearest
from .losses import Loss, binary_cross_entropy, cross_entropy


def weighted_by_class(loss: Loss, given: Any, dataset: Dataset, parts: Split, n_outputs: int) -> Loss:
    """Returns the loss with a weight for each class.

    Args:
        loss: without them.
        given: None; "balanced" for |D| / (classes · examples of the class), counted with their weights in the training
            part, as scikit-learn does; weights by class, as a list or as a dict or a text "a=1,b=4" of names.
        dataset: labels, weights and names of the classes.
        parts: what is trained on.
        n_outputs: how many classes there are.

    Raises:
        SettingsError: weights for values, for a loss that has its own, or that name no class of the data.
    """
    if given is None:
        return loss
    one_label = loss.kind == "classification" or (loss.kind == "binary" and n_outputs == 1)
    if not one_label or dataset.y.dtype.kind != "i":
        raise SettingsError(
            f"class_weight={given!r} is for labels that are one of several classes, which they are not with the loss "
            f"{loss}; leave it out."
        )
    if {"class_weight", "positive_weight"} & loss.options.keys():
        raise SettingsError(f"class_weight={given!r} is given and the loss {loss} has weights too; give one of them.")
    n = max(n_outputs, 2)
    weights = _balanced(loss, dataset, parts, n) if given == "balanced" else _named_weights(given, dataset, n)
    if loss.kind == "classification":
        return cross_entropy(ignore=loss.ignore, class_weight=weights)
    return binary_cross_entropy(positive_weight=weights[1] / weights[0])


def _balanced(loss: Loss, dataset: Dataset, parts: Split, n: int) -> list[float]:
    y, weight = dataset.y[parts.train], None if dataset.weight is None else dataset.weight[parts.train]
    if weight is not None:
        weight = np.broadcast_to(weight.reshape(-1, *(1 for _ in y.shape[1:])), y.shape)
    counted = np.ones(y.shape, bool) if loss.ignore is None else y != loss.ignore
    counts = np.bincount(y[counted], None if weight is None else weight[counted], minlength=n)
    return [float(counts.sum() / (n * count)) if count else 0.0 for count in counts]


def _named_weights(given: Any, dataset: Dataset, n: int) -> list[float]:
    names = [str(name) for name in dataset.classes or range(n)]
    if isinstance(given, str) and "=" in given:
        given = {name: weight for name, _, weight in (piece.rpartition("=") for piece in given.split(","))}
    elif isinstance(given, str):
        given = given.split(",")
    try:
        if isinstance(given, dict):
            found = {str(name).strip(): float(weight) for name, weight in given.items()}
            for name in found:
                if name not in names:
                    raise SettingsError(f"class_weight names {name!r}, which is no class here; {nearest(name, names)}")
            return [found.get(name, 1.0) for name in names]
        weights = [float(weight) for weight in given]
    except (TypeError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(
            f'class_weight={given!r} is not understood; give "balanced", one weight for each class, or names with '
            'weights such as "a=1,b=4".'
        ) from None
    if len(weights) != n:
        raise SettingsError(f"class_weight has {len(weights)} weights for {n} classes; give one for each.")
    return weights
