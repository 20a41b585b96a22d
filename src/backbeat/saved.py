"""A trained run read back from its folder: the network with its weights, and what makes its inputs of new data.

The folder is data, never code: a network that was a user's own code is rebuilt from what the caller gives, not from
what the folder names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .data import Reading
from .errors import DataError, SettingsError
from .losses import Loss, loss_for
from .models import Model, model_for, parse_model
from .predictor import Predictor
from .record import PARAMETERS, PREPARATION, found_folder, parameter_names, read_record

_NEEDED = {
    "data": {"name": str, "input_shape": list, "n_held_out": int, "sha256": str},
    "saved": {
        "n_outputs": int, "example_floats": int, "loss_kind": str, "input_dtype": str, "label_dtype": str,
        "label_shape": list, "classes": (list, type(None)), "source": (str, type(None)), "prepared": bool,
    },
    "finished": {"diverged": bool},
    "settings": {},
}  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class SavedRun(Predictor):
    """A trained run, as its folder keeps it.

    Attributes:
        folder: of the run.
        record: what the run wrote about itself, see `record.run_record`.
        loss: ℓ; None where it was a function of the user's own.
        notes: sentences that who uses it should read.
    """

    folder: Path
    record: dict[str, Any] = field(repr=False)
    loss: Loss | None
    notes: tuple[str, ...] = ()

    def with_reading(self, *, resize: str | None = None, skip_bad: bool = False) -> SavedRun:
        """Returns the run with new data read in another way than its own was.

        Args:
            resize: the size that images are brought to, such as "28x28"; None for as in training.
            skip_bad: whether what cannot be read is left out and counted, if it was not in training.
        """
        given = ({} if resize is None else {"resize": resize}) | ({"skip_bad": True} if skip_bad else {})
        return replace(self, reading=replace(self.reading, **given))


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
    preparation = _preparation(folder, about)
    return SavedRun(
        folder=folder, record=record, model=built, params=params, loss=_loss(record, loss), kind=about["loss_kind"],
        input_shape=shape, input_dtype=about["input_dtype"], n_outputs=about["n_outputs"],
        example_floats=max(1, int(about["example_floats"])), reading=_reading(record, preparation),
        classes=None if classes is None else tuple(classes), preparation=preparation, notes=tuple(notes),
    )  # fmt: skip


def _reading(record: dict[str, Any], preparation: Any) -> Reading:
    """Returns how the run's data was read."""
    known = {k: v for k, v in record["settings"].items() if k in Reading.__dataclass_fields__}
    own = getattr(preparation, "transformers", {}).get("own")  # the settings have only its name
    return Reading(**(known | ({} if own is None else {"prepare": own})))


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
    from .data.preparation.prepare import Preparation

    try:
        return Preparation.from_bytes(data)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); the run has to be trained anew.") from None
