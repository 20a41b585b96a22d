"""Whether one example's prediction and loss depend on the others of its batch, on its place in it, or on earlier calls.

An example is looked at in a batch, alone, with the batch in another order, and among other companions. Companions may
not change a bit, since the same program computes its row; the rest may change what rounding explains.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..operations import Difference, first_difference, names_in, operations, places, same_values, traced
from .result import Check, Finding
from .rounding import ROOM, nudged
from .subject import Subject

_LOOKED_AT = 9  # examples in a batch
_DRAWS = ("random_bits", "threefry2x32", "rng_bit_generator", "random_gamma", "rng_uniform")


@dataclass(frozen=True)
class Dependence:
    """On what an example's row depends beside itself."""

    companions: bool
    place: bool
    size: bool
    alone: np.ndarray  # rows of examples each in a batch of its own
    together: np.ndarray

    @property
    def none(self) -> bool:
        """Whether it depends on nothing else."""
        return not (self.companions or self.place or self.size)


class Rows:
    """Some examples of a subject as a batch: rows of x, y and keys that can be chosen and put in any order."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.n = subject, min(_LOOKED_AT, len(subject))
        self.keys = subject.keys()
        self.kept = np.arange(self.n) % 2 == 0

    def around(self, kept: np.ndarray) -> np.ndarray:
        """Returns which examples make the batch in which those that are kept have other companions."""
        places = np.arange(self.n)
        return np.where(kept, places, (places + 1) % self.n)

    def take(self, which: np.ndarray) -> tuple:
        """Returns (x, y, keys) of some examples."""
        return self.subject.x[which], self.subject.y[which], None if self.keys is None else self.keys[which]


def predictions_apart(subject: Subject) -> tuple[Check, Finding | None]:
    """Returns whether predictions in training depend on the example alone."""
    rows = Rows(subject)
    compiled = predicting(subject)
    found = _dependence(rows, compiled, subject)
    name = "an example's prediction depends on it alone"
    if found.none:
        return Check(name, True, _seen(rows.n)), None
    closed = traced(partial(_predict, subject), subject.params, *rows.take(np.arange(rows.n)))
    finding = _cause_of_predictions(subject, rows, found, closed)
    return Check(name, False, finding.sentence), finding


def losses_apart(subject: Subject) -> tuple[Check, Finding | None]:
    """Returns whether an example's loss depends on its own prediction and label alone, predictions being given."""
    rows, loss = Rows(subject), subject.loss
    compiled = predicting(subject)
    given = np.asarray(compiled(subject.params, *rows.take(np.arange(rows.n))))

    def function(params: Any, x: Any, y: Any, keys: Any) -> Array:
        total, count = loss(jnp.asarray(params)[x], jnp.asarray(y))  # x: whose predictions
        return jnp.stack([total, jnp.ones_like(total) if count is None else count], axis=1)

    numbers = _Numbered(subject)
    found = _dependence(numbers, jax.jit(function), subject, given)
    name = "an example's loss depends on its own prediction and label alone"
    if found.none:
        return Check(name, True, _seen(rows.n)), None
    closed = traced(function, given, *numbers.take(np.arange(rows.n)))
    finding = _cause_of_losses(str(loss), numbers, given, found, closed)
    return Check(name, False, finding.sentence), finding


class _Numbered(Rows):
    """The same batch with the examples' numbers instead of their inputs: predictions are looked up by them."""

    def take(self, which: np.ndarray) -> tuple:
        return which.astype(np.int32), self.subject.y[which], None


def _predict(subject: Subject, params: Any, x: Any, y: Any, keys: Any) -> Array:
    return subject.predict(params, x, keys)


@lru_cache(maxsize=4)
def predicting(subject: Subject) -> Callable[..., Array]:
    """Returns the compiled predictions in training: (params, x, y, keys) -> `[batch, ...]`."""
    return jax.jit(partial(_predict, subject))


def _seen(n: int) -> str:
    return f"{n} examples in a batch, alone, in another order, with other companions"


def _dependence(rows: Rows, compiled: Callable, subject: Subject, given: Any = None) -> Dependence:
    """Returns on what the rows of a function of (params, x, y, keys) depend."""
    params = subject.params if given is None else given
    every = np.arange(rows.n)

    def rows_of(params: Any, which: np.ndarray, *, moved: bool = False) -> np.ndarray:
        x, y, keys = rows.take(which)
        x = nudged(x, np.random.default_rng(0), subject.epsilon) if moved else x
        return np.asarray(compiled(params, x, y, keys), np.float64).reshape(len(which), -1)

    base = rows_of(params, every)
    rng = np.random.default_rng(subject.seed)
    moved_params = jax.tree.map(lambda leaf: nudged(np.asarray(leaf), rng, subject.epsilon), params)
    shift = np.linalg.norm(rows_of(moved_params, every, moved=True) - base, axis=1)
    allowed = ROOM * (shift + subject.epsilon * np.sqrt(base.shape[1]) * np.linalg.norm(base, axis=1))

    def differs(other: np.ndarray) -> bool:
        equal = same_values(base, other)
        return not equal and bool((~(np.linalg.norm(other - base, axis=1) <= allowed)).any())

    swaps = (rows.kept, ~rows.kept)
    companions = any(not same_values(base[kept], rows_of(params, rows.around(kept))[kept]) for kept in swaps)
    rolled = np.roll(every, 1)
    alone = np.concatenate([rows_of(params, every[i : i + 1]) for i in every])
    return Dependence(companions, differs(rows_of(params, rolled)[np.argsort(rolled)]), differs(alone), alone, base)


