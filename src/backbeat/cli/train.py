"""`backbeat train`: one network, one cadence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..changes import STOP, STOPPED
from ..errors import ENDED, SettingsError
from .options import (
    AsJson,
    Block,
    Checkpoint,
    ClassWeight,
    Clip,
    Coordinator,
    DataName,
    Deterministic,
    Devices,
    HeldOut,
    Inputs,
    Keep,
    Label,
    Log,
    LossName,
    Memory,
    Missing,
    Model,
    OptimizerName,
    OrderName,
    Prepare,
    ProcessCount,
    Processes,
    ProcessIndex,
    Quiet,
    Resize,
    RunName,
    Seed,
    SettingsFile,
    ShortBatch,
    SkipBad,
    Task,
    Weight,
    WeightDecay,
    column_and_target,
)  # fmt: skip
from .watch import Control, Open, Port, Watch, shown_beside

if TYPE_CHECKING:
    from ..done import Run
    from ..events import Event


def train(
    data: DataName = "digits",
    *,
    every: Annotated[
        str,
        Parameter(
            help='Examples per update: 1, 32, 10%, dataset, "32 then 128 after 10 epochs", or "noise 8 to 512": as '
            "many as the noise of the gradient asks for, with γ (given for 8) in step."
        ),
    ] = "32",
    repeat_until: Annotated[str | None, Parameter(help="Repeat a batch until loss<0.1, or correct.")] = None,
    at_most: Annotated[int | None, Parameter(help="Most updates on one batch, with --repeat-until.")] = None,
    model: Model = "mlp",
    loss: LossName = "auto",
    optimizer: OptimizerName = "sgd",
    lr: Annotated[
        float | str | None,
        Parameter(
            name=["--lr", "--learning-rate"],
            help="Learning rate γ, or auto: a range test finds it. Default: 0.1, with squared_error 0.01.",
        ),
    ] = None,
    duration: Annotated[
        str, Parameter(name=["--for", "--duration"], help='"20 epochs", "5000 updates", "30 s", or several with "or".')
    ] = "20 epochs",
    target: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Stop when reached: accuracy>=0.95, train loss<=0.1; or the column to predict, as --label.",
        ),
    ] = None,
    patience: Annotated[str | None, Parameter(help='Stop when the loss has not improved for, say, "5 epochs".')] = None,
    schedule: Annotated[str | None, Parameter(help='constant, linear, cosine, or "cosine over 20 epochs".')] = None,
    warm_up: Annotated[str | None, Parameter(help='Raise the learning rate from 0 for, say, "2 epochs".')] = None,
    order: OrderName = "reshuffled",
    short_batch: ShortBatch = "keep",
    held_out: HeldOut = 0.2,
    class_weight: ClassWeight = None,
    label: Label = None,
    inputs: Inputs = None,
    task: Task = "auto",
    weight: Weight = None,
    prepare: Prepare = "auto",
    missing: Missing = "auto",
    skip_bad: SkipBad = False,
    resize: Resize = None,
    memory: Memory = None,
    seed: Seed = 0,
    weight_decay: WeightDecay = 0.0,
    clip: Clip = None,
    evaluate: Annotated[str, Parameter(help='auto, never, or an interval such as "1 epoch".')] = "auto",
    block: Block = None,
    watch_gradient: Annotated[
        bool, Parameter(negative="", help="Measure the norm of every update's mean gradient.")
    ] = False,
    watch_noise: Annotated[
        bool, Parameter(negative="", help="Measure how noisy each update's gradient is, and say the noise scale.")
    ] = False,
    on_divergence: Annotated[
        str,
        Parameter(
            help="Where something is no longer finite: stop, or halve-lr: go back to an earlier epoch's end, and on "
            "with half the learning rate."
        ),
    ] = "stop",
    changes: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help='What was changed while a run went on, to repeat it: "learning_rate 0.05 after 1234 updates", "stop '
            'after 5678 updates"; --settings has it.',
        ),
    ] = None,
    devices: Devices = None,
    deterministic: Deterministic = False,
    processes: Processes = None,  # this one and the next three are read before the call: processes.with_others
    coordinator: Coordinator = None,
    process_count: ProcessCount = None,
    process_index: ProcessIndex = None,
    run: RunName = None,
    checkpoint: Checkpoint = "auto",
    keep: Keep = 3,
    settings: SettingsFile = None,  # read before the call: options.fill_from_settings
    log: Log = None,
    watch: Watch = False,
    port: Port = None,
    open_page: Open = True,
    control: Control = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Trains a network, with the weights updated after every so many examples, and records the run.

    With no DATA: scikit-learn's 1,797 handwritten digits.
    """
    from ..config import Settings, asks_rate, checked_rate, resolve
    from ..folder import named_folder
    from ..rate_range import with_rate
    from ..run import carry_out
    from .console import bar

    label, score = column_and_target(label, target)
    given: dict[str, Any] = {
        "every": with_repeats(every, repeat_until, at_most), "loss": loss, "optimizer": optimizer,
        "learning_rate": lr if lr is None or asks_rate(lr) else checked_rate(lr, "lr"),
        "duration": duration, "target": score, "patience": patience, "order": order, "short_batch": short_batch,
        "held_out": held_out, "seed": seed, "schedule": schedule, "warm_up": warm_up, "weight_decay": weight_decay,
        "clip": clip, "evaluate": evaluate, "block": block, "watch_gradient": watch_gradient,
        "watch_noise": watch_noise, "on_divergence": on_divergence, "changes": changes,
        "devices": devices, "deterministic": deterministic,
        "class_weight": class_weight, "label": label, "inputs": inputs, "task": task, "weight": weight,
        "prepare": prepare, "missing": missing, "skip_bad": skip_bad, "resize": resize, "memory": memory,
    }  # fmt: skip
    folder = named_folder(run)
    with shown_beside(folder, watch, port, open_page, control) as stay:
        with bar(quiet or json) as progress:
            job = resolve(
                model, data, Settings.given(given), on_progress=lambda share, what: progress.show(what, share)
            )
            job = with_rate(job, progress=lambda share: progress.show("finding the learning rate", share))
            consumers = [watcher(job, progress.show)]
            done = carry_out(job, folder, consumers, checkpoint=checkpoint, keep=keep, log=log)
        return stay(finished(done, json=json))


