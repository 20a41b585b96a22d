"""A bare scan in JAX, as somebody who knows it writes it for one network: the limit that an interface is measured by.

An epoch is one compiled `lax.scan` of `value_and_grad` and an Optax rule, with a new permutation and the losses of all
updates. Two forms, of which the faster one here counts: the epoch's examples gathered before the scan, or indexed
inside it. The whole data set as one batch needs neither: many updates are one scan over it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .jax_networks import host, mean_loss, outputs, rule
from .task import Task, Weights, faster

_MOST = 1 << 18  # a scan's indices; of a longer epoch no more are given at once


def _scan(task: Task, indexed: bool) -> Callable:
    """Returns the compiled stretch: (weights, optimizer's state), data, indices `[n, M]` -> the same, losses `[n]`."""

    def update(carry: Any, x: Any, y: Any) -> Any:
        params, state = carry
        loss, gradient = jax.value_and_grad(lambda p: mean_loss(task, outputs(task, p, x), y))(params)
        changes, state = rule(task).update(gradient, state, params)
        return (optax.apply_updates(params, changes), state), loss

    def stretch(carry: Any, x: Any, y: Any, rows: Any) -> Any:
        if task.whole:
            return jax.lax.scan(lambda c, _: update(c, x, y), carry, rows)
        if indexed:
            return jax.lax.scan(lambda c, row: update(c, x[row], y[row]), carry, rows)
        return jax.lax.scan(lambda c, batch: update(c, *batch), carry, (x[rows], y[rows]))

    return jax.jit(stretch, donate_argnums=0)


class Scan:
    """Weights, the optimizer's state and the data on the device."""

    def __init__(self, task: Task, indexed: bool) -> None:
        self.task, self.stretch = task, _scan(task, indexed)
        params = jax.tree.map(jnp.array, task.weights())
        self.carry = (params, rule(task).init(params))
        self.x, self.y = map(jnp.asarray, task.data())
        self.generator = np.random.default_rng(0)

    def _rows(self, n: int) -> np.ndarray:
        """Returns the indices of `n` updates of one epoch."""
        task, size = self.task, self.task.n_examples
        if task.whole:
            return np.zeros(n, np.int32)
        order = self.generator.permutation(size).astype(np.int32) if task.shuffled else np.arange(size, dtype=np.int32)
        return order[: n * task.batch].reshape(n, task.batch)

    def train(self, n_updates: int) -> int:
        made, losses = 0, []
        while made < n_updates:
            n = min(n_updates if self.task.whole else self.task.n_batches, n_updates - made, _MOST)
            self.carry, loss = self.stretch(self.carry, self.x, self.y, self._rows(n))
            losses.append(loss)
            made += n
        assert np.isfinite(np.asarray(losses[-1])).all()
        jax.block_until_ready(self.carry)
        return made

    def weights(self) -> Weights:
        return host(self.carry[0])


def prepare(task: Task) -> Scan:
    """Returns the task made ready."""
    return faster([partial(Scan, task, indexed) for indexed in ((False,) if task.whole else (False, True))])
