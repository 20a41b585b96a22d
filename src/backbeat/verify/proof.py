"""All that could make an update differ from the mean of per-example gradients, looked at in turn."""

from __future__ import annotations

from typing import Any

import jax

from ..config import Settings
from ..models import n_parameters
from .result import Verification
from .splits import compared
from .subject import checked_count, subject_of


def verify(
    model: Any,
    data: Any = "digits",
    *,
    examples: int = 50,
    params: Any = None,
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
    n = checked_count(examples)
    given = Settings.given(settings)
    with jax.default_matmul_precision("highest"):
        subject = subject_of(model, data, given, params, n)
        comparisons = compared(subject)
    return Verification(subject.name, len(subject), n_parameters(subject.params), (), comparisons)
