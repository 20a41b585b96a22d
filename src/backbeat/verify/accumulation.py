"""What an accumulated gradient is made of: how much each example counts in it, and the mistake that such shares show.

A gradient that is any sum of single examples' gradients, found = Σ a_i g_i, gives its shares a_i away: least squares
finds them where the g_i are linearly independent, as they are where there are more parameters than examples. In the
mean of n examples each share is 1/n; every usual mistake of gradient accumulation has shares of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from .result import Finding

NEAR = 0.03  # shares that differ less count as the same
_INDEPENDENT = 1e-3  # of the longest, what must be left of a gradient of length 1 beside the others
_LEFT = 1e-3  # of a gradient that no shares explain: more is no sum of single gradients


def independent(gradients: np.ndarray) -> np.ndarray:
    """Returns which of the gradients `[n, size]` are linearly independent, ascending; none that is zero or not finite.

    Example:
        >>> independent(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [1.0, 1.0]])).tolist()
        [1, 3]
    """
    lengths = np.linalg.norm(gradients, axis=1)
    usable: np.ndarray = np.flatnonzero(np.isfinite(lengths) & (lengths > 1e-6 * np.nanmax(lengths, initial=0.0)))
    usable = usable[np.argsort(-lengths[usable], kind="stable")]
    if not len(usable):
        return usable
    units = gradients[usable] / lengths[usable][:, None]
    found: tuple = scipy.linalg.qr(units.T, mode="r", pivoting=True)
    left, order = np.abs(np.diag(found[0])), found[1]
    return np.sort(usable[order[: len(left)][left > _INDEPENDENT * left[0]]])


@dataclass(frozen=True)
class Shares:
    """How much each example counts in a gradient.

    Attributes:
        used: those of the update's own examples, in their order, times the sum of their counts: 1 in their mean.
        counts: of those examples, what the loss counts in each.
        earlier: likewise of examples that belong to updates before.
        others: of those that were not handed over yet.
        left: the length of what no shares explain, relative to the gradient.
    """

    used: np.ndarray
    counts: np.ndarray
    earlier: np.ndarray
    others: np.ndarray
    left: float

    @classmethod
    def of(
        cls, single: np.ndarray, found: np.ndarray, used: list[int], earlier: list[int], counts: np.ndarray
    ) -> Shares:
        """Returns the shares of single gradients `[n, size]` in a found one `[size]`.

        Args:
            single: the gradients.
            found: the sum.
            used: the places of the update's own examples.
            earlier: of those handed over before.
            counts: `[n]`, what the loss counts in each example.

        Example:
            >>> shares = Shares.of(np.eye(4)[:3], np.array([0.5, 0.5, 0.0, 0.0]), [0, 1], [2], np.ones(3))
            >>> shares.used.tolist(), shares.earlier.tolist(), shares.left
            ([1.0, 1.0], [0.0], 0.0)
        """
        scale: np.ndarray = np.linalg.norm(single, axis=1)
        share = np.linalg.lstsq((single / scale[:, None]).T, found, rcond=None)[0] / scale
        length = float(np.linalg.norm(found)) or 1.0
        left = float(np.linalg.norm(found - share @ single)) / length
        others = [place for place in range(len(single)) if place not in used and place not in earlier]
        times = share * counts[used].sum()
        return cls(
            times[used], counts[used], times[[place for place in earlier if place not in used]], times[others], left
        )

    @property
    def mean(self) -> float:
        """Their mean, each as much as it counts: 1 in the mean of the examples."""
        return float(self.used @ self.counts / (self.counts.sum() or 1.0))


def mistake_of(shares: Shares, scale: float, name: str) -> Finding | None:
    """Returns the mistake that the shares of an update show; None where they show none.

    Args:
        shares: of the examples.
        scale: what the loss is known to be multiplied by.
        name: of the update.
    """
    used, n = shares.used / scale, len(shares.used)
    if np.abs(shares.earlier).max(initial=0.0) > NEAR * max(1.0, np.abs(shares.used).max(initial=0.0)):
        return Finding(
            "forgotten zero_grad", None,
            f"{name} holds gradients of {_n(np.abs(shares.earlier) > NEAR, 'example')} of updates before it: gradients "
            "are kept from one update to the next; call optimizer.zero_grad() once before the first backward pass of "
            "each update.",
        )  # fmt: skip
    if shares.left > _LEFT:
        return Finding(
            "in-batch loss", None,
            f"{name} is no sum of its examples' gradients: {shares.left:.0%} of its length is left, so an example's "
            "loss in the step depends on the others of its batch, or is not the one given; compute each example's loss "
            "from its own prediction and label.",
        )  # fmt: skip
    gone = np.abs(used) < NEAR * np.abs(used).max()
    if gone.any():
        which = "only the last of them count" if not gone[-1] and gone[0] else "the others count alone"
        return Finding(
            "examples lost", None,
            f"{name}: {_n(gone, 'example')} of {n} count nothing, {which}: gradients were cleared between backward "
            "passes; call optimizer.zero_grad() once for each update, before the first backward pass and not inside "
            "the loop.",
        )  # fmt: skip
    if np.ptp(used) <= NEAR * np.abs(used).max():
        return None if abs(shares.mean / scale - 1) <= NEAR else _wrong_division(shares.mean / scale, name)
    own = used * shares.counts
    if np.ptp(shares.counts) > 0 and np.ptp(own) <= NEAR * np.abs(own).max():
        return Finding(
            "mean of means", None,
            f"{name} is the mean of each example's own mean, whatever counts in it: an element of a short example "
            "counts more than one of a long one; sum the losses of all elements and divide once, by how many count.",
        )  # fmt: skip
    return Finding(
        "mean of means", None,
        f"{name} is a mean of means: {_runs(used)}, where each should count 1: a micro-batch with fewer examples, "
        "labels or weight counts as much as a full one; sum the losses of each micro-batch and divide by the size of "
        "the whole batch.",
    )  # fmt: skip


def _wrong_division(factor: float, name: str) -> Finding:
    if factor > 1:
        return Finding(
            "missing division", None,
            f"{name} is {factor:.3g} times the mean of its examples' gradients: the mean losses of micro-batches are "
            f"added up (or their sums), so the learning rate is {factor:.3g} times the one given; divide by the size "
            "of the whole batch.",
        )  # fmt: skip
    return Finding(
        "divided too often", None,
        f"{name} is {factor:.3g} times the mean of its examples' gradients: it is divided by more than there is, as by "
        "a fixed number of micro-batches where there were fewer; divide by the size of the whole batch, as it is.",
    )  # fmt: skip


def _n(which: np.ndarray, what: str) -> str:
    n = int(np.count_nonzero(which))
    return f"{n} {what}{'s' if n != 1 else ''}"


def _runs(used: np.ndarray) -> str:
    """Returns how much examples count, in words: runs of equal ones, the first few."""
    edges = np.flatnonzero(np.abs(np.diff(used)) > NEAR * np.abs(used).max()) + 1
    parts = np.split(used, edges)
    words = [f"{len(part)} count{'s' if len(part) == 1 else ''} {part.mean():.2f} each" for part in parts]
    return ", ".join(words[:4]) + (f" and so on ({len(parts)} groups)" if len(parts) > 4 else "")


def clipped_mean(found: list[np.ndarray], mean: list[np.ndarray]) -> bool:
    """Returns whether a gradient is its mean clipped: by its length, each layer's length, or each number.

    Example:
        >>> mean = [np.array([3.0, 4.0])]
        >>> [clipped_mean([np.array(each)], mean) for each in ([0.6, 0.8], [2.0, 2.0], [0.8, 0.6])]
        [True, True, False]
    """
    largest = max(float(np.abs(part).max(initial=0.0)) for part in found)
    numbers = all(_near(part, np.clip(whole, -largest, largest)) for part, whole in zip(found, mean, strict=True))
    return numbers or all(_shorter(part, whole) for part, whole in zip(found, mean, strict=True))


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(other))


def _shorter(part: np.ndarray, whole: np.ndarray) -> bool:
    length = float(np.linalg.norm(whole))
    if length == 0:
        return not part.any()
    factor = float(np.vdot(part, whole)) / length**2
    return 0 < factor <= 1 + 1e-4 and _near(part, factor * whole)
