"""What an update does with the mean gradient: plain SGD, θ ← θ − γ∇L, or any Optax rule, once per update.

The learning rate γ is an argument of every update, not a constant of the rule: so that one compiled program serves
every learning rate, several of them side by side, and any schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from .errors import SettingsError, nearest

Factory = Callable[..., Any]  # learning rate -> an Optax transformation


def _momentum(rate: Any) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


def _nesterov(rate: Any) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9, nesterov=True)


OPTIMIZERS: dict[str, Factory] = {
    "sgd": optax.sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "lion": optax.lion,
    "lamb": optax.lamb,
}
_MULTI_STEPS = (
    "optimizer=MultiSteps runs its rule on every part of a batch; give the rule inside it, and the batch size as "
    "every=..."
)
_OWN_DECAY = ("adamw", "lion", "lamb")  # these take weight_decay themselves, decoupled from the gradient


@dataclass(frozen=True)
class Optimizer:
    """An update rule: `factory(rate)` gives an Optax transformation, or `fixed` is one that holds its own rate.

    Attributes:
        name: what it is called in settings and reports.
        factory: learning rate -> transformation, None where `fixed` is given.
        fixed: a user's own transformation, whose learning rate cannot be tuned from outside.
        weight_decay: λ; for adamw, lion and lamb decoupled, otherwise λθ is added to the gradient (½λ|θ|² to the loss).
        clip: the largest norm of the mean gradient, None for any (Pascanu et al. 2013); the batch's, not a block's.
    """

    name: str
    factory: Factory | None = None
    fixed: optax.GradientTransformation | None = None
    weight_decay: float = 0.0
    clip: float | None = None

    @property
    def tunable(self) -> bool:
        """Whether it takes a learning rate from outside."""
        return self.factory is not None

    def rule(self, rate: Any) -> Any:
        """Returns the Optax transformation for a learning rate (a number or a traced scalar)."""
        if self.factory is None:
            assert self.fixed is not None
            rule = self.fixed
        elif self.weight_decay and self.name in _OWN_DECAY:
            rule = self.factory(rate, weight_decay=self.weight_decay)
        elif self.weight_decay:
            rule = optax.chain(optax.add_decayed_weights(self.weight_decay), self.factory(rate))
        else:
            rule = self.factory(rate)
        return rule if self.clip is None else optax.chain(optax.clip_by_global_norm(self.clip), rule)

    def init(self, params: Any) -> Any:
        """Returns the optimizer's state before the first update; refuses `optax.MultiSteps` hidden inside a rule."""
        with jax.numpy_dtype_promotion("standard"):
            state = self.rule(0.0).init(params)
        kind = optax.MultiStepsState
        if any(isinstance(node, kind) for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))):
            raise SettingsError(_MULTI_STEPS)
        return state

    def apply(self, mean_gradient: Any, state: Any, params: Any, rate: Array) -> tuple[Any, Any]:
        """Returns (new parameters, new state) of one update."""
        with jax.numpy_dtype_promotion("standard"):  # Optax multiplies counts and rates of different types
            changes, state = self.rule(rate).update(mean_gradient, state, params)
        return jax.tree.map(lambda p, change: p + change.astype(p.dtype), params, changes), state

    def __str__(self) -> str:
        extras = [f"weight decay {self.weight_decay:g}"] if self.weight_decay else []
        extras += [f"clip {self.clip:g}"] if self.clip is not None else []
        return ", ".join([self.name, *extras])


def optimizer_for(optimizer: Any, *, weight_decay: float = 0.0, clip: float | None = None) -> Optimizer:
    """Returns the update rule that a user's value stands for.

    Args:
        optimizer: a name ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "lion", "lamb"), a
            function from a learning rate to an Optax transformation (`optax.adam`), or such a transformation.
        weight_decay: λ, 0 or more.
        clip: the largest norm of the mean gradient, more than 0.

    Raises:
        SettingsError: an unknown name, with the nearest one; a number out of range; `optax.MultiSteps`, whose update
            rule runs on every part of a batch, which changes the update (`every` does what it is used for).

    Example:
        >>> str(optimizer_for("adam", clip=1.0))
        'adam, clip 1'
    """
    decay = _number(weight_decay)
    if not decay >= 0:
        raise SettingsError(f"weight_decay={weight_decay!r} must be a number, 0 or more.")
    bound = None if clip is None else _number(clip)
    if bound is not None and not bound > 0:
        raise SettingsError(f"clip={clip!r} must be a number, more than 0, or None for no clipping.")
    options = {"weight_decay": decay, "clip": bound}
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise SettingsError(f"optimizer={optimizer!r} is not known; {nearest(optimizer, OPTIMIZERS)}")
        return Optimizer(optimizer, OPTIMIZERS[optimizer], **options)
    if isinstance(optimizer, optax.MultiSteps):
        raise SettingsError(_MULTI_STEPS)
    if isinstance(optimizer, optax.GradientTransformation):
        return Optimizer("own Optax transformation", fixed=optimizer, **options)
    if callable(optimizer):
        return Optimizer(getattr(optimizer, "__name__", "own rule"), optimizer, **options)
    raise SettingsError(
        f"optimizer={optimizer!r} is not known; give a name, optax.adam, or an Optax transformation; "
        f"{nearest('', OPTIMIZERS)}"
    )


def _number(value: Any) -> float:
    """Returns a value as a finite number, NaN where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def global_norm(tree: Any) -> Array:
    """Returns the Euclidean norm of a gradient, over all parameters."""
    return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))
