"""What labels are: classes, several labels of 0 or 1, or values; recognised, said, and turned into numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import DataError, choose
from ..raw import Raw
from ..readers.columns import listed
from .moments import Moments

TASKS = ("auto", "classification", "regression", "labels")
FEW = 20  # different whole numbers that are classes wherever they lie
_MOST_CLASSES, _EACH = 1000, 10  # numbered classes from 0 or 1 on, with so many examples each on average
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Labels:
    """How labels become numbers.

    Attributes:
        task: "classification", "labels" or "regression".
        classes: their names in order, None where labels are numbers from 0 on, or values.
        n_classes: how many numbers from 0 on are known; 0 where any may come.
        names: of the label columns; none for arrays.
        notes: sentences on what was recognised.
        center: what is taken from the values of each column for training; none where they stay as they are.
        scale: what they are divided by then.
    """

    task: str
    classes: tuple[str, ...] | None = None
    n_classes: int = 0
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def scaled(self, moments: Moments) -> Labels:
        """Returns the same with values brought to mean 0 and deviation 1, whose moments in training these are."""
        deviation = np.sqrt(moments.squares / np.maximum(moments.n, 1))
        scale = tuple(np.where(deviation > 0, deviation, 1.0).tolist())
        each = [f"{name!r} ({m:.4g} ± {s:.4g})" for name, m, s in zip(self.names, moments.mean, scale, strict=True)]
        note = (
            f"The training scales {listed(each)} to mean 0 and deviation 1: losses are of the scaled values, "
            "predictions and mse are in their own units."
        )
        return replace(self, center=tuple(moments.mean.tolist()), scale=scale, notes=(*self.notes, note))

    def values(self, outputs: np.ndarray) -> np.ndarray:
        """Returns what a network trained on scaled values predicts, `[n, columns]`, in the values' own units."""
        if not self.scale:
            return outputs
        return (outputs.astype(np.float64) * self.scale + self.center).astype(np.float32)

    def numbers(self, raw: Raw) -> np.ndarray:
        """Returns the labels of examples: int32 classes `[n]` or labels `[n, k]`, or float32 values.

        Raises:
            DataError: a label that is none of the known classes.
        """
        y = raw.y
        if raw.kind != "table":
            return self._of_array(raw)
        if self.task == "classification":
            return self._of_column(y[self.names[0]], raw.name)
        made = y.select(self.names).cast(dict.fromkeys(self.names, _float64())).to_numpy()
        if self.task == "labels":
            if not np.isin(made, (0, 1)).all():
                raise DataError(
                    f"{raw.name}: labels of several columns must be 0 or 1 each, but others are among them."
                )
            return made.astype(np.int32)
        if self.scale:
            made = (made - self.center) / self.scale
        with np.errstate(over="ignore"):
            made = made.astype(np.float32)
        if not np.isfinite(made).all():
            raise DataError(f"{raw.name}: the values of {listed(self.names)} are too large for float32; scale them.")
        return made[:, 0] if len(self.names) == 1 else made

    def _of_column(self, cells: Any, name: str) -> np.ndarray:
        import polars as pl

        if cells.dtype == pl.Float64:
            cells = cells.cast(pl.Int64, strict=False)
        texts = cells.cast(pl.String)
        known = self.classes if self.classes is not None else tuple(map(str, range(self.n_classes)))
        numbers = texts.cast(pl.Enum(known), strict=False).to_physical()
        if numbers.null_count():
            unseen = texts.filter(numbers.is_null())
            raise _unseen(
                name, f" (column {self.names[0]!r})", unseen.unique(maintain_order=True).to_list(), len(unseen), known
            )
        return numbers.cast(pl.Int32).to_numpy()

    def _of_array(self, raw: Raw) -> np.ndarray:
        y = np.asarray(raw.y)
        given = raw.classes if raw.classes is not None and y.dtype.kind in "iu" else None
        if self.classes is not None and (given is not None or y.dtype.kind in "USO") and given != self.classes:
            texts = y.astype(str) if given is None else np.asarray(given)[y]
            order = np.argsort(self.classes)
            place = np.searchsorted(np.asarray(self.classes)[order], texts).clip(max=len(order) - 1)
            y = order[place]
            wrong = np.asarray(self.classes)[y] != texts
            if wrong.any():
                unseen = list(dict.fromkeys(texts[wrong].tolist()))
                raise _unseen(raw.name, "", unseen, int(wrong.sum()), self.classes)
        if self.task == "regression" or y.dtype.kind not in "iub":
            return (
                y
                if y.dtype.kind == "f" and self.task != "classification"
                else y.astype(np.float32 if self.task == "regression" else np.int32)
            )
        if self.n_classes and y.ndim == 1 and y.size and y.max() >= self.n_classes and y.dtype.kind in "iu":
            unseen = np.unique(y[y >= self.n_classes])
            known = tuple(map(str, range(self.n_classes)))
            raise _unseen(raw.name, "", unseen.tolist(), int((y >= self.n_classes).sum()), known)
        return y


def _float64() -> Any:
    import polars as pl

    return pl.Float64


def _unseen(name: str, column: str, unseen: list[Any], n: int, known: tuple[str, ...]) -> DataError:
    return DataError(
        f"{name}{column}: {n:,} example{'s have' if n != 1 else ' has'} a label that training never saw, "
        f"{listed(map(repr, unseen), 5)}; it knows "
        f"{listed(known)}: correct the labels, or remove these examples."
    )


