"""Small problems that can be seen whole: points in a plane, a curve, and handwritten digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..data import Reading, open_source

Arrays = tuple[np.ndarray, np.ndarray]
View = Literal["plane", "curve", "images"]


@dataclass(frozen=True)
class Problem:
    """A problem with few examples.

    Attributes:
        title: what it is called on the page.
        view: how its examples are drawn: points in a plane, points of a curve, or images.
        make: seed -> (x, y): inputs, and whole-number classes or values.
        network: what suits it.
        learning_rate: γ at which all cadences can be watched learning it.
        epochs: how often each example comes.
    """

    title: str
    view: View
    make: Callable[[int], Arrays]
    network: str
    learning_rate: float
    epochs: int

    @property
    def classes(self) -> bool:
        """Whether its labels are classes."""
        return self.view != "curve"


def _generator(seed: int, problem: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, problem]))


def _plane(points: np.ndarray, y: np.ndarray) -> Arrays:
    return points.astype(np.float32), y.astype(np.int32)


def clouds(seed: int, n: int = 48) -> Arrays:
    """Returns two round clouds of points that overlap a little.

    Example:
        >>> x, y = clouds(0)
        >>> x.shape, int(y.sum())
        ((48, 2), 24)
    """
    y = np.arange(n) % 2
    centres = np.array([[-0.75, -0.4], [0.75, 0.4]])
    return _plane(centres[y] + 0.5 * _generator(seed, 1).standard_normal((n, 2)), y)


def rings(seed: int, n: int = 60) -> Arrays:
    """Returns a ring around a disc.

    Example:
        >>> x, y = rings(0)
        >>> bool(np.hypot(*x[y == 0].T).max() < np.hypot(*x[y == 1].T).min())
        True
    """
    rng, y = _generator(seed, 2), np.arange(n) % 2
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = np.where(y == 0, 0.55 * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0.95, 1.3, n))
    return _plane(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1), y)


def corners(seed: int, n: int = 60) -> Arrays:
    """Returns the exclusive or: a class lies in two corners that face each other.

    Example:
        >>> x, y = corners(0)
        >>> bool((y == (x[:, 0] * x[:, 1] < 0)).all())
        True
    """
    points = _generator(seed, 3).uniform(0.12, 1.2, (n, 2))
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])[np.arange(n) % 4]
    return _plane(points * signs, np.arange(n) % 2)


def moons(seed: int, n: int = 60) -> Arrays:
    """Returns two half moons that reach into each other.

    Example:
        >>> moons(0)[0].shape
        (60, 2)
    """
    rng, y = _generator(seed, 4), np.arange(n) % 2
    angle = rng.uniform(0, np.pi, n)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.where(y == 0, 1, -1)[:, None]
    points += np.where(y == 0, -0.5, 0.5)[:, None] * [1, 0] + np.where(y == 0, -0.2, 0.2)[:, None] * [0, 1]
    return _plane(0.8 * points + 0.08 * rng.standard_normal((n, 2)), y)


def line(seed: int, n: int = 24) -> Arrays:
    """Returns points around a straight line.

    Example:
        >>> x, y = line(0)
        >>> x.shape, y.shape
        ((24, 1), (24,))
    """
    rng = _generator(seed, 5)
    x = rng.uniform(-1, 1, n)
    return x[:, None].astype(np.float32), (0.8 * x + 0.3 + 0.15 * rng.standard_normal(n)).astype(np.float32)


def wave(seed: int, n: int = 40) -> Arrays:
    """Returns points around a wave.

    Example:
        >>> bool(np.abs(wave(0)[1]).max() < 1.5)
        True
    """
    rng = _generator(seed, 6)
    x = rng.uniform(-1, 1, n)
    return x[:, None].astype(np.float32), (np.sin(3 * x) + 0.1 * rng.standard_normal(n)).astype(np.float32)


def digits(seed: int, classes: tuple[int, ...] = tuple(range(10)), each: int = 10) -> Arrays:
    """Returns handwritten digits of 8×8 pixels from 0 to 1, as many of each class; class k is the k-th of `classes`.

    Example:
        >>> x, y = digits(0, (3, 8), each=5)
        >>> x.shape, y.tolist()
        ((10, 8, 8), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    """
    raw: Any = open_source("digits", Reading()).read()
    images, labels = np.asarray(raw.x, np.float32), np.asarray(raw.y)
    rng = _generator(seed, 7)
    chosen = [rng.permutation(np.flatnonzero(labels == digit))[:each] for digit in classes]
    rows = np.stack(chosen, axis=1).ravel()
    return images[rows], np.tile(np.arange(len(classes)), each).astype(np.int32)


TWO_DIGITS = (3, 8)

PROBLEMS: dict[str, Problem] = {
    "clouds": Problem("Two clouds of points", "plane", clouds, "linear", 0.1, 12),
    "rings": Problem("A ring around a disc", "plane", rings, "mlp:8", 0.2, 40),
    "corners": Problem("Exclusive or", "plane", corners, "mlp:8", 0.2, 40),
    "moons": Problem("Two half moons", "plane", moons, "mlp:8", 0.2, 40),
    "line": Problem("A straight line", "curve", line, "linear", 0.1, 12),
    "wave": Problem("A wave", "curve", wave, "mlp:8:tanh", 0.05, 40),
    "two digits": Problem(
        "Handwritten 3 and 8", "images", lambda seed: digits(seed, TWO_DIGITS, each=24), "linear", 0.05, 10
    ),
    "digits": Problem("Handwritten digits, 0 to 9", "images", digits, "mlp:16", 0.1, 12),
}
