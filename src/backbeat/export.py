"""A trained run for other programs: safetensors (weights), ONNX or StableHLO (the whole network), each one checked.

Nothing is said to be exported before the file has been run: by onnxruntime, by JAX from the file alone, or with the
weights read back, on the examples that the run held out, in batches and one by one. The largest difference from the
network's own outputs is reported; a file that differs by more than rounding, or that cannot be run, is removed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .assess import held_out
from .errors import BackbeatError, MissingExtraError, SettingsError, choose
from .folder import plain, write_json, write_whole
from .record import OWN_FILES, flat_params
from .saved import SavedRun, read_parameters

KINDS = ("safetensors", "onnx", "stablehlo")
PLATFORMS = ("cpu", "cuda", "tpu")
_OPSET = 21  # onnxruntime has it since 1.18
_MOST_CHECKED = 2048  # examples
_BLOCK = 256
# Sums of float32 in another order differ by some 1e-7 of the terms a layer; deep networks add up to some 1e-5.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        path: of the file.
        kind: "safetensors", "onnx" or "stablehlo".
        beside: the JSON that says what inputs and outputs are; None where that is in the file.
        checked_on: what it was run on, in words.
        n_checked: how many examples.
        difference: the largest one between its outputs and the network's own.
        largest: the largest output of the network's own, to compare with.
        notes: sentences that who uses the file should know.
    """

    path: Path
    kind: str
    beside: Path | None
    checked_on: str
    n_checked: int
    difference: float
    largest: float
    notes: tuple[str, ...] = ()


def export(saved: SavedRun, to: str, path: Path | None = None) -> Exported:
    """Writes a run's network for other programs, runs the file, and returns what came of it.

    Args:
        saved: see `saved.load_run`.
        to: "safetensors", "onnx" or "stablehlo".
        path: where; None for `exported.<kind>` in the run's folder. A file that is there is replaced.

    Raises:
        SettingsError: an unknown kind or ending, a network that cannot be exported, a file that cannot be written or
            that gives other outputs than the network.
        MissingExtraError: what is needed for ONNX is not installed.

    Example:
        >>> import tempfile, backbeat as bb
        >>> from backbeat.saved import load_run
        >>> folder = tempfile.mkdtemp()
        >>> _ = bb.fit("mlp:8", "digits", duration="1 epoch", run=folder)
        >>> done = export(load_run(folder), "safetensors")
        >>> done.path.name, done.n_checked, done.difference
        ('exported.safetensors', 359, 0.0)
    """
    choose("to", to, KINDS)
    path = saved.folder / f"exported.{to}" if path is None else path
    if path.suffix != f".{to}":
        raise SettingsError(f"--output {path} must end in .{to}.")
    if path.parent.resolve() == saved.folder.resolve() and path.name in OWN_FILES:
        raise SettingsError(f"--output {path} would replace what the run itself keeps; choose another name.")
    x, checked_on, notes = examples(saved)
    with jax.default_matmul_precision("highest"):  # as the other programs compute; a GPU would round to TF32
        own = saved.outputs(x)
        data = {"safetensors": as_safetensors, "onnx": as_onnx, "stablehlo": as_stablehlo}[to](saved)
        unchecked = path.with_name(f".{path.name}-unchecked")
        try:
            write_whole(unchecked, lambda file: file.write(data), mode="wb")
            difference = compared(_runner(saved, to, unchecked), x, own, to)
            os.replace(unchecked, path)
        except OSError as error:
            raise SettingsError(f"{path} cannot be written ({error.strerror}); choose another place.") from None
        finally:
            unchecked.unlink(missing_ok=True)
    beside = None
    if to != "safetensors":
        beside = path.with_name(f"{path.name}.json")
        write_json(beside, about(saved))
    return Exported(path, to, beside, checked_on, len(x), difference, float(np.abs(own).max()), (*saved.notes, *notes))


def about(saved: SavedRun) -> dict[str, Any]:
    """Returns what a program has to know that uses an exported file: inputs, outputs, classes, preparation."""
    meaning = {
        "classification": "logits; a softmax over the last axis gives probabilities",
        "binary": "logits; a sigmoid gives probabilities",
    }.get(saved.kind, "values")
    described = getattr(saved.preparation, "described", None)
    return plain({
        "backbeat": saved.record["backbeat"], "model": saved.record["model"], "data": saved.record["data"]["name"],
        "inputs": {"name": "inputs", "shape": ["batch", *saved.input_shape], "dtype": saved.input_dtype},
        "outputs": {"name": "outputs", "n": saved.n_outputs, "meaning": meaning},
        "classes": saved.classes, "labels": saved.label_names,
        "prepared": saved.preparation is not None, "preparation": described() if described is not None else None,
    })  # fmt: skip


