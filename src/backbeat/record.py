"""A run's folder: everything that is needed to repeat it, and everything that was seen, in files that other tools read.

settings.toml        what was asked for; `backbeat train --settings settings.toml` repeats the run
environment.json     versions, machine, device
events.jsonl         one line an event, written as it happens
record.json          the whole run as a report shows it, and what `saved.load_run` needs to read the model back
preparation.zip      what makes inputs of new data, where the data was prepared
mistakes.json        what it was last seen to get wrong, see `mistakes`
model.safetensors    the final parameters, named dense_0/weight, dense_0/bias, ...
checkpoints/         where the run stood on its way, see `checkpoint`
logs.json            under what the logs have it to which it was logged, see `logs`
control/             what is wished of it while it goes on, see `wishes`
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .changes import RATE, STOP
from .config import Job, as_columns
from .errors import SettingsError, StorageError, out_of_memory
from .events import Changed, Diverged, Event, Finished, Started
from .folder import change_setting, create_folder, environment, plain, settings_text, write_json, write_whole
from .history import event_line
from .models import n_parameters, parse_model
from .recorded import CHECKPOINTS as CHECKPOINTS
from .recorded import FORMAT as FORMAT
from .recorded import LOCK as LOCK
from .recorded import MISTAKES as MISTAKES
from .recorded import OWN_FILES as OWN_FILES
from .recorded import PARAMETERS as PARAMETERS
from .recorded import PREPARATION as PREPARATION
from .recorded import found_folder as found_folder
from .recorded import in_use as in_use
from .recorded import list_runs as list_runs
from .recorded import read_record as read_record
from .wishes import Wishes

_LOCK_SECONDS = 1.0  # who only looks whether a run is in use holds its lock for a moment
BUILT_IN = ("mlp", "linear", "cnn")  # networks whose text says all of them


def recorded_columns(job: Job) -> dict[str, Any]:
    """Returns what a record says of a job: `as_columns` with the hash of the data."""
    about = as_columns(job)
    return {**about, "data": {**about["data"], "sha256": job.dataset.sha256}}


class Recorder:
    """Writes a run's folder while it runs: a consumer of events. While one is open, no other process can open another.

    Attributes:
        folder: of the run.
        offset: bytes of events.jsonl up to and with the newest event that is not the run's end.
        wishes: what is wished of the run from now on.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        from filelock import FileLock, Timeout

        self.folder, self.offset, self._job = folder, 0, job
        try:
            (folder / CHECKPOINTS).mkdir(exist_ok=True)
            self._lock = FileLock(folder / CHECKPOINTS / LOCK, timeout=_LOCK_SECONDS)
            self._lock.acquire()
            self.wishes = Wishes(folder)
            self._events = (folder / "events.jsonl").open("ab", buffering=0)
        except Timeout:
            raise SettingsError(f"{folder} is in use: another process trains in it now; stop that one first.") from None
        except OSError as error:
            raise not_written(folder, error) from None

    @classmethod
    def create(cls, folder: Path, job: Job) -> Recorder:
        """Returns a recorder for a new folder, with the settings and the environment written.

        Args:
            folder: where; made, must be empty.
            job: what is about to be trained.
        """
        preparation = job.dataset.preparation
        prepared = b"" if preparation is None else preparation.to_bytes()  # what cannot be kept is refused at once
        create_folder(folder)
        settings = {"model": as_columns(job)["model"], "data": job.dataset.source, **job.settings.as_text()}
        found, comment = job.rate_range, ""
        if found is not None:  # the number, so that a repetition has it whatever machine it runs on
            settings["learning_rate"], comment = job.learning_rate, f'# learning_rate was "auto": {found}\n'
        try:
            write_whole(folder / "settings.toml", lambda file: file.write(settings_text(settings) + comment))
            write_json(folder / "environment.json", environment())
            if prepared:
                write_whole(folder / PREPARATION, lambda file: file.write(prepared), mode="wb")
            return cls(folder, job)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # which was empty: a run that did not begin leaves nothing
            raise

    def cut(self, offset: int) -> None:
        """Leaves out what events.jsonl has beyond some bytes: the run goes on from there."""
        try:
            self._events.truncate(offset)
        except OSError as error:
            raise not_written(self.folder, error) from None
        self.offset = offset

    def keep_changes(self, changes: Sequence[str] | None) -> None:
        """Writes the run's changes into its settings, from which it is repeated.

        Raises:
            StorageError: they cannot be written.
        """
        try:
            change_setting(self.folder / "settings.toml", "changes", None if changes is None else list(changes))
        except (OSError, SettingsError, ValueError) as error:
            raise not_written(self.folder, error) from None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()
        self.wishes.close()
        self._lock.release()

    def __call__(self, event: Event) -> None:
        """Writes an event's line, at once.

        Raises:
            StorageError: it cannot be written.
        """
        line = event_line(event)
        if isinstance(event, Changed) and event.what in (RATE, STOP):  # before an update is made with it
            self.keep_changes(event.changes)
        if isinstance(event, Started):
            line["data"] = recorded_columns(self._job)["data"]
        text = (json.dumps(plain(line), ensure_ascii=False) + "\n").encode()
        try:
            written = 0
            while written < len(text):
                written += self._events.write(text[written:])
        except OSError as error:
            raise not_written(self.folder, error) from None
        if not isinstance(event, (Finished, Diverged)):
            self.offset += len(text)