def finished(done: Run, *, json: bool) -> int:
    """Draws and prints what a run came to; returns its exit code."""
    from .console import print_json

    if done.folder is not None:
        picture(done)
    if json:
        print_json({**done.record(), "folder": done.folder})
    else:
        show(done)
    return outcome(done)


def with_repeats(every: str, repeat_until: str | None, at_most: int | None) -> Any:
    """Returns the cadence that three options make together."""
    from ..cadence import every as as_cadence

    cadence = as_cadence(every)
    if repeat_until is None and at_most is None:
        return cadence
    if repeat_until is None or at_most is None:
        raise SettingsError(
            "--repeat-until and --at-most go together: until when, and how many updates on one batch at most."
        )
    return cadence.repeat(until=repeat_until, at_most=at_most)


def watcher(job: Any, show: Callable[[str, float, str], None]) -> Callable[[Event], None]:
    """Returns a consumer of events that moves a progress bar, and says at once what is noted on the way."""
    from ..events import Changed, Evaluated, Noted, StretchDone
    from .console import say

    durations = job.stopping.durations
    newest = {"score": ""}

    def consume(event: Event) -> None:
        if isinstance(event, Noted):
            say(f"{event.note}.")
        if isinstance(event, Changed) and event.what != STOP:  # of which the end tells
            say(f"{event.sentence}.")
        if isinstance(event, Evaluated):
            part = event.held_out or event.train
            newest["score"] = "  ".join(f"{name} {value:.4g}" for name, value in part.items())
        if isinstance(event, (StretchDone, Evaluated)):
            share = max(getattr(event.clock, d.unit) / d.amount for d in durations.each)
            show(f"{event.clock.updates:,} updates", share, newest["score"])

    return consume


def picture(done: Run) -> None:
    """Writes the picture and the page of a run into its folder."""
    from ..recorded import with_mistakes
    from ..report import run_figure, save_figure, write_page

    assert done.folder is not None
    record = with_mistakes(done.record(), done.folder)
    write_page(record, done.folder / "report.html")
    save_figure(run_figure(record), done.folder / "run.png")


