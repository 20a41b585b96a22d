"""A trained run for other programs: safetensors (weights), ONNX or StableHLO (the whole network), each one checked.

Nothing is said to be exported before the file has been run: by onnxruntime, by JAX from the file alone, or with the
weights read back, on the examples that the run held out, in batches and one by one. The largest difference from the
network's own outputs is reported; a file that differs by more than rounding, or that cannot be run, is removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..assess import held_out
from ..errors import BackbeatError, MissingExtraError, SettingsError, choose
from ..folder import write_json, write_whole
from ..record import OWN_FILES, flat_params
from ..saved import SavedRun, read_parameters
from .about import about, label_units, only_divides, takes_pixels
from .onnx_graph import mend_pooling, quiet

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
        own, first = in_units(saved, to, saved.outputs(x)), None
        given = as_pixels(x) if takes_pixels(saved, to) else x
        shape = any_batch(saved, to)
        for network in forms(saved, to, shape):
            try:
                difference = _written(saved, to, (network, shape), path, given, own)
                break
            except Unfit as error:
                first = first or error
        else:
            raise SettingsError(str(first)) from first
    beside = None
    if to != "safetensors":
        beside = path.with_name(f"{path.name}.json")
        write_json(beside, about(saved, to))
    return Exported(path, to, beside, checked_on, len(x), difference, float(np.abs(own).max()), (*saved.notes, *notes))


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
        x = x.astype(saved.input_dtype)
        x = np.clip(np.rint(np.abs(x) * 100), 0, 255) / np.float32(255) if only_divides(saved.preparation) else x
        return x, f"{_BLOCK} random inputs", [f"Random inputs were used: {error}"]


def in_units(saved: SavedRun, to: str, outputs: Any) -> Any:
    """Returns outputs as a file gives them: values in their own units, which only the network's weights lack."""
    units = None if to == "safetensors" else label_units(saved)
    if units is None:
        return outputs
    center, scale = (np.asarray(each, np.float32) for each in units)
    return outputs * scale + center


class Unfit(Exception):
    """One form of a network could not be written, or what was written gives other outputs; another form may do."""


def _written(saved: SavedRun, to: str, traced: tuple, path: Path, x: np.ndarray, own: np.ndarray) -> float:
    """Writes one form of the network under another name, compares, and only then gives the file its name.

    Raises:
        Unfit: it cannot be written, cannot be run or differs; there is no file then.
        SettingsError: the place cannot be written.
    """
    unchecked = path.with_name(f".{path.name}-unchecked")
    data = _CONVERTERS[to](saved, *traced)
    try:
        write_whole(unchecked, lambda file: file.write(data), mode="wb")
        with _unfit(to):
            run = _runner(saved, to, unchecked)
        difference = compared(run, x, own, to)
        os.replace(unchecked, path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror}); choose another place.") from None
    finally:
        unchecked.unlink(missing_ok=True)
    return difference


def forms(saved: SavedRun, to: str, shape: Any) -> Iterator[Callable[[Any], Any]]:
    """Yields the network as a function of inputs alone, in the forms in which a converter may take it.

    As it is; for ONNX as the operations that it consists of, since jax2onnx puts its own functions in the place of
    some of Flax's and refuses arguments that those take; and as a function of one example, over all of which it is
    mapped, since PyTorch modules ask for the size of the batch.
    """

    def network(x: Any) -> Any:
        x = x.astype(np.float32) / np.float32(255) if takes_pixels(saved, to) else x
        return in_units(saved, to, saved.model.apply(saved.params, x))

    def one_by_one(x: Any) -> Any:
        return jax.vmap(lambda one: network(one[None])[0])(x)

    yield network
    if to == "stablehlo":
        yield one_by_one
    elif to == "onnx":
        for each in (network, one_by_one):
            try:
                yield _operations(each, shape)
            except Exception:  # whatever a model raises that asks for the size of the batch
                continue


def _operations(network: Callable[[Any], Any], shape: Any) -> Callable[[Any], Any]:
    """Returns the operations that a network consists of, as a function."""
    from jax.extend.core import jaxpr_as_fun

    run = jaxpr_as_fun(jax.make_jaxpr(network)(shape))
    return lambda x: run(x)[0]


