"""Data sets of other libraries, by what they share: `len(data)` and `data[i]`, an item being inputs and a label.

PyTorch's data sets, Grain's sources, Hugging Face data sets with images, a list of pairs. Items are read before the
training, not in each epoch: what a data set draws at random for an item is drawn once.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, nearest
from ..raw import Raw, Reading
from .pieces import refuse_columns, rows_in
from .pixels import Look, brought_together, look_at, parse_size, pixels_of, quiet_pillow
from .values import array_of, is_pixels, labels_of, numbers_of

_INPUTS = ("image", "img", "images", "pixel_values", "pixels", "x", "input", "inputs", "features", "data")
_LABELS = ("label", "labels", "y", "target", "targets", "class", "digit", "letter", "fine_label")
_MOST_BYTES = 1 << 40  # what says that it is larger has no end
_ITEMS = "give items (x, y), or dicts such as {'image': ..., 'label': ...}"


class _Item(NamedTuple):
    """An item as it was read; `look` says what image the inputs were, None for arrays."""

    i: int
    x: np.ndarray
    y: Any
    weight: Any
    look: Look | None


class Mapped:
    """A data set with `__len__` and `__getitem__`.

    Items are pairs (x, y), triples (x, y, weight), dicts, or inputs alone; inputs are numbers of any shape or images of
    Pillow. An item that is None, which Grain gives for what a filter left out, is left out and counted.

    Example:
        >>> raw = Mapped([([0.0, 1.0], "cat"), ([1.0, 1.0], "dog"), ([1.0, 0.0], "cat")], Reading()).read()
        >>> raw.x.shape, raw.y.tolist()
        ((3, 2), ['cat', 'dog', 'cat'])
    """

    def __init__(self, dataset: Any, reading: Reading) -> None:
        self._data, self._reading = dataset, reading
        self.name = type(dataset).__name__
        self._size = None if reading.resize is None else parse_size(reading.resize)
        self._n = _length(dataset, self.name)
        self._bad: dict[int, str] = {}
        self._none: set[int] = set()
        self._looks: dict[int, Look] = {}

    @property
    def without_labels(self) -> str:
        """What to say where labels are needed and there are none."""
        item = self._data[self._first.i]
        if isinstance(item, dict):
            return (
                f"{self.name}: none of the fields {', '.join(map(str, item))} is known as the label; name it as label."
            )
        return f"{self.name}: its items have no labels; {_ITEMS}."

    def n_bytes(self) -> int:
        """Returns how many bytes the inputs take as float32."""
        return 4 * self._n * math.prod(self._shape)

    def read(self) -> Raw:
        """Returns all examples.

        Raises:
            DataError: an item that cannot be read or is of another form or shape than the first.
        """
        return next(iter(self._read(None)))

    def pieces(self, n_bytes: int) -> Iterator[Raw]:
        """Yields all examples in order, in pieces that take about `n_bytes`; the last says what was left out."""
        yield from self._read(n_bytes)

    def _read(self, n_bytes: int | None) -> Iterator[Raw]:
        rows = self._n if n_bytes is None else rows_in(n_bytes, self._shape)
        for start in range(0, self._n, rows):
            stop = min(self._n, start + rows)
            items = [item for i in range(start, stop) if (item := self._item(i)) is not None]
            if n_bytes is None:
                self._shape = self._shape_of(items)  # without a look through all items before
            notes: list[str] = []
            x = self._inputs(items, notes)
            y, weight = self._column(items, "label"), self._column(items, "weight")
            kind = "image" if self._first.look is not None or is_pixels(x) else "array"
            if start == 0:
                notes = [*self._recognised(x, kind), *notes]
            if stop == self._n:
                notes += self._at_the_end()
            yield Raw(
                kind,
                x,
                None if y is None else self._labels(y),
                None if weight is None else numbers_of(weight, f"{self.name}: weights", []),
                name=self.name,
                classes=self._classes,
                notes=tuple(notes),
            )

    def _item(self, i: int) -> _Item | None:
        """Returns an item; None for one that is left out."""
        try:
            item = self._data[i]
            if item is None:
                self._none.add(i)
                return None
            x, y, weight = self._fields(item, i)
            x, look = _opened(x), None
            if _is_pillow(x):
                with quiet_pillow():
                    look = look_at(x)
                    x = pixels_of(x, grey=look.grey, size=self._size)
        except DataError:
            raise
        except Exception as error:  # whatever code that is not ours raises
            said = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
            reason = f"{type(error).__name__}: {said}"
            if not self._reading.skip_bad:
                raise DataError(
                    f"{self.name}: item {i} cannot be read ({reason}); mend it, or leave out such items with skip_bad."
                ) from None
            self._bad[i] = reason
            return None
        what = f"{self.name}: item {i}"
        y, weight = (None if each is None else _plain(each, f"{what}: label") for each in (y, weight))
        return _Item(i, array_of(x, f"{what}: inputs"), y, weight, look)

    def _fields(self, item: Any, i: int) -> tuple[Any, Any, Any]:
        """Returns inputs, label and weight of an item as it comes; None for what it has not."""
        if isinstance(item, dict):
            return self._fields_of_dict(item, i)
        refuse_columns(self._reading, self.name, "a data set whose items are no dicts")
        pair = isinstance(item, tuple) or (isinstance(item, list) and len(item) == 2 and np.ndim(item[0]) > 0)
        if not pair:
            return item, None, None
        if not 1 <= len(item) <= 3:
            raise DataError(f"{self.name}: item {i} is a tuple of {len(item)}; {_ITEMS}.")
        x, y, weight = (*item, None, None)[:3]
        return x, y, weight

    def _fields_of_dict(self, item: dict[Any, Any], i: int) -> tuple[Any, Any, Any]:
        inputs, label = self._names
        for name in (*inputs, *([label] if label is not None else []), *filter(None, [self._reading.weight])):
            if name not in item:
                raise DataError(f"{self.name}: item {i} has no field {name!r}; {nearest(name, map(str, item))}")
        weight = None if self._reading.weight is None else item[self._reading.weight]
        y = None if label is None else item[label]
        if len(inputs) == 1:
            return item[inputs[0]], y, weight
        values = [array_of(item[name], f"{self.name}: item {i}: the field {name!r}") for name in inputs]
        for name, value in zip(inputs, values, strict=True):
            if value.ndim or value.dtype.kind not in "fiub":
                raise DataError(
                    f"{self.name}: the inputs {', '.join(inputs)} are put together as numbers, but {name!r} is none in "
                    f"item {i}; name one field, or fields that are numbers, as inputs."
                )
        return np.stack(values), y, weight

    @cached_property
    def _names(self) -> tuple[list[str], str | None]:
        """The fields of inputs and of the label in items that are dicts, as asked or recognised by the first one."""
        item = next(item for i in range(self._n) if (item := self._data[i]) is not None)
        keys = [str(key) for key in item]
        given, label = self._reading.inputs, self._reading.label
        if label is None:
            label = next((key for word in _LABELS for key in keys if key.lower() == word), None)
        rest = [key for key in keys if key not in (label, self._reading.weight)]
        if given is not None:
            names = given.split(",") if isinstance(given, str) else list(given)
            return [str(name).strip() for name in names], None if label is None else str(label)
        known = [key for word in _INPUTS for key in rest if key.lower() == word]
        return known[:1] or rest, None if label is None else str(label)

    @cached_property
    def _first(self) -> _Item:
        """The first item that can be read, which all others must be like."""
        for i in range(self._n):
            if (item := self._item(i)) is not None:
                return item
        why = f" (the first: {self._bad[min(self._bad)]})" if self._bad else ""
        raise DataError(f"{self.name}: none of its {self._n} items can be used{why}; {_ITEMS}.")

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """The shape of one example; whether any image has colours needs a look through all, where the first is grey."""
        return self._shape_of(item for i in range(self._n) if (item := self._item(i)) is not None)

    def _shape_of(self, items: Iterable[_Item]) -> tuple[int, ...]:
        shape = self._first.x.shape
        grey = len(shape) == 2 and all(item.look is None or item.look.grey for item in items)
        return shape if self._first.look is None or len(shape) == 3 or grey else (*shape, 3)

    def _inputs(self, items: list[_Item], notes: list[str]) -> np.ndarray:
        """Returns the inputs of items, `[n, ...]`."""
        images, axes = self._first.look is not None, 2 if self._first.look is not None else None
        if self._size is not None and not images:
            raise DataError(f"{self.name}: its inputs are no images of Pillow, so resize does nothing; leave it out.")
        wanted = self._shape[:axes]
        x = []
        for item in items:
            if (item.look is not None) != images:
                raise DataError(
                    f"{self.name}: item {item.i} is of another kind than the first; give all as images or as arrays."
                )
            if item.x.shape[:axes] != wanted:
                advice = f'; resize="{wanted[0]}x{wanted[1]}" brings all to one' if images else ""
                raise DataError(
                    f"{self.name}: item {item.i} has the shape {list(item.x.shape[:axes])}, but the first "
                    f"{list(wanted)}; all must have the same{advice}."
                )
            if item.look is not None:
                self._looks[item.i] = item.look
            x.append(item.x if item.x.ndim == len(self._shape) else item.x[..., None].repeat(3, axis=-1))
        stacked = np.stack(x) if x else np.empty((0, *self._shape), self._first.x.dtype)
        return numbers_of(stacked, f"{self.name}: inputs", notes)

    def _column(self, items: list[_Item], what: str) -> np.ndarray | None:
        """Returns the labels or the weights of items, each like that of the first item; None where that has none."""
        first = getattr(self._first, "y" if what == "label" else what)
        values = [item.y if what == "label" else item.weight for item in items]
        for item, value in zip(items, values, strict=True):
            if _like(value) != _like(first):
                raise DataError(
                    f"{self.name}: item {item.i} has {_like(value)} as its {what}, but item {self._first.i} has "
                    f"{_like(first)}; all must be alike."
                )
        if first is None:
            return None
        if not values:
            return np.asarray([first])[:0]
        if isinstance(first, np.ndarray):
            return np.stack(values)
        if what == "weight":
            return np.asarray(values)
        column = np.empty(len(values), object)
        column[:] = values
        return column

    def _labels(self, y: np.ndarray) -> np.ndarray:
        y = labels_of(y, f"{self.name}: labels")
        if self._classes and y.size and (y.min() < 0 or y.max() >= len(self._classes)):
            raise DataError(
                f"{self.name}: labels run from {y.min()} to {y.max()}, but there are {len(self._classes)} classes, "
                "from 0 on; leave out the items without a label."
            )
        return y

    @cached_property
    def _classes(self) -> tuple[str, ...] | None:
        """The names of the classes, where the data set has them and labels are their numbers."""
        features = getattr(self._data, "features", None)
        named = getattr(self._data, "classes", None)
        if features is not None and isinstance(self._data[self._first.i], dict):
            label = self._names[1]
            named = getattr(features[label], "names", None) if label is not None and label in features else None
        if not isinstance(named, (list, tuple)) or not all(isinstance(name, str) for name in named):
            return None
        numbers = isinstance(self._first.y, int) and not isinstance(self._first.y, bool)
        return tuple(named) if numbers and len(set(named)) == len(named) > 0 else None

    def _recognised(self, x: np.ndarray, kind: str) -> Iterator[str]:
        if isinstance(self._data[self._first.i], dict):
            inputs, label = self._names
            of = f" and the label {label}" if label is not None else ""
            yield f"The inputs are the field{'s' * (len(inputs) > 1)} {', '.join(inputs)}{of}."
        if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3):
            yield f"One example has the shape {list(x.shape[1:])}: channels first, as PyTorch orders them."
        if kind == "image" and self._first.look is None:
            yield f"The inputs are 8-bit numbers of {list(x.shape[1:])} each, taken for pixels from 0 to 255."
        if self._size is not None:
            yield f"Images were brought to {self._size[0]}x{self._size[1]} (bilinear; their proportions are not kept)."

    def _at_the_end(self) -> Iterator[str]:
        """Yields what is known once all items were read."""
        if self._looks:
            yield from brought_together(self._looks.values(), grey=len(self._shape) == 2)
        if self._none:
            yield f"{len(self._none)} of {self._n} items are None and were left out."
        if self._bad:
            first = min(self._bad)
            yield (
                f"{len(self._bad)} of {self._n} items cannot be read and were left out, the first is {first} "
                f"({self._bad[first]})."
            )


def _length(data: Any, name: str) -> int:
    """Returns how many items a data set has; refuses what has none, no end, or no index."""
    streams = {"IterableDataset", "IterDataset", "DataLoader"} & {each.__name__ for each in type(data).__mro__}
    if streams or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        how = (
            "give its data set, loader.dataset" if "DataLoader" in streams else "give list(data) if it fits into memory"
        )
        raise DataError(
            f"{name} is a stream, without an index, so that its items cannot be shuffled; {how}, or a data set with "
            "__len__ and __getitem__."
        )
    try:
        n = len(data)
    except Exception as error:  # a negative length, none, one that is no whole number, or code that is not ours
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"{name}: len(data) does not say how many items there are ({said}); give a data set that does."
        ) from None
    if n == 0:
        raise DataError(f"{name}: there are no examples; give at least one.")
    if n > _MOST_BYTES:
        raise DataError(f"{name} says that it has {n} items, as one without an end does; limit it to one epoch.")
    return n


def _is_pillow(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.") and hasattr(value, "getbands")


def _opened(value: Any) -> Any:
    """Returns the image of {"bytes": ..., "path": ...}, as Hugging Face gives images that it was told not to decode."""
    if not (isinstance(value, dict) and set(value) == {"bytes", "path"}):
        return value
    from PIL import Image

    with quiet_pillow():
        return Image.open(value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"]))


def _like(value: Any) -> str:
    """Returns what a label or weight is, as part of a sentence."""
    if value is None:
        return "nothing"
    if isinstance(value, np.ndarray):
        return f"an array of {list(value.shape)}"
    return "a text" if isinstance(value, str) else "a number" if isinstance(value, (int, float)) else "an object"


def _plain(value: Any, what: str) -> Any:
    """Returns a label as a number, a text or an array of more than one number."""
    if isinstance(value, (bool, int, float, str)):
        return value
    array = array_of(value, what)
    return array.item() if array.ndim == 0 else array
