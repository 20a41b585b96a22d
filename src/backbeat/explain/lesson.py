"""A lesson: one problem learned by several cadences side by side, update by update, with everything in between.

The trainings are the library's: the same plan, the same programs of `backbeat.advance`, stopped after each update. What
is seen inside an update is what `per_example_gradients` and `gradient` give at the weights before it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..advance import Engine
from ..cadence import every
from ..clock import Duration
from ..config import Job, Settings, resolve
from ..errors import SettingsError, choose
from ..gradient import gradient, per_example_gradients
from ..losses import Loss
from ..models import Model, forward, n_parameters, theta
from ..nonfinite import NotFinite
from .plane import Plane
from .problems import PROBLEMS, Problem

LOSSES = ("squared_error", "cross_entropy")
MOST_PARAMETERS, MOST_UPDATES, MOST_GROWTH = 5000, 4000, 100.0
_NETWORK = re.compile(r"(linear|mlp(:[0-9]+(,[0-9]+)*)?(:[a-z]+)?|cnn(:[0-9]+(,[0-9]+)*)?)")


@dataclass(frozen=True)
class Choices:
    """What a lesson is made of.

    Attributes:
        problem: a name of `PROBLEMS`.
        network: "linear", "mlp:8", "mlp:8,8:tanh", "cnn:4" (of images); None for what suits the problem.
        loss: "squared_error" or "cross_entropy"; None for what suits the problem.
        learning_rate: γ; None likewise.
        every: the cadence in the middle, between one example and the whole data set.
        seed: what decides the examples, the weights at the start and the order.
    """

    problem: str = "clouds"
    network: str | None = None
    loss: str | None = None
    learning_rate: float | None = None
    every: str = "8"
    seed: int = 0

    def settled(self) -> Choices:
        """Returns them with nothing left open.

        Raises:
            SettingsError: what cannot be used.

        Example:
            >>> Choices("wave").settled().loss
            'squared_error'
        """
        choose("problem", self.problem, PROBLEMS)
        problem = PROBLEMS[self.problem]
        loss = self.loss or ("cross_entropy" if problem.classes else "squared_error")
        choose("loss", loss, LOSSES if problem.classes else LOSSES[:1])
        network = self.network or problem.network
        if not _NETWORK.fullmatch(network) or (network.startswith("cnn") and problem.view != "images"):
            images = ", cnn:4" if problem.view == "images" else ""
            raise SettingsError(f"network={network!r} is not one for this; write linear, mlp:8, mlp:8,8:tanh{images}.")
        rate = problem.learning_rate if self.learning_rate is None else self.learning_rate
        if not (math.isfinite(rate) and 0 < rate <= 100):
            raise SettingsError(f"learning rate {rate} must be a number above 0, and 100 at most.")
        if not 0 <= self.seed < 1000:
            raise SettingsError(f"seed {self.seed} must be a whole number from 0 to 999.")
        return Choices(self.problem, network, loss, rate, str(every(self.every)), self.seed)


@dataclass(frozen=True)
class Update:
    """One update of a column.

    Attributes:
        batch: `[M]`, its examples, as numbers into the problem's.
        examples: passed so far, this batch's included.
        satisfied: examples that came before it and took no update, where batches are repeated.
        repeat: which update on the same batch it is, from 1.
    """

    batch: np.ndarray
    examples: int
    satisfied: tuple[int, ...] = ()
    repeat: int = 1


class Column:
    """One cadence of a lesson, trained to its end.

    Attributes:
        cadence: as text.
        job: what was trained.
        updates: one after another.
        thetas: `[updates + 1, N]`, θ before the first update and after each.
        seconds: of one update, in a run of all of them.
        losses: `[updates + 1, |D|]`, each example's loss at each θ.
        predictions: `[updates + 1, |D|, outputs]`.
        diverged: whether the loss grew without bound, where the column ends.
    """

    def __init__(self, job: Job, examples: int) -> None:
        self.job, self.cadence = job, str(job.plan.cadence)
        self.updates: list[Update] = []
        self.diverged = False
        path = self._trained(examples)
        self.thetas = np.stack([np.concatenate([np.ravel(a) for a in jax.tree.leaves(params)]) for params in path])
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *path)
        self.losses, self.predictions = map(np.asarray, _seen(job.model, job.loss, stacked, *self.data))
        means = self.losses.mean(axis=1)
        wild = np.flatnonzero(~(means <= MOST_GROWTH * max(means[0], 1e-3)))
        if len(wild):
            self.diverged, n = (
                True,
                max(1, int(wild[0]) + int(np.isfinite(means[wild[0]]))),
            )  # the update itself is shown
            self.updates, path = self.updates[: n - 1], path[:n]
            self.thetas, self.losses, self.predictions = self.thetas[:n], self.losses[:n], self.predictions[:n]
        self._path = path

    @property
    def data(self) -> tuple[Any, Any]:
        """(x, y) of all examples."""
        return self.job.dataset.x, self.job.dataset.y

    def params(self, k: int) -> Any:
        """Returns θ before update k, from 0, in the shapes of the network."""
        return self._path[k]

    def _trained(self, examples: int) -> list[Any]:
        engine, repeated = Engine(self.job), self.job.plan.cadence.repeated is not None
        engine.compile()
        limit, path, made_on, idle = Duration(float(examples), "examples"), [engine.state.params], 0, 0
        while engine.clock.examples < examples and len(self.updates) < MOST_UPDATES and idle <= self.job.n_train:
            before, n = engine.cursor, engine.clock.updates
            try:
                engine.advance([limit], pauses=[Duration(n + 1.0, "updates")])
            except NotFinite:
                self.diverged = True
                break
            passed = engine.cursor.batches - before.batches
            if engine.clock.updates == n:  # all of them were satisfied
                idle += passed
                continue
            inside = repeated and int(engine.inside.made) > 0
            rows = self.job.plan.stretch(before, max(1, passed + inside))
            batches = [self.job.split.train[i[:size]] for i, size in zip(rows.indices, rows.sizes, strict=True)]
            if len(batches[-1]) == self.job.n_train:  # taken as they lie; shown in the order of the other cadences
                batches[-1] = self.job.split.train[self.job.plan.order.epochs(before.epoch, 1)[0]]
            made_on = made_on + 1 if len(batches) == 1 and made_on else 1
            satisfied = tuple(int(i) for batch in batches[:-1] for i in batch)
            self.updates.append(Update(batches[-1], engine.clock.examples, satisfied, made_on))
            made_on, idle = made_on if inside else 0, 0
            path.append(engine.state.params)
        return [jax.tree.map(np.asarray, params) for params in path]

    @cached_property
    def seconds(self) -> float:
        """Seconds of one update, measured in a run of all of them, compilation left out."""
        engine = Engine(self.job)
        engine.compile()
        try:
            while engine.clock.updates < len(self.updates):
                engine.advance([Duration(float(len(self.updates)), "updates")])
        except NotFinite:
            pass
        return engine.update_seconds / max(1, engine.clock.updates)

    @cached_property
    def right(self) -> np.ndarray:
        """`[updates + 1, |D|]`, whether each example's class is predicted right."""
        return self.guesses == _classes(self.job.dataset.y)

    @cached_property
    def guesses(self) -> np.ndarray:
        """`[updates + 1, |D|]`: the class that is predicted for each example, or the value."""
        return guessed(self.predictions, self.job.dataset.y)


