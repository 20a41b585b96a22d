"""θ: the parameters of a model as one vector in R^N, the form in which the theory speaks of them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import SettingsError
from ..types import Theta


def n_parameters(params: Any) -> int:
    """Returns N, the number of parameters.

    Example:
        >>> import numpy as np
        >>> n_parameters({"dense_0": {"weight": np.zeros((64, 32)), "bias": np.zeros(32)}})
        2080
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def theta(params: Any) -> Theta:
    """Returns θ, `[N]`: all parameters in one vector, in the order of `jax.tree.leaves` (names sorted, rows first).

    Example:
        >>> import numpy as np
        >>> theta({"weight": np.array([[1.0, 2.0]], np.float32), "bias": np.array([0.5], np.float32)}).tolist()
        [0.5, 1.0, 2.0]
    """
    leaves = jax.tree.leaves(params)
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]) if leaves else jnp.zeros(0)


def from_theta(vector: Theta, like: Any) -> Any:
    """Returns parameters of the shapes of `like`, filled from a vector `[N]`: the inverse of `theta`.

    Raises:
        SettingsError: a vector of another length.

    Example:
        >>> import numpy as np
        >>> params = {"weight": np.array([[1.0, 2.0]], np.float32), "bias": np.array([0.5], np.float32)}
        >>> from_theta(theta(params) * 2, params)["weight"].tolist()
        [[2.0, 4.0]]
    """
    if vector.shape != (n_parameters(like),):
        raise SettingsError(
            f"theta has the shape {list(vector.shape)} but the model has {n_parameters(like)} parameters; give a "
            "vector [N]."
        )
    leaves, structure = jax.tree.flatten(like)
    pieces, start = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        pieces.append(jnp.reshape(vector[start : start + size], leaf.shape).astype(leaf.dtype))
        start += size
    return jax.tree.unflatten(structure, pieces)
