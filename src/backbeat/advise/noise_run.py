"""The noise scale along a run: at points of it, from the gradient of each of many examples at the same parameters.

At each point the examples of a fixed sample give m, the mean of |g_i|², and n, |mean g_i|², and so both parts without
bias (see `noise`); the parts are averaged over the points, each for itself, and divided once. The interval is a
jackknife over groups of examples, the same groups at all points. Where the sample is all that is trained on, the value
is that of the data exactly, and the interval that of where the data came from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..advance import Engine
from ..clock import Duration
from ..config import Job
from ..losses import Loss
from ..models import Model
from ..noise import GROUPS, NoiseScale, from_left_out, unbiased_parts
from ..nonfinite import NotFinite
from ..norms import watched_parts
from ..stretch import Data


@dataclass(frozen=True)
class NoiseAlong:
    """The noise scale at points along a run, and of all of them together.

    Attributes:
        updates: at which updates.
        points: the noise scale there.
        train_losses: the mean loss of the sample there.
        whole: that of the parts averaged over the points.
        n_examples: how many examples were looked at.
        n_train: of how many.
    """

    updates: tuple[int, ...]
    points: tuple[NoiseScale, ...]
    train_losses: tuple[float, ...]
    whole: NoiseScale
    n_examples: int
    n_train: int

    @property
    def sentence(self) -> str:
        """What was seen, and what it is good for."""
        of = f"{self.n_examples:,} of {self.n_train:,} examples" if self.n_examples < self.n_train else "all examples"
        first, last = self.points[0], self.points[-1]
        seen = f"from the gradients of {of} at {len(self.points)} points of a run"
        if not self.whole.known:
            least = f"; it is at least {self.whole.low:.3g} examples" if self.whole.low > 0 else ""
            return f"The noise scale tr Σ / |G|² is not known {seen}{least}."
        along = f", from {first.scale:.3g} at its start to {last.scale:.3g} at its end" if last.known else ""
        return (
            f"The noise scale tr Σ / |G|² is {self.whole.scale:.3g} examples (95 % interval {self.whole.low:.3g} to "
            f"{self.whole.high:.3g}) {seen}{along}: a rough guide to B_crit that does not know the optimizer or the "
            "target."
        )

    def record(self) -> dict[str, Any]:
        """Returns it as plain numbers."""
        columns = zip(self.updates, self.train_losses, self.points, strict=True)
        points = [{"updates": u, "train_loss_mean": loss, **point.as_dict()} for u, loss, point in columns]
        return {
            **self.whole.as_dict(), "value": self.whole.scale, "points": points, "n_examples": self.n_examples,
            "n_train": self.n_train,
        }  # fmt: skip


def noise_along(job: Job, data: Data, updates: int, n_points: int = 12, *, most: int = 4096) -> NoiseAlong:
    """Returns the noise scale along a run's first updates, at points equally far apart.

    Args:
        job: what is trained; its duration and evaluation do not matter.
        data: on the device.
        updates: up to which update.
        n_points: how many points, its beginning and end among them.
        most: how many examples are looked at, drawn by the job's seed where there are more.

    Example:
        >>> import backbeat as bb
        >>> from backbeat.config import Settings, resolve
        >>> job = resolve(bb.linear(), "digits", Settings.given({"every": 32}))
        >>> found = noise_along(job, job.device_data(), 40, n_points=3)
        >>> found.updates, found.n_examples, found.whole.known
        ((0, 20, 40), 1438, True)
    """
    train = job.split.train
    keys = np.random.Generator(np.random.Philox(job.settings.seed))
    rows = keys.permutation(train)[: min(most, len(train))]
    groups = np.array_split(rows, min(GROUPS, len(rows)))
    engine, found, reached = Engine(job, data), [], []
    for point in np.unique(np.linspace(0, updates, n_points).round().astype(int)):
        try:
            while engine.clock.updates < point:
                engine.advance([Duration(float(point), "updates")])
        except NotFinite:
            break
        found.append(_sums(job, engine.state.params, groups))
        reached.append(engine.clock.updates)
    more = 1 / len(train)
    points = [_scale([sums], more) for sums in found]
    losses = [float(sums.loss.sum() / sums.weight.sum()) for sums in found]
    return NoiseAlong(tuple(reached), tuple(points), tuple(losses), _scale(found, more), len(rows), len(train))


@dataclass(frozen=True)
class _Sums:
    """Sums over the examples of each of k groups, at one point of a run; [k] unless said otherwise.

    Of the groups' gradients S_j only what |S − S_j|², the length without one, follows from.
    """

    whole: float  # |S|², S = Σ S_j
    along: np.ndarray  # S · S_j
    own: np.ndarray  # |S_j|²
    loss: np.ndarray
    weight: np.ndarray
    squares: np.ndarray  # Σ ω |h|²
    weights: np.ndarray  # Σ ω²

    def parts(self, without: int | None) -> tuple[float, float]:
        """Returns |G|²̂ and tr Σ̂ from all groups, or all but one."""
        kept = np.arange(len(self.loss)) != (-1 if without is None else without)
        weight = self.weight[kept].sum()
        if not weight:
            return math.nan, math.nan
        left = 0.0 if without is None else self.own[without] - 2 * self.along[without]
        mean = (self.whole + left) / weight**2
        squared, trace = unbiased_parts(self.squares[kept].sum() / weight, mean, self.weights[kept].sum() / weight**2)
        return float(squared), float(trace)


def _sums(job: Job, params: Any, groups: list[np.ndarray]) -> _Sums:
    """Returns the sums over groups of examples, each computed in the same shape."""
    run = _group_program(job.model, job.loss)
    longest, data, gradients, sums = max(map(len, groups)), job.dataset, [], []
    for rows in groups:
        filled = np.concatenate([rows, np.repeat(rows[:1], longest - len(rows))])
        weight = (np.arange(longest) < len(rows)).astype(np.float32)
        if data.weight is not None:
            weight = weight * np.asarray(data.weight)[filled]
        gradient, *others = run(params, *(jnp.asarray(a) for a in (data.x[filled], data.y[filled], weight)))
        gradients.append(np.asarray(gradient))
        sums.append([float(one) for one in others])
    total: Any = np.sum(gradients, axis=0, dtype=np.float64)
    return _Sums(
        float(total @ total), np.array([float(total @ g) for g in gradients]),
        np.array([float(np.sum(np.square(g, dtype=np.float64))) for g in gradients]), *np.array(sums).T,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _group_program(model: Model, loss: Loss) -> Any:
    @jax.jit
    def sums(params: Any, x: Any, y: Any, weight: Any) -> tuple:
        parts, squares = watched_parts(model, loss, params, x, y, weight)
        flat = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(parts.gradient)])
        return flat, parts.loss, parts.weight, squares.examples, squares.weights

    return sums


def _scale(points: list[_Sums], more: float) -> NoiseScale:
    """Returns the noise scale of the parts averaged over points, with its jackknife over groups."""
    k = len(points[0].loss)
    squared, trace = np.mean([point.parts(None) for point in points], axis=0)
    left = [np.mean([point.parts(group) for point in points], axis=0) for group in range(k)] if k > 1 else []
    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.array([float(np.divide(*pair)) for pair in left])
    return from_left_out(squared, trace, without, more, len(points))
