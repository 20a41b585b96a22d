"""One training and what came of it: `fit` takes the events of `train` and gives a `Run`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from .clock import Clock
from .config import Job, Settings, resolve
from .data import Reading
from .errors import DivergedError, MissingExtraError, SettingsError
from .events import Diverged, Evaluated, Event, Finished, Started, StretchDone
from .follow import sizes_in_words
from .mesh import leads
from .models import theta
from .noise import NoiseScale, NoiseSums
from .predictor import Predictor, pieces
from .rate_range import with_rate
from .record import Recorder, finish_run, noise_columns, norm_columns, run_record, save_params, size_columns
from .train import INTERRUPTED, events_of

_COLUMNS = ("updates", "examples", "epochs", "wall_seconds", "update_seconds", "loss_mean")


class History(dict):
    """Columns of a run, one row for each stretch or evaluation: a dict of equal-length NumPy arrays.

    `updates`, `examples`, `epochs`, `wall_seconds` (compilation left out), `update_seconds` (evaluations left out too),
    `loss_mean` (of the batches since the row before), where watched `gradient_norm_mean` and `gradient_norm_sd` (of the
    updates since then), `gradient_squared`, `gradient_trace`, `noise_scale`, `noise_scale_low` and `noise_scale_high`
    (of the updates since then, see `noise.NoiseScale`), where the batch follows the noise `batch_size` and
    `learning_rate` (of the updates since then), and where evaluated `train_loss_mean`, `held_out_loss_mean`,
    `held_out_accuracy` and so on; NaN where not.
    """

    def to_polars(self) -> Any:
        """Returns the columns as a Polars frame.

        Raises:
            MissingExtraError: Polars is not installed.
        """
        return _imported("polars").DataFrame({name: np.asarray(column) for name, column in self.items()})

    def to_pandas(self) -> Any:
        """Returns the columns as a pandas frame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return _imported("pandas").DataFrame(dict(self))


