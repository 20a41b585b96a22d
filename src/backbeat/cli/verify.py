"""`backbeat verify`: is the update really the mean of per-example gradients for this model, loss and data?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import SettingsError
from ..models.own_code import OwnCode
from .options import (
    AsJson,
    ClassWeight,
    DataName,
    HeldOut,
    Inputs,
    Memory,
    Missing,
    Model,
    Prepare,
    Quiet,
    Resize,
    Seed,
    SkipBad,
    Task,
    Weight,
)

if TYPE_CHECKING:
    from ..verify import Verification

_WORDS = {True: "yes", False: "NO", None: "not measured"}


def verify(
    data: DataName = "digits",
    *,
    model: Model = "mlp",
    loss: Annotated[
        str,
        Parameter(
            help="cross_entropy, binary_cross_entropy or squared_error, with their options; or a function of your own, "
            "file.py:name; auto: by the kind of labels."
        ),
    ] = "auto",
    examples: Annotated[int, Parameter(help="How many examples to look at, drawn by the seed.")] = 50,
    also: Annotated[
        str | None, Parameter(help="torch: verify a training step of your own in PyTorch too, named by --step.")
    ] = None,
    step: Annotated[
        str | None,
        Parameter(
            help="file.py:name of a function (model, optimizer, x, y) that updates with one batch, or (model, "
            "optimizer, batches) that loops over micro-batches."
        ),
    ] = None,
    step_loss: Annotated[
        str | None,
        Parameter(help="file.py:name of (prediction, label) -> losses [batch] on PyTorch's tensors. Default: --loss."),
    ] = None,
    micro_batch: Annotated[int, Parameter(help="Examples in each micro-batch that --step is given.")] = 4,
    layers: Annotated[bool, Parameter(negative="", help="Also print the error of every layer.")] = False,
    held_out: HeldOut = 0.2,
    class_weight: ClassWeight = None,
    label: Annotated[str | None, Parameter(group="Data", help="Column or columns to predict.")] = None,
    inputs: Inputs = None,
    task: Task = "auto",
    weight: Weight = None,
    prepare: Prepare = "auto",
    missing: Missing = "auto",
    skip_bad: SkipBad = False,
    resize: Resize = None,
    memory: Memory = None,
    seed: Seed = 0,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Checks that an update is the mean of per-example gradients, whichever way a batch is cut; names the cause if not.

    With no DATA: scikit-learn's 1,797 handwritten digits. Exit code 0: it is; 1: it is not; 2: wrong input.
    """
    from ..verify import verify as verified
    from .console import bar, print_json

    given: dict[str, Any] = {
        "loss": own_function(loss, "loss"), "also": also, "step": step,
        "step_loss": None if step_loss is None else own_function(step_loss, "step-loss"),
        "micro_batch": micro_batch, "held_out": held_out, "seed": seed, "class_weight": class_weight, "label": label,
        "inputs": inputs, "task": task, "weight": weight, "prepare": prepare, "missing": missing,
        "skip_bad": skip_bad, "resize": resize, "memory": memory,
    }  # fmt: skip
    two_devices()
    with bar(quiet or json) as progress:
        found = verified(
            model, data, examples=examples, on_progress=lambda share, what: progress.show(what, share), **given
        )
    if json:
        print_json(found.record())
    else:
        show(found, layers=layers)
    return 0 if found.passed else 1


def own_function(text: str, option: str) -> Any:
    """Returns a loss as `verify` takes it: a name as it is, or the function that file.py:name names."""
    if ".py:" not in text:
        return text
    function = OwnCode.of(text, option).load()
    if not callable(function):
        raise SettingsError(f"--{option} {text} is no function; give one of (prediction, label) -> losses [batch].")
    return function


def two_devices() -> None:
    """Lets the processor count as two devices, so that work over several of them is verified on any machine.

    An accelerator, or a number of devices that the user chose, stays as it is.
    """
    import jax

    if (
        "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
        or getattr(jax.config, "jax_num_cpu_devices", 0) > 1
    ):
        return
    try:
        jax.config.update("jax_num_cpu_devices", 2)
    except RuntimeError:  # devices are in use already: there are as many as there are
        return


def show(found: Verification, *, layers: bool) -> None:
    """Prints a verification: the answer, each fault by name, and the tables."""
    from .console import results, tell

    tell(found.answer, "bold" if found.passed else "bold red")
    for finding in found.findings:
        tell(finding.sentence, label=finding.cause + (f" at {finding.layer}:" if finding.layer else ":"))
    for note in found.notes:
        tell(note, label="note:")
    if found.checks:
        results().print(check_table(found))
    if found.comparisons:
        results().print(error_table(found))
        tell("Errors are relative, against the float64 mean of single examples' gradients.", "dim")
    if layers:
        results().print(layer_table(found))
    if found.also is not None:
        show(found.also, layers=layers)


def check_table(found: Verification) -> Any:
    """Returns the table of what was looked at beside the gradients."""
    from .table import Table

    made = Table("looked at", "holds", n_texts=2)
    for check in found.checks:
        made.add_row(check.name, _WORDS[check.passed])
    return made


def error_table(found: Verification) -> Any:
    """Returns the table of relative errors: of each split, the layer that is nearest to what rounding explains."""
    from .table import Table

    made = Table("batch cut as", "worst layer", "error", "rounding explains", "holds", n_texts=2)
    for comparison in found.comparisons:
        worst = comparison.worst
        if worst is None:
            made.add_row(comparison.split, comparison.note, "–", "–", _WORDS[None])
        else:
            numbers = (number(worst.error), number(worst.explained))
            made.add_row(comparison.split, worst.layer, *numbers, _WORDS[comparison.passed])
    return made


def layer_table(found: Verification) -> Any:
    """Returns the table of each layer's largest error over all splits."""
    from .table import Table

    made = Table("layer", "batch cut as", "error", "rounding explains", n_texts=2)
    errors = [(layer, comparison.split) for comparison in found.comparisons for layer in comparison.layers]
    for name in dict.fromkeys(layer.layer for layer, _ in errors):
        layer, split = max((each for each in errors if each[0].layer == name), key=lambda each: each[0].share)
        made.add_row(name, split, number(layer.error), number(layer.explained))
    return made


def number(value: float) -> str:
    """Returns a relative error with two figures.

    Example:
        >>> number(1.234e-7), number(0.0), number(0.25)
        ('1.2e-07', '0', '0.25')
    """
    return f"{value:.2g}"
