"""Names for arrays: the axes that annotations of the mathematics use, checked at every call in tests.

Axes: `batch`, the examples of one batch; `N`, the parameters. Inputs, labels and predictions are `[batch, ...]` with
whatever follows left to the model, so they are plain arrays.
"""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

PerExample = Float[Array, "batch"]  # one number for each example: losses, counts, weights
PerExampleGradients = Float[Array, "batch N"]  # a row of R^N for each example
Scalar = Float[Array, ""]  # a sum over a batch, or a mean
Theta = Float[Array, "N"]  # the parameters as a vector
