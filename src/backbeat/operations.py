"""A function's operations one by one, with their values: where a fault begins, by the user's own line and layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from .models.refusal import is_theirs

_INSIDE = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where a call keeps what it calls
_LOOPS = ("scan", "while", "cond")  # which are one operation here
_SAME = ("convert_element_type", "broadcast_in_dim", "reshape", "transpose", "squeeze", "copy", "copy_p")


def path_of(path: tuple) -> str:
    """Returns the path of a parameter as one text, "dense_0/weight".

    Example:
        >>> [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path({"a": [1.0, 2.0]})]
        ['a/0', 'a/1']
    """
    parts = [getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path]
    return "/".join(map(str, parts)) or "the parameters"


class Operation(NamedTuple):
    """One operation.

    Attributes:
        name: of the primitive, such as "reduce_sum".
        parameters: the primitive's own.
        inputs: values.
        outputs: values.
        place: the user's line, as "net.py, line 12"; "" where none is known.
        layer: the parameter that was used last before it or in it; None before the first.
    """

    name: str
    parameters: dict[str, Any]
    inputs: list
    outputs: list
    place: str
    layer: str | None

    @property
    def where(self) -> str:
        """Where it stands, in words for the end of a clause: " behind dense_0/weight (net.py, line 12)"."""
        behind = f" behind {self.layer}" if self.layer else ""
        return behind + (f" ({self.place})" if self.place else "")


def traced(function: Callable, *arguments: Any) -> ClosedJaxpr:
    """Returns what a function computes for arguments of these shapes, as operations."""
    return jax.make_jaxpr(function)(*arguments)


def names_in(closed: Any) -> set[str]:
    """Returns the names of all operations, those inside loops and calls too.

    Example:
        >>> sorted(names_in(traced(lambda x: jnp.tanh(x) + 1, 0.5)))
        ['add', 'tanh']
    """
    jaxpr, found = getattr(closed, "jaxpr", closed), set()
    for eqn in jaxpr.eqns:
        inner = [part for value in eqn.params.values() for part in _jaxprs_in(value)]
        found |= {eqn.primitive.name} if not inner else {eqn.primitive.name, *(n for j in inner for n in names_in(j))}
    return found


def _jaxprs_in(value: Any) -> list:
    if isinstance(value, (tuple, list)):
        return [part for each in value for part in _jaxprs_in(each)]
    return [value] if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns") else []


def operations(closed: ClosedJaxpr, params: Any, *arguments: Any) -> Iterator[Operation]:
    """Yields the operations of a traced function of (params, *arguments), computed one after another.

    Args:
        closed: what `traced` gave.
        params: the parameters, whose paths name the layers.
        arguments: the others.
    """
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    values = [*jax.tree.leaves(params), *jax.tree.leaves(arguments)]
    names: list[str | None] = [*paths, *([None] * (len(values) - len(paths)))]
    yield from _Walk().run(closed.jaxpr, closed.consts, list(zip(values, names, strict=True)))


class _Walk:
    """What is known on the way: the parameter that was used last."""

    def __init__(self) -> None:
        self.layer: str | None = None

    def run(self, jaxpr: Any, consts: Any, given: list, place: str = "") -> Iterator[Operation]:
        """Yields the operations; `self.results` are then the values of the jaxpr's outputs with their names."""
        known: dict[Any, tuple[Any, str | None]] = {}
        known |= {var: (value, None) for var, value in zip(jaxpr.constvars, consts, strict=True)}
        known |= dict(zip(jaxpr.invars, given, strict=True))

        def read(var: Any) -> tuple[Any, str | None]:
            return (var.val, None) if isinstance(var, Literal) else known[var]

        for eqn in jaxpr.eqns:
            mine = [read(var) for var in eqn.invars]
            here = _place(eqn) or place
            inner = next((eqn.params[key] for key in _INSIDE if key in eqn.params), None)
            if inner is not None and eqn.primitive.name not in _LOOPS:
                yield from self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), mine, here)
                outputs = self.results
            else:
                outputs = yield from self._one(eqn, mine, here)
            known |= dict(zip(eqn.outvars, outputs, strict=True))
        self.results = [read(var) for var in jaxpr.outvars]

    def _one(self, eqn: Any, given: list, place: str) -> Iterator[Any]:
        inputs = [value for value, _ in given]
        named = [name for _, name in given if name is not None]
        bound = eqn.primitive.get_bind_params(eqn.params)
        with jax.numpy_dtype_promotion("standard"):
            made = eqn.primitive.bind(*inputs, **bound)
        outputs = list(made) if eqn.primitive.multiple_results else [made]
        passes = eqn.primitive.name in _SAME
        if named and not passes:
            self.layer = named[-1]
        yield Operation(eqn.primitive.name, dict(eqn.params), inputs, outputs, place, self.layer)
        return [(value, named[-1] if named and passes else None) for value in outputs]


