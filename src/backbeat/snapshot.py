"""All that decides how a run goes on, at one moment between two stretches; and its form as arrays and JSON.

Taking one costs nothing: arrays on the device are never changed, so a snapshot only holds on to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .clock import Clock
from .follow import Follower, Window
from .noise import NoiseSums
from .norms import Lengths
from .plan import Cursor
from .repeat import Carry
from .update import State

_START = Clock()


class OtherStateError(Exception):
    """A state that was saved is not one of this model and this rule: other shapes."""


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands.

    Attributes:
        state: parameters and optimizer state.
        cursor: where the plan stands.
        clock: updates, examples, epochs and seconds so far.
        due: whether to evaluate before the next update.
        scores: of the newest evaluation, where it was made at this very moment: by part, then by name.
        best_loss: the lowest loss of the scored part so far; infinite for none.
        best_at: when that was.
        moved: when the weights were last changed.
        evaluated: when was last evaluated.
        spent: seconds of all evaluations, of the newest, and of the updates before that.
        update_seconds: seconds spent in updates.
        noise: the sums of what was measured of the noise, where it is watched.
        follower: what decides M, where it follows the noise.
        inside: where a batch stands that is still being repeated.
        block: the most examples that are computed at once, where memory was too short for what was set.
        rate_factor: on γ: below 1 after divergences that halved it.
        halved: how often it was halved, and how often at the newest point to go back to.
        changed: how many changes of the learning rate were made.
        safe: where the run goes back to if it diverges; None where it stops.
    """

    state: State
    cursor: Cursor
    clock: Clock
    due: bool = False
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    best_loss: float = math.inf
    best_at: Clock | None = None
    moved: Clock = _START
    evaluated: Clock | None = None
    spent: tuple[float, float, float] = (0.0, 0.0, 0.0)
    update_seconds: float = 0.0
    noise: NoiseSums | None = None
    follower: Follower | None = None
    inside: Carry | None = None
    block: int | None = None
    rate_factor: float = 1.0
    halved: tuple[int, int] = (0, 0)
    changed: int = 0
    safe: Snapshot | None = None


_KINDS = {kind.__name__: kind for kind in (Snapshot, Cursor, Clock, Follower, NoiseSums, Window, Lengths, Carry)}


def taken_apart(value: Any, arrays: list[np.ndarray]) -> Any:
    """Returns a snapshot, or what is in one, as JSON; its arrays are added to a list and stand there by number.

    Example:
        >>> arrays = []
        >>> taken_apart((1, math.inf, np.ones(2)), arrays), arrays
        ({'each': [1, {'float': 'inf'}, {'array': 0}]}, [array([1., 1.])])
    """
    if isinstance(value, State):
        return {"tree": [taken_apart(leaf, arrays) for leaf in jax.tree.leaves(value)]}
    if type(value).__name__ in _KINDS:
        names = [part.name for part in fields(value)] if is_dataclass(value) else value._fields
        return {"is": type(value).__name__, "has": {name: taken_apart(getattr(value, name), arrays) for name in names}}
    if isinstance(value, (tuple, list)):
        return {"each": [taken_apart(part, arrays) for part in value]}
    if isinstance(value, Mapping):
        return {"of": {str(name): taken_apart(part, arrays) for name, part in value.items()}}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    kind = {}
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        kind = {"key": str(jax.random.key_impl(value))}
        value = jax.random.key_data(value)
    arrays.append(np.asarray(value))
    return {"array": len(arrays) - 1, **kind}


def put_together(parts: Any, arrays: list[np.ndarray], like: State) -> Any:
    """Returns what was taken apart.

    Args:
        parts: the JSON.
        arrays: the arrays.
        like: a state of the same structure: an optimizer's own types are not in the JSON.

    Raises:
        OtherStateError: the state has other shapes than `like`.
    """
    if not isinstance(parts, dict):
        return parts
    if "array" in parts:
        array = arrays[parts["array"]]
        return jax.random.wrap_key_data(array, impl=parts["key"]) if "key" in parts else array
    if "float" in parts:
        return float(parts["float"])
    if "each" in parts:
        return tuple(put_together(part, arrays, like) for part in parts["each"])
    if "of" in parts:
        return {name: put_together(part, arrays, like) for name, part in parts["of"].items()}
    if "tree" in parts:
        return _as_tree([put_together(part, arrays, like) for part in parts["tree"]], like)
    return _KINDS[parts["is"]](**{name: put_together(part, arrays, like) for name, part in parts["has"].items()})


def _as_tree(leaves: list[Any], like: State) -> State:
    wanted, structure = jax.tree.flatten(like)
    if list(map(_shape, leaves)) != list(map(_shape, wanted)):
        raise OtherStateError("what it saved has other shapes than the parameters and the optimizer's state have here")
    return jax.tree.unflatten(structure, leaves)


def _shape(leaf: Any) -> tuple[tuple[int, ...], str]:
    return np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))