class Lesson:
    """A problem, its cadences, and the plane in which all their paths are drawn.

    Attributes:
        choices: with nothing left open.
        problem: what is learned.
        x: `[|D|, ...]`, the inputs as they are drawn.
        y: `[|D|]`, classes or values.
        columns: one for each cadence: every example, the chosen one, the whole data set.
        plane: through the weights at the start and the paths.

    Raises:
        SettingsError: choices that cannot be used.

    Example:
        >>> lesson = Lesson(Choices("line"))
        >>> [column.cadence for column in lesson.columns], [len(column.updates) for column in lesson.columns]
        (['1', '8', 'dataset'], [288, 36, 12])
        >>> frame = lesson.frame(1, 0)
        >>> len(frame["batch"]), frame["next_loss"] < frame["data_loss"]
        (8, True)
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices.settled()
        self.problem: Problem = PROBLEMS[self.choices.problem]
        self.x, self.y = self.problem.make(self.choices.seed)
        jobs = [self._job(cadence) for cadence in dict.fromkeys(["1", self.choices.every, "dataset"])]
        self.n_parameters = n_parameters(jobs[0].initial_state().params)
        if self.n_parameters > MOST_PARAMETERS:
            raise SettingsError(
                f"network={self.choices.network!r} has {self.n_parameters:,} parameters; take one of at most "
                f"{MOST_PARAMETERS:,}, so that each step can be looked at."
            )
        self.columns = [Column(job, self.examples) for job in jobs]
        self.plane = Plane.through(
            [column.thetas for column in self.columns], [column.losses.mean(axis=1) for column in self.columns]
        )

    @property
    def examples(self) -> int:
        """How many examples each cadence passes, repeats counted."""
        return len(self.y) * self.problem.epochs

    def _job(self, cadence: str) -> Job:
        given, y = self.choices, self.y
        if self.problem.classes and given.loss == "squared_error":
            two = y.max() == 1
            y = y.astype(np.float32) if two else np.eye(y.max() + 1, dtype=np.float32)[y]
        settings = Settings(
            every=cadence, loss=given.loss, optimizer="sgd", learning_rate=given.learning_rate, held_out=0.0,
            duration=f"{self.examples} examples", evaluate="never", seed=given.seed,
        )  # fmt: skip
        return resolve(given.network, (self.x, y), settings)

    @cached_property
    def surface(self) -> np.ndarray:
        """`[rows, columns]`: the mean loss over the data in the plane, lowest coordinate first."""
        job = self.columns[0].job
        points = self.plane.points()
        like = self.columns[0].params(0)
        means = _means(job.model, job.loss, jnp.asarray(points), like, *self.columns[0].data)
        return np.asarray(means).reshape(len(self.plane.ys), len(self.plane.xs))

    def frame(self, column: int, k: int) -> dict[str, Any]:
        """Returns all that is seen in update k of a column, from 0; after the last one, what has been reached.

        Args:
            column: which.
            k: how many updates were made before.

        Returns:
            JSON: `batch`, and in its order `losses`, `gradients` (their coordinates in the plane) and `lengths`;
            `mean` and `mean_length` of the averaged gradient; `theta` and `next` in the plane, `moved`; of all examples
            `data_loss`, `guesses` and `right`; and the decision `field` or `curve`.
        """
        one = self.columns[column]
        k = min(max(k, 0), len(one.updates))
        found: dict[str, Any] = {
            "update": k, "done": k == len(one.updates), "theta": self.plane.of(one.thetas[k]),
            "data_loss": float(one.losses[k].mean()), "data_losses": one.losses[k],
            "guesses": one.guesses[k], "right": one.right[k] if self.problem.classes else None,
            "accuracy": float(one.right[k].mean()) if self.problem.classes else None,
            **self._drawn(one, k),
        }  # fmt: skip
        if not found["done"]:
            update, params = one.updates[k], one.params(k)
            of_each = np.asarray(per_example_gradients(one.job.model, one.job.loss, params, *one.data))
            inside = np.zeros(len(self.y), np.float32)
            inside[update.batch] = 1
            mean = gradient(one.job.model, one.job.loss, params, *one.data, weight=inside)
            vector, others = np.asarray(theta(mean.mean)), inside == 0
            found |= {
                "batch": update.batch, "satisfied": update.satisfied, "repeat": update.repeat,
                "losses": one.losses[k][update.batch], "batch_loss": float(mean.loss_mean),
                "gradients": [self.plane.directed(each) for each in of_each[update.batch]],
                "lengths": np.linalg.norm(of_each[update.batch], axis=1),
                "mean": self.plane.directed(vector), "mean_length": float(np.linalg.norm(vector)),
                "next": self.plane.of(one.thetas[k + 1]),
                "moved": float(np.linalg.norm(one.thetas[k + 1] - one.thetas[k])),
                "next_loss": float(one.losses[k + 1].mean()),
                "after": one.losses[k + 1][update.batch],
                "others": [float(one.losses[i][others].mean()) if others.any() else None for i in (k, k + 1)],
                "made_wrong": np.flatnonzero(one.right[k] & ~one.right[k + 1]) if self.problem.classes else [],
            }  # fmt: skip
        return found

    def _drawn(self, one: Column, k: int) -> dict[str, Any]:
        if self.problem.view == "plane":
            points = self.field_points.reshape(-1, 2)
            prediction = np.asarray(_predicted(one.job.model, one.params(k), points))
            return {"field": np.round(100 * share_of_one(prediction, one.job.dataset.y), 1)}
        if self.problem.view == "curve":
            return {"curve": np.asarray(_predicted(one.job.model, one.params(k), self.curve_points))[:, 0]}
        return {}

    @cached_property
    def field_points(self) -> np.ndarray:
        """`[40, 40, 2]`: where the decision is drawn, lowest coordinates first."""
        low, high = self.bounds
        along = [np.linspace(low[d], high[d], 40, dtype=np.float32) for d in range(2)]
        return np.stack(np.meshgrid(*along), axis=-1)

    @cached_property
    def curve_points(self) -> np.ndarray:
        """`[80, 1]`: where the curve is drawn."""
        return np.linspace(-1.15, 1.15, 80, dtype=np.float32)[:, None]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest coordinates that are drawn, a little beyond the points."""
        low, high = self.x.min(axis=0), self.x.max(axis=0)
        return low - 0.12 * (high - low), high + 0.12 * (high - low)


