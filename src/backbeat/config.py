"""The settings of a run, as a person gives them, and the job that they make once they meet the data."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .allowed import check_changes, check_repeat, check_shared, check_watched
from .cadence import Cadence, every
from .class_weight import weighted_by_class
from .clock import Duration, Durations, Patience, Stopping, Target
from .data import Dataset, Reading, Split, load, on_device, split
from .errors import SettingsError, choose, nearest
from .follow import check_followed
from .gradient import checked_block
from .losses import Loss, loss_for
from .mesh import ALONE, Team, team_of
from .models import Model, model_for, n_parameters, parse_model, theta
from .optimizer import Optimizer, optimizer_for
from .order import Order
from .plan import Plan
from .schedule import Schedule, schedule_for
from .stretch import Data
from .task import outputs_for, recognised_loss, scores_of
from .trial import check_apart, tried
from .update import State

AUTO = "auto"  # of a learning rate: a range test finds it
STOP, HALVE = ON_DIVERGENCE = ("stop", "halve-lr")
_GREATEST_SEED = 2**32
_PLAIN = (bool, int, float, str)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # where an object lies in memory, which another process has elsewhere


@dataclass(frozen=True)
class Settings(Reading):
    """All that decides a run beside the model and the data, with how these are read; see `backbeat.fit` for each."""

    every: Any = 32
    loss: Any = "auto"
    optimizer: Any = "sgd"
    learning_rate: Any = None
    duration: Any = "20 epochs"
    target: Any = None
    patience: Any = None
    order: str = "reshuffled"
    short_batch: str = "keep"
    seed: int = 0
    schedule: Any = None
    warm_up: Any = None
    weight_decay: float = 0.0
    clip: float | None = None
    evaluate: Any = "auto"
    block: int | None = None
    watch_gradient: bool = False
    watch_noise: bool = False
    class_weight: Any = None
    on_divergence: str = STOP
    changes: Any = None
    devices: Any = None
    deterministic: bool = False

    @classmethod
    def given(cls, settings: dict[str, Any]) -> Settings:
        """Returns settings from keyword arguments; refuses an unknown one with the nearest name."""
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                raise SettingsError(f"{name} is not a setting; {nearest(name, names)}")
        return cls(**settings)

    def as_text(self) -> dict[str, Any]:
        """Returns the settings as text, numbers and booleans, without those that are None: what is kept in a file."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {k: v if isinstance(v, _PLAIN) else _spelled(v) for k, v in plain.items() if v is not None}
        several = isinstance(self.changes, (list, tuple))  # they stay a list: it grows while the run goes on
        return plain | ({"changes": list(self.changes)} if several else {})


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={number}" for name, number in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    own = type(value).__str__ is not object.__str__ and not callable(value)
    return str(value) if own or hasattr(value, "phases") else getattr(value, "__name__", type(value).__name__)


@dataclass(frozen=True)
class Job:
    """A run, resolved: every setting read and checked against the data; nothing is trained yet.

    Attributes:
        settings: as they were given.
        dataset: examples, labels, weights.
        split: which examples are trained on, which are held out.
        model: f_θ, with its shapes known.
        loss: ℓ.
        optimizer: the update rule.
        learning_rate: γ, before any schedule; NaN where a range test has still to find it (`rate_asked`).
        schedule: the factor on γ along the run.
        plan: which examples each update uses.
        stopping: when the run is over.
        evaluate: how often to evaluate; None for "as often as costs little".
        n_outputs: how many numbers the network gives for an example.
        plain: every example counts exactly 1.
        example_floats: numbers that are kept of one example on its way through the network (bounds the block).
        params: the user's own initial parameters, None for random ones.
        rate_range: what a range test found, where there was one.
        team: the devices that share each batch.
    """

    settings: Settings
    dataset: Dataset
    split: Split
    model: Model
    architecture: Any
    loss: Loss
    optimizer: Optimizer
    learning_rate: float
    schedule: Schedule
    plan: Plan
    stopping: Stopping
    evaluate: Duration | None
    n_outputs: int
    plain: bool
    example_floats: int
    params: Any = None
    rate_range: Any = None
    team: Team = ALONE

    @property
    def n_train(self) -> int:
        """|D|, the number of examples trained on."""
        return len(self.split.train)

    @property
    def rate_asked(self) -> bool:
        """Whether a range test has still to find the learning rate."""
        return math.isnan(self.learning_rate)

    @property
    def scored_part(self) -> str:
        """The part that target and patience look at: the target's own, else the held-out part where there is one."""
        if self.stopping.target is not None and self.stopping.target.part is not None:
            return self.stopping.target.part
        return "held_out" if len(self.split.held_out) else "train"

    @property
    def model_name(self) -> str:
        """What the network is called: the text that names it, or what its own framework calls it."""
        own = isinstance(self.architecture, tuple) or hasattr(self.model, "trained")
        return _ADDRESS.sub("", str(self.model if own else self.architecture))

    def initial_state(self) -> State:
        """Returns θ and the optimizer's state before the first update: the same for every cadence of one seed."""
        params = self.params
        if params is None:
            params = self.model.init(jax.random.key(self.settings.seed))
        params = jax.tree.map(jnp.asarray, params)
        return State(params, self.optimizer.init(params))

    def device_data(self) -> Data:
        """Returns inputs, labels and weights as programs take them; without a copy of much where that is possible."""
        data = self.dataset
        return Data(on_device(data.x), *jax.device_put((data.y, data.weight)))


