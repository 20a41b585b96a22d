"""Examples that stay in the host's memory: a compiled program fetches those that it needs, a block at a time.

On the CPU, JAX takes an array as it is where that begins at a multiple of 64 bytes, and copies any other; NumPy's own
large arrays begin 16 bytes into a page. Small ones are copied. A large one stays where it is, so that a run needs the
array once and a bounded amount beside it: `MOST_COPIED_BYTES` at most, and the numbers of the blocks in work.
"""

from __future__ import annotations

from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.buffer_callback import buffer_callback

MOST_COPIED_BYTES = 1 << 28  # 256 MiB
_ALIGNMENT = 64  # bytes

_held: WeakValueDictionary[int, np.ndarray] = WeakValueDictionary()
_keys = count()


@jax.tree_util.register_pytree_node_class
class HostRows:
    """An array `[n, ...]` in the host's memory that is indexed as one on the device is, by arrays of indices only.

    In a compiled program it is a number by which the array is found, so that arrays of one shape share the program. The
    array is not kept alive.

    Example:
        >>> array = np.arange(6.0, dtype=np.float32).reshape(3, 2)
        >>> jax.jit(lambda rows, where: rows[where])(HostRows(array), jnp.array([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    def __init__(self, array: np.ndarray) -> None:
        key = next(_keys)
        _held[key] = array
        self._key: Any = np.int32(key)
        self._example = jax.ShapeDtypeStruct(array.shape[1:], array.dtype)

    def __getitem__(self, where: Array) -> Array:
        """Returns the examples `[..., *example]` at `where`; an index out of range gives the nearest."""
        result = jax.ShapeDtypeStruct((*where.shape, *self._example.shape), self._example.dtype)
        return jnp.asarray(buffer_callback(_fetch, result, vmap_method="broadcast_all")(self._key, where))

    def tree_flatten(self) -> tuple[tuple[Any], jax.ShapeDtypeStruct]:
        """Returns the number that JAX traces, and what a program is compiled for."""
        return (self._key,), self._example

    @classmethod
    def tree_unflatten(cls, example: jax.ShapeDtypeStruct, children: tuple[Any]) -> HostRows:
        """Returns what `tree_flatten` took apart."""
        rows = object.__new__(cls)
        (rows._key,), rows._example = children, example
        return rows


def _fetch(context: Any, out: Any, key: Any, where: Any) -> None:
    """Copies examples into a buffer of the running program; a vectorised one gives a key for each of its runs."""
    array = _held[int(np.asarray(key).reshape(-1)[0])]
    np.take(array, np.asarray(where), axis=0, out=np.asarray(out), mode="clip")  # any other mode copies once more


def on_device(array: np.ndarray) -> Any:
    """Returns an array as programs take it: on the device, or a large one that JAX would copy in the host's memory.

    Example:
        >>> on_device(np.zeros((3, 2), np.float32)).shape
        (3, 2)
    """
    as_it_is = array.ctypes.data % _ALIGNMENT == 0 and array.flags.c_contiguous
    if jax.default_backend() == "cpu" and array.nbytes > MOST_COPIED_BYTES and not as_it_is:
        return HostRows(array)
    # jax.device_put takes an aligned array as it is on the CPU; jnp.asarray would copy it
    return jax.device_put(array)
