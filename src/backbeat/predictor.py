"""What a trained network predicts for new data: read as its own was, prepared, computed, put into words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from .data import Reading, open_source
from .data.raw import Raw, Source
from .errors import DataError
from .models import Model

_ROWS = 256  # are predicted at once, always: no prediction depends on what others there are
_BLOCK_FLOATS = 1 << 24  # unless more than so many numbers would be kept on the way through the network, 64 MiB
_PIECE_BYTES = 1 << 28  # of inputs that are read at once


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictor:
    """A trained network with what belongs to it.

    Attributes:
        model: f_θ.
        params: θ.
        kind: what the outputs are: "classification" (logits of classes), "binary" (logits of labels), "regression"
            (values) or "other" (what the user's own loss takes).
        input_shape: of one example.
        input_dtype: "float32", or "int32" for tokens.
        n_outputs: how many numbers the network gives for an example.
        example_floats: numbers that are kept of one example on its way through the network.
        reading: how new data is read.
        classes: their names, None for numbers from 0.
        preparation: what makes inputs of what was read; None for inputs as they are.
    """

    model: Model
    params: Any = field(repr=False)
    kind: str
    input_shape: tuple[int, ...]
    input_dtype: str
    n_outputs: int
    example_floats: int
    reading: Reading
    classes: tuple[str, ...] | None = None
    preparation: Any = field(default=None, repr=False)

    @property
    def label_names(self) -> list[str] | None:
        """The names of the columns that are predicted, where the data had names for them."""
        names = getattr(self.preparation, "label_names", ())
        return list(names) or None

    def inputs(self, raw: Raw) -> np.ndarray:
        """Returns the inputs `[n, ...]` that the network takes, of examples as they were read.

        Images are brought to the channels of those trained on: grey ones repeat theirs, colours become grey.

        Raises:
            DataError: examples of another shape than those trained on, or that the preparation refuses.
        """
        if raw.kind == "image":
            raw = replace(raw, x=_with_channels(np.asarray(raw.x), self.input_shape))
        x = np.asarray(raw.x if self.preparation is None else self.preparation.inputs(raw))
        if x.shape[1:] != self.input_shape:
            raise DataError(self._misfit(raw, x.shape[1:]))
        with np.errstate(over="ignore"):
            x = x.astype(self.input_dtype, copy=False)
        if x.dtype.kind == "f" and not (finite := np.isfinite(x).reshape(len(x), -1).all(axis=1)).all():
            raise DataError(
                f"{raw.name}: {np.count_nonzero(~finite):,} of {len(x):,} examples hold what is no finite number, the "
                f"first is number {int(np.argmin(finite)) + 1}; remove or replace it."
            )
        return x

    def _misfit(self, raw: Raw, shape: tuple[int, ...]) -> str:
        wanted = self.input_shape
        if raw.kind != "image":
            return (
                f"{raw.name}: one example has the shape {list(shape)}, but the run was trained on {list(wanted)}; give "
                "data like that."
            )
        size, trained = (f"{shape[0]}x{shape[1]}" for shape in (shape, wanted))
        return (
            f"{raw.name}: the images are {size} (height x width), but the run was trained on {trained}; --resize "
            f"{trained} brings them to that."
        )

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Returns what the network gives for inputs `[n, ...]`: logits `[n, classes]` or values, in blocks of one size.

        The last block is filled up, so that one program serves all and an output is the same whatever is beside it.
        """
        rows = min(_ROWS, max(1, _BLOCK_FLOATS // self.example_floats))
        pieces = []
        for start in range(0, len(x), rows):
            block = x[start : start + rows]
            short = rows - len(block)
            full = np.concatenate([block, np.zeros((short, *x.shape[1:]), x.dtype)]) if short else block
            pieces.append(np.asarray(_applied(self.model)(self.params, full))[: len(block)])
        return np.concatenate(pieces)

    def decided(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the predictions that outputs stand for: numbers of classes, labels of 0 and 1, or the values.

        `[n]` where an example has one; else `[n, outputs]`.
        """
        if self.kind == "classification":
            return outputs.argmax(axis=-1).astype(np.int32)
        found = (outputs > 0).astype(np.int32) if self.kind == "binary" else self.in_own_units(outputs)
        return found[..., 0] if found.ndim == 2 and found.shape[1] == 1 else found

    def in_own_units(self, values: np.ndarray) -> np.ndarray:
        """Returns values as they were before they were scaled for the training; numbers that were not, as they are."""
        labels = getattr(self.preparation, "labels_are", None)
        return values if labels is None else labels.values(values)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """Returns `[n, classes]` for a classifier, of each label for "binary", None for values."""
        if self.kind == "classification":
            from scipy.special import softmax

            return softmax(outputs.astype(np.float64), axis=-1)
        if self.kind == "binary":
            from scipy.special import expit

            found = expit(outputs.astype(np.float64))
            return found[..., 0] if found.ndim == 2 and found.shape[1] == 1 else found
        return None

    def named(self, decided: np.ndarray) -> np.ndarray:
        """Returns predictions with the names of the classes in place of their numbers, where they have names."""
        if self.classes is None or self.kind not in ("classification", "binary"):
            return decided
        return np.asarray(self.classes)[decided]

    def predict(self, data: Any) -> np.ndarray:
        """Returns the predictions for new data: classes (names where labels were names) or values.

        Args:
            data: whatever `backbeat.fit` takes; labels are not needed.

        Raises:
            DataError: data that cannot be read, or is of another form than what the run was trained on.
        """
        return np.concatenate(
            [self.named(self.decided(self.outputs(self.inputs(raw)))) for raw in pieces(self.source(data))]
        )

    def source(self, data: Any) -> Source:
        """Returns what reads new data as the run's own was read."""
        return open_source(data, self.reading, self.preparation)


def pieces(source: Source) -> Iterator[Raw]:
    """Yields examples as they are read, in pieces of bounded memory.

    Raises:
        DataError: there are none.
    """
    n = 0
    for raw in source.pieces(_PIECE_BYTES):
        n += len(raw)
        if len(raw):
            yield raw
    if not n:
        raise DataError(f"{source.name}: there are no examples in it; give at least one.")


def unseen_texts(predictor: Predictor) -> list[str]:
    """Returns sentences on texts of tables that training never saw, counted since the last call."""
    said = getattr(predictor.preparation, "said_of_new", list)
    return said()


def _with_channels(x: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Returns images `[n, height, width]` or `[n, height, width, 3]`, grey or in colours as those trained on were."""
    if x.ndim == 3 and len(wanted) == 3 and wanted[2] in (1, 3):
        return np.repeat(x[..., None], wanted[2], axis=-1)
    if x.ndim == 4 and x.shape[-1] == 3 and len(wanted) == 2:  # the weights of ITU-R 601-2, as Pillow rounds them
        return ((x.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000) >> 16).astype(x.dtype)
    return x


@lru_cache(maxsize=32)
def _applied(model: Model) -> Any:
    return jax.jit(model.apply)