def not_written(run: Path, error: BaseException) -> StorageError:
    """Returns the error of a run whose folder can no longer be written.

    Example:
        >>> str(not_written(Path("runs/a"), OSError(28, "No space left on device"))).partition(";")[0]
        'runs/a cannot be written (No space left on device), so training has stopped'
    """
    text = " ".join(str(error).split())
    full = os.strerror(errno.ENOSPC)  # Orbax's own error is longer, and names no number
    short = "memory is too short" if out_of_memory(error) else text[:200]
    reason = getattr(error, "strerror", None) or (full if full in text else short) or type(error).__name__
    return StorageError(
        f"{run} cannot be written ({reason}), so training has stopped; what was saved before is kept: make room, then "
        f"go on with `backbeat resume {run}`."
    )


def finish_run(run: Any) -> None:
    """Writes what is known only at the end: the record and the parameters.

    Raises:
        StorageError: they cannot be written.
    """
    try:
        save_params(run.params, run.folder / PARAMETERS)
        write_json(run.folder / "record.json", run_record(run))
    except SettingsError as error:
        raise not_written(run.folder, error) from None


def flat_params(params: Any) -> dict[str, np.ndarray]:
    """Returns parameters by name: "dense_0/weight" and so on.

    Example:
        >>> sorted(flat_params({"dense_0": {"weight": np.zeros((2, 1)), "bias": np.zeros(1)}}))
        ['dense_0/bias', 'dense_0/weight']
    """
    import jax

    arrays = (np.asarray(leaf, order="C") for leaf in jax.tree.leaves(params))  # ascontiguousarray would make () a (1,)
    return dict(zip(parameter_names(params), arrays, strict=True))


def parameter_names(params: Any) -> list[str]:
    """Returns the names of parameters, or of their shapes, in the order of `jax.tree.leaves`.

    Example:
        >>> parameter_names({"dense_0": {"weight": 1.0, "bias": 2.0}}), parameter_names(3.0)
        (['dense_0/bias', 'dense_0/weight'], ['theta'])
    """
    import jax

    def name(path: tuple) -> str:
        return (
            "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
            or "theta"
        )

    return [name(path) for path, _ in jax.tree.leaves_with_path(params)]


def save_params(params: Any, path: Path, about: dict[str, str] | None = None) -> None:
    """Writes parameters as a safetensors file, with some text about them, completely or not at all.

    Raises:
        SettingsError: a path that does not end in .safetensors, or cannot be written.
    """
    from safetensors.numpy import save

    if path.suffix != ".safetensors":
        raise SettingsError(f"{path} must end in .safetensors, the format in which parameters are saved.")
    data = save(flat_params(params), about)
    write_whole(path, lambda file: file.write(data), mode="wb")


def run_record(run: Any) -> dict[str, Any]:
    """Returns all that a report shows of a run, as JSON has it."""
    job = run.job
    repeats = None
    if run.repeats is not None:
        counts, how_many = np.unique(run.repeats["updates"], return_counts=True)
        means = {
            name: float(np.mean(column)) for name, column in run.repeats.items() if name != "updates" and len(column)
        }
        repeats = {"updates_per_batch": dict(zip(counts.tolist(), how_many.tolist(), strict=True)), **means}
    return plain({
        "kind": "run", "format": FORMAT, "backbeat": environment()["backbeat"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"), **recorded_columns(job),
        "n_parameters": n_parameters(run.params), "every": str(job.plan.cadence),
        "learning_rate": job.learning_rate if job.optimizer.tunable else None, "schedule": str(job.schedule),
        "seed": job.settings.seed, "settings": job.settings.as_text(), "saved": _as_saved(job),
        "finished": {
            "reason": run.reason, "diverged": run.diverged, "reached": run.reached, "updates": run.clock.updates,
            "examples": run.clock.examples, "epochs": run.clock.epochs, "seconds": run.clock.seconds,
        },
        "compile_seconds": run.compile_seconds, "set_aside": run.set_aside, "history": dict(run.history),
        "repeats": repeats, "followed": run.followed, "changes": list(run.changes),
        "noise": None if run.noise is None else {**run.noise.as_dict(), "sentence": str(run.noise)},
        "rate_range": None if job.rate_range is None else job.rate_range.as_dict(), "environment": environment(),
    })  # fmt: skip


def _as_saved(job: Job) -> dict[str, Any]:
    """Returns what has to be known, beside the parameters and the preparation, to use the trained model again."""
    dataset = job.dataset
    return {
        "model": model_text(job.architecture), "n_outputs": job.n_outputs, "example_floats": job.example_floats,
        "loss_kind": job.loss.kind, "input_dtype": str(dataset.x.dtype), "label_dtype": str(dataset.y.dtype),
        "label_shape": dataset.y.shape[1:], "classes": dataset.classes, "source": dataset.source,
        "prepared": dataset.preparation is not None,
    }  # fmt: skip


def model_text(architecture: Any) -> str | None:
    """Returns the text from which `parse_model` makes an equal network; None where there is none.

    Example:
        >>> from backbeat import cnn
        >>> model_text(cnn((4,))), model_text((len, len))
        ('cnn:4', None)
    """
    text = str(architecture)
    try:
        return text if text.partition(":")[0] in BUILT_IN and parse_model(text) == architecture else None
    except SettingsError:
        return None