def resolve(
    model: Any,
    data: Any,
    settings: Settings,
    params: Any = None,
    *,
    on_progress: Callable[[float, str], None] | None = None,
) -> Job:
    """Returns the job that settings make of a model and data.

    Args:
        model: as in `backbeat.fit`, likewise the others.
        data: see there.
        settings: see there.
        params: see there.
        on_progress: see `data.load`.

    Raises:
        SettingsError: a setting that cannot be used, alone or with this data.
        DataError: data that cannot be used.
    """
    seed = checked_seed(settings.seed)
    dataset = load(data, Reading.of(settings), seed, on_progress=on_progress)
    if dataset.held_out_source is not None:  # a path from wherever the settings are read again
        settings = replace(settings, held_out=dataset.held_out_source)
    loss = loss_for(settings.loss if settings.loss != "auto" else recognised_loss(dataset))
    n_outputs = outputs_for(loss, dataset)
    durations = Durations.parse(settings.duration)
    cadence = every(settings.every)
    schedule, rate = _learning_rate(settings, durations, loss)
    optimizer = optimizer_for(settings.optimizer, weight_decay=settings.weight_decay, clip=settings.clip)
    parts = split(dataset.y, settings.held_out, seed) if dataset.parts is None else dataset.parts
    loss = weighted_by_class(loss, settings.class_weight, dataset, parts, n_outputs)
    plan = Plan(Order(settings.order, seed, len(parts.train)), cadence, settings.short_batch)
    check_watched(settings, cadence, plan.n_examples)
    check_repeat(settings, cadence, schedule, plan.n_examples, rate_asked=asks_rate(settings.learning_rate))
    team = team_of(settings.devices, deterministic=settings.deterministic)
    check_shared(team, cadence)
    target = None if settings.target is None else Target.parse(settings.target)
    patience = None if settings.patience is None else Patience.parse(settings.patience)
    _check_target(target, loss, parts)
    model = parse_model(model) if isinstance(model, str) else model
    built = model_for(model, dataset.input_shape, n_outputs)
    checked_block(settings.block)
    dataset, plain, example_floats = tried(built, loss, dataset, params, n_outputs)
    check_apart(built, loss, dataset, params, seed)
    _check_rule(settings, optimizer, schedule, built, params)
    check_followed(cadence, optimizer)
    check_changes(settings.changes, optimizer, schedule)
    job = Job(
        settings, dataset, parts, built, model, loss, optimizer, rate, schedule, plan,
        Stopping(durations, target, patience), evaluation_interval(settings, target, patience),
        n_outputs, plain, example_floats, params, team=team,
    )  # fmt: skip
    if not team.alone:
        team.check_alike(_given(job))
    return job


def _given(job: Job) -> dict[str, Any]:
    """Returns what the processes of a run must have been given alike."""
    start = jax.eval_shape(lambda: job.model.init(jax.random.key(0))) if job.params is None else job.params
    weights = None if job.params is None else hashlib.sha256(np.asarray(theta(job.params)).tobytes()).hexdigest()
    return {
        "data (its SHA-256)": job.dataset.sha256, "model": job.model_name, "parameters": n_parameters(start),
        "weights to start from (their SHA-256)": weights,
        **job.settings.as_text(), "held_out": len(job.split.held_out),  # a file may lie elsewhere on another machine
    }  # fmt: skip


def with_cadence(job: Job, cadence: Cadence) -> Job:
    """Returns the job with another cadence: the same data, split, model, loss and optimizer.

    Raises:
        SettingsError: a cadence that this data or these settings do not allow.
    """
    settings = replace(job.settings, every=cadence)
    plan = Plan(job.plan.order, cadence, settings.short_batch)
    check_watched(settings, cadence, plan.n_examples)
    check_repeat(settings, cadence, job.schedule, plan.n_examples, rate_asked=asks_rate(settings.learning_rate))
    check_shared(job.team, cadence)
    check_followed(cadence, job.optimizer)
    return replace(job, settings=settings, plan=plan)


def default_rate(loss: Loss) -> float:
    """Returns the learning rate where none is given: 0.1, and 0.01 for values, whose curvature no softmax bounds.

    Example:
        >>> default_rate(loss_for("squared_error")), default_rate(loss_for("cross_entropy"))
        (0.01, 0.1)
    """
    return 0.01 if loss.kind == "regression" else 0.1


