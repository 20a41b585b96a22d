"""What is being seen, in one sentence for each picture, with the formula and the numbers of the moment in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .lesson import Column, Lesson
from .problems import TWO_DIGITS


def number(value: Any) -> str:
    """Returns a number with three digits, as sentences write it.

    Example:
        >>> number(0.123456), number(-12345.6), number(2e-7)
        ('0.123', '−12,300', '2e−07')
    """
    value = float(f"{value:.3g}")
    large = abs(value) >= 1000
    return (f"{value:,.0f}" if large and abs(value) < 1e7 else f"{value:.3g}").replace("-", "−")


def subscript(i: int) -> str:
    """Returns a number as an index below the line.

    Example:
        >>> "∇ℓ" + subscript(17)
        '∇ℓ₁₇'
    """
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(i))


def shown(lesson: Lesson, label: Any) -> str:
    """Returns a label as the page shows it."""
    if lesson.choices.problem == "two digits":
        return str(TWO_DIGITS[int(label)])
    return str(int(label)) if lesson.problem.classes else number(label)


def told(lesson: Lesson, column: int, k: int) -> dict[str, Any]:
    """Returns a frame of a lesson with its `sentences`; see `Lesson.frame`.

    Example:
        >>> from backbeat.explain import Choices
        >>> told(Lesson(Choices("line")), 1, 0)["sentences"]["average"][:38]
        'Averaged over the batch: ∇L = (1/8) Σ '
    """
    frame = lesson.frame(column, k)
    return frame | {"sentences": sentences(lesson, lesson.columns[column], frame)}


def sentences(lesson: Lesson, column: Column, frame: dict[str, Any]) -> dict[str, Any]:
    """Returns the sentences of a frame.

    Args:
        lesson: the lesson.
        column: the cadence that the frame is of.
        frame: its numbers, as `Lesson.frame` gives them.

    Returns:
        `examples`, `surface`: of the pictures while nothing is passed; and of an update, for each of its M examples
        `forward`, `back` and `gathered`, then `average`, `move`, `forgets`. Where all updates are made, `end`.
    """
    k, share = frame["update"], lesson.plane.shares[lesson.columns.index(column)]
    right = "" if frame["accuracy"] is None else f", and {frame['accuracy']:.0%} of the examples are predicted right"
    found: dict[str, Any] = {
        "examples": f"After {_count(k, 'update')} the mean loss over all |D| = {len(lesson.y)} examples is "
        f"{number(frame['data_loss'])}{right}.",
        "surface": f"The loss on a plane through the path: N = {lesson.n_parameters} weights have N directions, and "
        f"{_percent(share)} of what this path moved lies in the two that are drawn.",
    }  # fmt: skip
    if frame["done"]:
        end = "The loss grew without bound: γ is too large for this cadence." if column.diverged else "All is passed."
        return found | {"end": f"{end} {found['examples']}"}
    batch = [int(i) for i in frame["batch"]]
    found["forward"] = [_forward(lesson, column, frame, i) for i in batch]
    found["back"] = [
        f"Back: ∇ℓ{subscript(i)} says how ℓ{subscript(i)} changes with each of the N = {lesson.n_parameters} weights; "
        f"its length is {number(length)}."
        for i, length in zip(batch, frame["lengths"], strict=True)
    ]
    found["gathered"] = [_gathered(j + 1, len(batch), frame) for j in range(len(batch))]
    found["average"] = _average(frame)
    found["move"] = (
        f"θ ← θ − γ∇L with γ = {number(lesson.choices.learning_rate or 0)}: the weights move by γ · "
        f"{number(frame['mean_length'])} = {number(frame['moved'])}, and the loss over all {len(lesson.y)} examples "
        f"goes from {number(frame['data_loss'])} to {number(frame['next_loss'])}."
    )
    found["forgets"] = _forgets(lesson, column, frame)
    return found


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _percent(share: float) -> str:
    return "all" if share > 0.9995 else f"{100 * share:.3g} %"


def _forward(lesson: Lesson, column: Column, frame: dict[str, Any], i: int) -> str:
    loss, y, name = float(frame["data_losses"][i]), column.data[1], f"ℓ{subscript(i)}"
    prediction, label = column.predictions[frame["update"]][i], shown(lesson, lesson.y[i])
    said = f"Forward: for example {i}, whose label is {label}, the network gives "
    if lesson.choices.loss == "cross_entropy":
        p = float(np.exp(-loss))
        return f"{said}it the probability p = {number(p)}, so {name} = −log p = {number(loss)}."
    if prediction.shape[-1] == 1:
        target = float(y[i])
        one, other = number(prediction[0]), number(target)
        other = f"({other})" if target < 0 else other
        kind = f" (y = {number(target)})" if lesson.problem.classes else ""
        return f"{said}ŷ = {one}{kind}, so {name} = ½(ŷ − y)² = ½({one} − {other})² = {number(loss)}."
    return f"{said}ŷ of {len(prediction)} numbers, so {name} = ½‖ŷ − y‖² = {number(loss)}."


def _gathered(j: int, m: int, frame: dict[str, Any]) -> str:
    if m == 1:
        again = f", for the {_ordinal(frame['repeat'])} time" if frame["repeat"] > 1 else ""
        return f"The batch is this one example (M = 1){again}: its gradient is applied at once."
    waits = "θ has not moved since the batch began" if j < m else "the batch is complete"
    return f"{j} of M = {m} gradients are gathered: {waits}."


def _ordinal(n: int) -> str:
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _average(frame: dict[str, Any]) -> str:
    m, length = len(frame["batch"]), number(frame["mean_length"])
    if m == 1:
        return f"∇L = ∇ℓ{subscript(int(frame['batch'][0]))}, since M = 1: nothing is averaged; its length is {length}."
    longest = number(max(frame["lengths"]))
    return (
        f"Averaged over the batch: ∇L = (1/{m}) Σ ∇ℓᵢ, of length {length}; the longest of the {m} has {longest}, and "
        "what points in different ways cancels."
    )


def _forgets(lesson: Lesson, column: Column, frame: dict[str, Any]) -> str | None:
    """Returns what an update on a repeated batch did to all the other examples; None where nothing is repeated."""
    before, after = frame["others"]
    if column.job.plan.cadence.repeated is None or before is None:
        return None
    own = f"from {number(frame['batch_loss'])} to {number(float(np.mean(frame['after'])))}"
    wrong, skipped = len(frame["made_wrong"]), len(frame["satisfied"])
    lost = (
        f", {_count(wrong, 'example')} predicted right before {'is' if wrong == 1 else 'are'} now wrong"
        if wrong
        else ""
    )
    passed = f" Before it {_count(skipped, 'example')} took no update, being satisfied." if skipped else ""
    return (
        f"Update {frame['repeat']} in a row on one example: this example's loss goes {own}, the mean of all others "
        f"from {number(before)} to {number(after)}: {number(abs(after - before))} is "
        f"{'forgotten' if after > before else 'gained'}{lost}.{passed}"
    )
