"""How noisy a batch's gradient is: the noise scale tr Σ / |G|², without bias, with its interval.

G is the mean gradient of all examples, Σ the covariance of one example's gradient around it. A batch of B examples
has E|∇L_B|² = |G|² + tr Σ / B, so that two squared lengths at one θ give both parts without bias: with m = mean |g_i|²
and n = |mean g_i|² of one batch,

    |G|²̂ = (B n − m) / (B − 1)        tr Σ̂ = (m − n) / (1 − 1/B)

(McCandlish, Kaplan, Amodei et al. 2018, arXiv:1812.06162). Each part is added up by itself over many updates and the
sums are divided once: a mean of ratios means nothing, for |G|²̂ of one batch is often near 0, or below. A batch of one
example gives no parts: the noise is not measured at M = 1.

Of N examples drawn without replacement |G|²̂ is low by tr Σ / N, exactly; so |G|²̂ + tr Σ̂ / N is that of the N.

Examples with weights: ω_i is the weight times what the loss counts in the example, h_i the gradient for each unit of
it. The batch's gradient is Σ p_i h_i with p_i = ω_i / Σω; m becomes Σ p_i |h_i|², and B what the weights leave of it,
1 / Σ p_i² (Kish 1965). Examples that do not count (ω = 0, ignored labels) are not there. This is without bias where
the weights say nothing of the gradients; where they do, it is the noise scale of the weighted distribution.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import SettingsError
from .norms import Lengths
from .norms import example_norms as example_norms

_ALONE = 1e-4  # of a batch's weight on all but one example: with less, rounding would be taken for noise
GROUPS = 20  # of updates or examples, for the jackknife


def unbiased_parts(examples: Any, mean: Any, share: Any) -> tuple[Any, Any]:
    """Returns (|G|²̂, tr Σ̂) of one batch, or of each of many; NaN for a batch of one example, which has no parts.

    A batch in which one example has all but a ten-thousandth of the weight counts as one of one example.

    Args:
        examples: m, the mean of |g_i|².
        mean: n, |mean g_i|².
        share: 1/B; Σ p_i² where examples have weights.

    Example:
        >>> unbiased_parts(2.0, 0.875, 1 / 4), unbiased_parts(2.0, 2.0, 1.0)
        ((0.5, 1.5), (nan, nan))
    """
    examples, mean, share = (np.asarray(a, np.float64) for a in (examples, mean, share))
    left = np.where((share > 0) & (share < 1 - _ALONE), 1 - share, np.nan)
    return _plain((mean - share * examples) / left), _plain((examples - mean) / left)


def parts_of_two_sizes(small: float, big: float, n_small: int, n_big: int) -> tuple[float, float]:
    """Returns (|G|²̂, tr Σ̂) from the squared gradient norms of batches of two sizes at the same θ.

    Args:
        small: |G_small|², best a mean over several batches.
        big: |G_big|² likewise.
        n_small: examples in the small batches.
        n_big: examples in the big ones.

    Raises:
        SettingsError: sizes that are not in order.

    Example:
        >>> squared, trace = parts_of_two_sizes(0.0410, 0.00280, 32, 512)
        >>> f"{squared:.4g} {trace:.4g} {trace / squared:.0f}"
        '0.0002533 1.304 5147'
    """
    if not 0 < n_small < n_big:
        raise SettingsError(f"n_small={n_small} and n_big={n_big} must be two batch sizes, the smaller one first.")
    return (n_big * big - n_small * small) / (n_big - n_small), (small - big) / (1 / n_small - 1 / n_big)


def adascale_gain(gradient_squared: float, trace: float, batch: float, base: float) -> float:
    """Returns how many updates of `base` examples one update of `batch` is worth: from 1 (no noise) to s = batch/base.

    (var + sqr) / (var/s + sqr) with var = tr Σ / base, sqr = |G|² (Johnson et al. 2020, arXiv:2007.05105; Pollux, OSDI
    2021). Where |G|² is not above 0, so that nothing but noise was seen, it is s.

    Example:
        >>> adascale_gain(1.0, 32.0, 256, 32), adascale_gain(0.0, 1.0, 64, 32), adascale_gain(1.0, 0.0, 64, 32)
        (1.7777777777777777, 2.0, 1.0)
    """
    scale, variance = batch / base, trace / base
    if gradient_squared <= 0:
        return scale
    return (variance + gradient_squared) / (variance / scale + gradient_squared)


@dataclass(frozen=True)
class NoiseScale:
    """The noise scale B_simple = tr Σ / |G|², in examples, with its 95 % interval.

    It is where the noise of a batch's gradient is as long as the gradient itself: well below it twice the batch is
    worth twice the updates, well above it next to nothing. It does not know the optimizer or the target.

    Attributes:
        gradient_squared: |G|² of the examples trained on; below 0 where the noise hides it.
        trace: tr Σ, of one example's gradient.
        scale: their ratio; NaN where |G|² is not above 0.
        low: the interval's lower end.
        high: its upper end, infinite where |G|² = 0 is within the error: then only `low` is said.
        n_updates: how many updates measured it, of batches with more than one example.
    """

    gradient_squared: float
    trace: float
    scale: float
    low: float
    high: float
    n_updates: int

    @property
    def known(self) -> bool:
        """Whether the interval has two ends."""
        return math.isfinite(self.scale) and math.isfinite(self.high)

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures by name."""
        return {**asdict(self), "known": self.known}

    def __str__(self) -> str:
        if self.n_updates == 0:
            return "noise scale: not measured, no batch had more than one example"
        over = f"over {self.n_updates:,} update{'s' * (self.n_updates != 1)}"
        if not self.known:
            least = f"at least {self.low:.3g} examples (95 %)" if self.low > 0 else "too few updates to say"
            return f"noise scale: not known, {least}, {over}"
        return f"noise scale {self.scale:.3g} examples (95 % interval {self.low:.3g} to {self.high:.3g}) {over}"


