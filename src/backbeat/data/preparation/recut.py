"""Examples that come in pieces, cut anew into equal ones or put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..raw import Raw

ROWS = 1 << 13  # examples that are prepared at once, so that little memory is used beside the result


def of_equal_size(pieces: Iterable[Raw]) -> Iterator[Raw]:
    """Yields the same examples in pieces of `ROWS` each, so that no sum depends on how they were cut before.

    Their labels and weights stay behind.
    """
    rest: Any = None
    raw: Raw | None = None
    for raw in pieces:
        x = raw.x if rest is None or not len(rest) else _together([rest, raw.x])
        start = 0
        while len(x) - start >= ROWS:
            yield Raw(raw.kind, x[start : start + ROWS], name=raw.name)
            start += ROWS
        rest = x[start:]
    if raw is not None and rest is not None and len(rest):
        yield Raw(raw.kind, rest, name=raw.name)


def _together(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import polars as pl

    return pl.concat(parts)


def labels_together(pieces: Iterable[Raw]) -> Raw:
    """Returns the labels of all pieces in one, without their inputs.

    Example:
        >>> labels_together([Raw("array", None, np.array([1])), Raw("array", None, np.array([2]))]).y.tolist()
        [1, 2]
    """
    kept = [replace(raw, x=None) for raw in pieces]
    if len(kept) == 1 or any(raw.y is None for raw in kept):
        return kept[0]
    return replace(kept[0], y=_together([raw.y for raw in kept]))
