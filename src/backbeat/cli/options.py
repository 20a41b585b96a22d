"""The options that several commands share, each a typed name with the sentence that `--help` shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

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
        help="Repeat what a settings.toml or a run's folder says; only --run is heeded beside it.",
    ),
]
RunName = Annotated[
    str | None, Parameter(name="--run", help="Name under runs/, or folder, to record in. Default: runs/<time>-<words>.")
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="No progress display.")]
