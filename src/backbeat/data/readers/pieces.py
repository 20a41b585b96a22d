"""How examples are cut into pieces of bounded memory, and what is said to names of columns where there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ...errors import DataError
from ..raw import Raw, Reading


def size_in_words(n_bytes: int) -> str:
    """Returns a number of bytes for a reader.

    Example:
        >>> size_in_words(5_300_000_000)
        '5.3 GB'
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes} bytes"


def rows_in(n_bytes: int, shape: tuple[int, ...]) -> int:
    """Returns how many examples of a shape, as float32, take about `n_bytes`; at least 1.

    Example:
        >>> rows_in(4096, (8, 8))
        16
    """
    return max(1, n_bytes // max(1, 4 * math.prod(shape)))


def cut(raw: Raw, n_bytes: int) -> Iterator[Raw]:
    """Yields examples that were read whole in pieces that take about `n_bytes`; the notes come with the first."""
    rows = rows_in(n_bytes, raw.x.shape[1:])
    for start in range(0, max(1, len(raw)), rows):
        part = slice(start, start + rows)
        y, weight, held = (None if a is None else a[part] for a in (raw.y, raw.weight, raw.held))
        yield replace(raw, x=raw.x[part], y=y, weight=weight, held=held, notes=raw.notes if start == 0 else ())


def refuse_columns(reading: Reading, name: str, form: str, allowed: tuple[str, ...] = ()) -> None:
    """Refuses the names of columns for data that has none.

    Raises:
        DataError: `label`, `inputs` or `weight` is given and not among those allowed.
    """
    for setting in ("label", "inputs", "weight"):
        value = getattr(reading, setting)
        if value is not None and setting not in allowed:
            raise DataError(f"{name}: {setting}={value!r} names a column, but {form} has none; leave it out.")
