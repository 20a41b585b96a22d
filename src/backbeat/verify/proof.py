"""All that could make an update differ from the mean of per-example gradients, looked at in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from ..config import Settings
from ..errors import BackbeatError, SettingsError
from ..models import n_parameters, parse_model
from .apart import losses_apart, predictions_apart, stateless
from .derivative import finite_gradients, moving_layers, own_derivative, whole_numbers, without
from .refused import finding_of
from .result import Check, Finding, Verification
from .rounding import EPSILON
from .splits import compared
from .subject import Subject, checked_count, drawn_from, subject_of
from .torch_proof import verify_torch


def verify(
    model: Any,
    data: Any = "digits",
    *,
    examples: int = 50,
    params: Any = None,
    also: str | None = None,
    step: Any = None,
    step_loss: Any = None,
    micro_batch: int = 4,
    on_progress: Callable[[float, str], None] | None = None,
    **settings: Any,
) -> Verification:
    """Returns whether the update is the mean of per-example gradients for this model, loss and data, and why not.

    The gradient that backbeat makes is compared with the float64 mean of gradients of single examples, whichever way
    a batch is cut, against what float32 rounding explains (`verify.rounding` has the formula).
    Matrix products are computed in full float32 meanwhile.

    Args:
        model: as in `backbeat.fit`, likewise `data`, `params` and all settings.
        data: see there.
        examples: how many examples to look at, drawn from the training part by the seed.
        params: the parameters at which to differentiate; None for the initial ones.
        also: "torch": verify a training step of your own in PyTorch as well, with the same examples.
        step: that step, a function of the caller's: step(model, optimizer, x, y), which makes one update of a batch, or
            train(model, optimizer, batches), which loops over micro-batches (x, y) and updates when it likes.
        step_loss: a function (prediction, label) -> losses [batch] on PyTorch's tensors; None for `loss`.
        micro_batch: examples in each (x, y) that a step which loops is given.
        on_progress: is told (share done, what is being done).
        settings: those of `backbeat.fit` that say how data is read, and loss, class_weight, held_out and seed.

    Raises:
        SettingsError: a setting that cannot be used.
        DataError: data that cannot be used.

    Example:
        >>> import backbeat as bb
        >>> found = bb.verify(bb.mlp(hidden=(8,)), "iris")
        >>> found.passed
        True
    """
    n, tell = checked_count(examples), on_progress or _silent
    check_also(also, step, step_loss)
    drawn = drawn_from(data, Settings.given(settings), n)
    model = parse_model(model) if isinstance(model, str) else model
    with jax.default_matmul_precision("highest"):
        try:
            found = _examined(subject_of(model, drawn, params), tell)
        except BackbeatError as error:
            finding = finding_of(error)
            if finding is None:
                raise
            found = _refused(finding)
    if also is None:
        return found
    tell(0.95, "the PyTorch step")
    return replace(found, also=verify_torch(step, model, drawn, step_loss, micro_batch))


def check_also(also: str | None, step: Any, step_loss: Any) -> None:
    """Refuses another library than PyTorch, and a step without one or one without a step.

    Raises:
        SettingsError: it is so.
    """
    if also not in (None, "torch"):
        raise SettingsError(f"also={also!r} is not known; write also='torch' to verify a PyTorch step as well.")
    if also is not None and step is None:
        raise SettingsError(
            "also='torch' needs the step to verify: give step=, on the command line --step train.py:step, a function "
            "(model, optimizer, x, y) for one batch or (model, optimizer, batches) for micro-batches."
        )
    if also is None and (step is not None or step_loss is not None):
        raise SettingsError("step and step_loss are for also='torch', on the command line --also torch; give it too.")


def _silent(share: float, what: str) -> None:
    """Tells nobody."""


def _refused(finding: Finding) -> Verification:
    """Returns the verification of what is refused before it can be computed."""
    check = Check("backbeat can train it", False, finding.sentence)
    return Verification("this model and loss", 0, 0, (check,), (), (finding,))


def _examined(subject: Subject, tell: Callable[[float, str], None]) -> Verification:
    """Returns all that is found of a subject."""
    tell(0.1, "examples apart")
    check, finding = stateless(subject)
    if finding is not None:  # nothing else would hold from one call to the next
        return Verification(subject.name, len(subject), n_parameters(subject.params), (check,), (), (finding,))
    looked = [predictions_apart(subject), losses_apart(subject), whole_numbers(subject)]
    checks, found = [check, *(each for each, _ in looked)], [each for _, each in looked]
    tell(0.4, "gradients")
    comparisons, reference = compared(subject)
    tell(0.9, "layers")
    n, notes = len(subject), ()
    check, finding, fine = finite_gradients(subject, reference)
    checks, found = [*checks, check], [*found, finding]
    if not fine.all():
        notes = (f"{int((~fine).sum())} of {n} examples have no finite gradient and are left out below.",)
        subject = without(subject, fine)
        comparisons, reference = compared(subject) if fine.any() else ((), None)
    if reference is not None:
        check, finding, idle = moving_layers(subject, reference)
        checks, found, notes = [*checks, check], [*found, finding], (*notes, *idle)
    findings = [finding for finding in found if finding is not None]
    failed = [comparison for comparison in comparisons if comparison.passed is False]
    if failed and not findings:
        findings = [own_derivative(subject, failed)]
    if subject.epsilon > EPSILON:
        notes = (
            *notes,
            f"the model computes with numbers coarser than float32: one rounding is {subject.epsilon:.2g}.",
        )
    return Verification(
        subject.name, n, n_parameters(subject.params), tuple(checks), comparisons, tuple(findings), notes
    )
