"""One training carried out: `fit` takes the events of `train` and gives a `Run`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from .checkpoint import KEEP, Checkpoints, checked_keep, interval_of
from .clock import Duration
from .config import Job, Settings, resolve
from .done import Run
from .errors import DivergedError, SettingsError, Terminated
from .events import Diverged, Event, Finished, StretchDone
from .history import Account, event_line, replayed
from .logs import RunLog
from .mesh import leads
from .mistakes import Mistakes
from .notebook import RunShown, in_place
from .rate_range import with_rate
from .record import Recorder, finish_run, found_folder
from .resume import Continued, about_of, check_resumable, continued, with_recorded_changes, with_recorded_rate
from .train import INTERRUPTED, TERMINATED, events_of
from .wishes import Wishes


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
    on_divergence: str = "stop",
    changes: Any = None,
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
    checkpoint: Any = "auto",
    keep: int = KEEP,
    resume: str | Path | None = None,
    anyway: bool = False,
    log: Any = None,
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
            blocks, devices and processes; it costs time.
        class_weight: "balanced", so that rare classes count as much as frequent ones, or a weight for each class.
        on_divergence: "stop" where something is no longer finite, or "halve-lr": go back to the last epoch's end at
            least 100 updates after the one before, and on with half the learning rate.
        changes: what a person changed while a run went on, to repeat it: texts such as "learning_rate 0.05 after 1234
            updates" and "stop after 5678 updates", the first one first; its settings.toml has them.
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
        checkpoint: how often to save the run there: "auto" (every 5 s, and less often where that took more than 3 % of
            the time), "never", or an interval such as "30 s", "1 epoch" or "1000 updates".
        keep: how many of the newest checkpoints to keep, beside the one with the best loss.
        resume: the folder of a run that was cut off: it goes on to the bits that it would have come to. Model, data and
            settings must be those it was trained with.
        anyway: resume although they are not.
        log: "tensorboard:DIR" or "mlflow:URI" (for example mlflow:sqlite:///mlflow.db), or a list of these: where to
            log the run as well; None for nowhere. One that is resumed goes on where it was logged.
        on_event: a function that is given every event; None to show in a notebook how far the run is, and nothing
            elsewhere.

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
    consumers = [] if on_event is None else [on_event]
    if on_event is None and (show := in_place()) is not None:
        consumers = [RunShown(job.stopping.durations, show)]
    if resume is None:
        folder = None if run is None else Path(run)
        result = carry_out(job, folder, consumers, checkpoint=checkpoint, keep=keep, log=log)
    elif run is not None and Path(run) != Path(resume):
        raise SettingsError(f"run={str(run)!r} and resume={str(resume)!r}: a run goes on in its own folder; give one.")
    else:
        found = found_folder(Path(resume))
        result = go_on(job, found, consumers, checkpoint=checkpoint, keep=keep, anyway=anyway, log=log)
    if result.diverged:
        raise DivergedError(f"{result.reason}; {result.remedy}. The last finite state is kept.", result)
    if result.reason in (INTERRUPTED, TERMINATED):
        raise KeyboardInterrupt if result.reason == INTERRUPTED else Terminated
    return result


def carry_out(
    job: Job, folder: Path | None, consumers: Iterable[Callable[[Event], None]], *, checkpoint: Any = "auto",
    keep: int = KEEP, log: Any = None,
) -> Run:  # fmt: skip
    """Returns the run of a job, recorded in a folder if one is given; one that diverged or was interrupted as well.

    Args:
        job: what to train; a range test finds its learning rate where that was asked for.
        folder: where to record it; made, must be empty.
        consumers: are given every event.
        checkpoint: see `fit`.
        keep: see there.
        log: see there.
    """
    interval, keep = interval_of(job.team.agree(checkpoint)), checked_keep(keep)
    if folder is not None and not leads():  # of several processes one writes
        return gather(with_rate(job), events_of(job, pauses=interval, wishes=Wishes(None)), consumers)
    with RunLog(log if leads() else None, folder) as logs:
        job = with_rate(job)
        if folder is None:
            return _with_notes(gather(job, events_of(job), [logs, *consumers]), logs)
        with Recorder.create(folder, job) as recorder:
            return _recorded(job, recorder, consumers, interval, keep, logs)


def go_on(
    job: Job, folder: Path, consumers: Iterable[Callable[[Event], None]], *, checkpoint: Any = "auto",
    keep: int = KEEP, anyway: bool = False, log: Any = None,
) -> Run:  # fmt: skip
    """Returns the run of a job that was cut off, from its newest whole checkpoint on; see `carry_out` and `fit`."""
    interval, keep = interval_of(job.team.agree(checkpoint)), checked_keep(keep)
    check_resumable(folder, anyway=anyway)
    job = with_recorded_changes(with_rate(with_recorded_rate(job, folder)), folder)
    if not leads():
        found = continued(job, folder, anyway=anyway)
        return gather(job, events_of(job, pauses=interval, resumed=found.resumed, wishes=Wishes(None)), consumers)
    with Recorder(folder, job) as recorder, RunLog(log, folder, resumed=True) as logs:
        found = continued(job, folder, anyway=anyway)
        recorder.keep_changes(job.settings.changes)
        recorder.cut(found.offset)
        return _recorded(job, recorder, consumers, interval, keep, logs, found)


def _recorded(
    job: Job, recorder: Recorder, consumers: Iterable[Callable[[Event], None]], interval: Duration | None, keep: int,
    logs: RunLog, found: Continued | None = None,
) -> Run:  # fmt: skip
    folder, resumed = recorder.folder, found.resumed if found else None
    account = Account()
    replayed(account, [] if found is None else found.lines)
    account.noise = resumed.snapshot.noise if resumed and resumed.snapshot else None
    best = None if found is None else found.best
    saver = Checkpoints(folder, about_of(job), interval, keep, lambda: recorder.offset, best)
    try:
        events = events_of(job, pauses=interval, resumed=resumed, wishes=recorder.wishes)
        result = gather(job, events, [recorder, saver, logs, Mistakes(folder, job), *consumers], account)
    finally:
        saver.close()
    result.folder = folder
    finish_run(_with_notes(result, logs))
    return result


def _with_notes(run: Run, logs: RunLog) -> Run:
    """Returns a run with what has to be said of its logs, which are closed."""
    logs.close()
    run.said += tuple(logs.notes)
    return run


def gather(
    job: Job, events: Iterable[Event], consumers: Iterable[Callable[[Event], None]] = (), account: Account | None = None
) -> Run:
    """Returns the run that events make, after giving each of them to the consumers as well.

    Args:
        job: what is trained.
        events: of it.
        consumers: are given each.
        account: what came before these events.
    """
    account = Account() if account is None else account
    end: Finished | Diverged | None = None

    def keep(event: Event) -> None:
        nonlocal end
        account.take(event_line(event))
        if isinstance(event, StretchDone):
            account.noise = event.noise if account.noise is None else account.noise + event.noise
        elif isinstance(event, (Finished, Diverged)):
            end = event

    _tell(iter(events), [*consumers, keep])
    assert end is not None, "a run ends with Finished or Diverged"
    diverged = isinstance(end, Diverged)
    return Run(
        job, end.state.params, account.history(), end.clock, end.reason, None if diverged else end.reached, diverged,
        account.compile_seconds, account.repeats(), account.set_aside,
        noise=None if account.noise is None else account.noise.scale(), said=tuple(account.notes),
        changes=tuple(account.changes),
    )  # fmt: skip


def _tell(events: Iterator[Event], consumers: list[Callable[[Event], None]]) -> None:
    """Gives each event to the consumers; an interrupt in one of them ends the run in order."""
    event = next(events)
    while True:
        try:
            for consumer in consumers:
                consumer(event)
            event = next(events)
        except StopIteration:
            return
        except KeyboardInterrupt as error:
            event = cast(Generator, events).throw(type(error))
