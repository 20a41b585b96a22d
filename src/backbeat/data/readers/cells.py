"""What the cells of a column are: numbers, texts, truth values or nothing; found over all rows before any is used.

A column is one thing in all rows. Nearly all numbers with a few texts between is a mistake in the file, not a column of
categories, and is refused with its row; so is one where more than half are numbers and some have fractions.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import DataError

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A", "?")
NUMBERS = ("whole", "number", "comma")  # kinds of columns that are read as numbers
_MOST_TEXTS = 100_000  # different texts that are counted; a column with more is no column of categories
_NEARLY_ALL, _MOSTLY = 0.9, 0.5  # of whole numbers, which may be names of categories, and of any others
EXACT = 1 << 53  # float64 holds every whole number below
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}( .*)?|\d{4}/\d{1,2}/\d{1,2}( .*)?")


@dataclass
class Found:
    """What has been found in the cells of one column so far.

    Attributes:
        name: of the column.
        n: cells.
        n_missing: of these, how many are empty or hold a word for it.
        n_numbers: how many are numbers.
        n_infinite: how many of those are not finite.
        n_comma: how many are numbers with a decimal comma.
        whole: whether all numbers are whole ones.
        greatest: the largest absolute value.
        texts: how often each text that is no number occurs, once there is one; None beyond `_MOST_TEXTS`.
        markers: how often each word for an empty cell occurs.
        first: the rows where something was first seen: "missing", "infinite", "text", "comma"; with the text.
        given: the kind, where the column's type says it.
        counts: whether the numbers are 0, 1, 2 and so on, or begin at 1.
        origin: the first number.
    """

    name: str
    n: int = 0
    n_missing: int = 0
    n_numbers: int = 0
    n_infinite: int = 0
    n_comma: int = 0
    whole: bool = True
    greatest: float = 0.0
    texts: Counter[str] | None = field(default_factory=Counter)
    markers: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, str]] = field(default_factory=dict)
    given: str | None = None
    counts: bool = True
    origin: float | None = None

    @property
    def n_filled(self) -> int:
        """How many cells hold something."""
        return self.n - self.n_missing

    def add(self, cells: Any, rows: np.ndarray) -> None:
        """Counts more cells.

        Args:
            cells: a Polars series.
            rows: `[n]`, the numbers of their rows in errors.
        """
        import polars as pl

        dtype = cells.dtype
        self.n += len(cells)
        if isinstance(dtype, (pl.Categorical, pl.Enum)) or dtype == pl.Boolean:
            self.given = "boolean" if dtype == pl.Boolean else "text"
            self._missing(cells.is_null().to_numpy(), rows)
            self._count(_counted(cells.drop_nulls().cast(pl.String)))
        elif dtype == pl.String:
            self._add_texts(cells, rows)
        else:
            numbers = cells.cast(pl.Float64).to_numpy()
            self._add_numbers(numbers, np.isnan(numbers), rows)

    def _add_numbers(self, numbers: np.ndarray, missing: np.ndarray, rows: np.ndarray) -> None:
        """Counts cells that are numbers; NaN for those that are missing, and for texts."""
        self._missing(missing, rows)
        there = ~np.isnan(numbers)
        only = numbers if there.all() else numbers[there]
        if not len(only):
            return
        greatest = float(max(-only.min(), only.max()))
        if np.isinf(greatest):
            infinite = np.isinf(numbers)
            self.n_infinite += int(infinite.sum())
            self._first("infinite", infinite, rows, numbers)
            self.n_numbers += int(np.isinf(only).sum())
            only = only[np.isfinite(only)]
        self.n_numbers += len(only)
        self.greatest = max(self.greatest, greatest)
        self.whole = self.whole and bool((np.floor(only) == only).all())
        self.counts = self.counts and self.whole and self._goes_on(only)

    def _goes_on(self, numbers: Any) -> bool:
        """Returns whether numbers count on from those before."""
        if not len(numbers):
            return True
        start, n = float(numbers[0]), len(numbers)
        before = self.n_numbers - n
        self.origin = start if self.origin is None else self.origin
        if self.origin not in (0, 1) or start != before + self.origin or numbers[-1] - start != n - 1:
            return False
        return bool((np.diff(numbers) == 1).all())

    def _add_texts(self, cells: Any, rows: np.ndarray) -> None:
        """Counts cells that were read as text: numbers among them are recognised."""
        import polars as pl

        numbers = cells.cast(pl.Float64, strict=False).to_numpy()
        if not np.isnan(numbers).any():
            self._add_numbers(numbers, np.zeros(len(numbers), bool), rows)
            return
        cells = cells.str.strip_chars()
        gone = cells.is_null() | cells.is_in(MISSING)
        missing = gone.to_numpy()
        numbers = np.where(missing, np.nan, cells.cast(pl.Float64, strict=False).to_numpy())
        self.markers += _counted(cells.filter(gone).fill_null(""))
        self._add_numbers(numbers, missing, rows)
        text = ~missing & np.isnan(numbers)
        if not text.any():
            return
        counts = _counted(cells.filter(text))
        comma = [value for value in counts if _COMMA.fullmatch(value)]
        self.n_comma += sum(counts[value] for value in comma)
        self._first("text", text, rows, cells)
        if len(comma) < len(counts) and comma:
            self._first("other", text & ~cells.is_in(comma).fill_null(True).to_numpy(), rows, cells)
        self._count(_counted(cells.filter(~missing)))

    def _missing(self, missing: np.ndarray, rows: np.ndarray) -> None:
        n = int(missing.sum())
        self.n_missing += n
        if n:
            self._first("missing", missing, rows)

    def _first(self, what: str, where: np.ndarray, rows: np.ndarray, cells: Any = None) -> None:
        """Keeps the first row where something is seen, and what stands there."""
        i = int(np.argmax(where))
        self.first.setdefault(what, (int(rows[i]), "" if cells is None else str(cells[i])))

    def _count(self, texts: Counter[str]) -> None:
        if self.texts is not None:
            self.texts += texts
            if len(self.texts) > _MOST_TEXTS:
                self.texts = None

    def kind(self, *, comma: bool = False) -> str:
        """Returns what the column holds: "whole", "number", "comma", "boolean", "text", "date", "mixed" or "empty".

        "comma" are numbers with a decimal comma, "mixed" nearly all numbers with a few texts between.

        Args:
            comma: whether a decimal comma may be one, which it may not where commas separate columns.
        """
        if self.given is not None:
            return self.given
        if not self.n_filled:
            return "empty"
        if self.n_numbers == self.n_filled:
            return "whole" if self.whole and not self.n_infinite and self.greatest < EXACT else "number"
        if comma and self.n_numbers + self.n_comma == self.n_filled:
            return "comma"
        enough = _NEARLY_ALL if self.whole else _MOSTLY
        if self.n_numbers + self.n_comma > enough * self.n_filled:
            return "mixed"
        texts = self.texts
        if texts is not None and all(text.lower() in ("true", "false") for text in texts):
            return "boolean"
        if texts is not None and all(_DATE.fullmatch(text) for text in texts):
            return "date"
        return "text"


def _counted(texts: Any) -> Counter[str]:
    return Counter(dict(texts.value_counts().iter_rows()))


def as_kind(cells: Any, kind: str) -> Any:
    """Returns a column's cells as Polars values of its kind; null where there is none, or none of this kind.

    Args:
        cells: a Polars series of any type of numbers, texts or truth values.
        kind: as `Found.kind` says, "whole" and "number" for numbers, "boolean" and "text" for the others.
    """
    import polars as pl

    dtype = cells.dtype
    if dtype == pl.String and kind in ("whole", "number"):
        numbers = cells.cast(pl.Int64 if kind == "whole" else pl.Float64, strict=False)
        if not numbers.null_count() and (kind == "whole" or not np.isnan(numbers.to_numpy()).any()):
            return numbers
    if dtype == pl.String:
        stripped = cells.str.strip_chars()
        cells = pl.select(pl.when(stripped.is_in(MISSING)).then(None).otherwise(stripped)).to_series()
        if kind == "comma":
            cells = cells.str.replace(",", ".", literal=True)
        if kind == "boolean":
            lower = cells.str.to_lowercase()
            return pl.select(
                pl.when(lower.is_in(["true", "1"])).then(True).when(lower.is_in(["false", "0"])).then(False)
            ).to_series()
    if kind in NUMBERS:
        return _as_numbers(cells, whole=kind == "whole")
    if kind == "boolean" and dtype != pl.Boolean:
        return cells.cast(pl.Float64, strict=False).replace_strict({0.0: False, 1.0: True}, default=None)
    if kind in ("text", "date", "mixed"):
        return cells if isinstance(dtype, pl.Enum) else cells.cast(pl.String)
    return cells.cast(pl.Float64, strict=False) if kind == "empty" else cells


def _as_numbers(cells: Any, *, whole: bool) -> Any:
    """Returns whole numbers below `EXACT` as Int64, others as Float64."""
    import polars as pl

    if cells.dtype.is_integer() and whole:
        return cells.cast(pl.Int64)
    numbers = cells.cast(pl.Float64, strict=False).fill_nan(None)
    if not whole:
        return numbers
    exact = cells.cast(pl.Int64, strict=False)
    written_as_fractions = exact.null_count() > numbers.null_count()  # such as 1.0
    return numbers.cast(pl.Int64) if written_as_fractions else exact


def refuse_nested(schema: dict[str, Any], table: str) -> None:
    """Refuses columns of a type that holds neither one number nor one text.

    Args:
        schema: Polars types by name.
        table: what the table is called.

    Raises:
        DataError: with the column and its type.
    """
    for name, dtype in schema.items():
        if dtype.is_temporal():
            what = "holds dates or times" if dtype.base_type().__name__ != "Time" else "holds times"
            raise DataError(
                f"{table}: the column {name!r} {what} ({dtype}); turn it into a number, such as days since a date, or "
                "leave it out with inputs."
            )
        plain = dtype.is_numeric() or dtype.base_type().__name__ in ("String", "Boolean", "Categorical", "Enum", "Null")
        if not plain:
            raise DataError(
                f"{table}: the column {name!r} is nested or binary ({dtype}), not one number or text a row; spread it "
                "over columns, or leave it out with inputs."
            )
