"""Tables that know their types: Polars and pandas frames, Parquet files, scikit-learn's and Hugging Face's tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from .cells import refuse_nested
from .columns import listed, refuse_twice
from .delimited import Rows


class Frame:
    """A table in memory.

    Attributes:
        names: of the columns.
        name: what the table is called.
        source: what reads it again, None for an object.
        row_word: what a row is called in errors.
        notes: sentences on what was recognised.
        files: that it is read from.
    """

    row_word = "row"

    def __init__(self, frame: Any, name: str = "table", source: str | None = None, notes: list[str] | None = None):
        self.frame, self.name, self.source, self.notes = frame, name, source, notes or []
        self.names, self.files = list(frame.columns), []

    def n_bytes(self, n_columns: int) -> int:
        """Returns how many bytes so many of the columns take as float32."""
        return len(self.frame) * n_columns * 4

    def rows(self, columns: list[str], n_bytes: int | None = None) -> Iterator[Rows]:
        """Yields the rows in pieces of about `n_bytes`; None for all at once."""
        frame = self.frame.select(columns)
        refuse_nested(dict(frame.schema), self.name)
        if not len(frame):
            raise DataError(f"{self.name} has no rows; give at least one example.")
        step = len(frame) if n_bytes is None else _rows_in(n_bytes, len(columns))
        for start in range(0, len(frame), step):
            piece = frame.slice(start, step)
            yield Rows(piece, np.arange(start + 1, start + len(piece) + 1))


class Parquet:
    """A Parquet file, or a folder of parts that have the same columns; read part by part in the order of their names.

    Attributes:
        names: of the columns.
        name: of the file or folder.
        source: its full path.
        row_word: what a row is called in errors.
        notes: sentences on what was recognised.
        files: that it is read from.
    """

    row_word = "row"

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.source: str | None = str(path.resolve())
        self.files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        self.notes = (
            [f"{path.name} has {len(self.files)} parts, read in the order of their names."]
            if len(self.files) > 1
            else []
        )
        self.names = list(self._schema(self.files[0]))
        for part in self.files[1:]:
            other = list(self._schema(part))
            if sorted(other) != sorted(self.names):
                odd = sorted(set(other) ^ set(self.names))
                raise DataError(
                    f"{part} has other columns than {self.files[0].name}: {listed(odd)} is in one of them alone; keep "
                    "parts of one table in a folder."
                )

    def n_bytes(self, n_columns: int) -> int:
        """Returns how many bytes so many of the columns take as float32."""
        return sum(self._n_rows(part) for part in self.files) * n_columns * 4

    def rows(self, columns: list[str], n_bytes: int | None = None) -> Iterator[Rows]:
        """Yields the rows in pieces of about `n_bytes`; None for a part at a time."""
        import polars as pl

        first = 1
        for part in self.files:
            schema = self._schema(part)
            refuse_nested({name: schema[name] for name in columns}, str(part))
            n = self._n_rows(part)
            step = max(n, 1) if n_bytes is None else _rows_in(n_bytes, len(columns))
            for start in range(0, n, step):
                try:
                    frame = pl.scan_parquet(part).select(columns).slice(start, step).collect()
                except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
                    raise _not_parquet(part, error) from None
                yield Rows(frame, np.arange(first, first + len(frame)))
                first += len(frame)
        if first == 1:
            raise DataError(f"{self.path} has no rows; give at least one example.")

    def _schema(self, part: Path) -> dict[str, Any]:
        import polars as pl

        try:
            return dict(pl.read_parquet_schema(part))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _not_parquet(part, error) from None

    def _n_rows(self, part: Path) -> int:
        import polars as pl

        try:
            return int(pl.scan_parquet(part).select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _not_parquet(part, error) from None


def _not_parquet(path: Path, error: BaseException) -> DataError:
    panic = type(error).__name__ == "PanicException"  # Polars' own code gave up on what it found
    said = "its content is damaged" if panic else str(error).strip().splitlines()[0].rstrip(".")
    if "duplicate" in said.lower():
        return DataError(f"{path} has two columns of one name ({said}); rename one.")
    return DataError(f"{path} cannot be read as Parquet ({said}); check the file, or write it again.")


def _rows_in(n_bytes: int, n_columns: int) -> int:
    """Returns how many rows of so many columns take about `n_bytes` while they are worked on."""
    return max(1, n_bytes // (16 * max(1, n_columns)))


def polars_of(data: Any, name: str = "table") -> Any:
    """Returns a pandas or Polars frame or series as a Polars frame, a pandas one column by column without pyarrow.

    Raises:
        DataError: a column that holds neither numbers nor texts.
    """
    import polars as pl

    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pl.Series):
        return data.to_frame(data.name or "label")
    if data.ndim == 1:
        data = data.to_frame("label" if data.name is None else data.name)
    names = [str(column) for column in data.columns]
    refuse_twice(names, name)
    return pl.DataFrame([_from_pandas(data.iloc[:, i], names[i], name) for i in range(len(names))])


def _from_pandas(column: Any, name: str, table: str) -> Any:
    """Returns a pandas column as a Polars series."""
    import polars as pl

    dtype = column.dtype
    missing = column.isna().to_numpy()
    if hasattr(dtype, "categories"):
        texts = [None if gone else str(value) for value, gone in zip(column.tolist(), missing, strict=True)]
        return pl.Series(name, texts, pl.Enum([str(category) for category in dtype.categories]))
    if dtype.kind in "iufb" and isinstance(dtype, np.dtype):
        return pl.Series(name, column.to_numpy())
    if dtype.kind in "Mm":
        return pl.Series(name, column.to_numpy().astype("datetime64[us]" if dtype.kind == "M" else "timedelta64[us]"))
    values = [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool, np.bool_}:
        return pl.Series(name, values, pl.Boolean)
    if all(issubclass(kind, (int, np.integer)) for kind in kinds):
        return pl.Series(name, [None if v is None else int(v) for v in values], strict=False)
    if all(hasattr(kind, "__float__") and not issubclass(kind, (str, np.ndarray)) for kind in kinds):
        return pl.Series(name, [None if v is None else float(v) for v in values], pl.Float64)
    if all(issubclass(kind, (str, int, float, np.number, np.bool_)) for kind in kinds):
        return pl.Series(name, [None if v is None else str(v) for v in values], pl.String)
    where = next(i for i, v in enumerate(values) if v is not None and not isinstance(v, (str, int, float)))
    raise DataError(
        f"{table}: the column {name!r} holds {type(values[where]).__name__} in row {where + 1}, which is neither a "
        "number nor a text; spread it over columns, or leave it out with inputs."
    )


def built_in(name: str) -> Frame:
    """Returns one of scikit-learn's tables, with the label in the column `target`; nothing is ever downloaded.

    Raises:
        DataError: California's houses, where they are not in scikit-learn's folder on this machine already.

    Example:
        >>> built_in("iris").names[-1]
        'target'
    """
    import polars as pl
    from sklearn import datasets

    try:
        bunch: Any = (
            datasets.fetch_california_housing(download_if_missing=False)
            if name == "california"
            else getattr(datasets, f"load_{name}")()
        )
    except OSError:
        raise DataError(
            "california is not on this machine, and nothing is downloaded; run "
            "sklearn.datasets.fetch_california_housing() once, or give a file."
        ) from None
    names = [str(feature).removesuffix(" (cm)").replace(" ", "_") for feature in bunch.feature_names]
    target = bunch.target
    if bunch.get("target_names") is not None and name != "california":
        classes = [str(each) for each in bunch.target_names]
        target = pl.Series([classes[i] for i in target], dtype=pl.Enum(classes))
    frame = pl.DataFrame(dict(zip(names, np.asarray(bunch.data).T, strict=True)))
    return Frame(frame.with_columns(pl.Series("target", target)), name, name)


def hugging_face(data: Any, name: str, source: str | None = None) -> Frame:
    """Returns a Hugging Face data set of plain columns as a table; class labels keep their names and order."""
    import polars as pl

    frame = pl.from_arrow(data.with_format("arrow")[:])
    made = []
    for column in frame:  # pyright: ignore[reportGeneralTypeIssues]
        classes = getattr(data.features[column.name], "names", None)
        if classes is not None:
            texts = [None if i is None or i < 0 else classes[i] for i in column.to_list()]
            column = pl.Series(column.name, texts, pl.Enum(classes))
        made.append(column)
    return Frame(pl.DataFrame(made), name, source)
