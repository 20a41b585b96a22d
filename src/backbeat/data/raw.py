"""What a source gives before anything is prepared: inputs, labels and weights as they were read, and how to read them.

A source is read whole (`Source.read`), or, where it is larger than the memory given, in pieces (`Source.pieces`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Kind = Literal["array", "image", "table"]


@dataclass(frozen=True)
class Reading:
    """How data is read, as a person says it; see `backbeat.fit` for what each one means.

    Attributes:
        label: the column or columns to predict, a name, a text with commas or a list; None to recognise it.
        inputs: the columns to predict from, likewise; None for all others.
        task: "auto", "classification" or "regression".
        weight: the column of the examples' weights.
        held_out: a share, the path of a file, or the name of a column that says which examples are held out.
        prepare: "auto", "none", or a scikit-learn transformer of the user's own.
        missing: "auto" (empty cells of tables are imputed and counted, what is not finite is refused), "impute" or
            "refuse".
        skip_bad: whether what cannot be read (a corrupt image, a ragged row) is left out and counted.
        resize: "28x28", the height and width that images are brought to.
        memory: how much memory the data may take, such as "2 GB"; None for what it needs.
    """

    label: Any = None
    inputs: Any = None
    task: str = "auto"
    weight: str | None = None
    held_out: Any = 0.2
    prepare: Any = "auto"
    missing: str = "auto"
    skip_bad: bool = False
    resize: str | None = None
    memory: Any = None

    @classmethod
    def of(cls, settings: Any) -> Reading:
        """Returns the part of a run's settings that says how data is read."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Raw:
    """Examples as they were read.

    Attributes:
        kind: "array", "image" (numbers 0..255 in x, scaled to 0..1 later) or "table".
        x: `[n, ...]` numbers; for a table a Polars frame of the input columns.
        y: `[n, ...]` numbers or texts; for a table a Polars frame of the label columns; None where there are none.
        weight: `[n]`, None for 1 each.
        held: `[n]` booleans, True for examples that a column holds out; None where no column says so.
        name: what it is called in reports and errors.
        source: what reads the same again, None for arrays.
        classes: the names of the classes where `y` holds their numbers, else None.
        notes: sentences on what was recognised, counted or set aside.
    """

    kind: Kind
    x: Any
    y: Any = None
    weight: np.ndarray | None = None
    held: np.ndarray | None = None
    name: str = "arrays"
    source: str | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def take(self, where: np.ndarray) -> Raw:
        """Returns some of the examples, by their indices `[k]`.

        Example:
            >>> Raw("array", np.eye(3), np.array([5, 6, 7])).take(np.array([0, 2])).y.tolist()
            [5, 7]
        """
        y, weight, held = (None if each is None else each[where] for each in (self.y, self.weight, self.held))
        return replace(self, x=self.x[where], y=y, weight=weight, held=held)


@runtime_checkable
class Source(Protocol):
    """Something that data is read from."""

    name: str

    def n_bytes(self) -> int:
        """Returns about how many bytes the inputs take in memory, as float32."""
        ...

    def read(self) -> Raw:
        """Returns all examples."""
        ...

    def pieces(self, n_bytes: int) -> Iterator[Raw]:
        """Yields all examples in order, in pieces that take about `n_bytes` in memory."""
        ...
