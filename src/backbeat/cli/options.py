"""The options that several commands share, each a typed name with the sentence that `--help` shows."""

from __future__ import annotations

from inspect import BoundArguments
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..errors import SettingsError

Model = Annotated[str, Parameter(help="mlp, mlp:128,64, mlp:32:tanh, linear, cnn or cnn:16,32.")]
LossName = Annotated[
    str,
    Parameter(name="--loss", help="cross_entropy, binary_cross_entropy or squared_error; auto: by the kind of labels."),
]
OptimizerName = Annotated[
    str, Parameter(name="--optimizer", help="sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad, lion or lamb.")
]
OrderName = Annotated[
    str, Parameter(name="--order", help='"reshuffled" each epoch, "shuffled once", "as given" or "with replacement".')
]
ShortBatch = Annotated[str, Parameter(help="keep, drop or carry a last batch that is not full.")]
HeldOut = Annotated[float, Parameter(help="Share of the data that is not trained on.")]
Seed = Annotated[int, Parameter(help="Decides initial weights, split and order.")]
WeightDecay = Annotated[float, Parameter(help="Weight decay λ.")]
Clip = Annotated[float | None, Parameter(help="Largest norm of a batch's mean gradient.")]
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
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="No progress display.")]

_OPTION = {"learning_rate": "lr", "learning_rates": "lr"}  # the others are called as their setting is
_NOT_KEPT = ("run", "settings", "json", "quiet")


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
        here.setdefault(_OPTION.get(name, name), str(value) if name == "every" else value)
    if "data" not in here:
        raise SettingsError(
            f"{path} was recorded for arrays in memory and names no data; name the file that holds them, before "
            "--settings."
        )
