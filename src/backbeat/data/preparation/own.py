"""A user's own transformer in place of our preparation: anything with `fit` and `transform`, as scikit-learn's have."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...errors import DataError
from ..raw import Raw

_REFUSALS = (ValueError, TypeError, KeyError, AttributeError, IndexError)  # what transformers raise for data


def fitted(transformer: Any, pieces: Iterable[Raw]) -> Any:
    """Returns a copy of a transformer, fitted on the training part; the user's own object stays as it is.

    Args:
        transformer: a table is given to it as a Polars frame, anything else as an array; with the labels as numbers.
        pieces: the training part; several only where the transformer has `partial_fit`.

    Raises:
        DataError: it refuses the data, or cannot be fitted piece by piece.

    Example:
        >>> from sklearn.preprocessing import StandardScaler
        >>> fitted(StandardScaler(), [Raw("array", np.array([[1.0], [3.0]]))]).mean_.tolist()
        [2.0]
    """
    own = _copied(transformer)
    several = hasattr(own, "partial_fit")
    for i, piece in enumerate(pieces):
        if i and not several:
            raise DataError(
                f"{type(own).__name__} cannot be fitted piece by piece (it has no partial_fit), and the data is larger "
                "than the memory given; give more memory, or another transformer."
            )
        try:
            (own.partial_fit if several else own.fit)(piece.x, piece.y)
        except _REFUSALS as error:
            raise _refusal(own, piece, error) from error
    return own


def applied(transformer: Any, raw: Raw) -> np.ndarray:
    """Returns what a fitted transformer makes of examples: float32 `[n, ...]`, dense.

    Raises:
        DataError: it refuses the data, or makes something else than numbers for each example.
    """
    try:
        made = transformer.transform(raw.x)
    except _REFUSALS as error:
        raise _refusal(transformer, raw, error) from error
    made = made.toarray() if hasattr(made, "toarray") else np.asarray(made)
    if made.dtype.kind == "O":
        with contextlib.suppress(ValueError, TypeError):
            made = made.astype(np.float64)
    if made.dtype.kind not in "fiub" or made.shape[:1] != (len(raw),) or made.ndim < 2:
        raise DataError(
            f"{type(transformer).__name__} makes {made.dtype} of the shape {list(made.shape)} of {len(raw)} examples; "
            "it must give numbers [examples, features]."
        )
    return made.astype(np.float32)


def names_made_by(transformer: Any) -> tuple[str, ...]:
    """Returns the names of the features that a fitted transformer makes; none where it does not say."""
    try:
        return tuple(str(name) for name in transformer.get_feature_names_out())
    except _REFUSALS:
        return ()


def _copied(transformer: Any) -> Any:
    from sklearn.base import clone

    try:
        return clone(transformer)
    except TypeError:  # no estimator of scikit-learn's kind
        return copy.deepcopy(transformer)


def _refusal(own: Any, raw: Raw, error: Exception) -> DataError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"{type(own).__name__} refuses {raw.name}: {said.rstrip('.')}.")