def guessed(prediction: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns what a network's outputs `[..., outputs]` say: the class, or for labels that are values the value.

    Args:
        prediction: the outputs.
        y: the labels that it was trained on: classes, 0 or 1 as a number, rows of 0 and 1, or values.

    Example:
        >>> guessed(np.array([[0.2, 0.9], [0.6, 0.1]]), np.array([1, 0])).tolist()
        [1, 0]
    """
    if np.issubdtype(y.dtype, np.integer) or y.ndim == 2:
        return prediction.argmax(axis=-1)
    return (prediction[..., 0] > 0.5).astype(int) if _is_class(y) else prediction[..., 0]


def share_of_one(prediction: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns how far outputs `[n, outputs]` are for class 1 of two: its probability, or one output cut to 0 to 1."""
    if np.issubdtype(y.dtype, np.integer):
        return np.asarray(jax.nn.softmax(jnp.asarray(prediction)))[:, 1]
    return np.clip(prediction[:, 0], 0, 1)


def _is_class(y: np.ndarray) -> bool:
    return bool(np.isin(y, (0, 1)).all())


def _classes(y: np.ndarray) -> np.ndarray:
    return y.argmax(axis=-1) if y.ndim == 2 else y.astype(int)


@lru_cache(maxsize=64)
def _seen_program(model: Model, loss: Loss) -> Any:
    def one(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
        prediction = forward(model, params, x, None)
        return loss(prediction, y).total, prediction

    return jax.jit(lambda path, x, y: jax.lax.map(lambda params: one(params, x, y), path, batch_size=32))


def _seen(model: Model, loss: Loss, path: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return _seen_program(model, loss)(path, jnp.asarray(x), jnp.asarray(y))


def _means(model: Model, loss: Loss, points: Any, like: Any, x: Any, y: Any) -> Any:
    from ..models import from_theta

    path = jax.vmap(lambda vector: from_theta(vector, like))(points)
    return _seen(model, loss, path, x, y)[0].mean(axis=1)


@lru_cache(maxsize=64)
def _predict_program(model: Model) -> Any:
    return jax.jit(lambda params, x: forward(model, params, x, None))


def _predicted(model: Model, params: Any, x: np.ndarray) -> Any:
    return _predict_program(model)(params, x)