def as_pixels(x: np.ndarray) -> np.ndarray:
    """Returns inputs of 0..1 as the numbers of 0..255 that they were made of.

    Example:
        >>> as_pixels(np.array([0, 3, 255], np.float32) / np.float32(255)).tolist()
        [0, 3, 255]
    """
    return np.rint(x * 255).astype(np.uint8)


def compared(run: Callable[[np.ndarray], np.ndarray], x: np.ndarray, own: np.ndarray, to: str) -> float:
    """Returns the largest difference of a file's outputs from the network's own, in batches and for one example.

    Raises:
        Unfit: the file cannot be run, or its outputs differ by more than rounding.
    """
    try:
        given = np.concatenate([run(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)])
        alone = run(x[:1])
    except Exception as error:
        raise Unfit(
            f"the {to} file cannot be run ({_first_line(error)}), so it is not kept; choose another format."
        ) from error
    if given.shape != own.shape:
        raise Unfit(
            f"the {to} file gives outputs of shape {list(given.shape)} where the network gives {list(own.shape)}, so "
            "it is not kept; choose another format."
        )
    difference = float(max(np.abs(given - own).max(), np.abs(alone - own[:1]).max()))
    if not difference <= _TOLERANCE * max(1e-2, float(np.abs(own).max())):  # not: NaN is no agreement
        raise Unfit(
            f"the {to} file's outputs differ from the network's own by up to {difference:.3g}, so it is not kept; "
            "choose another format."
        )
    return difference


def as_safetensors(saved: SavedRun, *_: Any) -> bytes:
    """Returns the weights, with what they are for as text in the file's header."""
    from safetensors.numpy import save

    return save(flat_params(saved.params), {"backbeat": json.dumps(about(saved, "safetensors"), ensure_ascii=False)})


def as_stablehlo(saved: SavedRun, network: Callable[[Any], Any], shape: Any) -> bytes:
    """Returns the network with its weights as a JAX program for any batch size, on CPU, CUDA and TPU."""
    from jax import export as jax_export

    with _unfit("stablehlo"):
        exported = jax_export.export(jax.jit(network), platforms=PLATFORMS)
        return bytes(exported(shape).serialize())


def as_onnx(saved: SavedRun, network: Callable[[Any], Any], shape: Any) -> bytes:
    """Returns the network with its weights as an ONNX graph for any batch size.

    Raises:
        MissingExtraError: what is needed is not installed.
    """
    onnx, jax2onnx, _ = _onnx_libraries()
    with _unfit("onnx"), quiet():
        graph = jax2onnx.to_onnx(
            network, [shape],
            model_name="backbeat", opset=_OPSET, input_names=["inputs"], output_names=["outputs"],
        )  # fmt: skip
        mend_pooling(graph)
        onnx.helper.set_model_props(graph, {"backbeat": json.dumps(about(saved, "onnx"), ensure_ascii=False)})
        onnx.checker.check_model(graph)
        return graph.SerializeToString()


_CONVERTERS = {"safetensors": as_safetensors, "onnx": as_onnx, "stablehlo": as_stablehlo}


def any_batch(saved: SavedRun, to: str) -> jax.ShapeDtypeStruct:
    """Returns the shape of the exported network's inputs, with any number of examples: a symbol, each time another."""
    from jax import export as jax_export

    (batch,) = jax_export.symbolic_shape("batch")
    return jax.ShapeDtypeStruct((batch, *saved.input_shape), np.dtype(about(saved, to)["inputs"]["dtype"]))


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
        with quiet():
            import jax2onnx
            import onnx
            import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"exporting to ONNX needs {error.name}, which is not installed; run: pip install 'backbeat[onnx]'"
        ) from None
    return onnx, jax2onnx, onnxruntime


@contextmanager
def _unfit(to: str) -> Iterator[None]:
    """Turns whatever a converter raises for a network that it does not know into a sentence."""
    try:
        yield
    except MissingExtraError:
        raise
    except Exception as error:
        raise Unfit(f"this network cannot be written as {to} ({_first_line(error)}); choose another format.") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
