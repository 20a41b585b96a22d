"""Whole numbers that leave their type: each operation on them computed again in 64 bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from ..operations import Operation, names_in, operations

_WATCHED = (
    "add", "sub", "mul", "neg", "dot_general", "reduce_sum", "reduce_prod", "cumsum", "cumprod", "integer_pow",
    "convert_element_type", "shift_left",
)  # fmt: skip
_CHECKED = ("int8", "int16", "int32", "uint8", "uint16")  # uint32 wraps on purpose: random numbers, hashes


def overflow(closed: ClosedJaxpr, params: Any, *arguments: Any) -> tuple[Operation, Any, Any] | None:
    """Returns the first operation whose whole numbers left their type, with what it gave and what is right.

    Example:
        >>> from backbeat.operations import traced
        >>> cube = traced(lambda params, x: x * x * x, {}, jnp.int8(6))
        >>> operation, found, right = overflow(cube, {}, jnp.int8(6))
        >>> operation.name, int(found), int(right)
        ('mul', -40, 216)
    """
    if not names_in(closed) & set(_WATCHED):
        return None
    for operation in operations(closed, params, *arguments):
        output = operation.outputs[0]
        if operation.name in _WATCHED and str(getattr(output, "dtype", "")) in _CHECKED:
            right = _wide(operation)
            found = np.asarray(output)
            wrong = np.atleast_1d(np.asarray(right) != found)
            if wrong.any():
                place = tuple(np.argwhere(wrong)[0])
                return operation, np.atleast_1d(found)[place], np.atleast_1d(np.asarray(right))[place]
    return None


def _wide(operation: Operation) -> np.ndarray:
    """Returns what an operation on whole numbers gives in 64 bits; of a conversion, the number towards zero."""
    if operation.name == "convert_element_type":
        value = np.asarray(operation.inputs[0])
        return np.trunc(value.astype(np.float64)) if value.dtype.kind == "f" else value.astype(np.int64)
    primitive: Any = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "shift_left": np.left_shift,
    }.get(operation.name)  # fmt: skip
    wide = [np.asarray(value).astype(np.int64) for value in operation.inputs]
    if primitive is not None:
        return np.asarray(primitive(*wide))
    with jax.enable_x64(True):
        return np.asarray(_bound_wide(operation, wide))


def _bound_wide(operation: Operation, wide: list[np.ndarray]) -> Any:
    given, (first, *rest) = operation.parameters, [jnp.asarray(value) for value in wide]
    if operation.name == "dot_general":
        return jax.lax.dot_general(first, rest[0], given["dimension_numbers"])
    if operation.name == "integer_pow":
        return jax.lax.integer_pow(first, given["y"])
    if operation.name in ("cumsum", "cumprod"):
        function = getattr(jax.lax, operation.name)
        return function(first, axis=given["axis"], reverse=given["reverse"])
    return (jnp.sum if operation.name == "reduce_sum" else jnp.prod)(first, axis=tuple(given["axes"]))
