"""What the columns of a table become: scaled numbers, and one input of 0 or 1 for each category of a text."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError
from ..readers.columns import listed
from .moments import Moments

MOST_CATEGORIES = 100  # inputs that one column of texts becomes at most
EMPTY = "(empty)"  # the category of empty cells, where the training part has some


class Features(NamedTuple):
    """What is learnt from the training part.

    Attributes:
        numbers: the columns that are scaled, in order; they come first.
        categories: the columns that become an input for each of their texts.
        names: of the inputs.
        transformers: scikit-learn's, fitted: "scale" and "impute" for numbers, "encode" for categories.
        notes: sentences on what was set aside or grouped.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    names: tuple[str, ...]
    transformers: dict[str, Any]
    notes: tuple[str, ...]


def learnt(numbers: list[str], moments: Moments, counts: dict[str, Counter[str]]) -> Features:
    """Returns what becomes of columns, those left out that tell nothing.

    Args:
        numbers: the columns of numbers.
        moments: their mean and spread in the training part.
        counts: how often each text occurs in each of the other columns, `EMPTY` for empty cells.

    Raises:
        DataError: no column tells anything.

    Example:
        >>> moments = Moments()
        >>> moments.add(np.array([[1.0, 5.0], [2.0, 5.0]]))
        >>> features = learnt(["a", "b"], moments, {"c": Counter(x=1, y=1)})
        >>> features.names, features.notes
        (('a', 'c=x', 'c=y'), ('Set aside, because it is the same in all training examples: b.',))
    """
    empty = [name for i, name in enumerate(numbers) if not moments.n[i]]
    empty += [name for name, counted in counts.items() if set(counted) <= {EMPTY}]
    alike = [name for i, name in enumerate(numbers) if moments.n[i] and moments.low[i] == moments.high[i]]
    alike += [name for name, counted in counts.items() if len(counted) == 1 and name not in empty]
    notes = [
        f"Set aside, because {'it is' if len(names) == 1 else 'they are'} {what} in all training examples: "
        f"{listed(names)}."
        for what, names in (("empty", empty), ("the same", alike))
        if names
    ]
    where = [i for i, name in enumerate(numbers) if name not in (*empty, *alike)]
    scaled = tuple(numbers[i] for i in where)
    categories = tuple(name for name in counts if name not in (*empty, *alike))
    if not scaled and not categories:
        raise DataError("No input tells anything: every column is empty or the same in all training examples.")
    known = [_known(name, counts[name], notes) for name in categories]
    one_hot = [f"{name}={text}" for name, texts in zip(categories, known, strict=True) for text in texts]
    transformers = _transformers(moments, np.array(where, int), known)
    return Features(scaled, categories, (*scaled, *one_hot), transformers, tuple(notes))


def _known(name: str, counted: Counter[str], notes: list[str]) -> np.ndarray:
    """Returns the texts of a column that have an input, sorted; of very many the most frequent ones."""
    ranked = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    if len(ranked) > MOST_CATEGORIES:
        rest = sum(n for _, n in ranked[MOST_CATEGORIES:])
        notes.append(
            f"{name!r} has {len(ranked):,} categories: the {MOST_CATEGORIES} most frequent have an input each, the "
            f"others ({rest:,} training examples) none."
        )
    return np.array(sorted(text for text, _ in ranked[:MOST_CATEGORIES]), dtype=object)


def _transformers(moments: Moments, where: np.ndarray, known: list[np.ndarray]) -> dict[str, Any]:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    made: dict[str, Any] = {}
    if len(where):
        imputer = SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
        made["scale"], made["impute"] = moments.scaler(where), imputer.fit(np.zeros((1, len(where))))
    if known:
        encode: Any = OneHotEncoder
        encoder = encode(categories=known, handle_unknown="ignore", sparse_output=False, dtype=np.float32)
        made["encode"] = encoder.fit(np.array([[each[0] for each in known]], dtype=object))
    return made