def _located(rows: Rows, params: Any, closed: Any) -> Difference:
    """Returns where a kept example's row first changes when its companions do."""
    every, difference = np.arange(rows.n), Difference(None, frozenset())
    for kept in (rows.kept, ~rows.kept):
        one, other = (operations(closed, params, *rows.take(which)) for which in (every, rows.around(kept)))
        difference = first_difference(one, other, kept)
        if difference.first is not None:
            break
    return difference


def _cause_of_predictions(subject: Subject, rows: Rows, found: Dependence, closed: Any) -> Finding:
    draws = names_in(closed) & set(_DRAWS)
    if found.companions:
        difference = _located(rows, subject.params, closed)
        if {"sqrt", "rsqrt"} & difference.statistics and "reduce_sum" in difference.statistics:
            return Finding(
                "batch normalisation", difference.layer,
                f"the model normalises by the statistics of the batch{difference.where}, so an example's gradient "
                "depends on the others; normalise within an example (layer or group normalisation), or by fixed "
                "statistics.",
            )  # fmt: skip
        if draws and difference.first is not None and difference.first.name in _DRAWS:
            return _drawn(difference.where, difference.layer)
        what = "" if difference.first is None else f": {difference.first.name}{difference.where}"
        return Finding(
            "mixed examples", difference.layer,
            f"the model mixes the examples of a batch{what}, so that there is no gradient of each example to average; "
            "compute along all axes but the first.",
        )  # fmt: skip
    if draws:
        place = next((here for _, here in places(closed, lambda eqn: eqn.primitive.name in _DRAWS)), "")
        layer = next((o.layer for o in operations(closed, subject.params, *rows.take(np.arange(rows.n)))
                      if o.name in _DRAWS), None)  # fmt: skip
        return _drawn(f" ({place})" if place else "", layer)
    if found.place:
        return Finding(
            "depends on the place", None,
            "what the model predicts for an example depends on its place in the batch, which changes with the way a "
            "batch is cut; use nothing that is numbered along the first axis.",
        )  # fmt: skip
    return Finding(
        "depends on the batch's size", None,
        "what the model predicts for an example depends on how many are in the batch, which changes with the way a "
        "batch is cut; divide by nothing that is counted along the first axis.",
    )  # fmt: skip


def _drawn(where: str, layer: str | None) -> Finding:
    return Finding(
        "position-keyed dropout", layer,
        f"random numbers are drawn for places of the batch{where}, so what is dropped for an example depends on the "
        "way the batch is cut; draw them from the example's own key: give the model apply_random(params, x, keys) and "
        "draw row by row, jax.vmap over keys.",
    )  # fmt: skip


def _cause_of_losses(name: str, rows: Rows, given: np.ndarray, found: Dependence, closed: Any) -> Finding:
    total, alone = found.together[:, 0], found.alone[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = alone / total
    divided = np.allclose(ratio, rows.n, rtol=1e-3) and not found.companions
    if divided or (found.companions and rows.n > 1 and np.ptp(total) == 0 and np.ptp(alone) > 0):
        how = "is divided by the batch's size" if divided else "is the mean of the batch, the same for all"
        return Finding(
            "mean of means", None,
            f"the loss {name} of an example {how}: a short batch or block would then count as much as a full one; "
            "give each example its own loss, backbeat divides once.",
        )  # fmt: skip
    if found.companions:
        line = _located(rows, given, closed).where
        return Finding(
            "in-batch loss", None,
            f"the loss {name} mixes the examples of a batch{line}: an example's loss changed "
            "when only the others did; compute each one from its own prediction and label, without a mean, a maximum "
            "or other examples' predictions.",
        )  # fmt: skip
    return Finding(
        "depends on the place" if found.place else "depends on the batch's size", None,
        f"the loss {name} of an example depends on its place in the batch or on the batch's size, which change with "
        "the way a batch is cut; use nothing that is numbered or counted along the first axis.",
    )  # fmt: skip


def stateless(subject: Subject) -> tuple[Check, Finding | None]:
    """Returns whether model and loss are the same computation each time they are called, found by tracing them anew."""
    name = "the same computation at every call"
    arguments = (subject.params, *Rows(subject).take(np.arange(min(2, len(subject)))))
    traces = [traced(lambda *given: subject.losses(*given), *arguments) for _ in range(3)]
    first = next((other for other in traces[1:] if not _same_program(traces[0], other)), None)
    if first is None:
        return Check(name, True, "traced three times"), None
    difference = first_difference(operations(traces[0], *arguments), operations(first, *arguments))
    finding = Finding(
        "stateful layer", difference.layer,
        f"the model or the loss computes something else at each call{difference.where}: it keeps a value from one call "
        "to the next, or draws from NumPy's or Python's random numbers, and what was there when it was compiled stays "
        "for the run; compute it from parameters and inputs, and draw from jax.random with the example's key.",
    )  # fmt: skip
    return Check(name, False, finding.sentence), finding


def _same_program(one: Any, other: Any) -> bool:
    texts = [re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr)) for closed in (one, other)]
    same = len(one.consts) == len(other.consts) and all(map(same_values, one.consts, other.consts))
    return same and texts[0] == texts[1]
