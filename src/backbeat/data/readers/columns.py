"""Which columns of a table are predicted, which are predicted from, which weighs and which holds out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError, SettingsError, nearest

LABEL_NAMES = ("label", "target", "class", "y")  # what a column of labels is called where nobody says so
HELD_WORDS = {
    **dict.fromkeys(("test", "validation", "valid", "val", "dev", "held_out", "held-out", "true", "1"), True),
    **dict.fromkeys(("train", "training", "false", "0"), False),
}
_MOST_NAMED, _LONGEST_NAMED = 20, 60


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they are for.

    Attributes:
        inputs: what is predicted from, in order.
        labels: what is predicted; none where new data is read without labels.
        weight: how much an example counts, None for 1 each.
        held: what says which examples are held out, None where no column does.
        notes: sentences on what was recognised.
    """

    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    weight: str | None = None
    held: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        """All of them, in one list."""
        return [*self.inputs, *self.labels, *(name for name in (self.weight, self.held) if name is not None)]


def names_of(given: Any, setting: str) -> list[str] | None:
    """Returns names given as one text with commas or as a list; None where none are given.

    Raises:
        SettingsError: an empty list, an empty name, one twice, or something else than names.

    Example:
        >>> names_of("width, height", "inputs")
        ['width', 'height']
    """
    if given is None:
        return None
    if not isinstance(given, (str, list, tuple)) or any(not isinstance(name, str) for name in given):
        raise SettingsError(f'{setting}={given!r} must be names of columns, such as "width,height" or a list of names.')
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    if not names or "" in names:
        raise SettingsError(f"{setting}={given!r} holds an empty name; give names of columns, or leave it out.")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise SettingsError(f"{setting} names the column {twice[0]!r} twice; name each column once.")
    return names


