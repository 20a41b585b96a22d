"""Examples that stay in the host's memory: a compiled program fetches those that it needs, a block at a time.

On the CPU, JAX takes an array as it is where that begins at a multiple of 64 bytes, and copies any other; NumPy's own
large arrays begin 16 bytes into a page. Small ones are copied. A large one stays where it is, so that a run needs the
array once and a bounded amount beside it: `MOST_COPIED_BYTES` at most, and the numbers of the blocks in work. One that
lies in files (`Packed`) is read there; a disk is told before what a program will fetch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.buffer_callback import buffer_callback

from ...errors import DataError
from .ahead import Ahead
from .packed import Packed

MOST_COPIED_BYTES = 1 << 28  # 256 MiB
_ALIGNMENT = 64  # bytes

_held: WeakValueDictionary[int, np.ndarray | Packed | Ahead] = WeakValueDictionary()
_keys = count()
_problems: list[DataError] = []  # what went wrong in fetches; XLA makes another exception of it


@jax.tree_util.register_pytree_node_class
class HostRows:
    """An array `[n, ...]` in the host's memory or in files that is indexed as one on the device is, by index arrays.

    In a compiled program it is a number by which the array is found, so that arrays of one shape share the program.
    Programs do not keep the array alive.

    Example:
        >>> array = np.arange(6.0, dtype=np.float32).reshape(3, 2)
        >>> jax.jit(lambda rows, where: rows[where])(HostRows(array), jnp.array([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    def __init__(self, array: np.ndarray | Packed) -> None:
        self._array = array
        self._key, self._example = _registered(array), jax.ShapeDtypeStruct(array.shape[1:], array.dtype)

    def __getitem__(self, where: Array) -> Array:
        """Returns the examples `[..., *example]` at `where`; an index out of range gives the nearest."""
        result = jax.ShapeDtypeStruct((*where.shape, *self._example.shape), self._example.dtype)
        return jnp.asarray(buffer_callback(_fetch, result, vmap_method="broadcast_all")(self._key, where))

    def foreseen(self, requests: Iterable[np.ndarray]) -> HostRows:
        """Returns the same for one run of a program that will fetch these examples in this order.

        Where the array lies in files, a disk is told of them ahead.
        """
        if not isinstance(self._array, Packed):
            return self
        ahead = Ahead(self._array, requests)
        rows = self.tree_unflatten(self._example, (_registered(ahead),))
        rows._array = ahead
        return rows

    def tree_flatten(self) -> tuple[tuple[Any], jax.ShapeDtypeStruct]:
        """Returns the number that JAX traces, and what a program is compiled for."""
        return (self._key,), self._example

    @classmethod
    def tree_unflatten(cls, example: jax.ShapeDtypeStruct, children: tuple[Any]) -> HostRows:
        """Returns what `tree_flatten` took apart."""
        rows = object.__new__(cls)
        (rows._key,), rows._example, rows._array = children, example, None
        return rows


def _registered(array: np.ndarray | Packed | Ahead) -> Any:
    """Returns the number by which a running program finds an array, as long as that is held elsewhere."""
    key = next(_keys)
    _held[key] = array
    return np.int32(key)


def _fetch(context: Any, out: Any, key: Any, where: Any) -> None:
    """Copies examples into a buffer of the running program; a vectorised one gives a key for each of its runs."""
    array = _held[int(np.asarray(key).reshape(-1)[0])]
    if isinstance(array, np.ndarray):
        np.take(array, np.asarray(where), axis=0, out=np.asarray(out), mode="clip")  # any other mode copies once more
        return
    try:
        array.take(np.asarray(where), np.asarray(out))
    except DataError as error:
        _problems.append(error)
        raise


def foreseen(data: Any, requests: Iterable[np.ndarray]) -> Any:
    """Returns a `stretch.Data` for one run of a program that will fetch these examples in this order.

    It must be held until the run is over; see `HostRows.foreseen`. Inputs on the device need nothing and stay.
    """
    return data._replace(x=data.x.foreseen(requests)) if isinstance(data.x, HostRows) else data


@contextmanager
def reading_errors() -> Iterator[None]:
    """Makes the sentence of a failed read of what XLA makes of it, an exception of its own with a long text."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # the second where it is called and not waited for
        if not _problems or "callback" not in str(error):
            raise
        problem = _problems[-1]
        _problems.clear()
        raise problem from None


def on_device(array: np.ndarray | Packed) -> Any:
    """Returns an array as programs take it: on the device, or a large one that JAX would copy in the host's memory.

    Example:
        >>> on_device(np.zeros((3, 2), np.float32)).shape
        (3, 2)
    """
    if isinstance(array, Packed):
        return HostRows(array)
    as_it_is = array.ctypes.data % _ALIGNMENT == 0 and array.flags.c_contiguous
    if jax.default_backend() == "cpu" and array.nbytes > MOST_COPIED_BYTES and not as_it_is:
        return HostRows(array)
    # jax.device_put takes an aligned array as it is on the CPU; jnp.asarray would copy it
    return jax.device_put(array)