def recognised(raw: Raw, task: str = "auto") -> Labels:
    """Returns what the labels of examples are.

    Args:
        raw: all examples from which classes may come.
        task: "auto" to recognise it: texts, truth values and few different whole numbers are classes, other numbers
            values, several columns of 0 and 1 labels; or "classification", "labels" or "regression".

    Raises:
        DataError: no labels, one class only, a label that is missing or longer than 200 characters, labels that the
            task does not allow.
        SettingsError: an unknown task.

    Example:
        >>> recognised(Raw("array", np.zeros((2, 1)), np.array(["cat", "ant"]))).classes
        ('ant', 'cat')
    """
    choose("task", task, TASKS)
    if raw.y is None:
        raise DataError(f"{raw.name} has no labels, which training needs; give (x, y), or name the column of labels.")
    if raw.kind != "table":
        return _of_array(raw, task)
    names = tuple(raw.y.columns)
    return _of_column(raw.y[names[0]], task, raw.name) if len(names) == 1 else _of_columns(raw, task)


def _of_array(raw: Raw, task: str) -> Labels:
    y = np.asarray(raw.y)
    if y.dtype.kind in "USO":
        if task == "regression":
            raise DataError(
                f"{raw.name}: labels are texts such as {str(y.reshape(-1)[0])!r}; regression needs numbers."
            )
        return Labels("classification", tuple(str(name) for name in np.unique(y.astype(str))))
    if task == "auto":
        task = "classification" if y.dtype.kind in "iub" else "regression"
    if task == "classification" and y.dtype.kind == "f" and y.ndim == 1 and not np.all(np.floor(y) == y):
        raise DataError(f"{raw.name}: labels have fractions, which numbers of classes have not; leave task out.")
    n = 0
    if raw.classes is not None:
        n = len(raw.classes)
    return Labels(task, raw.classes if task == "classification" else None, n if task == "classification" else 0)


def _of_column(cells: Any, task: str, table: str) -> Labels:
    import polars as pl

    name = cells.name
    where = f"{table}: the label {name!r}"
    if cells.dtype not in (pl.Int64, pl.Float64):
        if task in ("regression", "labels"):
            raise DataError(f"{where} holds texts such as {str(cells[0])!r}, but {task} needs numbers; leave task out.")
        return _classes_of_texts(cells, where)
    if cells.dtype == pl.Float64 and not bool((cells.floor() == cells).all()):
        if task == "classification":
            raise DataError(f"{where} has fractions, which classes have not; leave task out, or say regression.")
        return Labels("regression", names=(name,))
    if task == "labels":
        return Labels("labels", names=(name,))
    if task == "regression":
        return Labels("regression", names=(name,))
    different = cells.unique().sort()
    n = len(different)
    low, high = int(different[0]), int(different[-1])
    gapless = low in (0, 1) and high - low == n - 1 and n <= _MOST_CLASSES and len(cells) >= _EACH * n
    if task == "auto" and n > FEW and not gapless:
        note = f"The label {name!r} has {n:,} different numbers: regression (task=classification for classes)."
        return Labels("regression", names=(name,), notes=(note,))
    if task == "classification" and n > max(_MOST_CLASSES, FEW) and not gapless:
        raise DataError(f"{where} has {n:,} different numbers, too many to be classes; use regression.")
    if n == 1:
        raise DataError(f"{where} is {low} for all examples; classification needs at least two classes.")
    from_zero = low == 0 and high == n - 1
    classes = None if from_zero else tuple(str(int(value)) for value in different)
    note = f"The label {name!r} has {n} different whole numbers: classification (task=regression for values)."
    return Labels("classification", classes, n, (name,), (note,) if task == "auto" else ())


def _classes_of_texts(cells: Any, where: str) -> Labels:
    import polars as pl

    different = cells.unique().drop_nulls()
    names = sorted(different.cast(pl.String).to_list())
    longest = max(map(len, names), default=0)
    if longest > _LONGEST_NAME:
        raise DataError(
            f"{where} holds a text of {longest:,} characters, but the name of a class has at most {_LONGEST_NAME}; "
            "choose another column as the label."
        )
    if isinstance(cells.dtype, pl.Enum):
        known = set(names)
        names = [name for name in cells.dtype.categories.to_list() if name in known]
    if len(names) < 2:
        raise DataError(f"{where} is {names[0]!r} for all examples; classification needs at least two classes.")
    if len(names) > max(_MOST_CLASSES, FEW) or (len(names) > FEW and len(names) > len(cells) / 2):
        raise DataError(
            f"{where} holds {len(names):,} different texts in {len(cells):,} rows, too many to be classes; choose "
            "another column as the label."
        )
    note = f"The label {cells.name!r} has {len(names)} classes: {listed(names, 10)}."
    return Labels("classification", tuple(names), len(names), (cells.name,), (note,))


def _of_columns(raw: Raw, task: str) -> Labels:
    import polars as pl

    names = tuple(raw.y.columns)
    texts = [name for name in names if raw.y[name].dtype not in (pl.Int64, pl.Float64, pl.Boolean)]
    where = f"{raw.name}: the labels {listed(names)}"
    if texts:
        raise DataError(
            f"{where} are several, but {texts[0]!r} holds texts; several labels must be numbers, or 0 and 1."
        )
    binary = all(bool(raw.y[name].cast(pl.Float64).is_in([0.0, 1.0]).all()) for name in names)
    if task in ("auto", "labels", "classification") and binary:
        note = f"The labels {listed(names)} hold 0 and 1: each is learnt by itself (task=regression for values)."
        return Labels("labels", None, 0, names, (note,))
    if task in ("labels", "classification"):
        raise DataError(f"{where} hold other numbers than 0 and 1; name one label for classification, or regression.")
    return Labels("regression", None, 0, names, (f"The labels {listed(names)} hold values: regression.",))
