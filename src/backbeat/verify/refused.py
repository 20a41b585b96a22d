"""Models and losses that backbeat refuses to train, by cause: what training says in a sentence, as a finding."""

from __future__ import annotations

import re

from ..errors import BackbeatError, SettingsError
from .result import Finding

_CAUSES = (  # what a refusal says, its cause, and where it names the layer
    ("normalises by the statistics of the batch", "batch normalisation", r": (.+?) normalises by"),
    ("which no update would keep", "stateful layer", r" changes (.+?) while it runs"),
    ("keeps an array of one call for a later one", "stateful layer", r"\((.+?)\); compute it"),
    ("draws random numbers in evaluation mode", "random in evaluation", r"^$"),
    ("gives one value for each example, [batch], not a mean", "mean of means", r"^$"),
)


def finding_of(error: BackbeatError) -> Finding | None:
    """Returns the finding that a refusal stands for; None where it is about something else, such as a wrong setting.

    Example:
        >>> from backbeat.models.refusal import mixes
        >>> error = SettingsError(mixes("PyTorch Net", "1 (BatchNorm1d)", "call .eval() on it", "nn.GroupNorm"))
        >>> finding = finding_of(error)
        >>> finding.cause, finding.layer
        ('batch normalisation', '1 (BatchNorm1d)')
    """
    text = str(error)
    for said, cause, layer in _CAUSES if isinstance(error, SettingsError) else ():
        if said in text:
            found = re.search(layer, text)
            return Finding(cause, found[1] if found and found.groups() else None, text)
    return None