def examples(saved: SavedRun) -> tuple[np.ndarray, str, list[str]]:
    """Returns what exported files are checked on: held-out inputs, or random ones where these cannot be had."""
    try:
        x = held_out(saved).x
        whole = len(x) <= _MOST_CHECKED
        words = f"{len(x):,} held-out examples"
        words = words if whole else f"the first {_MOST_CHECKED:,} of {words}"
        return np.asarray(x[:_MOST_CHECKED]), words, []
    except BackbeatError as error:
        rng = np.random.default_rng(0)
        shape = (_BLOCK, *saved.input_shape)
        whole = saved.input_dtype.startswith("int")  # of tokens, which there are at least two of
        x = rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)
        return x.astype(saved.input_dtype), f"{_BLOCK} random inputs", [f"Random inputs were used: {error}"]


def compared(run: Callable[[np.ndarray], np.ndarray], x: np.ndarray, own: np.ndarray, to: str) -> float:
    """Returns the largest difference of a file's outputs from the network's own, in batches and for one example.

    Raises:
        SettingsError: the file cannot be run, or its outputs differ by more than rounding.
    """
    try:
        given = np.concatenate([run(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)])
        alone = run(x[:1])
    except Exception as error:
        if isinstance(error, BackbeatError):
            raise
        raise SettingsError(
            f"the {to} file cannot be run ({_first_line(error)}), so it is not kept; choose another format."
        ) from error
    if given.shape != own.shape:
        raise SettingsError(
            f"the {to} file gives outputs of shape {list(given.shape)} where the network gives {list(own.shape)}, so "
            "it is not kept; choose another format."
        )
    difference = float(max(np.abs(given - own).max(), np.abs(alone - own[:1]).max()))
    if not difference <= _TOLERANCE * (1 + float(np.abs(own).max())):  # not: NaN is no agreement
        raise SettingsError(
            f"the {to} file's outputs differ from the network's own by up to {difference:.3g}, so it is not kept; "
            "choose another format."
        )
    return difference


def as_safetensors(saved: SavedRun) -> bytes:
    """Returns the weights, with what they are for as text in the file's header."""
    import json

    from safetensors.numpy import save

    return save(flat_params(saved.params), {"backbeat": json.dumps(about(saved), ensure_ascii=False)})


def as_stablehlo(saved: SavedRun) -> bytes:
    """Returns the network with its weights as a JAX program for any batch size, on CPU, CUDA and TPU."""
    from jax import export as jax_export

    with _one_sentence("stablehlo"):
        return bytes(jax_export.export(jax.jit(_network(saved)), platforms=PLATFORMS)(_any_batch(saved)).serialize())


def as_onnx(saved: SavedRun) -> bytes:
    """Returns the network with its weights as an ONNX graph for any batch size.

    Raises:
        MissingExtraError: what is needed is not installed.
    """
    import json

    onnx, jax2onnx, _ = _onnx_libraries()
    with _one_sentence("onnx"), _quiet():
        graph = jax2onnx.to_onnx(
            _network(saved), [_any_batch(saved)],
            model_name="backbeat", opset=_OPSET, input_names=["inputs"], output_names=["outputs"],
        )  # fmt: skip
    mend_pooling(graph)
    onnx.helper.set_model_props(graph, {"backbeat": json.dumps(about(saved), ensure_ascii=False)})
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


def _network(saved: SavedRun) -> Callable[[Any], Any]:
    return lambda x: saved.model.apply(saved.params, x)


def _any_batch(saved: SavedRun) -> jax.ShapeDtypeStruct:
    from jax import export as jax_export

    (batch,) = jax_export.symbolic_shape("batch")
    return jax.ShapeDtypeStruct((batch, *saved.input_shape), np.dtype(saved.input_dtype))


