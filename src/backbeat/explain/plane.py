"""The plane in the space of weights that follows paths best, through the weights at the start.

Its directions are the two first principal components of all that the paths moved (Lorch 2016, "Visualizing deep network
training trajectories with PCA"; Li et al. 2018, arXiv:1712.09913, section 7): what is drawn is a cut through the loss
and a projection of the paths, and how much of each path lies in the plane is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_GRID, _MARGIN, _WILD = 41, 0.25, 3.0
_MOST = 150  # points of each path that decide the plane


@dataclass(frozen=True)
class Plane:
    """θ₀ + a u + b v, with u and v orthonormal.

    Attributes:
        origin: θ₀, `[N]`.
        u: `[N]`.
        v: `[N]`.
        xs: coordinates along u at which the surface is drawn.
        ys: along v.
        shares: how much of each path lies in the plane: 1 − Σ|part outside|² / Σ|θ − θ₀|².
    """

    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    xs: np.ndarray
    ys: np.ndarray
    shares: tuple[float, ...]

    @classmethod
    def through(cls, paths: list[np.ndarray], losses: list[np.ndarray]) -> Plane:
        """Returns the plane of some paths `[updates + 1, N]` from the same start, N at least 2.

        Args:
            paths: θ along each.
            losses: the loss along each; where it is far above that at the start, the drawing does not follow.

        Example:
            >>> path = np.array([[0.0, 0, 0], [1, 0, 0], [2, 1, 0]])
            >>> plane = Plane.through([path], [np.ones(3)])
            >>> plane.shares, np.allclose(plane.of(path[2]), np.linalg.norm(path[2]) * np.array([1, 0]), atol=0.3)
            ((1.0,), True)
        """
        origin = paths[0][0].astype(np.float64)
        moved = [path - origin for path in paths]
        few = [each[:: -(-len(each) // _MOST)] for each in moved]
        # each path counts alike, however many updates it has
        rows = np.concatenate([each / max(1e-12, np.linalg.norm(each)) for each in few])
        u, v = np.linalg.svd(np.concatenate([rows, np.zeros((2, rows.shape[1]))]), full_matrices=False)[2][:2]
        ends = np.sum([each[-1] for each in moved], axis=0)
        u, v = (direction if direction @ ends >= 0 else -direction for direction in (u, v))
        inside = [np.stack([each @ u, each @ v], axis=1) for each in moved]
        shares = tuple(
            min(1.0, float((part**2).sum() / total)) if (total := (each**2).sum()) > 0 else 1.0
            for part, each in zip(inside, moved, strict=True)
        )
        tame = [part[loss <= _WILD * max(loss[0], 1e-6)] for part, loss in zip(inside, losses, strict=True)]
        return cls(origin, u, v, *_axes(np.concatenate(tame)), shares)

    def of(self, theta: np.ndarray) -> list[float]:
        """Returns the coordinates of θ's projection, (a, b)."""
        return self.directed(theta - self.origin)

    def directed(self, vector: np.ndarray) -> list[float]:
        """Returns the coordinates of a vector's projection, such as a gradient's."""
        return [float(vector @ self.u), float(vector @ self.v)]

    def points(self) -> np.ndarray:
        """Returns θ at each point of the drawing, `[ys · xs, N]` float32, x fastest."""
        a, b = np.meshgrid(self.xs, self.ys)
        return (self.origin + a.reshape(-1, 1) * self.u + b.reshape(-1, 1) * self.v).astype(np.float32)


def _axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates around all points, as far in both directions, so that angles are seen as they are."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(1e-3, float((high - low).max()) / 2) * (1 + _MARGIN)
    x, y = (np.linspace(c - half, c + half, _GRID) for c in (low + high) / 2)
    return x, y
