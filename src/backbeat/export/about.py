"""What a program has to know that uses an exported network: its inputs, its outputs, and how inputs are prepared."""

from __future__ import annotations

from typing import Any

from ..folder import plain
from ..saved import SavedRun


def about(saved: SavedRun, to: str) -> dict[str, Any]:
    """Returns what a program has to know that uses an exported file: inputs, outputs, classes, preparation."""
    pixels = takes_pixels(saved, to)
    meaning = {
        "classification": "logits; a softmax over the last axis gives probabilities",
        "binary": "logits; a sigmoid gives probabilities",
    }.get(saved.kind, "values")
    units, scaled = label_units(saved), {}
    if units is not None and to == "safetensors":
        meaning = "values, scaled: times the scale, plus the center"
        scaled = dict(zip(("center", "scale"), units, strict=True))
    inputs = "pixels from 0 to 255" if pixels else "prepared as in training" if saved.preparation else "as in training"
    return plain({
        "backbeat": saved.record["backbeat"], "model": saved.record["model"], "data": saved.record["data"]["name"],
        "inputs": {
            "name": "inputs", "shape": ["batch", *saved.input_shape],
            "dtype": "uint8" if pixels else saved.input_dtype, "are": inputs,
        },
        "outputs": {"name": "outputs", "n": saved.n_outputs, "are": meaning, **scaled},
        "classes": saved.classes, "labels": saved.label_names,
        "preparation": None if pixels else preparation_steps(saved.preparation),
    })  # fmt: skip


def label_units(saved: SavedRun) -> tuple[list[float], list[float]] | None:
    """Returns (center, scale) of values that were scaled for the training, one for each output; None where not."""
    labels = getattr(saved.preparation, "labels_are", None)
    scale = getattr(labels, "scale", ())
    return (list(getattr(labels, "center", ())), list(scale)) if scale else None


def takes_pixels(saved: SavedRun, to: str) -> bool:
    """Returns whether inputs are the pixels themselves: a division by 255 alone is part of the exported network."""
    return to != "safetensors" and only_divides(saved.preparation) and saved.input_dtype == "float32"


def only_divides(preparation: Any) -> bool:
    """Returns whether a preparation is that of images, a division by 255."""
    return preparation is not None and preparation.kind == "image" and preparation.mode != "own"


def preparation_steps(preparation: Any) -> list[dict[str, Any]] | None:
    """Returns in words and numbers how inputs are made, in order; None for inputs as they are.

    Example:
        >>> import polars as pl
        >>> from backbeat.data import Reading
        >>> from backbeat.data.preparation.prepare import Preparation
        >>> from backbeat.data.raw import Raw
        >>> table = Raw("table", pl.DataFrame({"a": [1.0, 3.0], "b": ["x", "y"]}), pl.DataFrame({"c": ["no", "yes"]}))
        >>> for step in preparation_steps(Preparation.of(Reading(), "table").fit([table])):
        ...     print(step)
        {'inputs': ['a'], 'column': 'a', 'less': 2.0, 'divided_by': 1.0, 'empty_is': 0.0}
        {'inputs': ['b=x', 'b=y'], 'column': 'b', 'one_hot': ['x', 'y']}
    """
    if preparation is None:
        return None
    if only_divides(preparation):
        return [{"less": 0.0, "divided_by": 255.0}]
    if preparation.mode == "own":
        return [{"inputs": list(preparation.feature_names), "transformer": str(preparation.transformers["own"])}]
    fill = preparation.fill
    if preparation.kind == "table" and "scale" not in preparation.transformers:
        filled: Any = [None] * len(preparation.numbers) if fill is None else fill.tolist()
        steps: list[dict[str, Any]] = [
            {"inputs": [name], "column": name, "empty_is": value}
            for name, value in zip(preparation.numbers, filled, strict=True)
        ]
    elif preparation.kind == "table":
        scale = preparation.transformers["scale"]
        steps = [
            {"inputs": [name], "column": name, "less": float(mean), "divided_by": float(sd), "empty_is": 0.0}
            for name, mean, sd in zip(preparation.numbers, scale.mean_, scale.scale_, strict=True)
        ]
    else:
        return None if fill is None else [{"empty_is": fill.tolist()}]
    categories: Any = preparation.transformers["encode"].categories_ if preparation.categories else ()
    for name, known in zip(preparation.categories, categories, strict=True):
        texts = [str(text) for text in known]
        steps.append({"inputs": [f"{name}={text}" for text in texts], "column": name, "one_hot": texts})
    return steps
