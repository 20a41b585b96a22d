"""Count, mean and variance of columns over pieces, as scikit-learn's scaler takes them."""

from __future__ import annotations

from typing import Any

import numpy as np


class Moments:
    """Count, mean, variance, least and greatest of columns, over pieces, without empty cells.

    Pieces are put together as in Chan, Golub and LeVeque (1979). scikit-learn's `StandardScaler.partial_fit` makes a
    column NaN for good when one piece holds none of its values.

    Attributes:
        n: `[columns]`, how many values there were.
        mean: their mean, 0 where there were none.
        squares: the sum of their squared distances from it.
        low: the least, infinite where there were none.
        high: the greatest.

    Example:
        >>> moments = Moments()
        >>> for piece in ([[1.0]], [[np.nan], [3.0]]):
        ...     moments.add(np.array(piece))
        >>> moments.mean.tolist(), moments.scaler(np.array([0])).scale_.tolist()
        ([2.0], [1.0])
    """

    def __init__(self) -> None:
        self.n: Any = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.low: Any = np.inf
        self.high: Any = -np.inf

    def add(self, values: np.ndarray) -> None:
        """Counts more rows `[n, columns]`, float64 with NaN for empty cells."""
        there = ~np.isnan(values)
        n = there.sum(axis=0)
        least, most = np.fmin.reduce(values, axis=0, initial=np.inf), np.fmax.reduce(values, axis=0, initial=-np.inf)
        if not there.all():
            mean = np.where(there, values, 0.0).sum(axis=0) / np.maximum(n, 1)
            values = np.where(there, values, mean)  # which adds nothing to the squares
        else:
            mean = values.sum(axis=0) / max(1, len(values))
        apart, total = mean - self.mean, np.maximum(self.n + n, 1)
        self.squares = self.squares + ((values - mean) ** 2).sum(axis=0) + apart**2 * (self.n * n / total)
        self.mean = self.mean + np.where(n > 0, apart * (n / total), 0.0)
        self.low, self.high = np.minimum(self.low, least), np.maximum(self.high, most)
        self.n = self.n + n

    def scaler(self, where: np.ndarray) -> Any:
        """Returns scikit-learn's scaler of some of the columns, none of which is constant."""
        from sklearn.preprocessing import StandardScaler

        made: Any = StandardScaler()
        made.n_features_in_ = len(where)
        made.n_samples_seen_ = self.n[where]
        made.mean_ = self.mean[where]
        made.var_ = self.squares[where] / self.n[where]
        made.scale_ = np.sqrt(made.var_)
        return made
