"""What a verification found: checks, relative errors against what rounding explains, and causes by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerError:
    """How far a layer's gradient is from the mean of per-example gradients, relative to the length of that mean.

    Attributes:
        layer: the path of its parameters, such as "dense_0/weight".
        error: ‖found − mean‖ / ‖mean‖; relative to the mean length of single gradients where they cancel to nothing.
        explained: the largest error that float32 rounding explains, on the same scale.
    """

    layer: str
    error: float
    explained: float

    @property
    def passed(self) -> bool:
        """Whether rounding explains the error; never where it is NaN."""
        return self.error <= self.explained

    @property
    def share(self) -> float:
        """The error as a share of what rounding explains: above 1 it does not."""
        if self.error == 0:
            return 0.0
        return self.error / self.explained if self.explained > 0 and math.isfinite(self.error) else math.inf


@dataclass(frozen=True)
class Comparison:
    """The gradient of one way of cutting a batch against the float64 mean of per-example gradients.

    Attributes:
        split: how the batch was cut, in words.
        layers: each layer's error; none where it was not measured.
        note: why it was not measured.
    """

    split: str
    layers: tuple[LayerError, ...] = ()
    note: str = ""

    @property
    def worst(self) -> LayerError | None:
        """The layer with the largest share of what rounding explains."""
        return max(self.layers, key=lambda layer: layer.share, default=None)

    @property
    def passed(self) -> bool | None:
        """Whether rounding explains all errors; None where it was not measured."""
        return all(layer.passed for layer in self.layers) if self.layers else None


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what, whether it holds (None: not measured), and what was seen."""

    name: str
    passed: bool | None
    seen: str


@dataclass(frozen=True)
class Finding:
    """A fault: its cause by name, the layer where it shows, and a sentence that says what to do.

    Attributes:
        cause: such as "batch normalisation" or "mean of means".
        layer: the path of a parameter at or before which it shows; None where no layer does it, such as a loss.
        sentence: what is wrong, where, and what to do.
    """

    cause: str
    layer: str | None
    sentence: str


@dataclass(frozen=True)
class Verification:
    """Whether an update is the mean of per-example gradients, and why not where it is not.

    Attributes:
        subject: what was verified: the model, the loss and the data, in words.
        n_examples: how many examples were looked at.
        n_parameters: N.
        checks: what was looked at beside the gradients.
        comparisons: gradients of several splits.
        findings: the faults; none where all is well.
        notes: what is no fault but good to know.
        also: the verification of a PyTorch step of the user's own, where it was asked for.

    Example:
        >>> import backbeat as bb
        >>> found = bb.verify(bb.mlp(hidden=(8,)), "iris")
        >>> found.passed, [finding.cause for finding in found.findings]
        (True, [])
    """

    subject: str
    n_examples: int
    n_parameters: int
    checks: tuple[Check, ...]
    comparisons: tuple[Comparison, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    also: Verification | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what could not be measured does not fail."""
        mine = not self.findings and all(check.passed is not False for check in (*self.checks, *self.comparisons))
        return mine and (self.also is None or self.also.passed)

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes that were found, each once, those of `also` behind."""
        mine = [finding.cause for finding in self.findings]
        return tuple(dict.fromkeys([*mine, *(self.also.causes if self.also else ())]))

    @property
    def answer(self) -> str:
        """The result in one sentence."""
        worst = self.worst
        if self.findings or any(check.passed is False for check in (*self.checks, *self.comparisons)):
            return f"{self.subject}: the update is not the mean of per-example gradients."
        room = "" if worst is None else f"; at most {worst.share:.0%} of what rounding explains is used"
        return f"{self.subject}: the update is the mean of per-example gradients{room}."

    @property
    def worst(self) -> LayerError | None:
        """The layer and split with the largest share of what rounding explains; None where none was compared."""
        found = [comparison.worst for comparison in self.comparisons if comparison.worst is not None]
        return max(found, key=lambda layer: layer.share, default=None)

    def sentences(self) -> Iterator[str]:
        """Yields the answer and the findings, each a sentence."""
        yield self.answer
        for finding in self.findings:
            yield f"{finding.cause}{f' at {finding.layer}' if finding.layer else ''}: {finding.sentence}"
        yield from self.notes

    def _repr_html_(self) -> str:
        """Returns what a notebook shows of it."""
        from ..report import verification_fragment

        return verification_fragment(self.record())

    def record(self) -> dict[str, Any]:
        """Returns all of it as plain values, as `--json` prints it."""
        return {
            "passed": self.passed, "subject": self.subject, "answer": self.answer, "n_examples": self.n_examples,
            "n_parameters": self.n_parameters,
            "checks": [{"name": c.name, "passed": c.passed, "seen": c.seen} for c in self.checks],
            "comparisons": [_columns(comparison) for comparison in self.comparisons],
            "findings": [{"cause": f.cause, "layer": f.layer, "sentence": f.sentence} for f in self.findings],
            "notes": list(self.notes), "also": None if self.also is None else self.also.record(),
        }  # fmt: skip


def _columns(comparison: Comparison) -> dict[str, Any]:
    layers = [{"layer": e.layer, "error": e.error, "explained": e.explained} for e in comparison.layers]
    return {"split": comparison.split, "passed": comparison.passed, "note": comparison.note, "layers": layers}