def _place(eqn: Any) -> str:
    """Returns the user's own line that an operation comes from."""
    traceback = getattr(eqn.source_info, "traceback", None)
    for frame in traceback.frames if traceback is not None else ():
        if is_theirs(frame.file_name):
            return f"{Path(frame.file_name).name}, line {frame.line_num}"
    return ""


def same_values(one: Any, other: Any) -> bool:
    """Returns whether two arrays have the same bits; keys of random numbers count as equal.

    Example:
        >>> same_values(jnp.ones(2), jnp.ones(2)), same_values(jnp.ones(2), jnp.zeros(2))
        (True, False)
    """
    if jnp.issubdtype(getattr(one, "dtype", np.float32), jax.dtypes.prng_key):
        return True
    one, other = np.asarray(one), np.asarray(other)
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")


def first_difference(
    one: Iterator[Operation], other: Iterator[Operation], kept: np.ndarray | None = None
) -> Difference:
    """Returns where two computations of the same operations first differ, and what kinds of operations differ.

    Args:
        one: the operations of one of them.
        other: those of the other.
        kept: `[batch]` booleans, the rows that should be equal of an array whose first axis is the batch's; None: all.
    """
    first: Operation | None = None
    statistics: set[str] = set()
    for mine, theirs in zip(one, other, strict=False):
        for value, changed in zip(mine.outputs, theirs.outputs, strict=False):
            rows = kept is not None and np.shape(value)[:1] == kept.shape
            equal = same_values(value[kept], changed[kept]) if rows else same_values(value, changed)
            if equal or (not rows and kept is not None and mine.name in _SAME):
                continue
            first = first or mine
            if not rows or mine.place == first.place:
                statistics.add(mine.name)
    return Difference(first, frozenset(statistics))


class Difference(NamedTuple):
    """Where two computations first differ, and the names of the operations on what is common to the batch."""

    first: Operation | None
    statistics: frozenset[str]

    @property
    def where(self) -> str:
        """The place in words, "" where none was found."""
        return "" if self.first is None else self.first.where

    @property
    def layer(self) -> str | None:
        """The parameter behind which they differ."""
        return None if self.first is None else self.first.layer


def places(closed: Any, wanted: Callable[[Any], bool], around: str = "") -> Iterator[tuple[str, str]]:
    """Yields (name, user's line) of the operations that are wanted, without computing anything."""
    for eqn in getattr(closed, "jaxpr", closed).eqns:
        here = _place(eqn) or around
        if wanted(eqn):
            yield eqn.primitive.name, here
        for value in eqn.params.values():
            for part in _jaxprs_in(value):
                yield from places(part, wanted, here)


def coarsest(closed: Any) -> str:
    """Returns the coarsest kind of floating-point numbers that a function computes with.

    Example:
        >>> coarsest(traced(lambda x: (x.astype(jnp.bfloat16) * 2).astype(jnp.float32), jnp.ones(2)))
        'bfloat16'
    """
    found = {"float32"}

    def look(eqn: Any) -> bool:
        found.update(str(var.aval.dtype) for var in eqn.outvars if hasattr(var.aval, "dtype"))
        return False

    list(places(closed, look))
    return next((kind for kind in ("bfloat16", "float16") if kind in found), "float32")
