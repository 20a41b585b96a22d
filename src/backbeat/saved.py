"""A trained run read back from its folder: the network with its weights, and what makes its inputs of new data.

The folder is data, never code: a network that was a user's own code is rebuilt from what the caller gives, not from
what the folder names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .data import Reading, open_source
from .data.raw import Raw, Source
from .errors import DataError, SettingsError
from .losses import Loss, loss_for
from .models import Model, model_for, parse_model
from .record import PARAMETERS, PREPARATION, found_folder, parameter_names, read_record

_ROWS = 256  # are predicted at once, always: no prediction depends on what others there are
_BLOCK_FLOATS = 1 << 24  # unless more than so many numbers would be kept on the way through the network, 64 MiB
_PIECE_BYTES = 1 << 28  # of inputs that are read at once
_NEEDED = {
    "data": {"name": str, "input_shape": list, "n_held_out": int, "sha256": str},
    "saved": {
        "n_outputs": int, "example_floats": int, "loss_kind": str, "input_dtype": str, "label_dtype": str,
        "label_shape": list, "classes": (list, type(None)), "source": (str, type(None)), "prepared": bool,
    },
    "finished": {"diverged": bool},
    "settings": {},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A trained network with what belongs to it.

    Attributes:
        folder: of the run.
        record: what the run wrote about itself, see `record.run_record`.
        model: f_θ.
        params: θ.
        loss: ℓ; None where it was a function of the user's own.
        kind: what the outputs are: "classification" (logits of classes), "binary" (logits of labels), "regression"
            (values) or "other" (what the user's own loss takes).
        input_shape: of one example.
        input_dtype: "float32", or "int32" for tokens.
        n_outputs: how many numbers the network gives for an example.
        classes: their names, None for numbers from 0.
        preparation: what makes inputs of what was read; None for inputs as they are.
        notes: sentences that who uses it should read.
        read_as: settings of the reading that new data has and the run's own had not, such as {"resize": "8x8"}.
    """

    folder: Path
    record: dict[str, Any] = field(repr=False)
    model: Model
    params: Any = field(repr=False)
    loss: Loss | None
    kind: str
    input_shape: tuple[int, ...]
    input_dtype: str
    n_outputs: int
    classes: tuple[str, ...] | None = None
    preparation: Any = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    read_as: dict[str, Any] = field(default_factory=dict)

    @property
    def reading(self) -> Reading:
        """How the run's data was read."""
        known = {k: v for k, v in self.record["settings"].items() if k in Reading.__dataclass_fields__}
        own = getattr(self.preparation, "transformers", {}).get("own")  # the settings have only its name
        return Reading(**(known | ({} if own is None else {"prepare": own}) | self.read_as))

    def with_reading(self, *, resize: str | None = None, skip_bad: bool = False) -> SavedRun:
        """Returns the run with new data read in another way than its own was.

        Args:
            resize: the size that images are brought to, such as "28x28"; None for as in training.
            skip_bad: whether what cannot be read is left out and counted, if it was not in training.
        """
        given = ({} if resize is None else {"resize": resize}) | ({"skip_bad": True} if skip_bad else {})
        return replace(self, read_as={**self.read_as, **given})

    @property
    def label_names(self) -> list[str] | None:
        """The names of the columns that are predicted, where the data had names for them."""
        names = getattr(self.preparation, "label_names", ())
        return list(names) or None

    @property
    def example_floats(self) -> int:
        """Numbers that are kept of one example on its way through the network."""
        return max(1, int(self.record["saved"]["example_floats"]))

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
        found = (outputs > 0).astype(np.int32) if self.kind == "binary" else outputs
        return found[..., 0] if found.ndim == 2 and found.shape[1] == 1 else found

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


def unseen_texts(saved: SavedRun) -> list[str]:
    """Returns sentences on texts of tables that training never saw, counted since the last call."""
    said = getattr(saved.preparation, "said_of_new", list)
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


