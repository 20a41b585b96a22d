"""What is verified: a model, a loss and some examples of the data, read as `backbeat.fit` reads them.

A model or a loss that mixes the examples of a batch is not refused here, as it is for training: it is to be found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..class_weight import weighted_by_class
from ..config import Settings, checked_seed
from ..data import Dataset, Reading, load, split
from ..errors import SettingsError
from ..losses import Loss, loss_for
from ..models import Model, RandomModel, forward, model_for
from ..operations import coarsest, path_of
from ..stretch import example_keys
from ..task import outputs_for, recognised_loss
from ..trial import tried

BATCH = 16  # examples in an update that is verified


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, a loss, parameters and examples.

    Attributes:
        model: f_θ.
        loss: ℓ.
        params: θ.
        x: `[n, ...]`.
        y: `[n, ...]`.
        weight: `[n]`, None where every example counts 1.
        rows: `[n]`, the number of each example in the data.
        plain: whether an update takes the unweighted form.
        example_floats: as in `Job`.
        seed: what decides everything random.
        name: model, loss and data in words.
    """

    model: Model
    loss: Loss
    params: Any
    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    rows: np.ndarray
    plain: bool
    example_floats: int
    seed: int
    name: str

    def __len__(self) -> int:
        return len(self.x)

    @property
    def batch_size(self) -> int:
        """M of the updates that are verified: such that the last batch is short, where there are 2 examples or more."""
        n = len(self)
        return next(m for m in range(min(BATCH, max(1, n - 1)), 0, -1) if n % m or m == 1)

    @property
    def run_key(self) -> np.ndarray:
        """The run's own random key, as a compiled stretch takes it."""
        return np.array([0, self.seed], np.uint32)

    def keys(self) -> Array | None:
        """Returns each example's random key in the update that it belongs to; None where nothing is random."""
        if not isinstance(self.model, RandomModel):
            return None
        update, places = np.arange(len(self)) // self.batch_size, np.arange(len(self))
        one = jax.vmap(lambda u, place: example_keys(jnp.asarray(self.run_key), u, place[None])[0])
        return one(jnp.asarray(update), jnp.asarray(places))

    def predict(self, params: Any, x: Any, keys: Any) -> Array:
        """Returns the predictions of a batch in training."""
        return forward(self.model, params, jnp.asarray(x), keys)

    def losses(self, params: Any, x: Any, y: Any, keys: Any) -> tuple[Array, Array, Array]:
        """Returns (predictions, losses, counts) of a batch in training."""
        prediction = self.predict(params, x, keys)
        total, count = self.loss(prediction, jnp.asarray(y))
        return prediction, total, jnp.ones_like(total) if count is None else count

    @cached_property
    def epsilon(self) -> float:
        """One rounding, relative to a number, of the coarsest kind of numbers that model and loss compute with."""
        keys = self.keys()
        one = (self.params, self.x[:1], self.y[:1], None if keys is None else keys[:1])
        kind = coarsest(jax.make_jaxpr(lambda *given: self.losses(*given))(*one))
        return float(jnp.finfo(kind).eps)

    @property
    def layers(self) -> tuple[str, ...]:
        """The paths of the parameters, in the order of `jax.tree.leaves`."""
        return tuple(path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(self.params))


@dataclass(frozen=True)
class Drawn:
    """Examples of the training part, drawn by the seed, with the loss that suits them.

    Attributes:
        dataset: all of the data.
        loss: ℓ, class weights included.
        rows: `[n]`, the numbers of the examples.
        n_outputs: how many numbers the network gives for one example.
        seed: what decides everything random.
    """

    dataset: Dataset
    loss: Loss
    rows: np.ndarray
    n_outputs: int
    seed: int

    @property
    def x(self) -> np.ndarray:
        """`[n, ...]`, their inputs."""
        return np.asarray(self.dataset.x[self.rows])

    @property
    def y(self) -> np.ndarray:
        """`[n, ...]`, their labels."""
        return self.dataset.y[self.rows]


def drawn_from(data: Any, settings: Settings, n_examples: int) -> Drawn:
    """Returns examples of a user's data.

    Args:
        data: as in `backbeat.fit`, likewise the settings.
        settings: see there.
        n_examples: how many examples to look at; all where there are fewer.

    Raises:
        SettingsError: a setting that cannot be used.
        DataError: data that cannot be used.
    """
    seed = checked_seed(settings.seed)
    dataset = load(data, Reading.of(settings), seed)
    loss = loss_for(settings.loss if settings.loss != "auto" else recognised_loss(dataset))
    n_outputs = outputs_for(loss, dataset)
    parts = split(dataset.y, settings.held_out, seed) if dataset.parts is None else dataset.parts
    loss = weighted_by_class(loss, settings.class_weight, dataset, parts, n_outputs)
    rows = np.random.default_rng(seed).permutation(parts.train)[:n_examples]
    return Drawn(dataset, loss, rows, n_outputs, seed)


def subject_of(model: Any, drawn: Drawn, params: Any) -> Subject:
    """Returns what is to be verified.

    Args:
        model: as in `backbeat.fit`.
        drawn: the examples.
        params: as in `backbeat.fit`; None for the initial ones of the seed.

    Raises:
        SettingsError: a model that is refused because its layers mix examples, or that does not fit the data.
    """
    loss, rows = drawn.loss, drawn.rows
    built = model_for(model, drawn.dataset.input_shape, drawn.n_outputs)
    dataset, plain, example_floats = tried(built, loss, drawn.dataset, params, drawn.n_outputs)
    start = built.init(jax.random.key(drawn.seed)) if params is None else params
    own = isinstance(model, tuple) or hasattr(built, "trained")
    return Subject(
        built, loss, jax.tree.map(jnp.asarray, start), np.asarray(dataset.x[rows]), dataset.y[rows],
        None if dataset.weight is None else dataset.weight[rows], rows, plain, example_floats, drawn.seed,
        f"{built if own else model} with {loss} on {dataset.name}",
    )  # fmt: skip


def checked_count(n_examples: Any) -> int:
    """Returns how many examples to look at; refuses what is no whole number of 2 or more.

    Raises:
        SettingsError: it is none.
    """
    if isinstance(n_examples, bool) or not hasattr(n_examples, "__index__") or n_examples < 2:
        raise SettingsError(f"examples={n_examples!r} must be a whole number, 2 or more, for example 50.")
    return int(n_examples)


@lru_cache(maxsize=4)
def one_example(subject: Subject) -> Callable[..., Any]:
    """Returns the compiled gradients of examples each by itself: (params, x, y, keys) -> (gradients, loss, count).

    A batch of one is all that the model ever sees; nothing of `backbeat.gradient` takes part in it.
    """

    def total(params: Any, x: Array, y: Array, key: Any) -> tuple[Array, tuple[Array, Array]]:
        _, loss, count = subject.losses(params, x[None], y[None], None if key is None else key[None])
        return loss[0], (loss[0], count[0])

    def gradients(params: Any, x: Array, y: Array, keys: Any) -> Any:
        gradient, (loss, count) = jax.vmap(partial(jax.grad(total, has_aux=True), params))(x, y, keys)
        return jax.tree.leaves(gradient), loss, count

    return jax.jit(gradients)