def _runner(saved: SavedRun, to: str, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what gives a file's outputs, from the file alone (for weights, with the network's code)."""
    if to == "safetensors":
        params = read_parameters(path, saved.model)
        return replace(saved, params=params).outputs
    data = path.read_bytes()
    if to == "stablehlo":
        from jax import export as jax_export

        call = jax.jit(jax_export.deserialize(bytearray(data)).call)
        return lambda x: np.asarray(call(x))
    _, _, onnxruntime = _onnx_libraries()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it cannot run it raises; the log would say it once more
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"inputs": x})[0]


def _onnx_libraries() -> tuple[Any, Any, Any]:
    try:
        with _quiet():
            import jax2onnx
            import onnx
            import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"exporting to ONNX needs {error.name}, which is not installed; run: pip install 'backbeat[onnx]'"
        ) from None
    return onnx, jax2onnx, onnxruntime


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off standard error what says nothing of the user's network.

    jax2onnx logs, with a traceback, that examples of its own need dm_pix, and onnx_ir that values without a type have
    none; both go to loggers of their own, and only these sentences are left out.
    """
    filters = {
        "jax2onnx.plugins.plugin_system": lambda record: "dm_pix" not in record.getMessage(),
        "onnx_ir.serde": lambda record: "value type for shape" not in record.getMessage(),
    }
    for name, keep in filters.items():
        logging.getLogger(name).addFilter(keep)
    try:
        yield
    finally:
        for name, keep in filters.items():
            logging.getLogger(name).removeFilter(keep)


@contextmanager
def _one_sentence(to: str) -> Iterator[None]:
    """Turns whatever a converter raises for a network that it does not know into a sentence."""
    try:
        yield
    except Exception as error:
        raise SettingsError(
            f"this network cannot be written as {to} ({_first_line(error)}); choose another format."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]


def mend_pooling(model: Any) -> None:
    """Moves the axes of max-pooling so that onnxruntime runs it; changes the ONNX model given.

    jax2onnx 0.17 writes a window over all axes, such as `[1, 2, 2, 1]`, for an array that got two axes more before it;
    onnxruntime takes windows over one to three axes. Two axes whose window is 1 become batch and channel instead.
    """
    from onnx import helper

    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in pool.attribute}
        order = pooling_order(given)
        after = [node for node in graph.node if pool.output[0] in node.input]
        if order is None or len(after) != 1 or after[0].op_type != "Squeeze":
            continue
        source = pool.input[0]
        while source in made_by and made_by[source].op_type == "Unsqueeze":
            source = made_by[source].input[0]
        rank, windows = len(order), order[2:]
        per_axis = ("kernel_shape", "strides", "dilations")
        settings: dict[str, Any] = {name: [given[name][axis] for axis in windows] for name in per_axis if name in given}
        if "pads" in given:
            settings["pads"] = [given["pads"][axis + end] for end in (0, rank) for axis in windows]
        name, result = pool.output[0], after[0].output[0]
        back = [order.index(axis) for axis in range(rank)]
        mended = [
            helper.make_node("Transpose", [source], [f"{name}_in"], perm=order),
            helper.make_node("MaxPool", [f"{name}_in"], [f"{name}_out"], **settings),
            helper.make_node("Transpose", [f"{name}_out"], [result], perm=back),
        ]
        place = list(graph.node).index(pool)
        graph.node.remove(pool)
        graph.node.remove(after[0])
        for node in reversed(mended):
            graph.node.insert(place, node)
    _drop_unused(graph)


def pooling_order(given: dict[str, Any]) -> list[int] | None:
    """Returns the order of axes in which two without a window come first; None where the node is fine as it is.

    Example:
        >>> pooling_order({"kernel_shape": [1, 2, 2, 1], "strides": [1, 2, 2, 1]})
        [0, 3, 1, 2]
        >>> pooling_order({"kernel_shape": [2, 2]}) is None
        True
    """
    kernel = given["kernel_shape"]
    rank = len(kernel)
    ones, zeros = [1] * rank, [0] * (2 * rank)
    strides, pads = given.get("strides", ones), given.get("pads", zeros)
    still = [i for i in range(rank) if kernel[i] == strides[i] == 1 and not pads[i] and not pads[i + rank]]
    if not 3 < rank <= 5 or len(still) < 2:
        return None
    first, last = still[0], still[-1]
    return [first, last, *(axis for axis in range(rank) if axis not in (first, last))]


def _drop_unused(graph: Any) -> None:
    """Removes nodes, constants and notes on values that nothing refers to any more."""
    while True:
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unused = [node for node in graph.node if not used.intersection(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    made = used | {name for node in graph.node for name in node.output}
    known = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(known)
