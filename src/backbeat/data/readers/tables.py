"""A table as a source of examples: columns are chosen, each is found to be numbers or texts, then its rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ...errors import DataError
from ..raw import Raw, Reading
from .cells import EXACT, NUMBERS, Found, as_kind
from .columns import LABEL_NAMES, choose_columns, columns_like, held_by, listed, names_of
from .delimited import Rows
from .pixels import is_image

_EXACT = 1 << 24  # float32 holds every whole number up to here
_MANY = 10  # rows from which on a column that counts them is no accident
_GREATEST = float(np.finfo(np.float32).max)
_MOST_TEXTS = 100  # different texts that a column may have although most rows differ


@runtime_checkable
class RowSource(Protocol):
    """What a table reads its rows from; see `Delimited`, `Frame` and `Parquet`."""

    names: list[str]
    name: str
    source: str | None
    row_word: str
    notes: list[str]
    files: list[Path]

    def n_bytes(self, n_columns: int) -> int:
        """Returns about how many bytes so many of the columns take as float32."""
        ...

    def rows(self, columns: list[str], n_bytes: int | None = None) -> Iterator[Rows]:
        """Yields all rows in order, in pieces of about `n_bytes`."""
        ...


class Table:
    """A source of examples that are rows.

    Attributes:
        name: what the table is called.
        columns: what its columns are for.
        kinds: what each chosen column holds, see `Found.kind`; known once something was read.

    Example:
        >>> import polars as pl
        >>> from backbeat.data.readers.frames import Frame
        >>> raw = Table(Frame(pl.DataFrame({"width": ["1", "2"], "label": ["a", "b"]}))).read()
        >>> raw.x["width"].to_list(), raw.y["label"].to_list()
        ([1, 2], ['a', 'b'])
    """

    def __init__(self, rows: RowSource, reading: Reading | None = None, like: Any = None) -> None:
        """Chooses the columns; nothing but their names is read.

        Args:
            rows: where they are.
            reading: how they are read.
            like: a fitted `Preparation`, for new data that is to be read as the data that it was fitted on; labels may
                lack then.

        Raises:
            DataError: a column that is not there, no label that can be recognised.
        """
        self._rows, self._reading, self._like = rows, reading or Reading(), like
        self.name, self._paths = rows.name, ""
        r = self._reading
        if like is None:
            self.columns = choose_columns(
                rows.names, rows.name, label=r.label, inputs=r.inputs, weight=r.weight, held_out=r.held_out
            )
        else:
            inputs, labels = like.input_names, like.label_names
            if like.kind != "table":  # of images, whose names are in the table's one other column
                labels = [name for name in names_of(r.label, "label") or LABEL_NAMES if name in rows.names]
                others = [name for name in rows.names if name not in (*labels, r.weight, r.held_out)]
                inputs = names_of(r.inputs, "inputs") or others
            self.columns = columns_like(inputs, labels, rows.names, rows.name, weight=r.weight)
        self.kinds: dict[str, str] = {}
        self._notes: tuple[str, ...] = ()
        self._why_no_labels = ""

    @property
    def source(self) -> str | None:
        """What reads the same table again."""
        return self._rows.source

    @property
    def names(self) -> list[str]:
        """The names of all columns of the table."""
        return self._rows.names

    @property
    def without_labels(self) -> str:
        """What to say where labels are needed and there are none."""
        if self._why_no_labels:
            return self._why_no_labels
        names = () if self._like is None else self._like.label_names
        return f"{self.name} has no labels; add the column{'s' * (len(names) != 1)} {listed(names)}."

    def files(self) -> list[Path]:
        """Returns the files that are read; none for a table in memory."""
        return self._rows.files

    def image_column(self) -> str | None:
        """Returns the one input column that holds the names of image files; None where there is no such one."""
        if len(self.columns.inputs) != 1:
            return None
        column = self.columns.inputs[0]
        first = next(self._rows.rows([column], 1 << 20)).frame[column].drop_nulls().head(20).to_list()
        paths = [value for value in first if isinstance(value, str) and is_image(value)]
        self._paths = column if first and len(paths) == len(first) else ""
        return self._paths or None

    def n_bytes(self) -> int:
        """Returns about how many bytes the inputs take in memory, as float32."""
        return self._rows.n_bytes(len(self.columns.inputs))

    def read(self) -> Raw:
        """Returns all examples."""
        import polars as pl

        pieces = list(self._rows.rows(self.columns.all))
        self._survey(iter(pieces))
        made = []
        while pieces:  # what was read as text is given back piece by piece
            made.append(self._raw(pieces.pop(0)))
        if len(made) == 1:
            return self._noted(made[0])
        weights = [raw.weight for raw in made if raw.weight is not None]
        held = [raw.held for raw in made if raw.held is not None]
        y = pl.concat([raw.y for raw in made]) if self.columns.labels else None
        weight = np.concatenate(weights) if weights else None
        x = pl.concat([raw.x for raw in made])
        whole = Raw("table", x, y, weight, np.concatenate(held) if held else None, self.name, self.source)
        return self._noted(whole)

    def pieces(self, n_bytes: int) -> Iterator[Raw]:
        """Yields all examples in order, in pieces that take about `n_bytes`; the first one has the notes."""
        if not self.kinds:
            self._survey(self._rows.rows(self.columns.all, n_bytes))
        first = True
        for rows in self._rows.rows(self.columns.all, n_bytes):
            raw = self._raw(rows)
            yield self._noted(raw) if first else raw
            first = False

    def _noted(self, raw: Raw) -> Raw:
        return replace(raw, notes=self._notes)

    def _survey(self, pieces: Iterator[Rows]) -> None:
        """Finds what each column holds, in all rows, and refuses what cannot be used."""
        found = {name: Found(name) for name in self.columns.all}
        n, n_bad = 0, 0
        for rows in pieces:
            n, n_bad = n + len(rows.frame), n_bad + rows.n_bad
            for name, each in found.items():
                each.add(rows.frame[name], rows.numbers)
        comma = getattr(self._rows, "separator", "") == ";"
        self.kinds = {name: each.kind(comma=comma) for name, each in found.items()}
        for name, each in found.items():
            try:
                self._check(each)
            except DataError as error:
                if self._like is None or name not in self.columns.labels:
                    raise
                # to predict, nobody needs them; who does is told why there are none
                self.columns, self._why_no_labels = replace(self.columns, labels=()), str(error)
        self._set_aside(found)
        self._check_inputs(found)
        self._notes = tuple(self._said(found, n_bad))

    def _check(self, found: Found) -> None:
        """Refuses a column that is not what it has to be."""
        name, kind, what = found.name, self.kinds[found.name], self._what(found.name)
        wanted = None if self._like is None else self._like.kinds.get(name)
        where = f"{self.name}: the column {name!r}"
        if kind == "mixed" and what == "label" and found.texts is not None and wanted is None:
            kind = self.kinds[name] = "mixed" if found.n_numbers > _MOST_TEXTS else "text"
        if kind == "number" and what == "label" and found.whole and found.greatest >= EXACT and not found.n_infinite:
            self.kinds[name] = "text"  # names of classes that float64 would run into one another
        if what == "weight" and kind not in NUMBERS and found.n_filled:
            row, text = found.first.get("other", found.first.get("text", (0, "")))
            at = f": {text!r} in {self._rows.row_word} {row} is none" if row else ""
            raise DataError(f"{where} is the weight of each example, so it must hold numbers{at}.")
        if (kind == "mixed" or wanted in NUMBERS) and kind not in (*NUMBERS, "empty"):
            if "text" not in found.first:
                raise DataError(f"{where} holds no numbers, as it did when the preparation was fitted; give numbers.")
            row, text = found.first.get("other", found.first["text"])
            n_texts = found.n_filled - found.n_numbers
            comma = " with a decimal comma" if found.n_comma == n_texts else ""
            nearly = f" ({n_texts} of {found.n_filled} cells are no numbers)" if kind == "mixed" else ""
            raise DataError(
                f"{where} holds numbers, but {text!r}{comma} in {self._rows.row_word} {row}{nearly}; write a number "
                "there, or leave the cell empty."
            )
        if wanted is not None and kind != "empty":
            self.kinds[name] = kind if wanted in NUMBERS and kind in NUMBERS else wanted
        if found.n_missing and (what in ("label", "weight", "held_out") or self._reading.missing == "refuse"):
            at = f"{self._rows.row_word} {found.first['missing'][0]}"
            remedy = "fill it in" if what != "input" else "fill it in, or let it be imputed with missing='impute'"
            raise DataError(
                f"{where} ({what}) has {_cells(found.n_missing, 'empty cell')}, the first in {at}; "
                f"{remedy}, or remove the row."
            )
        if found.n_infinite and not (what == "input" and self._reading.missing == "impute"):
            row, text = found.first["infinite"]
            at = f"{self._rows.row_word} {row}"
            raise DataError(
                f"{where} holds {_cells(found.n_infinite, 'infinite number')}, the first ({text}) in {at}; "
                "replace them, or let them be imputed with missing='impute'."
            )
        if what == "input" and _GREATEST < found.greatest < np.inf:
            raise DataError(
                f"{where} holds numbers up to {found.greatest:g}, too large for float32 to tell apart from infinity; "
                "rescale the column, or leave it out."
            )

    def _set_aside(self, found: dict[str, Found]) -> None:
        """Leaves out a column without a name that counts the rows: pandas writes its index so."""
        if self._like is not None or self._reading.inputs is not None:
            return
        for name in getattr(self._rows, "unnamed", ()):
            if name in self.columns.inputs and self.kinds[name] == "whole" and found[name].counts:
                inputs = tuple(other for other in self.columns.inputs if other != name)
                notes = (*self.columns.notes, f"{name}, which counts the rows, was left out.")
                self.columns = replace(self.columns, inputs=inputs, notes=notes)

    def _check_inputs(self, found: dict[str, Found]) -> None:
        """Refuses inputs that nobody can learn from as they are: dates, and texts that differ in most rows."""
        if self._like is not None:
            return
        odd = {}
        for name in self.columns.inputs if not self._paths else ():
            texts = found[name].texts
            n_texts = _MOST_TEXTS + 1 if texts is None else len(texts)
            if self.kinds[name] == "date":
                odd[name] = "holds dates"
            elif (
                self.kinds[name] == "text"
                and n_texts > _MOST_TEXTS
                and (texts is None or n_texts > found[name].n_filled / 2)
            ):
                odd[name] = "has another text in most rows, like a name or a number of the row"
        if odd:
            said = "; ".join(f"{name!r} {what}" for name, what in list(odd.items())[:5])
            good = [name for name in self.columns.inputs if name not in odd]
            advice = f"leave them out, with inputs={','.join(good)}" if good else "give other inputs"
            if len(good) > 20:
                advice = "leave them out by naming the others as inputs"
            raise DataError(f"{self.name}: columns that cannot be inputs as they are: {said}; {advice}.")

    def _what(self, name: str) -> str:
        c = self.columns
        return "label" if name in c.labels else {c.weight: "weight", c.held: "held_out"}.get(name, "input")

    def _said(self, found: dict[str, Found], n_bad: int) -> Iterator[str]:
        """Yields sentences on what was recognised, counted or set aside."""
        yield from self._rows.notes
        yield from self.columns.notes
        if n_bad:
            yield f"Left out: {_cells(n_bad, 'line')} with a wrong number of cells."
        comma = [name for name, kind in self.kinds.items() if kind == "comma"]
        if comma:
            yield f"Numbers with a decimal comma: {listed(comma)}."
        inputs = [found[name] for name in self.columns.inputs]
        empty = [each for each in inputs if 0 < each.n_missing < each.n]
        if empty:
            markers = sorted({repr(text) for each in inputs for text in each.markers if text})
            written = f" (also those with {', '.join(markers)})" if markers else ""
            texts = any(self.kinds[each.name] in ("text", "boolean") for each in empty)
            numbers = any(self.kinds[each.name] not in ("text", "boolean") for each in empty)
            become = ["the mean"] * numbers + ["a category of their own"] * texts
            means = f"; they count as {' or '.join(become)}" if self._reading.prepare == "auto" else ""
            yield f"Empty cells{written}: {listed(f'{each.name} {each.n_missing}' for each in empty)}{means}."
        infinite = [f"{each.name} {each.n_infinite}" for each in inputs if each.n_infinite]
        if infinite:
            yield f"Infinite numbers, which count as empty cells: {listed(infinite)}."
        for each in inputs:
            if self.kinds[each.name] != "whole":
                continue
            if each.greatest > _EXACT:
                yield (
                    f"{each.name!r} holds whole numbers up to {each.greatest:.0f}, which float32 cannot tell apart; it "
                    "looks like the number of something, so leave it out by naming the other inputs."
                )
            elif each.counts and each.n >= _MANY:
                yield f"{each.name!r} only counts the rows; leave it out by naming the other inputs."

    def _raw(self, rows: Rows) -> Raw:
        """Returns rows as examples."""
        import polars as pl

        c, kinds = self.columns, self.kinds
        made = {name: as_kind(rows.frame[name], kinds[name]).alias(name) for name in c.all}
        for name in c.all:
            if made[name].dtype == pl.Enum and (name in c.inputs or len(self._rows.files) > 1):
                made[name] = made[name].cast(pl.String)
        if self._reading.missing == "impute":
            for name in c.inputs:
                if made[name].dtype == pl.Float64:
                    cells = made[name]
                    made[name] = pl.select(pl.when(cells.is_finite()).then(cells).alias(name)).to_series()
        held = None
        if c.held is not None:
            words = held_by(made[c.held].unique().to_list(), c.held, self.name)
            held = np.array([words[value] for value in made[c.held].to_list()], bool)
        return Raw(
            "table",
            pl.DataFrame([made[name] for name in c.inputs]),
            pl.DataFrame([made[name] for name in c.labels]) if c.labels else None,
            None if c.weight is None else made[c.weight].cast(pl.Float64).to_numpy(),
            held,
            self.name,
            self.source,
        )


def _cells(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
