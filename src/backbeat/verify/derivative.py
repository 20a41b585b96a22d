"""Derivatives that are no use: not finite, zero everywhere though the loss moves, or not those of the function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..operations import operations, places, traced
from .overflow import overflow
from .result import Check, Comparison, Finding
from .rounding import ROOM, Reference
from .subject import Subject

_STEPS = ("round", "floor", "ceil", "sign", "argmax", "argmin", "stop_gradient", "nextafter")
_DRAWN_PLACES = 3  # parameters beside the given ones at which a gradient must be zero too
_MOVES = (0.01, 0.1, 1.0)  # of a layer, relative to its size
_SHOWN = 3  # examples and layers that a sentence names


def whole_numbers(subject: Subject) -> tuple[Check, Finding | None]:
    """Returns whether whole numbers in model and loss stay within their type."""
    name = "whole numbers stay within their type"
    arguments = (subject.params, subject.x, subject.y, subject.keys())
    found = overflow(traced(lambda *given: subject.losses(*given), *arguments), *arguments)
    if found is None:
        return Check(name, True, f"{len(subject)} examples"), None
    operation, given, right = found
    kind = operation.outputs[0].dtype
    finding = Finding(
        "integer overflow", operation.layer,
        f"{operation.name}{operation.where} gives {given} where {right} is right, beyond what {kind} holds; convert to "
        "float32 before computing.",
    )  # fmt: skip
    return Check(name, False, finding.sentence), finding


def finite_gradients(subject: Subject, reference: Reference) -> tuple[Check, Finding | None, np.ndarray]:
    """Returns whether all single gradients are finite, and `[n]` which are."""
    name = "every example's gradient is finite"
    bad = ~np.isfinite(reference.lengths)
    fine: Any = ~bad.any(axis=1)
    if fine.all():
        return Check(name, True, f"{len(subject)} examples"), None, fine
    rows = subject.rows[~fine]
    layers = [subject.layers[place] for place in np.flatnonzero(bad.any(axis=0))]
    first = int(np.flatnonzero(~fine)[0])
    loss = float(np.asarray(subject.losses(*_one(subject, first))[1])[0])
    of_loss = "whose loss is finite" if math.isfinite(loss) else f"whose loss is {loss}"
    finding = Finding(
        "non-finite gradient", layers[0],
        f"the gradient of {_some('example', [int(row) for row in rows])} of the data ({of_loss}) is not finite in "
        f"{_some('layer', layers)}{_origin(subject, first)}; look for a root, a logarithm, a division or a power at "
        "0: jax.numpy.where must choose before them, not behind.",
    )  # fmt: skip
    return Check(name, False, finding.sentence), finding, fine


def without(subject: Subject, fine: np.ndarray) -> Subject:
    """Returns the subject without the examples that are not fine."""
    weight = None if subject.weight is None else subject.weight[fine]
    return replace(subject, x=subject.x[fine], y=subject.y[fine], weight=weight, rows=subject.rows[fine])


def _one(subject: Subject, row: int) -> tuple:
    keys = subject.keys()
    part = slice(row, row + 1)
    return subject.params, subject.x[part], subject.y[part], None if keys is None else keys[part]


_RISKY = {"sqrt": 0, "log": 0, "div": 1, "rsqrt": 0, "pow": 0, "integer_pow": 0, "atan2": 0, "log1p": 0, "acos": 0}


def _origin(subject: Subject, row: int) -> str:
    """Returns where the forward pass first meets what has no finite derivative, in words; "" where it is not found."""
    arguments = _one(subject, row)
    for operation in operations(traced(lambda *given: subject.losses(*given), *arguments), *arguments):
        values = [np.asarray(value) for value in operation.outputs if _is_float(value)]
        infinite = any(not np.isfinite(value).all() for value in values)
        risky = _RISKY.get(operation.name)
        at = None if risky is None else np.asarray(operation.inputs[risky])
        zero = at is not None and at.dtype.kind == "f" and bool((at == (-1 if operation.name == "log1p" else 0)).any())
        negative_power = operation.name != "integer_pow" or operation.parameters["y"] < 0
        if infinite or (zero and negative_power):
            return f", from {operation.name}{operation.where}"
    return ""


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(getattr(value, "dtype", np.int32), jnp.floating)


def _some(what: str, each: list) -> str:
    shown = ", ".join(map(str, each[:_SHOWN])) + (f" and {len(each) - _SHOWN} more" if len(each) > _SHOWN else "")
    return f"{what}{'s' if len(each) > 1 else ''} {shown}"


def moving_layers(subject: Subject, reference: Reference) -> tuple[Check, Finding | None, tuple[str, ...]]:
    """Returns whether each layer that moves the loss has a gradient, and notes on layers that move nothing."""
    name = "every layer that moves the loss has a gradient"
    still = [place for place in range(len(reference.layers)) if not reference.lengths[:, place].any()]
    if not still:
        return Check(name, True, f"{len(reference.layers)} layers"), None, ()
    moves = _Moves(subject)
    blocked = [place for place in still if moves.loss(place) and not moves.has_gradient(place)]
    idle = [reference.layers[place] for place in still if place not in blocked]
    notes = (f"{_some('layer', idle)}: the gradient is zero for all {len(subject)} examples.",) if idle else ()
    if not blocked:
        return Check(name, True, f"{len(reference.layers)} layers"), None, notes
    layers = [reference.layers[place] for place in blocked]
    step = next(iter(_steps(subject)), "")
    finding = Finding(
        "non-differentiable step", layers[-1],
        f"the gradient of {_some('layer', layers)} is zero everywhere, though moving it moves the loss"
        f"{f': {step}' if step else ''}; nothing is learned there: use a smooth function, or pass the gradient through "
        "on purpose, x + jax.lax.stop_gradient(round(x) - x).",
    )  # fmt: skip
    return Check(name, False, finding.sentence), finding, notes


class _Moves:
    """What moving a layer does to the mean loss of the examples, and to its gradient."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.leaves, self.structure = jax.tree.flatten(subject.params)
        batch = (subject.x, subject.y, subject.keys())
        self.mean = jax.jit(lambda params: subject.losses(params, *batch)[1].mean())
        self.gradient = jax.jit(jax.grad(lambda params: subject.losses(params, *batch)[1].mean()))
        self.rng = np.random.default_rng(subject.seed)

    def _moved(self, place: int | None, share: float) -> Any:
        """Returns the parameters with a layer (None: all) moved by a share of its size, in a random direction."""
        moved = list(self.leaves)
        for k in range(len(moved)) if place is None else (place,):
            leaf = np.asarray(moved[k])
            size = float(np.sqrt(np.mean(leaf.astype(np.float64) ** 2))) or 1.0
            moved[k] = jnp.asarray((leaf + share * size * self.rng.normal(size=leaf.shape)).astype(leaf.dtype))
        return jax.tree.unflatten(self.structure, moved)

    def loss(self, place: int) -> bool:
        """Returns whether moving a layer moves the loss by more than rounding."""
        start = float(self.mean(self.subject.params))
        rounding = 100 * ROOM * self.subject.epsilon * max(abs(start), 1e-30)
        return any(abs(float(self.mean(self._moved(place, share))) - start) > rounding for share in _MOVES)

    def has_gradient(self, place: int) -> bool:
        """Returns whether the layer has a gradient at other parameters, as a unit that happens to be off has."""
        found = (self.gradient(self._moved(None, share)) for share in np.linspace(0.5, 2, _DRAWN_PLACES))
        return any(np.asarray(jax.tree.leaves(gradient)[place]).any() for gradient in found)