def load_run(folder: str | Path, model: Any = None, loss: Any = None) -> SavedRun:
    """Returns a trained run, read from its folder.

    Args:
        folder: of a finished run, or its name under `runs/`.
        model: the network, for a run that was given one of the user's own; None for those that a text names.
        loss: likewise the loss.

    Raises:
        DataError: no such folder, a run that is not finished, a file that is missing or damaged.
        SettingsError: a run of the user's own network without `model`, or with one that has other parameters.

    Example:
        >>> import tempfile, backbeat as bb
        >>> folder = tempfile.mkdtemp()
        >>> run = bb.fit("mlp:8", "digits", duration="1 epoch", run=folder)
        >>> saved = load_run(folder)
        >>> bool((saved.outputs(run.job.dataset.x) == run.predict_raw(run.job.dataset.x)).mean() > 0.99)
        True
    """
    folder = found_folder(Path(folder))
    record = _record(folder)
    about = record["saved"]
    shape = tuple(record["data"]["input_shape"])
    built = model_for(_architecture(folder, record, model), shape, about["n_outputs"])
    params = read_parameters(folder / PARAMETERS, built)
    notes = []
    if record["finished"]["diverged"]:
        notes.append(f"{folder} diverged ({record['finished']['reason']}); these are its last finite weights.")
    classes = about["classes"]
    return SavedRun(
        folder, record, built, params, _loss(record, loss), about["loss_kind"], shape, about["input_dtype"],
        about["n_outputs"], None if classes is None else tuple(classes), _preparation(folder, about), tuple(notes),
    )  # fmt: skip


def _record(folder: Path) -> dict[str, Any]:
    """Returns the record of a run that is over; refuses whatever else a folder may hold."""
    if not folder.exists():
        raise DataError(f"{folder} is not there; `backbeat runs` lists the runs that are.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; give the folder of a run.")
    if not (folder / "record.json").exists() and (folder / "events.jsonl").exists():
        raise DataError(
            f"{folder} is a run that is not finished, so it has no weights yet; wait for it, or train anew."
        )
    record = read_record(folder)
    if record["kind"] == "comparison":
        raise DataError(
            f"{folder} is a comparison, which keeps no weights; train at the cadence that you choose: backbeat train."
        )
    if not isinstance(record.get("saved"), dict):
        raise DataError(f"{folder} was recorded by a version that did not keep what predicting needs; train it anew.")
    for part, kinds in _NEEDED.items():
        for name, kind in kinds.items():
            if not isinstance(record.get(part), dict) or not isinstance(record[part].get(name), kind):
                raise DataError(f"{folder}/record.json is damaged ({part} has no proper {name!r}); train the run anew.")
    return record


def _architecture(folder: Path, record: dict[str, Any], model: Any) -> Any:
    """Returns the network of the text that a run recorded, or the one that was given.

    A text is taken from the folder for a built-in network only: one that names a file would run code unasked.
    """
    if model is not None:
        return parse_model(model) if isinstance(model, str) else model
    text = record["saved"].get("model")
    if isinstance(text, str) and ".py" not in text:
        return parse_model(text)
    own = str(record["model"])
    if ".py:" in own:
        raise SettingsError(
            f"{folder} was trained with the code in {own}, which is not run only because a folder names it; add "
            f"--model {own} if you trust it."
        )
    raise SettingsError(
        f"{folder} was trained with a network of your own ({own}); give it once more, as --model file.py:name, or in "
        "Python as load_run(folder, model=...)."
    )


def read_parameters(path: Path, model: Model) -> Any:
    """Returns the parameters of a safetensors file in the structure that the model's own have.

    Raises:
        DataError: the file is not there or is damaged.
        SettingsError: it holds parameters of other names or shapes than the model's.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); the run has to be trained anew."
        ) from None
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    names, wanted = parameter_names(shapes), jax.tree.leaves(shapes)
    for found, place, other in ((names, arrays, "the file has none"), (arrays, names, "the network has none")):
        for name in found:
            if name not in place:
                raise SettingsError(f"{path} does not fit the network {model}: of the parameter {name!r} {other}.")
    for name, leaf in zip(names, wanted, strict=True):
        if arrays[name].shape != leaf.shape:
            raise SettingsError(
                f"{path} does not fit the network {model}: {name} has the shape {list(arrays[name].shape)} in the file "
                f"and {list(leaf.shape)} in the network."
            )
    return jax.tree.unflatten(jax.tree.structure(shapes), [jnp.asarray(arrays[name]) for name in names])


def _loss(record: dict[str, Any], given: Any) -> Loss | None:
    if given is not None:
        return loss_for(given)
    try:
        return loss_for(record["loss"])
    except SettingsError:  # a function of the user's own
        return None


def _preparation(folder: Path, about: dict[str, Any]) -> Any:
    if not about["prepared"]:
        return None
    path = folder / PREPARATION
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); the run has to be trained anew.") from None
    from .data.prepare import Preparation

    try:
        return Preparation.from_bytes(data)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); the run has to be trained anew.") from None
