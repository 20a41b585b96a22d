"""Up to n updates on the same batch until it is satisfied, then the next; and what that did to all the other examples.

Repeating one example of a least-squares problem drives its residual r to r (1 − γ|x|²)^n: in the limit the Kaczmarz
projection, which forgets whatever the other examples had taught. So the loss on the rest is recorded with every batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .cadence import Repeat
from .gradient import Parts, add_parts, divide, loss_and_weight, no_parts, weigh
from .losses import Loss
from .models import Model, RandomModel
from .optimizer import Optimizer
from .stretch import Data, Form, Rows, example_keys
from .update import State, apply_parts

_REST_BLOCK = 4096
_FEW = 64


class Budget(NamedTuple):
    """How many updates, and examples in them, a stretch may still make.

    Attributes:
        updates: of the run; it ends then, inside a batch too.
        examples: likewise.
        pause: after so many updates the stretch ends, inside a batch too, and the next one goes on where it stood.
    """

    updates: Any
    examples: Any
    pause: Any = np.int32(2**31 - 1)


class Carry(NamedTuple):
    """Where a batch stands that a stretch left in the middle; see `BatchSeen` for each.

    Attributes:
        made: updates on it so far; 0 where no batch was left so.
        loss_sum: over these.
        weight_sum: likewise.
        before: when it came.
        rest_before: likewise.
    """

    made: Any = np.int32(0)
    loss_sum: Any = np.float32(0)
    weight_sum: Any = np.float32(0)
    before: Any = np.float32(0)
    rest_before: Any = np.float32(0)


class BatchSeen(NamedTuple):
    """What happened to each batch, `[rows]`.

    Attributes:
        updates: how many it took, from 0 (satisfied as it came) to `at_most`.
        loss_sum: Σ w ℓ summed over its updates, each before the update.
        weight_sum: Σ w likewise.
        before: its mean loss when it came.
        after: its mean loss when it was left.
        rest_before: mean loss of all other examples (or of the sample) when it came.
        rest_after: the same when it was left.
    """

    updates: Array
    loss_sum: Array
    weight_sum: Array
    before: Array
    after: Array
    rest_before: Array
    rest_after: Array


class Repeated(NamedTuple):
    """The outcome of a stretch of repeated batches.

    Attributes:
        seen: by batch.
        batches: how many were done with.
        updates: how many were made in all.
        examples: how many passed through back-propagation.
        bad: updates made when a loss was first not finite, −1 for never.
        inside: of the batch after these, where it is not done with.
    """

    seen: BatchSeen
    batches: Array
    updates: Array
    examples: Array
    bad: Array
    inside: Carry


def satisfied(repeat: Repeat, prediction: Array, label: Array, losses: Array, inside: Array, loss_mean: Array) -> Array:
    """Returns whether a batch needs no further update."""
    if repeat.loss_below is not None:
        return loss_mean < repeat.loss_below
    if repeat.until == "correct":
        guess = prediction.argmax(axis=-1) if prediction.ndim > label.ndim else prediction.reshape(label.shape) > 0
        truth = label if guess.ndim == label.ndim else label.argmax(axis=-1)
        right = (guess == truth).reshape(label.shape[0], -1).all(axis=1)
        return (right | ~inside).all()
    assert callable(repeat.until)
    return jnp.asarray(repeat.until(prediction, label, losses)).all()


class _Work(NamedTuple):
    """What the loops of a stretch of repeated batches share; see `run_repeated`."""

    form: Form
    repeat: Repeat
    model: Model
    loss: Loss
    optimizer: Optimizer
    data: Data
    rows: Rows
    rate: Array
    rest: Array
    budget: Budget

    def left(self, updates: Array, examples: Array) -> Array:
        """Returns whether a further update may be made in this stretch."""
        budget = self.budget
        return (updates < budget.updates) & (examples < budget.examples) & (updates < budget.pause)

    def row(self, j: Array) -> Array:
        """Returns the examples of batch `j`."""
        return self.rows.indices[0 if self.form.whole else j]

    @property
    def n_blocks(self) -> int:
        """Into how many blocks a batch is cut."""
        return -(-self.form.batch_size // self.form.block)

    def block(self, j: Array, number: Array | int) -> tuple[Array, Array, Array, Array, Array]:
        """Returns (examples, x, y, weight, inside) of a block of batch `j`.

        What only fills up a short batch, or the last block, is not inside and weighs 0.
        """
        where = number * self.form.block + jnp.arange(self.form.block)
        row = self.row(j)[jnp.minimum(where, self.form.batch_size - 1)]
        inside = where < self.rows.sizes[j]
        weight = inside.astype(jnp.float32)
        if self.data.weight is not None:
            weight = jnp.where(inside, self.data.weight[row], 0)
        return row, self.data.x[row], self.data.y[row], weight, inside

    def passed(self, j: Array, params: Any, made: Array) -> tuple[Parts, tuple[Array, Array, Array]]:
        """Returns the sums over batch `j` and, of its examples, (prediction, label, inside).

        Args:
            j: number of the batch.
            params: θ.
            made: how many updates of the stretch came before, which decides what is drawn.
        """
        differentiate = jax.value_and_grad(partial(loss_and_weight, self.model, self.loss), has_aux=True)

        def one(number: Array | int) -> tuple[Parts, tuple[Array, Array, Array]]:
            row, x, y, weight, inside = self.block(j, number)
            random = isinstance(self.model, RandomModel)
            keys = example_keys(self.rows.key, self.rows.first + made, row) if random else None
            (total, (count, prediction)), gradient = differentiate(params, x, y, weight, keys)
            return Parts(gradient, total, count), (prediction, y, inside)

        if self.n_blocks == 1:
            return one(0)

        def add(sums: Parts, number: Array) -> tuple[Parts, tuple[Array, Array, Array]]:
            parts, seen = one(number)
            return add_parts(sums, parts), seen

        parts, seen = lax.scan(add, no_parts(params), jnp.arange(self.n_blocks))
        return parts, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: self.form.batch_size], seen)

    def mean_loss(self, j: Array, params: Any) -> Array:
        """Returns the mean loss of batch `j`."""

        def one(number: Array | int) -> tuple[Array, Array]:
            _, x, y, weight, _ = self.block(j, number)
            return weigh(self.loss(self.model.apply(params, x), y), weight)

        if self.n_blocks == 1:
            return divide(*one(0))
        total, count = lax.map(one, jnp.arange(self.n_blocks))
        return divide(total.sum(), count.sum())

    def rest_losses(self, params: Any) -> tuple[Array, Array]:
        """Returns (w ℓ, w) of each example that the effect is measured on, in blocks of bounded memory."""
        size = self.rest.shape[0]
        if not size:
            return jnp.zeros(0), jnp.zeros(0)
        blocks = -(-size // _REST_BLOCK)
        block = -(-size // blocks)
        where = jnp.minimum(jnp.arange(blocks * block), size - 1).reshape(blocks, block)

        def one(where: Array) -> tuple[Array, Array]:
            row = self.rest[where]
            total, count = self.loss(self.model.apply(params, self.data.x[row]), self.data.y[row])
            weight = jnp.ones_like(total) if self.data.weight is None else self.data.weight[row]
            return total * weight, weight if count is None else count * weight

        total, count = lax.map(one, where)
        return total.reshape(-1)[:size], count.reshape(-1)[:size]

    def rest_mean(self, losses: tuple[Array, Array], row: Array) -> Array:
        """Returns the mean loss of the rest without the batch itself; NaN where nothing else is there."""
        if self.form.batch_size <= _FEW:
            others = ~jnp.isin(self.rest, row)
        else:  # which would take as many bytes as there are pairs
            others = jnp.ones(self.data.y.shape[0], bool).at[row].set(False)[self.rest]
        total, weight = (jnp.where(others, part, 0).sum() for part in losses)
        return jnp.where(weight > 0, divide(total, weight), jnp.nan)


class _Inner(NamedTuple):
    """Where the updates on one batch stand: how many were made, whether it is satisfied, its sums, its first loss."""

    state: State
    made: Array
    done: Array
    loss_sum: Array
    weight_sum: Array
    first: Array
    bad: Array


def _repeat_batch(work: _Work, j: Array, state: State, out: Repeated) -> _Inner:
    """Returns what the updates on batch `j` come to, with those of the stretch before that left it in the middle."""
    carried = out.inside
    gamma = work.rate * work.rows.factor[j] if work.form.scheduled else work.rate

    def unsatisfied(inner: _Inner) -> Array:
        made = inner.made - carried.made
        left = work.left(out.updates + made, out.examples + made * work.rows.sizes[j])
        return (inner.made < work.repeat.at_most) & ~inner.done & left

    def again(inner: _Inner) -> _Inner:
        updates = out.updates + inner.made - carried.made
        parts, (prediction, y, inside) = work.passed(j, inner.state.params, updates)
        mean = divide(parts.loss, parts.weight)
        done = satisfied(work.repeat, prediction, y, work.loss(prediction, y).total, inside, mean)
        new, _ = apply_parts(work.optimizer, inner.state, parts, gamma, False)
        now = 1 - done.astype(jnp.int32)
        return _Inner(
            jax.tree.map(lambda old, new: jnp.where(done, old, new), inner.state, new),
            inner.made + now, done,
            inner.loss_sum + jnp.where(done, 0, parts.loss), inner.weight_sum + jnp.where(done, 0, parts.weight),
            jnp.where(inner.made == 0, mean, inner.first),
            jnp.where((inner.bad < 0) & ~jnp.isfinite(parts.loss), updates, inner.bad),
        )  # fmt: skip

    sums = (carried.loss_sum, carried.weight_sum, carried.before)
    return lax.while_loop(unsatisfied, again, _Inner(state, carried.made, jnp.bool_(False), *sums, out.bad))


def run_repeated(
    form: Form, repeat: Repeat, model: Model, loss: Loss, optimizer: Optimizer,
    state: State, data: Data, rows: Rows, rate: Array, rest: Array, budget: Budget, inside: Carry,
) -> tuple[State, Repeated]:  # fmt: skip
    """Returns the state after a stretch of repeated batches and what happened; pure, to be compiled.

    Args:
        form: the stretch's form.
        repeat: until when, and how often at most.
        model: f_θ.
        loss: ℓ.
        optimizer: the rule.
        state: before the stretch.
        data: on the device.
        rows: the plan's indices; `rows.n_segments` is the number of batches.
        rate: γ.
        rest: `[r]`, indices of the examples on which the effect is measured; empty for none.
        budget: what may still be done.
        inside: where the first batch stands already.
    """
    work = _Work(form, repeat, model, loss, optimizer, data, rows, rate, rest, budget)
    measured = rest.shape[0] > 0

    def one_batch(carry: tuple) -> tuple:
        j, state, out, rest_before = carry
        inner = _repeat_batch(work, j, state, out)
        after = work.mean_loss(j, inner.state.params)
        rest_after = work.rest_losses(inner.state.params)
        row, nothing = work.row(j), jnp.float32(jnp.nan)
        before, left = (work.rest_mean(losses, row) if measured else nothing for losses in (rest_before, rest_after))
        before = jnp.where(out.inside.made > 0, out.inside.rest_before, before)
        now = BatchSeen(inner.made, inner.loss_sum, inner.weight_sum, inner.first, after, before, left)
        seen = BatchSeen(*(column.at[j].set(value) for column, value in zip(out.seen, now, strict=True)))
        made = inner.made - out.inside.made
        updates, examples = out.updates + made, out.examples + made * rows.sizes[j]
        over = ~((updates < budget.updates) & (examples < budget.examples)) | (inner.bad >= 0)
        paused = ~(over | inner.done | (inner.made >= repeat.at_most))
        inside = Carry(inner.made, inner.loss_sum, inner.weight_sum, inner.first, before)
        inside = jax.tree.map(lambda value, none: jnp.where(paused, value, none), inside, _none())
        behind = j + 1 - paused.astype(jnp.int32)
        return behind, inner.state, Repeated(seen, behind, updates, examples, inner.bad, inside), rest_after

    def more(carry: tuple) -> Array:
        j, _, out, _ = carry
        return (j < rows.n_segments) & work.left(out.updates, out.examples) & (out.bad < 0)

    zero = jnp.int32(0)
    empty = BatchSeen(jnp.zeros(form.rows, jnp.int32), *(jnp.zeros(form.rows) for _ in range(6)))
    inside = Carry(*map(jnp.asarray, inside))
    begin = (zero, state, Repeated(empty, zero, zero, zero, jnp.int32(-1), inside), work.rest_losses(state.params))
    _, state, out, _ = lax.while_loop(more, one_batch, begin)
    return state, out


def _none() -> Carry:
    """Returns the carry of no batch, on the device."""
    return Carry(*map(jnp.asarray, Carry()))


@lru_cache(maxsize=32)
def repeat_program(
    form: Form, repeat: Repeat, model: Model, loss: Loss, optimizer: Optimizer
) -> Callable[..., tuple[State, Repeated]]:
    """Returns the compiled stretch of repeated batches.

    It takes (state, data, rows, rate, rest, budget, inside) and gives (state, outcome).
    """
    return jax.jit(partial(run_repeated, form, repeat, model, loss, optimizer))