def _learning_rate(settings: Settings, durations: Durations, loss: Loss) -> tuple[Schedule, float]:
    rate = default_rate(loss) if settings.learning_rate is None else settings.learning_rate
    if callable(rate):  # an Optax schedule, update count -> learning rate
        if settings.schedule is not None:
            raise SettingsError("learning_rate is a function and schedule is given too; give one of them.")
        return schedule_for(rate, settings.warm_up, durations), 1.0
    schedule = schedule_for(settings.schedule, settings.warm_up, durations)
    if asks_rate(rate):
        if schedule.function is not None:
            raise SettingsError(
                'learning_rate="auto" finds the highest rate of a schedule, which a function does not say; give a '
                'learning rate, or a schedule by name such as "cosine".'
            )
        return schedule, math.nan
    return schedule, checked_rate(rate)


def checked_seed(seed: Any) -> int:
    """Returns a seed as a number; refuses what is none.

    Raises:
        SettingsError: not a whole number from 0 to 2³² − 1.
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= int(seed) < _GREATEST_SEED:
        raise SettingsError(f"seed={seed!r} must be a whole number from 0 to {_GREATEST_SEED - 1}.")
    return int(seed)


def asks_rate(rate: Any) -> bool:
    """Returns whether a learning rate, as a person gives it, asks for a range test.

    Example:
        >>> asks_rate("auto"), asks_rate(0.1)
        (True, False)
    """
    return isinstance(rate, str) and rate == AUTO


def checked_rate(rate: Any, setting: str = "learning_rate") -> float:
    """Returns a learning rate as a number; refuses what is not more than 0.

    Raises:
        SettingsError: not a number, 0, negative or infinite.

    Example:
        >>> checked_rate("0.1")
        0.1
    """
    try:
        number = float(rate)
    except (TypeError, ValueError):
        raise SettingsError(
            f'{setting}={rate!r} is not a number; give one above 0, for example 0.1, or "auto".'
        ) from None
    if not (math.isfinite(number) and number > 0):
        hint = f"did you mean {-number:g}?" if math.isfinite(number) and number < 0 else "for example 0.1."
        raise SettingsError(
            f"{setting}={number:g} must be above 0 (an update goes against the gradient by itself); {hint}"
        )
    return number


def _check_rule(settings: Settings, optimizer: Optimizer, schedule: Schedule, model: Model, params: Any) -> None:
    """Refuses a rule that does not fit the parameters, and a learning rate that a fixed rule would ignore."""
    if not optimizer.tunable and (not schedule.constant or settings.learning_rate is not None):
        raise SettingsError(
            "optimizer is a transformation that holds its own learning rate, so learning_rate, schedule and warm_up "
            "would do nothing; give the function that makes it, optax.adam and not optax.adam(0.1), or leave them out."
        )
    if choose("on_divergence", settings.on_divergence, ON_DIVERGENCE) == HALVE and not optimizer.tunable:
        raise SettingsError(f"on_divergence={HALVE!r} lowers γ, which this optimizer holds itself; leave it out.")
    jax.eval_shape(lambda: optimizer.init(model.init(jax.random.key(0)) if params is None else params))


def _check_target(target: Target | None, loss: Loss, parts: Split) -> None:
    if target is None:
        return
    if target.part == "held_out" and not len(parts.held_out):
        raise SettingsError(
            f"target={str(target)!r} looks at the held-out part, but held_out=0 leaves none; hold some out, or write "
            f"train {target.score}."
        )
    known = scores_of(loss)
    if target.score not in known:
        raise SettingsError(
            f"target={str(target)!r}: with the loss {loss} the scores are {' and '.join(known)}; give a target for "
            "one of these."
        )


def evaluation_interval(settings: Settings, target: Target | None, patience: Patience | None) -> Duration | None:
    """Returns how often to evaluate: as set, each epoch where the run's end depends on it, else None."""
    if settings.evaluate == "auto":
        return Duration(1.0, "epochs") if target is not None or patience is not None else None
    if settings.evaluate in (None, "never"):
        if target is not None or patience is not None:
            raise SettingsError(
                'evaluate="never" leaves nothing for target or patience to look at; write for example '
                'evaluate="1 epoch".'
            )
        return Duration(math.inf, "epochs")
    interval = Duration.parse(settings.evaluate, "evaluate")
    if interval.unit == "seconds":
        raise SettingsError(
            f'evaluate={settings.evaluate!r}: give epochs, updates or examples, "auto" or "never", '
            "so that a run can be repeated."
        )
    return interval


def as_columns(job: Job) -> dict[str, Any]:
    """Returns what is said of a job: the data, the model, the loss and the rule, as text and numbers.

    A record adds the hash of the data, `Dataset.sha256`, which takes a while.
    """
    classes = job.n_outputs if job.loss.kind == "classification" else None
    return {
        "data": {
            "name": job.dataset.name, "n_examples": len(job.dataset), "n_train": job.n_train,
            "n_held_out": len(job.split.held_out), "input_shape": list(job.dataset.input_shape), "n_classes": classes,
            "notes": list(job.dataset.notes),
        },
        "model": job.model_name,
        "loss": str(job.loss), "optimizer": str(job.optimizer), "order": job.settings.order,
    }  # fmt: skip
