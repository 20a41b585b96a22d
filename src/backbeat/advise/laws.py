"""How the best learning rate depends on the batch size, by the law of the optimizer in use, fitted to tuned rates.

With B the batch size, and ε and B_n two numbers that are found from the rates tuned for some sizes:

    SGD, momentum, Nesterov    γ(B) = ε / (1 + B_n / B)                   rises in proportion, then is flat
    Adam and its relatives     γ(B) = 2 ε / (√(B_n / B) + √(B / B_n))     rises as √B, is highest at B_n, falls again

(McCandlish et al. 2018, arXiv:1812.06162; Li et al. 2024, arXiv:2405.14578. Well below B_n they are the linear rule of
Goyal et al. 2017, arXiv:1706.02677, and the square root of Malladi et al. 2022, arXiv:2205.10287.) A law gives a start
within about a factor 2 and not an answer: what it gives is refined by short runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import SettingsError

_BY_GRADIENT = ("sgd", "momentum", "nesterov")  # the update is as long as the gradient; else about as long as the rate
_GRID_ERROR = 0.3  # of a tuned rate's logarithm: rates are tried a factor 2 apart
_UNSURE = math.log(10)  # of log B_n before anything is known: within about a factor 100 of the middle of the sizes


@dataclass(frozen=True)
class RateLaw:
    """A law with its two numbers.

    Attributes:
        by_gradient: whether it is SGD's; else Adam's.
        highest: ε, the highest rate.
        noise: B_n, in examples.
        residual: root mean square of log(tuned / law): 0.7 is a factor 2; 0 with one size.
        tuned: batch size -> the rate that was tuned for it.
    """

    by_gradient: bool
    highest: float
    noise: float
    residual: float
    tuned: Mapping[int, float] = field(default_factory=dict)

    def rate(self, batch_size: float) -> float:
        """Returns the law's γ for a batch size.

        Example:
            >>> sgd, adam = RateLaw(True, 1.0, 64, 0.0), RateLaw(False, 1.0, 64, 0.0)
            >>> sgd.rate(64), adam.rate(64), round(adam.rate(16), 6), round(adam.rate(256), 6)
            (0.5, 1.0, 0.8, 0.8)
        """
        return self.highest * _shape(self.by_gradient, batch_size / self.noise)

    def start(self, batch_size: float) -> float:
        """Returns γ to begin with: that of the nearest size tuned, carried over by the law."""
        if not self.tuned:
            return self.rate(batch_size)
        near = min(self.tuned, key=lambda m: abs(math.log(m / batch_size)))
        return self.tuned[near] * self.rate(batch_size) / self.rate(near)

    @property
    def text(self) -> str:
        """The law in words, with its numbers."""
        factor = f"{math.exp(self.residual):.3g}"
        near = "lie on it" if factor == "1" else f"are within a factor {factor} of it"
        about = f"B_n = {self.noise:,.3g}; tuned rates {near}"
        if self.by_gradient:
            return f"γ(M) = {self.highest:.3g} / (1 + B_n/M), {about}"
        return f"γ(M) = {2 * self.highest:.3g} / (√(B_n/M) + √(M/B_n)), {about}"

    def record(self, sizes: Iterable[int]) -> dict[str, Any]:
        """Returns it as plain numbers, with its rates on a fine grid over some batch sizes, to be drawn.

        Args:
            sizes: batch sizes.
        """
        low, high = math.log(min(sizes)), math.log(max(sizes))
        rows = [{"batch_size": m, "learning_rate": self.rate(m)} for m in np.exp(np.linspace(low, high, 60)).tolist()]
        return {"text": self.text, "residual": self.residual, "highest": self.highest, "noise": self.noise,
                "rows": rows}  # fmt: skip


def fit_law(optimizer: str, tuned: Mapping[int, float]) -> RateLaw:
    """Returns the law of an optimizer as it fits tuned rates best, in log space.

    What is known beforehand of B_n, within about a factor 100 of the sizes' middle, decides where the sizes do not:
    with one of them, or with some that all lie on the law's straight part.

    Args:
        optimizer: its name; see above for which law it has.
        tuned: batch size -> the best rate found for it, one or more.

    Raises:
        SettingsError: no tuned rate.

    Example:
        >>> law = fit_law("sgd", {m: 0.8 / (1 + 100 / m) for m in (1, 16, 256, 4096)})
        >>> round(law.highest, 1), round(law.noise), round(law.rate(100), 2)
        (0.8, 99, 0.4)
    """
    from scipy.optimize import minimize_scalar

    if not tuned:
        raise SettingsError("a law of the learning rate needs the tuned rate of one batch size or more.")
    by_gradient = optimizer in _BY_GRADIENT
    sizes, logs = np.array(list(tuned), float), np.log(list(tuned.values()))
    middle = float(np.mean(np.log(sizes)))

    def off(log_noise: float) -> np.ndarray:
        return logs - np.log([_shape(by_gradient, m / math.exp(log_noise)) for m in sizes])

    def cost(log_noise: float) -> float:
        each = off(log_noise)
        before = ((log_noise - middle) / _UNSURE) ** 2
        return float(((each - each.mean()) ** 2).sum() / _GRID_ERROR**2 + before)

    starts = np.linspace(math.log(sizes.min()) - 5, math.log(sizes.max()) + 5, 41)
    near = min(starts, key=cost)
    step = starts[1] - starts[0]
    found = minimize_scalar(cost, bounds=(near - step, near + step), method="bounded", options={"xatol": 1e-6})
    best = off(float(found.x))  # pyright: ignore[reportAttributeAccessIssue]
    residual = float(np.sqrt(np.mean((best - best.mean()) ** 2)))
    noise = math.exp(float(found.x))  # pyright: ignore[reportAttributeAccessIssue]
    return RateLaw(by_gradient, math.exp(best.mean()), noise, residual, dict(tuned))


def second_moment_decay(decay: float, batch_size: float, base: float) -> float:
    """Returns Adam's β₂ for another batch size, so that it forgets after as many examples: β₂^(B'/B).

    Marek et al. 2025 (arXiv:2507.07101).

    Args:
        decay: β₂, as it suits `base`.
        batch_size: B'.
        base: B.

    Example:
        >>> round(second_moment_decay(0.95, 1, 16), 4)
        0.9968
    """
    return decay ** (batch_size / base)


def _shape(by_gradient: bool, ratio: float) -> float:
    """Returns γ/ε at B/B_n."""
    return 1 / (1 + 1 / ratio) if by_gradient else 2 / (ratio**-0.5 + ratio**0.5)