@dataclass(frozen=True)
class NoiseSums:
    """Sums of the parts over updates, in groups for the jackknife; two of them add up.

    Every twentieth update is of one group, so that all groups go along the whole run: then what changes on the way is
    in each of them alike and the interval is that of the measurement. Neighbouring updates have other examples, so
    their errors are those of independent draws.

    Attributes:
        columns: `[5, GROUPS]`: sums of |G|²̂, tr Σ̂, updates, their examples, and 1/share.
        n_examples: N where batches are drawn without replacement from so many, None where |G|²̂ is as it is.
    """

    columns: np.ndarray
    n_examples: int | None = None

    @classmethod
    def of(cls, measured: Lengths, sizes: np.ndarray, first: int, n_examples: int | None = None) -> NoiseSums:
        """Returns the sums over some consecutive updates.

        Args:
            measured: columns `[n]`.
            sizes: `[n]`, examples in each batch.
            first: the number of the first update, from 0.
            n_examples: see `NoiseSums`.
        """
        squared, trace = unbiased_parts(*measured)
        squared, trace = np.atleast_1d(squared), np.atleast_1d(trace)
        counts = np.isfinite(squared)
        share = np.broadcast_to(np.asarray(measured.share, np.float64), counts.shape)[counts]
        group = (first + np.flatnonzero(counts)) % GROUPS
        values = (squared[counts], trace[counts], np.ones(len(group)), np.asarray(sizes)[counts], 1 / share)
        return cls(np.stack([np.bincount(group, value, GROUPS) for value in values]), n_examples)

    def __add__(self, other: NoiseSums) -> NoiseSums:
        return NoiseSums(self.columns + other.columns, self.n_examples)

    def __mul__(self, factor: float) -> NoiseSums:
        return NoiseSums(self.columns * factor, self.n_examples)

    def scale(self) -> NoiseScale:
        """Returns the noise scale of all updates: a ratio of sums, its interval by leaving out one group at a time."""
        squared, trace, updates, examples, effective = self.columns.sum(axis=1)
        if not updates:
            return NoiseScale(math.nan, math.nan, math.nan, 0.0, math.inf, 0)
        # of N examples there count as many as the weights leave, if they leave as much as they left of the batches
        more = 0.0 if self.n_examples is None else examples / (effective * self.n_examples)
        groups = self.columns[:2, self.columns[2] > 0]
        return noise_scale(squared / updates, trace / updates, groups, more, round(updates))


def noise_scale(
    gradient_squared: float, trace: float, groups: np.ndarray, more: float = 0.0, n_updates: int = 1
) -> NoiseScale:
    """Returns tr Σ̂ / (|G|²̂ + more · tr Σ̂) with its interval.

    The jackknife is of the ratio turned over, |G|²̂ / tr Σ̂, which is well-behaved where |G|² is near 0; its ends, by
    Student's t, are turned back. Where it is below 0 the interval is laid around 0, so that `low` is not too high.

    Args:
        gradient_squared: the mean of |G|²̂.
        trace: the mean of tr Σ̂.
        groups: `[2, k]`, the sums of both over each group.
        more: 1/N where |G|²̂ is low by tr Σ/N, else 0.
        n_updates: how many updates this is the mean of.

    Example:
        >>> noise_scale(1.0, 30.0, np.array([[2.0, 2.0, 2.1, 1.9], [61.0, 59.0, 60.0, 60.0]])).known
        True
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        squared, traces = groups.sum(axis=1, keepdims=True) - groups
        return from_left_out(gradient_squared, trace, squared / traces, more, n_updates)


def from_left_out(
    gradient_squared: float, trace: float, without: np.ndarray, more: float = 0.0, n_updates: int = 1
) -> NoiseScale:
    """Returns the same as `noise_scale`, from the ratios |G|²̂ / tr Σ̂ that are found without one group each.

    Args:
        gradient_squared: the mean of |G|²̂.
        trace: the mean of tr Σ̂.
        without: `[k]`.
        more: as in `noise_scale`.
        n_updates: see there.

    Example:
        >>> found = from_left_out(1.0, 30.0, np.array([1 / 29, 1 / 30, 1 / 31]))
        >>> f"{found.scale:.3g} ({found.low:.3g} to {found.high:.3g})"
        '30 (25.7 to 36)'
    """
    whole = (float(gradient_squared + more * trace), float(trace))
    if not trace > 0:  # all gradients are the same, as far as float32 tells
        found = (0.0, 0.0, 0.0) if gradient_squared > 0 else (math.nan, 0.0, math.inf)
        return NoiseScale(*whole, *found, n_updates)
    inverse, error = whole[0] / whole[1], _jackknife_error(without)
    low = 1 / (max(inverse, 0.0) + error)
    high = 1 / (inverse - error) if inverse > error else math.inf
    return NoiseScale(*whole, 1 / inverse if inverse > 0 else math.nan, low, high, n_updates)


def _jackknife_error(without: np.ndarray) -> float:
    """Returns half the 95 % interval of Σ|G|²̂ / Σ tr Σ̂, from the ratios that leave out one group each."""
    from scipy.special import stdtrit

    k = len(without)
    if k < 2 or not np.isfinite(without).all():
        return math.inf
    variance = (k - 1) / k * ((without - without.mean()) ** 2).sum()
    return float(stdtrit(k - 1, 0.975) * math.sqrt(variance))


def _plain(value: Any) -> Any:
    return value if np.ndim(value) else float(value)