def listed(names: Iterable[Any], most: int = _MOST_NAMED) -> str:
    """Returns names with commas, of very many only the first.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    names = [_short(str(name)) for name in names]
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _short(name: str) -> str:
    name = name if name.isprintable() else repr(name)
    return name if len(name) <= _LONGEST_NAMED else f"{name[: _LONGEST_NAMED - 1]}…"


def choose_columns(
    names: Sequence[str],
    table: str,
    *,
    label: Any = None,
    inputs: Any = None,
    weight: str | None = None,
    held_out: Any = None,
) -> Columns:
    """Returns the columns of a table by what they are for.

    Args:
        names: of all columns.
        table: what the table is called in errors.
        label: as in `Reading`; None for the one column that is called label, target, class or y.
        inputs: as in `Reading`; None for all that are left.
        weight: as in `Reading`.
        held_out: as in `Reading`; a text that names no column is a file or a share, and not looked at here.

    Raises:
        DataError: a column that is not there, no label that can be recognised, no inputs left.
        SettingsError: a column that is to be two things at once.

    Example:
        >>> choose_columns(["sepal", "petal", "class"], "iris.csv").labels
        ('class',)
    """
    refuse_twice(names, table)
    held = held_out if isinstance(held_out, str) and held_out in names else None
    others = {"weight": weight, "held_out": held}
    labels, notes = names_of(label, "label"), []
    if labels is None:
        labels = [_recognised_label(names, table)]
        notes.append(f"The label is the column {labels[0]!r}.")
    chosen = names_of(inputs, "inputs")
    for setting, given in (("label", labels), ("inputs", chosen or []), ("weight", [weight] if weight else [])):
        _require(given, setting, names, table)
    taken = dict.fromkeys(labels, "label")
    for what, name in others.items():
        if name is not None and taken.setdefault(name, what) != what:
            raise SettingsError(f"{table}: the column {name!r} is {what} and {taken[name]} too; name it for one.")
    if chosen is None:
        chosen = [name for name in names if name not in taken]
    for name in chosen:
        if name in taken:
            raise SettingsError(
                f"{table}: the column {name!r} is {taken[name]} and among inputs too, which would tell what is to be "
                "learnt; name it for one of the two."
            )
    if not chosen:
        raise DataError(f"{table} has no column left to predict from, only {listed(names)}; give inputs.")
    return Columns(tuple(chosen), tuple(labels), weight, held, tuple(notes))


def columns_like(
    inputs: Sequence[str], labels: Sequence[str], names: Sequence[str], table: str, *, weight: str | None = None
) -> Columns:
    """Returns the columns of new data that is read as earlier data was.

    Args:
        inputs: the columns that were predicted from; all must be there.
        labels: those that were predicted; read only where all of them are there.
        names: of the new data's columns.
        table: what the new data is called in errors.
        weight: what the examples' weights were; read only where it is there.

    Raises:
        DataError: an input column that is not there.

    Example:
        >>> columns_like(["width"], ["label"], ["width", "id"], "new.csv")
        Columns(inputs=('width',), labels=(), weight=None, held=None, notes=())
    """
    refuse_twice(names, table)
    _require(inputs, "inputs", names, table)
    there = tuple(labels) if set(labels) <= set(names) else ()
    return Columns(tuple(inputs), there, weight if weight in names else None)


def _require(wanted: Sequence[str], setting: str, names: Sequence[str], table: str) -> None:
    for name in wanted:
        if name not in names:
            raise DataError(f"{table} has no column {name!r} ({setting}): {_nearest(name, names)}")


def refuse_twice(names: Sequence[str], table: str) -> None:
    """Refuses a table that has two columns of one name.

    Raises:
        DataError: such a table.
    """
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if name in seen:
            raise DataError(
                f"{table} has two columns called {name!r}, number {seen[name] + 1} and number {i + 1}; rename one."
            )
        seen[name] = i


def _recognised_label(names: Sequence[str], table: str) -> str:
    found = [name for name in names if name.strip().lower() in LABEL_NAMES]
    if len(found) == 1:
        return found[0]
    why = "none is called label, target, class or y" if not found else f"{' and '.join(found)} may each be it"
    raise DataError(
        f"{table}: which column to predict is not clear ({why}); name it with label (--target): {listed(names)}."
    )


def _nearest(name: str, names: Sequence[str]) -> str:
    """Returns the end of a sentence on a column that is not there; the case of letters does not matter to find it."""
    for other in names:
        if other.lower() == name.lower():
            return f"did you mean {other!r}?"
    said = nearest(name, names)
    return said if len(names) <= _MOST_NAMED else f"{said.partition('llowed:')[0]}llowed: {listed(names)}."


def held_by(values: Iterable[Any], column: str, table: str) -> dict[Any, bool]:
    """Returns for each different value of a column whether it holds an example out.

    Raises:
        DataError: a word that says neither, an empty cell.

    Example:
        >>> held_by(["train", "Test"], "part", "iris.csv")
        {'train': False, 'Test': True}
    """
    found = {}
    for value in values:
        word = str(value).strip().lower().removesuffix(".0")
        if value is None or word not in HELD_WORDS:
            given = "an empty cell" if value is None else repr(value)
            raise DataError(
                f"{table}: the column {column!r} says which examples are held out, but holds {given}; allowed are "
                "train and test (or validation), true and false, 1 and 0."
            )
        found[value] = HELD_WORDS[word]
    return found


def held_out_kind(held_out: Any, names: Sequence[str] | None, table: str) -> str:
    """Returns what `held_out` is: a "share", a "column", or "data" of its own.

    Args:
        held_out: as in `Reading`, or data of its own in any form that `load` takes.
        names: of the columns, None where the data has none.
        table: what the data is called in errors.

    Raises:
        DataError: a text that is neither a column nor a file.

    Example:
        >>> held_out_kind(0.2, None, "arrays"), held_out_kind("part", ["part", "x"], "iris.csv")
        ('share', 'column')
    """
    if held_out is None or isinstance(held_out, bool) or not isinstance(held_out, (str, Path, tuple, list)):
        numeric = held_out is None or isinstance(held_out, (bool, int, float)) or hasattr(held_out, "__float__")
        return "share" if numeric and getattr(held_out, "ndim", 0) == 0 else "data"
    if not isinstance(held_out, str):
        return "data"
    if held_out in (names or ()):
        return "column"
    if Path(held_out).exists():
        return "data"
    try:
        float(held_out)
    except ValueError:
        columns = "" if not names else f", of which it has {listed(names)}"
        raise DataError(
            f"{table}: held_out={held_out!r} is neither a share such as 0.2, nor a file that is there, nor a column"
            f"{columns}."
        ) from None
    return "share"
