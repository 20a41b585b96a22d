"""Preparation: what makes a network's inputs of what was read; fitted on the training part, stored, applied again.

For a table, with scikit-learn's transformers:

- numbers: less their mean, divided by their standard deviation, both of the training part without its empty cells; then
  an empty cell is 0, which is the mean. In this order the fit needs one pass, whatever the memory.
- texts and truth values: one input of 0 or 1 for each category of the training part; any other is 0 in all of them.
- values to predict: scaled alike for the training; predictions are scaled back.
- a column that tells nothing (all alike, or empty) is set aside, and said.

Numbers of arrays stay as they are; pixels of 0..255 are divided by 255.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...errors import DataError, SettingsError, choose
from ..dataset import aligned
from ..raw import Raw, Reading
from ..readers.columns import listed
from .features import EMPTY, MOST_CATEGORIES, learnt
from .kept import as_bytes, damaged, of_bytes, stored
from .labels import Labels, recognised
from .moments import Moments
from .own import applied, fitted, names_made_by
from .recut import ROWS, labels_together, of_equal_size


@dataclass
class Preparation:
    """What makes inputs and labels of examples as they were read.

    Attributes:
        kind: what it was fitted on: "table", "array" or "image".
        mode: "auto", "none", or "own" for a user's transformer.
        missing: what becomes of cells that hold nothing, see `Reading`.
        labels_are: how labels become numbers, None before they are fitted.
        input_names: the columns predicted from; none for arrays.
        kinds: what each column held, "whole", "number", "boolean" or "text".
        feature_names: of the inputs that it makes; none where there are no names.
        notes: sentences on what was set aside or grouped.
        unseen: cells of new data whose text training never saw, by column, since the last `said_of_new`.

    Example:
        >>> import polars as pl
        >>> table = Raw("table", pl.DataFrame({"a": [1.0, 3.0], "b": ["x", "y"]}), pl.DataFrame({"c": ["no", "yes"]}))
        >>> preparation = Preparation.of(Reading(), "table").fit([table])
        >>> preparation.inputs(table).tolist(), preparation.classes
        ([[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0]], ('no', 'yes'))
    """

    kind: str
    mode: str = "auto"
    missing: str = "auto"
    task_asked: str = "auto"
    labels_are: Labels | None = None
    input_names: tuple[str, ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)
    feature_names: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unseen: Counter[str] = field(default_factory=Counter)
    transformers: dict[str, Any] = field(default_factory=dict)
    fill: np.ndarray | None = None

    @classmethod
    def of(cls, reading: Reading, kind: str) -> Preparation:
        """Returns one that is not fitted yet.

        Args:
            reading: how data is read; `prepare`, `missing` and `task` count.
            kind: of the data, as in `Raw`.

        Raises:
            SettingsError: a preparation that is neither known nor a transformer.
        """
        choose("missing", reading.missing, ("auto", "impute", "refuse"))
        own = reading.prepare
        if isinstance(own, str) or own is None:
            mode = choose("prepare", "none" if own is None else own, ("auto", "none"))
            return cls(kind, mode, reading.missing, reading.task)
        if not all(callable(getattr(own, name, None)) for name in ("fit", "transform")) or isinstance(own, type):
            raise SettingsError(
                f"prepare={own!r} must be 'auto', 'none', or an object with fit and transform, such as "
                "sklearn.preprocessing.StandardScaler()."
            )
        return cls(kind, "own", reading.missing, reading.task, transformers={"own": own})

    @property
    def needed(self) -> bool:
        """Whether inputs are anything but the numbers that were read."""
        return self.fitted_on_a_part or (self.kind == "image" and self.mode == "auto")

    @property
    def fitted_on_a_part(self) -> bool:
        """Whether anything is learnt from the training part, which has to be known first then."""
        return self.kind == "table" or self.mode == "own" or (self.kind == "array" and self.missing == "impute")

    @property
    def kept_whole(self) -> bool:
        """Whether inputs are a table's whole numbers as they were, which may be tokens."""
        return self.kind == "table" and self.mode == "none" and all(self.kinds[n] == "whole" for n in self.numbers)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The columns of labels."""
        return () if self.labels_are is None else self.labels_are.names

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, None where labels are numbers from 0 on, or values."""
        return None if self.labels_are is None else self.labels_are.classes

    @property
    def task(self) -> str:
        """What labels are: "classification", "labels" or "regression"."""
        return "auto" if self.labels_are is None else self.labels_are.task

    def fit(self, pieces: Iterable[Raw]) -> Preparation:
        """Returns itself, fitted on labels and inputs of the training part, given whole or in pieces.

        Raises:
            DataError: labels or inputs that cannot be used.
        """
        pieces = list(pieces)
        return self.fit_labels(pieces).scale_labels(labels_together(pieces)).fit_inputs(pieces)

    def fit_labels(self, pieces: Iterable[Raw]) -> Preparation:
        """Returns itself, with the labels recognised.

        Args:
            pieces: the examples whose labels are known; their inputs are not looked at.

        Raises:
            DataError: labels that cannot be used.
        """
        together = labels_together(pieces)
        self.labels_are = recognised(together, self.task_asked)
        if together.kind == "table":
            self.kinds |= _kinds(together.y)
        return self

    def scale_labels(self, train: Raw) -> Preparation:
        """Returns itself, with values to predict scaled by those of the training part, whose labels these are."""
        if self.kind == "table" and self.mode == "auto" and self.labels_are is not None and self.task == "regression":
            moments = Moments()
            moments.add(_float64(train.y))
            self.labels_are = self.labels_are.scaled(moments)
        return self

    def fit_inputs(self, pieces: Iterable[Raw]) -> Preparation:
        """Returns itself, with what inputs need learnt from the training part.

        Args:
            pieces: the examples of the training part; how they are cut changes nothing.

        Raises:
            DataError: inputs that cannot be used.
        """
        if self.mode == "own":
            self._fit_own(pieces)
        elif self.kind == "table":
            self._fit_table(pieces)
        elif self.kind == "array" and self.missing == "impute":
            moments = Moments()
            for piece in of_equal_size(pieces):
                moments.add(_flat(piece.x))
            self.fill = np.where(moments.n > 0, moments.mean, 0.0)
        return self

    def inputs(self, raw: Raw) -> np.ndarray:
        """Returns the inputs `[n, ...]` that examples make, float32 for tables and images.

        Raises:
            DataError: an input that is missing, text where numbers are due, something else than what was fitted on.
        """
        if raw.kind != self.kind and "table" in (raw.kind, self.kind):
            raise DataError(
                f"{raw.name} is read as {raw.kind}, but the preparation was fitted on {self.kind}; give data like that."
            )
        if self.mode == "own":
            return applied(self.transformers["own"], raw)
        if self.kind == "table":
            return self._of_table(raw)
        x = np.asarray(raw.x)
        if raw.kind == "image":
            return x if self.mode == "none" else _scaled(x)
        return x if self.fill is None else _filled(x, self.fill, raw.name)

    def labels(self, raw: Raw) -> np.ndarray:
        """Returns the labels of examples: int32 classes `[n]`, int32 labels `[n, k]`, or values.

        Raises:
            DataError: a label that the training part never had.
        """
        assert self.labels_are is not None
        return self.labels_are.numbers(raw)

    def said_of_new(self) -> list[str]:
        """Returns sentences on texts that training never saw, met since the last call."""
        said = [
            f"{name!r}: {n:,} cell{'s hold' if n != 1 else ' holds'} a text that the training part never has, and so "
            "no category."
            for name, n in self.unseen.items()
        ]
        self.unseen = Counter()
        return said

    def _fit_table(self, pieces: Iterable[Raw]) -> None:
        import polars as pl

        moments, counts = Moments(), {}
        numbers: list[str] = []
        for piece in of_equal_size(pieces):
            if not self.input_names:
                self._name_columns(piece.x)
                numbers = [name for name in self.input_names if self._as_number(name)]
                counts = {name: Counter[str]() for name in self.input_names if name not in numbers}
            moments.add(_float64(piece.x.select(numbers)))
            for name, counted in counts.items():
                counted.update(dict(piece.x[name].cast(pl.String).fill_null(EMPTY).value_counts().iter_rows()))
        if self.mode == "none":
            self._keep_numbers(numbers, list(counts), moments)
        else:
            features = learnt(numbers, moments, counts)
            self.numbers, self.categories, self.feature_names = features[:3]
            self.transformers, self.notes = features.transformers, features.notes

    def _name_columns(self, frame: Any) -> None:
        self.input_names = tuple(frame.columns)
        self.kinds |= _kinds(frame)

    def _as_number(self, name: str) -> bool:
        return self.kinds[name] in ("whole", "number") or (self.mode == "none" and self.kinds[name] == "boolean")

    def _keep_numbers(self, numbers: list[str], texts: list[str], moments: Moments) -> None:
        if texts:
            raise DataError(
                f"the columns {listed(texts)} hold texts, which prepare='none' leaves as they are; leave them out with "
                "inputs, or let them be prepared."
            )
        self.numbers = self.feature_names = tuple(numbers)
        if self.missing == "impute":
            self.fill = np.where(moments.n > 0, moments.mean, 0.0)

    def _of_table(self, raw: Raw) -> np.ndarray:
        frame = raw.x
        out = aligned((len(frame), len(self.feature_names)), np.float32)
        n_numbers = len(self.numbers)
        for start in range(0, len(frame), ROWS):
            piece, where = frame.slice(start, ROWS), slice(start, start + ROWS)
            if self.numbers:
                out[where, :n_numbers] = self._of_numbers(piece, raw.name)
            if self.categories:
                out[where, n_numbers:] = self._of_categories(piece)
        return out

    def _of_numbers(self, piece: Any, table: str) -> np.ndarray:
        values = _float64(piece.select(self.numbers))
        if self.mode == "none":
            if self.fill is not None:
                return np.where(np.isnan(values), self.fill, values)
            empty: Any = np.isnan(values).any(axis=0)
            if empty.any():
                names = [name for name, some in zip(self.numbers, empty, strict=True) if some]
                raise DataError(
                    f"{table}: {listed(names)} has empty cells, which prepare='none' leaves empty; fill them in, or "
                    "say missing='impute'."
                )
            return values
        return self.transformers["impute"].transform(self.transformers["scale"].transform(values))

    def _of_categories(self, piece: Any) -> np.ndarray:
        import polars as pl

        texts = piece.select(pl.col(self.categories).cast(pl.String).fill_null(EMPTY))
        made = self.transformers["encode"].transform(texts.to_numpy().astype(object))
        end = 0
        for name, known in zip(self.categories, self.transformers["encode"].categories_, strict=True):
            start, end = end, end + len(known)
            if len(known) < MOST_CATEGORIES:  # beyond, rare ones of the training part have no input either
                n = len(piece) - int(made[:, start:end].sum())
                n -= 0 if EMPTY in known else piece[name].null_count()
                self.unseen.update({name: n} if n else {})
        return made

    def _fit_own(self, pieces: Iterable[Raw]) -> None:
        def named(piece: Raw) -> Raw:
            if self.kind == "table" and not self.input_names:
                self._name_columns(piece.x)
            known = piece.y is not None and self.labels_are is not None
            return replace(piece, y=self.labels(piece) if known else None)

        own = fitted(self.transformers["own"], map(named, pieces))
        self.transformers["own"] = own
        self.feature_names = names_made_by(own)
        if stored(self.transformers) is None:
            self.notes += (
                f"{type(own).__name__} cannot be stored without pickle: the run can be trained, but its folder cannot "
                "predict new data.",
            )

    def to_bytes(self) -> bytes:
        """Returns what `from_bytes` makes an equal one of; no part of it is pickle.

        A transformer that cannot be kept so is left out: `from_bytes` says it then.
        """
        about = {
            "kind": self.kind, "mode": self.mode, "missing": self.missing, "task_asked": self.task_asked,
            "input_names": self.input_names, "kinds": self.kinds, "feature_names": self.feature_names,
            "numbers": self.numbers, "categories": self.categories, "notes": self.notes,
            "labels": None if self.labels_are is None else vars(self.labels_are),
            "fill": None if self.fill is None else [self.fill.shape, self.fill.reshape(-1).tolist()],
        }  # fmt: skip
        return as_bytes(about, self.transformers)

    @classmethod
    def from_bytes(cls, data: bytes) -> Preparation:
        """Returns a preparation that was kept.

        Raises:
            DataError: damaged bytes, a transformer that could not be kept, or one of a type that is not trusted.
        """
        about, transformers = of_bytes(data)
        try:
            labels, fill = about.pop("labels"), about.pop("fill")
            made = cls(**_with_tuples(about), transformers=transformers)
            made.labels_are = None if labels is None else Labels(**_with_tuples(labels))
            made.fill = None if fill is None else np.array(fill[1]).reshape(fill[0])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(error) from None
        return made


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _kinds(frame: Any) -> dict[str, str]:
    """Returns what each column of a frame holds: "whole", "number", "boolean" or "text"."""
    import polars as pl

    known = {pl.Int64: "whole", pl.Float64: "number", pl.Boolean: "boolean"}
    return {name: known.get(dtype.base_type(), "text") for name, dtype in frame.schema.items()}


def _float64(frame: Any) -> np.ndarray:
    """Returns columns of numbers as float64 `[n, columns]`, NaN for empty cells."""
    import polars as pl

    if not frame.width:
        return np.zeros((len(frame), 0))
    return frame.select(pl.all().cast(pl.Float64).fill_null(float("nan"))).to_numpy()


def _flat(x: Any) -> np.ndarray:
    x = np.asarray(x)
    flat = x.reshape(len(x), -1).astype(np.float64)
    return np.where(np.isfinite(flat), flat, np.nan)


def _filled(x: np.ndarray, fill: np.ndarray, name: str) -> np.ndarray:
    if x.dtype.kind != "f":
        return x
    if x.reshape(len(x), -1).shape[1] != len(fill):
        raise DataError(f"{name}: one example has the shape {list(x.shape[1:])}, but {len(fill)} numbers were fitted.")
    return np.where(np.isfinite(x), x, fill.reshape(x.shape[1:])).astype(np.float32)


def _scaled(x: np.ndarray) -> np.ndarray:
    """Returns pixels of 0..255 as float32 of 0..1."""
    out = aligned(x.shape, np.float32)
    np.divide(x, np.float32(255), out=out, casting="unsafe")
    return out
