"""The options that several commands share, each a typed name with the sentence that `--help` shows."""

from __future__ import annotations

import re
from inspect import BoundArguments
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from ..errors import SettingsError

_DATA = Group("Data", sort_key=1)
_MACHINES = Group("Devices and machines", sort_key=2)

DataName = Annotated[
    str,
    Parameter(
        help="A CSV, TSV, Parquet, .npy, .npz or IDX file, a folder of images by class or of Parquet files, or one of "
        "digits, iris, wine, breast_cancer, diabetes, california."
    ),
]
Model = Annotated[
    str, Parameter(help="mlp, mlp:128,64, mlp:32:tanh, linear, cnn, cnn:16,32, or your own code: file.py:name.")
]
LossName = Annotated[
    str,
    Parameter(
        name="--loss",
        help="cross_entropy (cross_entropy:ignore=-1 leaves a label out), binary_cross_entropy or squared_error; auto: "
        "by the kind of labels.",
    ),
]
OptimizerName = Annotated[
    str, Parameter(name="--optimizer", help="sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad, lion or lamb.")
]
OrderName = Annotated[
    str, Parameter(name="--order", help='"reshuffled" each epoch, "shuffled once", "as given" or "with replacement".')
]
ShortBatch = Annotated[str, Parameter(help="keep, drop or carry a last batch that is not full.")]
HeldOut = Annotated[
    float | str,
    Parameter(
        group=_DATA,
        help="What is not trained on: a share, a file with other examples, or the column that says which.",
    ),
]
ClassWeight = Annotated[
    str | None, Parameter(group=_DATA, help='Weights of the classes: balanced, "1,4", or by name, "cat=1,dog=4".')
]
Label = Annotated[
    str | None, Parameter(group=_DATA, help="Column or columns to predict; --target does too, if it names no score.")
]
Inputs = Annotated[str | None, Parameter(group=_DATA, help="Columns to predict from. Default: all the others.")]
Task = Annotated[str, Parameter(group=_DATA, help="classification or regression; auto: by the label, and said.")]
Weight = Annotated[str | None, Parameter(group=_DATA, help="Column of the examples' weights.")]
Prepare = Annotated[
    str, Parameter(group=_DATA, help="auto: scale numbers, one-hot categories, images to 0..1; none: as they are.")
]
Missing = Annotated[
    str,
    Parameter(
        group=_DATA, help="Missing values: auto (empty cells of tables count as the mean), impute (NaN too), refuse."
    ),
]
SkipBad = Annotated[
    bool, Parameter(group=_DATA, negative="", help="Leave out and count what cannot be read, such as a damaged image.")
]
Resize = Annotated[str | None, Parameter(group=_DATA, help="Height and width that images are brought to: 28x28.")]
Memory = Annotated[
    str | None, Parameter(group=_DATA, help='Most memory to take, such as "2 GB": larger data is streamed from files.')
]
Seed = Annotated[int, Parameter(help="Decides initial weights, split and order.")]
WeightDecay = Annotated[float, Parameter(help="Weight decay λ.")]
Clip = Annotated[float | None, Parameter(help="Largest norm of a batch's mean gradient.")]
On = Annotated[
    str | None,
    Parameter(
        name="--on",
        help='Where to make the runs: a number of processes; "ray" for a Ray of this machine\'s own; ray:auto or '
        "ray://host:port for a cluster that runs. Default: here.",
    ),
]
Block = Annotated[int | None, Parameter(help="Most examples to compute at once; the update is the same.")]
SettingsFile = Annotated[
    Path | None,
    Parameter(
        name="--settings",
        help="Repeat what a settings.toml or a run's folder says; an option given beside it counts instead.",
    ),
]
RunName = Annotated[
    str | None, Parameter(name="--run", help="Name under runs/, or folder, to record in. Default: runs/<time>-<words>.")
]
Log = Annotated[
    list[str] | None,
    Parameter(
        negative="",
        help="Also log to tensorboard:DIR, or to mlflow:URI such as mlflow:sqlite:///mlflow.db or "
        "mlflow:http://localhost:5000; may be given more than once.",
    ),
]
Checkpoint = Annotated[
    str,
    Parameter(
        help='How often to save the run: "30 s", "1 epoch", "1000 updates", never; auto: each 5 s, or less often where '
        "that takes more than 3 % of the time."
    ),
]
Keep = Annotated[int, Parameter(help="How many of the newest checkpoints to keep, beside the one with the best loss.")]
RunFolder = Annotated[Path, Parameter(help="The folder of a run, or its name under runs/.")]
OwnModel = Annotated[
    str | None,
    Parameter(name="--model", help="file.py:name, for a run of a network of your own: this code is run."),
]
Devices = Annotated[
    str | None,
    Parameter(
        group=_MACHINES,
        help="How many devices of each process share every batch: a number, or all. Default: 1, and all of several "
        "processes.",
    ),
]
Deterministic = Annotated[
    bool,
    Parameter(
        group=_MACHINES,
        negative="",
        help="The same weights to the last bit whatever the blocks, devices and processes; it costs time.",
    ),
]
Processes = Annotated[
    int | None, Parameter(group=_MACHINES, help="Start so many processes on this machine that train together.")
]
Coordinator = Annotated[
    str | None,
    Parameter(
        group=_MACHINES,
        help="HOST:PORT of process 0, to train with other machines; auto under Slurm, Open MPI or Kubernetes.",
    ),
]
ProcessCount = Annotated[int | None, Parameter(group=_MACHINES, help="How many processes, with --coordinator.")]
ProcessIndex = Annotated[int | None, Parameter(group=_MACHINES, help="Which one this is, from 0.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="No progress display.")]

_OPTION = {"learning_rate": "lr", "learning_rates": "lr"}  # the others are called as their setting is
_AS_OPTION = {"every": str, "target": lambda text: [text]}  # where a file keeps another type than the option has
_NOT_KEPT = (
    "on", "run", "settings", "json", "quiet", "checkpoint", "keep", "processes", "coordinator", "process_count",
    "process_index",
)  # fmt: skip


_SCORES = re.compile(r"[<>=]|^(auto|none)$|^(train |held-out |held_out )?(accuracy|loss|r2|mse)[ 0-9]")


def column_and_target(label: str | None, given: list[str] | str | None) -> tuple[str | None, str | None]:
    """Returns the columns to predict and the score to reach, which `--target` may name both.

    Raises:
        SettingsError: two of the same.

    Example:
        >>> column_and_target(None, ["letter", "accuracy>=0.9"])
        ('letter', 'accuracy>=0.9')
    """
    each = [given] if isinstance(given, str) else given or []
    scores = [text for text in each if _SCORES.search(text)]
    columns = [text for text in each if text not in scores] + ([label] if label is not None else [])
    for what, found in (("score to reach", scores), ("column to predict", columns)):
        if len(found) > 1:
            raise SettingsError(
                f"--target names more than one {what}, {found[0]!r} and {found[1]!r}; give one of them (several "
                "columns with commas)."
            )
    return columns[0] if columns else None, scores[0] if scores else None


def fill_from_settings(given: BoundArguments) -> None:
    """Fills in, from the file that `--settings` names, each option that was not given on the command line.

    Raises:
        SettingsError: the file cannot be read, holds something that is no option of the command, or names no data where
            none is given.
    """
    from ..folder import read_settings

    path, here = given.arguments["settings"], given.arguments
    options = [name for name in given.signature.parameters if name not in _NOT_KEPT]
    for name, value in read_settings(path, [*options, *_OPTION]).items():
        here.setdefault(_OPTION.get(name, name), _AS_OPTION[name](value) if name in _AS_OPTION else value)
    if "data" not in here:
        raise SettingsError(
            f"{path} was recorded for arrays in memory and names no data; name the file that holds them, before "
            "--settings."
        )
