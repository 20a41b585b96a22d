"""The float64 mean of per-example gradients, and how far from it float32 rounding alone may take a gradient.

Each example's gradient g_i is computed by itself, cast to float64 and averaged there: ḡ = Σ w g_i / Σ w c_i, where c_i
is what the loss counted in it. A float32 gradient of the batch may differ by rounding, layer by layer, by at most

    8 (D + ε √n A),   A = Σ w ‖g_i‖ / Σ w c_i,   D = Σ w ‖g_i' − g_i‖ / Σ w c_i,   ε = 2⁻²³

ε √n A is the rounding of a sum of n terms as it grows when roundings are independent (Higham, Accuracy and Stability of
Numerical Algorithms, 2002, §2.8, §4.2): A is not ‖ḡ‖, since gradients that cancel leave their roundings behind. D is
the rounding within one example's own gradient, measured: g_i' has every weight and every input moved by one rounding,
± ε of itself at random. A stable computation is as good as an exact one of such moved values (ibid., §1.5), so a deep
or badly conditioned network is allowed what it needs, and no other. 8 is the room for long inner products.
ε is that of the coarsest numbers that the model computes with: 2⁻⁷ where it uses bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .result import LayerError

EPSILON = 2.0**-23  # of float32
ROOM = 8.0


class Piece(NamedTuple):
    """Some examples' gradients, one array `[examples, ...]` a layer: as they are, and with all values moved by ε."""

    gradients: list[np.ndarray]
    moved: list[np.ndarray]
    counts: np.ndarray


@dataclass(frozen=True)
class Reference:
    """The float64 means of per-example gradients for several sets of weights.

    Attributes:
        layers: the names.
        weights: `[sets, n]`, how much each example counts in each set.
        sums: of each layer `[sets, size]`, Σ w g_i in float64.
        lengths: `[n, layers]`, ‖g_i‖.
        shifts: `[n, layers]`, ‖g_i' − g_i‖.
        counts: `[n]`, c_i.
        epsilon: ε.
    """

    layers: tuple[str, ...]
    weights: np.ndarray
    sums: list[np.ndarray]
    lengths: np.ndarray
    shifts: np.ndarray
    counts: np.ndarray
    epsilon: float = EPSILON

    @classmethod
    def of(
        cls, layers: tuple[str, ...], weights: np.ndarray, pieces: Iterable[Piece], epsilon: float = EPSILON
    ) -> Reference:
        """Returns the means of the examples that come in pieces, in order."""
        sums: list[np.ndarray] = []
        lengths, shifts, counts, start = [], [], [], 0
        for piece in pieces:
            n = len(piece.counts)
            flat = [g.reshape(n, -1).astype(np.float64) for g in piece.gradients]
            part = weights[:, start : start + n]
            mine = [_product(part, rows) for rows in flat]
            sums = mine if not sums else [total + more for total, more in zip(sums, mine, strict=True)]
            lengths.append(np.stack([_norms(rows) for rows in flat], axis=1))
            moved = (g.reshape(n, -1).astype(np.float64) for g in piece.moved)
            shifts.append(np.stack([_norms(m - rows) for m, rows in zip(moved, flat, strict=True)], axis=1))
            counts.append(np.asarray(piece.counts, np.float64))
            start += n
        assert start == weights.shape[1]
        by_example = [np.concatenate(column) for column in (lengths, shifts, counts)]
        return cls(layers, weights, sums, by_example[0], by_example[1], by_example[2], epsilon)

    def mean(self, which: int = 0) -> list[np.ndarray]:
        """Returns ḡ of a set, layer by layer, each `[size]`."""
        return [total[which] / self._divisor(which) for total in self.sums]

    def explained(self, which: int) -> np.ndarray:
        """Returns how far rounding may take each layer of a set's gradient, `[layers]`, as a length."""
        weight = self.weights[which]
        n = np.count_nonzero(weight)
        return (
            ROOM * (weight @ self.shifts + self.epsilon * np.sqrt(n) * (weight @ self.lengths)) / self._divisor(which)
        )

    def compare(self, found: list, which: int = 0) -> tuple[LayerError, ...]:
        """Returns the error of a gradient against the mean of a set, layer by layer."""
        typical = self.weights[which] @ self.lengths / self._divisor(which)
        errors = []
        for place, (layer, mean) in enumerate(zip(self.layers, self.mean(which), strict=True)):
            error = float(np.linalg.norm(np.asarray(found[place], np.float64).reshape(-1) - mean))
            scale = float(np.linalg.norm(mean)) or float(typical[place]) or 1.0
            errors.append(LayerError(layer, error / scale, float(self.explained(which)[place]) / scale))
        return tuple(errors)

    def _divisor(self, which: int) -> float:
        return float(self.weights[which] @ self.counts) or 1.0


def _product(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns weights @ rows, in which an example that does not count adds nothing, not even NaN."""
    counts = weights.any(axis=0)
    return weights[:, counts] @ rows[counts]


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows, axis=1)


def nudged(array: np.ndarray, rng: np.random.Generator, epsilon: float = EPSILON) -> np.ndarray:
    """Returns numbers each moved by one rounding, ± ε of itself at random; whole numbers as they are.

    Example:
        >>> (nudged(np.ones(3, np.float32), np.random.default_rng(0)) - 1).tolist()
        [1.1920928955078125e-07, 1.1920928955078125e-07, 1.1920928955078125e-07]
    """
    if array.dtype.kind != "f":
        return array
    signs = rng.integers(0, 2, array.shape).astype(array.dtype) * 2 - 1
    return (array * (1 + array.dtype.type(epsilon) * signs)).astype(array.dtype)