def show(done: Run) -> None:
    """Prints what a run came to."""
    from ..report.style import duration
    from .console import tell

    job, clock = done.job, done.clock
    n_held = len(job.split.held_out)
    tell(f"{done.reason[0].upper()}{done.reason[1:]}", "bold")
    tell(
        f"{job.dataset.name}: {job.n_train:,} examples to train on, {n_held:,} held out; {job.model_name}, "
        f"{job.loss}, {job.optimizer}, learning rate {job.learning_rate:g}; updated after {in_words(job.plan.cadence)}"
    )
    tell(
        f"{clock.updates:,} updates, {clock.examples:,} examples, {clock.epochs:.4g} epochs in "
        f"{duration(clock.seconds)}; compiling took {duration(done.compile_seconds)}"
    )
    for note in done.notes:
        tell(note)
    if done.set_aside:
        tell(f"{done.set_aside:,} examples were set aside with short batches that were dropped")
    for part, words in (("train", "training part"), ("held_out", "held-out part")):
        newest = {name: last(done.history[name]) for name in done.history if name.startswith(f"{part}_")}
        if newest:
            each = [f"{n.removeprefix(part + '_').replace('_mean', '')} {value:.4g}" for n, value in newest.items()]
            tell(f"{words}{when_measured(done, f'{part}_loss_mean')}: {', '.join(each)}")
    if done.repeats is not None:
        show_repeats(done)
    if done.noise is not None:
        tell(str(done.noise))
    tell(str(done.folder), label="recorded in", whole=True)


def in_words(cadence: Any) -> str:
    """Returns after what the weights change, as the end of a sentence.

    Example:
        >>> from backbeat import every
        >>> in_words(every("1 repeat until correct at most 5 then 32 after 2 epochs"))
        'each example, repeated until correct, at most 5 times, then every 32 examples after 2 epochs'
    """

    def size(size: int | str) -> str:
        words = {"1": "each example", "dataset": "the whole data set"}
        return words.get(str(size), f"every {size} {'of the data' if '%' in str(size) else 'examples'}")

    first, *later = cadence.phases
    if cadence.follows:
        most = "all" if later[0].size == "dataset" else later[0].size
        return f"{first.size} to {most} examples, as the noise of the gradient asks"
    repeat = cadence.repeated
    repeated = "" if repeat is None else f", repeated until {repeat.until}, at most {repeat.at_most} times"
    return size(first.size) + repeated + "".join(f", then {size(phase.size)} after {phase.after}" for phase in later)


def last(column: Any) -> float:
    """Returns the newest value that was measured: a run that was interrupted ends without an evaluation."""
    measured = [value for value in column if value == value]
    return float(measured[-1]) if measured else float("nan")


def when_measured(done: Run, name: str) -> str:
    """Returns at which update a column was last measured, in words; nothing where that is the end of the run.

    A run that is interrupted or diverges ends without an evaluation, and its last one is not of the weights kept.
    """
    measured = [u for u, value in zip(done.history["updates"], done.history[name], strict=True) if value == value]
    if not measured or measured[-1] == done.clock.updates:
        return ""
    return f" at update {int(measured[-1]):,}, last evaluated there"


def show_repeats(done: Run) -> None:
    """Prints how many updates each batch took, and what that did to the rest."""
    import numpy as np

    from .console import tell

    assert done.repeats is not None
    column = done.repeats
    counts = column["updates"]
    if not len(counts):
        return
    text = (
        f"{len(counts):,} batches took {counts.mean():.3g} updates each (from {counts.min()} to {counts.max()}): "
        f"their own loss went from {column['batch_loss_before'].mean():.3g} to {column['batch_loss_after'].mean():.3g}"
    )
    change = column["rest_loss_after"] - column["rest_loss_before"]
    if np.isfinite(change).all():
        text += (
            f"; meanwhile the loss on all the rest changed by {change.mean():+.3g} on average, and rose in "
            f"{np.mean(change > 0):.0%} of them"
        )
    tell(text)


def outcome(done: Run) -> int:
    """Returns the exit code of a run, and says on standard error why it is not 0."""
    from .console import say

    if done.diverged:
        say(f"{done.reason}; {done.remedy}. The last finite state is kept.")
        return 3
    if done.reason in ENDED:
        say(f"{done.reason} after {done.clock.updates:,} updates; to go on: backbeat resume {done.folder}")
        return ENDED[done.reason]
    if done.reason == STOPPED and done.folder is not None:
        say(f"stopped after {done.clock.updates:,} updates; to go on: backbeat resume {done.folder}")
    if done.reached is False:
        target, part = done.job.stopping.target, done.job.scored_part
        assert target is not None
        column = done.history[f"{part}_{'loss_mean' if target.score == 'loss' else target.score}"]
        best = max(column) if target.more_is_better else min(column)
        say(
            f"the target {target} was not reached, {done.reason}; the best was {best:.4g}. "
            "Train longer (--for) or choose another target."
        )
        return 2
    return 0
