"""Which examples are trained on and which are held out: by a share and a seed, each class in proportion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import SettingsError


class Split(NamedTuple):
    """Indices of the two parts, each sorted.

    Attributes:
        train: `[n_train]` int32.
        held_out: `[n_held_out]` int32.
    """

    train: np.ndarray
    held_out: np.ndarray


def split(y: np.ndarray, held_out: float, seed: int) -> Split:
    """Returns the training and the held-out part.

    Class labels are held out in proportion (largest remainders); values at random. The same seed gives the same parts.

    Args:
        y: labels; integers `[n]` are classes.
        held_out: the share to hold out, from 0 (nothing) to less than 1.
        seed: what decides which examples.

    Raises:
        SettingsError: a share outside [0, 1), or one that leaves a part empty.

    Example:
        >>> split(np.array([0, 0, 0, 0, 1, 1, 1, 1]), held_out=0.25, seed=0).held_out.shape
        (2,)
    """
    if isinstance(held_out, (bool, str)) or held_out is None or not 0 <= held_out < 1:
        raise SettingsError(f"held_out={held_out!r} must be a share from 0 (nothing) to less than 1, for example 0.2.")
    n = len(y)
    n_held = round(n * held_out)
    if held_out and not 0 < n_held < n:
        nothing = "none to train on" if n_held else "none to hold out"
        raise SettingsError(f"held_out={held_out} of {n} examples leaves {nothing}; choose another share, or 0.")
    key = np.array([seed, 0x73706C6974], dtype=np.uint64)  # the second word says "split"
    keys = np.random.Philox(key=key).random_raw(n)
    shuffled = np.argsort(keys, kind="stable")
    if y.ndim == 1 and y.dtype.kind == "i":
        shuffled = shuffled[np.argsort(_ranks(y[shuffled]), kind="stable")]
    held = np.sort(shuffled[:n_held]).astype(np.int32)
    return Split(np.setdiff1d(np.arange(n, dtype=np.int32), held, assume_unique=True), held)


def _ranks(classes: np.ndarray) -> np.ndarray:
    """Returns (k + ½) / class size for the k-th example of each class: taking the smallest takes all classes alike."""
    _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    within = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.empty(len(classes))
    ranks[order] = (within + 0.5) / np.repeat(counts, counts)
    return ranks