def _steps(subject: Subject) -> Iterator[str]:
    """Yields the operations of the user's own through which no gradient passes, in words."""

    def flat(eqn: Any) -> bool:
        kind = eqn.primitive.name
        if kind == "convert_element_type":
            given, made = eqn.invars[0].aval.dtype, eqn.outvars[0].aval.dtype
            return jnp.issubdtype(given, jnp.floating) and not jnp.issubdtype(made, jnp.floating)
        return kind in _STEPS

    closed = traced(lambda *given: subject.losses(*given), *_one(subject, 0))
    for name, place in places(closed, flat):
        what = "a conversion to whole numbers" if name.startswith("convert") else name
        yield f"{what} ({place})" if place else what


def own_derivative(subject: Subject, failed: list[Comparison]) -> Finding:
    """Returns why gradients of a batch differ where predictions and losses keep examples apart."""
    closed = traced(lambda *given: subject.losses(*given), *_one(subject, 0))
    own = list(places(closed, lambda eqn: eqn.primitive.name.startswith("custom_vjp")))
    worst = max((c.worst for c in failed if c.worst is not None), key=lambda layer: layer.share)
    layers = dict.fromkeys(layer.layer for c in failed for layer in c.layers if not layer.passed)
    where = _some("layer", list(layers))
    if own:
        line = next((place for _, place in own if place), "")
        return Finding(
            "derivative of its own", worst.layer,
            f"predictions and losses keep examples apart, but the gradient of {where} does not: a derivative of its "
            f"own (custom_vjp{f', {line}' if line else ''}) uses the whole batch, or is not linear in the gradient "
            "that it is given, as one that clips or normalises is; compute it row by row, and clip the mean (clip=).",
        )  # fmt: skip
    return Finding(
        "unexplained", worst.layer,
        f"the gradient of {where} is not the mean of single examples' (relative error {worst.error:.2g} where rounding "
        f"explains {worst.explained:.2g}), and no known cause was found; please report it with the model.",
    )  # fmt: skip
