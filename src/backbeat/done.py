"""A training that is over, and all that can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .changes import RATE
from .clock import Clock
from .config import Job
from .data import Reading
from .errors import SettingsError
from .follow import sizes_in_words
from .history import History
from .models import theta
from .noise import NoiseScale
from .predictor import Predictor, pieces
from .record import run_record, save_params


@dataclass
class Run:
    """A training that is over.

    Attributes:
        job: what was trained, with every setting read.
        params: the final parameters (the last finite ones of a run that diverged).
        history: columns, see `History`.
        clock: updates, examples, epochs and seconds at the end.
        reason: why it ended, in words.
        reached: whether the target was reached, None where there was none.
        diverged: whether it ended because something was no longer finite.
        compile_seconds: what compiling took, which no clock counts.
        repeats: for repeated batches, columns of one entry a batch; else None.
        set_aside: how many examples dropped short batches left out.
        folder: where it is recorded, None for nowhere.
        noise: the noise scale of all its updates with its interval, where watched, else None.
        said: what was noted on the way: a smaller block, a learning rate that was halved, where it was resumed.
        changes: what a person changed on the way: when, "what", to which "value", and as a "sentence".
    """

    job: Job = field(repr=False)
    params: Any = field(repr=False)
    history: History = field(repr=False)
    clock: Clock
    reason: str
    reached: bool | None
    diverged: bool
    compile_seconds: float
    repeats: dict[str, np.ndarray] | None = field(default=None, repr=False)
    set_aside: int = 0
    folder: Path | None = None
    noise: NoiseScale | None = None
    said: tuple[str, ...] = ()
    changes: tuple[dict[str, Any], ...] = ()

    @property
    def theta(self) -> Any:
        """θ, the final parameters as a vector `[N]`."""
        return theta(self.params)

    @property
    def remedy(self) -> str:
        """What to try after a run that diverged, in words."""
        if "before the first update" in self.reason:
            return "look for what is not finite in the loss, the weights to start from or the data"
        known = self.job.optimizer.tunable and self.job.schedule.function is None
        rates = [self.job.learning_rate, *(each["value"] for each in self.changes if each["what"] == RATE)]
        return f"try a learning rate below {rates[-1]:g}" if known else "try a smaller learning rate"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was recognised, counted or set aside in the data, changed on the way, and how γ and M were found."""
        changed = (each["sentence"] for each in self.changes)
        found, notes = self.job.rate_range, (*self.job.dataset.notes, *self.said, *changed)
        notes = notes if found is None else (*notes, str(found))
        return notes if self.followed is None else (*notes, self.followed)

    @property
    def followed(self) -> str | None:
        """The batch sizes that it went through, as a sentence; None where the batch did not follow the noise."""
        if not self.job.plan.cadence.follows or not self.clock.updates:
            return None
        made = np.isfinite(self.history["batch_size"])
        sizes = self.history["batch_size"][made].astype(int).tolist()
        return sizes_in_words(self.history["updates"][made].tolist(), sizes)

    @property
    def predictor(self) -> Predictor:
        """The trained network with what reads and prepares new data for it."""
        job, data = self.job, self.job.dataset
        return Predictor(
            model=job.model, params=self.params, kind=job.loss.kind, input_shape=data.input_shape,
            input_dtype=str(data.x.dtype), n_outputs=job.n_outputs, example_floats=job.example_floats,
            reading=Reading.of(job.settings), classes=data.classes, preparation=data.preparation,
        )  # fmt: skip

    def predict(self, x: Any) -> np.ndarray:
        """Returns what the network predicts for new inputs: an array `[n, ...]`, a frame, a path of a file.

        Classes `[n]` for a classifier (names where labels were names), values `[n]` or `[n, outputs]` for a regression.

        Raises:
            DataError: inputs that cannot be read, or of another form than those trained on.
        """
        return self.predictor.predict(np.asarray(x) if isinstance(x, (list, tuple)) else x)

    def predict_raw(self, x: Any) -> np.ndarray:
        """Returns the network's own outputs (logits for a classifier), `[n, ...]`, computed in blocks."""
        predictor = self.predictor
        source = predictor.source(np.asarray(x) if isinstance(x, (list, tuple)) else x)
        return np.concatenate([predictor.outputs(predictor.inputs(raw)) for raw in pieces(source)])

    def trained(self) -> Any:
        """Returns the user's own model with the trained weights in it.

        A PyTorch, Flax NNX or Keras model is changed in place and returned; of an Equinox model, which cannot be
        changed, a new one is returned. Where a function made the model, it is asked for one more.

        Raises:
            SettingsError: the model is one of backbeat's own or a pair of functions; its weights are `run.params`.
        """
        if not hasattr(self.job.model, "trained"):
            raise SettingsError(
                f"{self.job.model_name} is not an object that holds weights; the trained ones are run.params."
            )
        return self.job.model.trained(self.params)  # pyright: ignore[reportAttributeAccessIssue]

    def plot(self) -> Any:
        """Returns a matplotlib figure of the loss and the score along the run."""
        from .report import run_figure

        return run_figure(self.record())

    def _repr_html_(self) -> str:
        """Returns what a notebook shows of it."""
        from .report import run_figure, run_fragment

        record = self.record()
        return run_fragment(record, run_figure(record), self.notes)

    def save(self, path: str | Path) -> None:
        """Writes the parameters as a safetensors file, names like `dense_0/weight`; replaces a file that is there.

        Raises:
            SettingsError: a path that does not end in .safetensors.
        """
        save_params(self.params, Path(path))

    def record(self) -> dict[str, Any]:
        """Returns all that a report shows of the run, as text, numbers and lists."""
        return run_record(self)