def _imported(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(f"this needs {name}, which is not installed; run: pip install {name}") from None


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
        return f"try a learning rate below {self.job.learning_rate:g}" if known else "try a smaller learning rate"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was recognised, counted or set aside as the data was read, how γ was found and M went, in sentences."""
        found, notes = self.job.rate_range, self.job.dataset.notes
        notes = notes if found is None else (*notes, str(found))
        if not self.job.plan.cadence.follows or not self.clock.updates:
            return notes
        made = np.isfinite(self.history["batch_size"])
        sizes = self.history["batch_size"][made].astype(int).tolist()
        return (*notes, sizes_in_words(self.history["updates"][made].tolist(), sizes))

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

    def save(self, path: str | Path) -> None:
        """Writes the parameters as a safetensors file, names like `dense_0/weight`; replaces a file that is there.

        Raises:
            SettingsError: a path that does not end in .safetensors.
        """
        save_params(self.params, Path(path))

    def record(self) -> dict[str, Any]:
        """Returns all that a report shows of the run, as text, numbers and lists."""
        return run_record(self)


def fit(
    model: Any,
    data: Any = None,
    *,
    every: Any = 32,
    loss: Any = "auto",
    optimizer: Any = "sgd",
    learning_rate: Any = None,
    duration: Any = "20 epochs",
    target: Any = None,
    patience: Any = None,
    order: str = "reshuffled",
    short_batch: str = "keep",
    held_out: Any = 0.2,
    seed: int = 0,
    schedule: Any = None,
    warm_up: Any = None,
    weight_decay: float = 0.0,
    clip: float | None = None,
    evaluate: Any = "auto",
    block: int | None = None,
    watch_gradient: bool = False,
    watch_noise: bool = False,
    devices: Any = None,
    deterministic: bool = False,
    class_weight: Any = None,
    label: Any = None,
    inputs: Any = None,
    task: str = "auto",
    weight: str | None = None,
    prepare: Any = "auto",
    missing: str = "auto",
    skip_bad: bool = False,
    resize: str | None = None,
    memory: Any = None,
    params: Any = None,
    run: str | Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Run:
    """Trains a model, with the weights updated after every `every` examples, and returns the run.

    An update is θ ← θ − γ ∇L_B with ∇L_B = Σ w ∇ℓ / Σ w over the batch, or any other rule fed with ∇L_B; it is the same
    however the batch is cut into blocks.

    Args:
        model: `mlp(...)`, `linear()`, `cnn(...)`, their text ("mlp:128,64"), "file.py:name", a PyTorch, Flax NNX,
            Equinox or Keras model, a function that makes one, or a pair of functions (init(key) -> params,
            apply(params, x) -> predictions).
        data: (x, y) or (x, y, weight) arrays, a pandas or Polars frame, a data set with `__len__` and `__getitem__`,
            the path of a CSV, TSV, Parquet, .npy, .npz or IDX file or of a folder of images or Parquet files, or the
            name of a data set that ships with scikit-learn ("digits", the default).
        every: 1, 32, "10%", "dataset", "noise 8 to 512" (M follows the noise of the gradient between these), or a
            cadence such as `backbeat.every(1).repeat(until="correct", at_most=5)`.
        loss: "cross_entropy" (with a label to leave out: "cross_entropy:ignore=-1"), "binary_cross_entropy",
            "squared_error", a function (prediction, label) -> `[batch]`, or "auto": cross-entropy for whole-number or
            named labels, the squared error for values.
        optimizer: a name ("sgd", "momentum", "nesterov", "adam", "adamw", ...), a function from a learning rate to an
            Optax transformation, or such a transformation (which then holds its own learning rate).
        learning_rate: γ, or an Optax schedule; None for 0.1, and for 0.01 with the squared error; "auto" for what a
            range test finds, see `run.job.rate_range`.
        duration: "20 epochs", "5000 updates", "100000 examples", "30 s", or several with "or".
        target: stop when reached, for example "accuracy>=0.95" or "train loss<=0.1".
        patience: stop when the loss has not improved for this long, for example "5 epochs".
        order: "reshuffled" each epoch, "shuffled once", "as given", or "with replacement".
        short_batch: "keep", "drop" or "carry" a last batch that is not full.
        held_out: the share of the data that is not trained on (of each class alike); or the path of a file with the
            examples to hold out; or the name of a column that says which they are.
        seed: what decides the initial weights, the split and the order.
        schedule: "constant", "linear", "cosine", or for example "cosine over 20 epochs".
        warm_up: for example "2 epochs".
        weight_decay: λ.
        clip: the largest norm of the mean gradient.
        evaluate: "auto" (each epoch while it costs little; each epoch if target or patience needs it), "never", or an
            interval such as "2 epochs" or "100 updates".
        block: the most examples to compute at once; None for what fits into bounded memory.
        watch_gradient: also measure |∇L_B| of each update; `history` has mean and deviation, a row each.
        watch_noise: also measure in each update how noisy its gradient is: `run.noise` is the noise scale, in examples,
            with its interval, and `history` has it row by row; the run is the same, beyond rounding.
        devices: how many devices of each process share every batch: a number, or "all"; None for 1, and for all in a
            run of several processes.
        deterministic: add sums in a fixed order, so that the weights are the same to the last bit whatever the
            blocks, devices and processes; it costs time, see docs/scale.md.
        class_weight: "balanced", so that rare classes count as much as frequent ones, or a weight for each class.
        label: of a table, the column or columns to predict; None for one called label, target, class or y.
        inputs: the columns to predict from; None for all the others.
        task: "classification", "regression", or "auto": recognised by the label, and said.
        weight: the column of the examples' weights.
        prepare: "auto" (of a table, numbers scaled to mean 0 and deviation 1, categories one-hot; of images, 0..1),
            "none", or a scikit-learn transformer; fitted on the training part only.
        missing: "auto" (an empty cell of a table counts as the mean, and is counted; NaN and infinity are refused),
            "impute" (these too) or "refuse".
        skip_bad: leave out and count what cannot be read, such as a damaged image, instead of refusing it.
        resize: "28x28", the height and width that images are brought to.
        memory: how much memory the process may take, such as "2 GB": larger data is packed into files once and read
            from there as it is needed; None for no limit.
        params: initial parameters; None for random ones.
        run: a folder to record the run in; None for none.
        on_event: a function that is given every event.

    Raises:
        SettingsError: a setting that cannot be used.
        DataError: data that cannot be used.
        DivergedError: the loss stopped being finite; its `run` holds the last finite state.

    Example:
        >>> import backbeat as bb
        >>> run = bb.fit(bb.mlp(hidden=(32,)), "digits", every=32, duration="5 epochs")
        >>> run.clock.updates, float(run.history["held_out_accuracy"][-1]) > 0.9
        (225, True)
    """
    given = {name: value for name, value in locals().items() if name in Settings.__dataclass_fields__}
    job = resolve(model, data, Settings(**given), params)
    result = carry_out(job, None if run is None else Path(run), [] if on_event is None else [on_event])
    if result.diverged:
        raise DivergedError(f"{result.reason}; {result.remedy}. The last finite state is kept.", result)
    if result.reason == INTERRUPTED:
        raise KeyboardInterrupt
    return result


def carry_out(job: Job, folder: Path | None, consumers: Iterable[Callable[[Event], None]]) -> Run:
    """Returns the run of a job, recorded in a folder if one is given; one that diverged or was interrupted as well.

    Args:
        job: what to train; a range test finds its learning rate where that was asked for.
        folder: where to record it; made, must be empty.
        consumers: are given every event.
    """
    job = with_rate(job)
    folder = folder if leads() else None  # of several processes one writes
    recorder = [] if folder is None else [Recorder.create(folder, job)]
    result = gather(job, events_of(job), [*recorder, *consumers])
    result.folder = folder
    if folder is not None:
        finish_run(result)
    return result


def gather(job: Job, events: Iterable[Event], consumers: Iterable[Callable[[Event], None]] = ()) -> Run:
    """Returns the run that events make, after giving each of them to the consumers as well."""
    rows: list[dict[str, int | float]] = []
    repeats: list[dict[str, Any]] = []
    compile_seconds, update_seconds, set_aside = 0.0, 0.0, 0
    end: Finished | Diverged | None = None
    noise: NoiseSums | None = None
    for event in _told(iter(events), list(consumers)):
        if isinstance(event, Started):
            compile_seconds = event.compile_seconds
        elif isinstance(event, StretchDone):
            update_seconds += event.update_seconds
            set_aside += event.set_aside
            rows.append({**_times(event.clock, update_seconds), "loss_mean": event.loss_mean, **norm_columns(event)})
            compile_seconds += event.compile_seconds
            rows[-1] |= {**noise_columns(event), **size_columns(event, job)}
            noise = event.noise if noise is None else noise + event.noise
            if event.repeats is not None:
                repeats.append(dict(event.repeats))
        elif isinstance(event, Evaluated):
            if not rows or rows[-1]["updates"] != event.clock.updates:
                rows.append({**_times(event.clock, update_seconds), "loss_mean": float("nan")})
            rows[-1] |= score_columns(event)
        else:
            end = event
    assert end is not None, "a run ends with Finished or Diverged"
    columns = {name: np.concatenate([r[name] for r in repeats]) for name in repeats[0]} if repeats else None
    diverged = isinstance(end, Diverged)
    return Run(
        job, end.state.params, _as_history(rows), end.clock, end.reason, None if diverged else end.reached, diverged,
        compile_seconds, columns, set_aside, noise=None if noise is None else noise.scale(),
    )  # fmt: skip


def _told(events: Iterator[Event], consumers: list[Callable[[Event], None]]) -> Iterator[Event]:
    """Returns the events, each given to the consumers first; an interrupt in one of them ends the run in order."""
    event = next(events)
    while True:
        try:
            for consumer in consumers:
                consumer(event)
            yield event
            event = next(events)
        except StopIteration:
            return
        except KeyboardInterrupt:
            event = cast(Generator, events).throw(KeyboardInterrupt)


def score_columns(event: Evaluated) -> dict[str, float]:
    """Returns an evaluation's scores under the names of the history's columns."""
    both = {"train": event.train, "held_out": event.held_out}
    return {
        f"{part}_{'loss_mean' if name == 'loss' else name}": value
        for part, found in both.items()
        for name, value in found.items()
    }


def _times(clock: Clock, update_seconds: float) -> dict[str, int | float]:
    return {
        "updates": clock.updates, "examples": clock.examples, "epochs": clock.epochs,
        "wall_seconds": clock.seconds, "update_seconds": update_seconds,
    }  # fmt: skip


def _as_history(rows: list[dict[str, int | float]]) -> History:
    names = list(dict.fromkeys([*_COLUMNS, *(name for row in rows for name in row)]))
    columns: dict[str, np.ndarray] = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    for name in ("updates", "examples"):
        columns[name] = columns[name].astype(np.int64)
    return History(columns)
