"""Advise: time updates, search batch sizes and rates, fit, confirm by real runs; the answer with its doubts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..clock import parse_seconds
from ..compare.asked import target_of, target_text
from ..compare.critical import CriticalFit, Interval, fit_critical
from ..compare.journal import Note, Progress, Stages, journal
from ..compare.spread import Workers, check_place
from ..compare.trainings import Trainings
from ..compare.where import where
from ..config import Job, Settings, checked_seed
from ..data import Reading, load, reading_errors
from ..errors import SettingsError
from ..folder import write_json
from ..losses import loss_for
from ..task import recognised_loss
from .capacity import largest_batch
from .confirm import Confirmation
from .found import Found
from .hardware import HardwareCurve
from .knees import with_neighbours
from .noise_run import NoiseAlong, noise_along
from .replan import Elsewhere, elsewhere
from .result import Advice
from .search import SEEDS, Budget, Search, Sized
from .target import measured_target, with_target
from .timing import extend, measure_hardware, of_batch_size
from .wishes import Wish

_LEAST_SECONDS = 5.0
_GRAIN_SECONDS = 2.0  # what timing a size beside its neighbours takes at least
# when a stage is to end, as shares of the time; what one does not need, the later ones have
_TIMING, _SEARCH, _REFINING, _CONFIRMING = 0.2, 0.5, 0.7, 0.95
_STAGES = {"timing": 0.2, "searching": 0.5, "confirming": 0.3}  # shares of the whole


def advise(
    model: Any,
    data: Any = None,
    *,
    target: Any = "auto",
    within: Any = "2 min",
    devices: int | None = None,
    hardware: str | None = None,
    loss: Any = "auto",
    optimizer: Any = "sgd",
    order: str = "reshuffled",
    short_batch: str = "keep",
    held_out: Any = 0.2,
    seed: int = 0,
    weight_decay: float = 0.0,
    clip: float | None = None,
    block: int | None = None,
    class_weight: Any = None,
    label: Any = None,
    inputs: Any = None,
    task: str = "auto",
    weight: str | None = None,
    prepare: Any = "auto",
    missing: str = "auto",
    skip_bad: bool = False,
    resize: str | None = None,
    memory: Any = None,
    params: Any = None,
    on: Any = None,
    run: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Advice:
    """Returns after how many examples to update, with which learning rate, the time it takes, and how sure that is.

    Measured on this model, data and machine: seconds per update over the batch size; updates to the target over batch
    size and learning rate, tuned for each (Shallue et al. 2019); the fit S_min (1 + B_crit/M) of McCandlish et al.
    2018; the gradient's noise along a run. The setting that should finish first and its neighbours are then run for
    real, on seeds that nothing was tuned on. Three wishes are answered: finish first, use the fewest examples, use the
    fewest updates. What was not measured is called so.

    Args:
        model: as in `backbeat.fit`.
        data: as in `backbeat.fit`.
        target: for example "accuracy>=0.95" or "train loss<=0.1"; "auto": accuracy>=0.95 for classes, otherwise a
            training loss that a short tuning reaches, which is said.
        within: how long it may take, for example "2 min"; compiling and wider grids can add to it.
        devices: plan also for so many devices like this one; computed, not measured.
        hardware: plan also for a machine that is not here, for example "alpha=20us,beta=0.1us"; computed likewise.
        loss: as in `backbeat.fit`, likewise the others.
        optimizer: see there.
        order: see there.
        short_batch: see there.
        held_out: see there.
        seed: the first of the seeds.
        weight_decay: see there.
        clip: see there.
        block: see there.
        class_weight: see there.
        label: see there.
        inputs: see there.
        task: see there.
        weight: see there.
        prepare: see there; fitted once, on the training part of the first seed, which is that of all seeds then.
        missing: see there.
        skip_bad: see there.
        resize: see there.
        memory: see there.
        params: see there; None for random ones by seed.
        on: where the runs that confirm the advice are made, as in `backbeat.compare`. The search before them decides
            by what it has seen, so it stays in this process, and so does all that is timed.
        run: a folder to record the advice in; None for none.
        on_progress: is told how far it is; None to show it in a notebook, and nothing elsewhere.

    Raises:
        SettingsError: a setting that cannot be used.
        DataError: data that cannot be used.
        DivergedError: no learning rate lowers the loss.
        WorkerError: a setting has cost three workers.

    Example:
        >>> import backbeat as bb
        >>> advice = bb.advise(bb.linear(), "iris", target="train loss<=0.4", within="20 s")
        >>> sorted(advice.wishes)
        ['fewest_examples', 'fewest_updates', 'finish_first']
    """
    budget, place, stages = Budget(_checked_time(within)), where(on), Stages(_STAGES, on_progress, "advice")
    base = Settings(
        every=1, loss=loss, optimizer=optimizer, order=order, short_batch=short_batch, held_out=held_out, seed=seed,
        weight_decay=weight_decay, clip=clip, block=block, class_weight=class_weight, label=label, inputs=inputs,
        task=task, weight=weight, prepare=prepare, missing=missing, skip_bad=skip_bad, resize=resize, memory=memory,
        duration="1000000000 updates", evaluate="1 epoch",
    )  # fmt: skip
    dataset = load(
        data,
        Reading.of(base),
        checked_seed(seed),
        on_progress=lambda share, what: stages.at(what, "", share),
    )
    wanted = target_of(target, loss_for(loss if loss != "auto" else recognised_loss(dataset)))
    base = replace(base, target=wanted)
    trainings = Trainings(model, dataset, base, params)
    check_place(place, trainings)
    jobs = [trainings.job(k) for k in range(3 * SEEDS)]
    if jobs[0].n_train < 2:
        raise SettingsError("the training part has one example, so there is one batch size and nothing to advise.")
    plan_for = elsewhere(devices, hardware)
    asked = {"target": "auto" if wanted is None else str(wanted), "within": f"{budget.seconds:g} s"} | {
        name: value for name, value in (("devices", devices), ("hardware", hardware)) if value is not None
    }
    kept = {name: value for name, value in base.as_text().items() if name not in _NOT_ASKED}
    notes: list[str] = []
    with (
        journal(run, jobs[0], {**kept, **asked}, kind="advice") as (folder, note),
        reading_errors(),
        Workers(place, trainings, notes.append) as workers,
    ):
        stages.note = note
        work = _Work(jobs, workers, budget, stages, note, notes)
        advice = work.carry_out(plan_for)
        note("finished", took_seconds=budget.spent, answer=advice.answer)
        if folder is not None:
            write_json(folder / "record.json", advice.record)
            advice.folder = folder
    stages.over()
    return advice


_NOT_ASKED = (
    "duration", "evaluate", "learning_rate", "watch_gradient", "watch_noise", "on_divergence", "changes", "devices",
    "deterministic", "every", "target",
)  # fmt: skip


def _checked_time(within: Any) -> float:
    seconds = parse_seconds(within, "within")
    if seconds < _LEAST_SECONDS:
        raise SettingsError(
            f"within={within!r} is too short to measure anything; give {_LEAST_SECONDS:g} s or more, for example "
            "'2 min'."
        )
    return seconds


class _Work:
    """The stages of advice, each within its share of the time."""

    def __init__(
        self,
        jobs: list[Job],
        workers: Workers,
        budget: Budget,
        stages: Stages,
        note: Note,
        notes: list[str],
    ) -> None:
        self.jobs, self.workers, self.data, self.budget = jobs, workers, workers.trainings.data, budget
        self.stages, self.note, self.notes = stages, note, notes
        self.n_train = jobs[0].n_train

    def told(self, stage: str) -> Callable[[float], None]:
        """Returns a function that passes on the share of a stage that is done."""
        return lambda share: self.stages.at(stage, "", share)

    def carry_out(self, plan_for: Elsewhere | None) -> Advice:
        """Returns the advice."""
        curve = self.timed()
        self.aim(curve)
        self.note("target", target=target_text(self.jobs[0]))
        search = Search(
            self.jobs, self.data, curve.seconds, self.note,
            lambda size, share: self.stages.at("searching", size, share),
        )  # fmt: skip
        search.first_rung(lambda: self.budget.left(_SEARCH, 0.1))
        search.second_rung(lambda: self.budget.left(_REFINING))
        confirmation = Confirmation(
            search, self.workers, _with_range(curve), range(2 * SEEDS, 3 * SEEDS), self.note, self.told("confirming")
        )
        wishes = confirmation.carry_out(lambda: self.budget.left(_CONFIRMING, 0.05))
        noise: NoiseAlong | None = None
        if wishes:
            noise = self.noise(wishes["finish_first"])
            curve = self.grain(curve, [wishes["finish_first"].batch_size, *confirmation.confirmed])
        sizes = {size.batch_size: size for size in confirmation.sizes}
        found = Found(
            self.jobs[0], self.budget, curve, sizes, search.law, wishes, tuple(confirmation.confirmed.values()), noise,
            fit_of(confirmation.sizes),
            largest_batch(self.jobs[0], self.data, seconds=self.budget.left(1.0, 0.05)), plan_for,
            (*self.notes, *self.workers.notes),
        )  # fmt: skip
        return Advice(found.record(), wishes, found.confirmed)

    def timed(self) -> HardwareCurve:
        """Returns seconds per update of the powers of two and of the whole data set."""
        powers = [2**k for k in range(32) if 2**k < self.n_train]
        curve = measure_hardware(
            self.jobs[0], self.data, [*powers, self.n_train], seconds=self.budget.left(_TIMING, 0.05),
            progress=self.told("timing"),
        )  # fmt: skip
        self.note("timed", **curve.record())
        return curve

    def aim(self, curve: HardwareCurve) -> None:
        """Gives the jobs a target where none was given."""
        if self.jobs[0].stopping.target is not None:
            return
        m = min(32, self.n_train)
        jobs = [of_batch_size(job, m) for job in self.jobs[:SEEDS]]
        found = measured_target(jobs, self.data, curve.seconds(m), self.budget.left(_SEARCH) / 6)
        self.jobs = [with_target(job, found) for job in self.jobs]
        self.notes.append(
            f"No target was given: {found} is what is left after nine tenths of the fall that the loss has in a short "
            f"tuning at {m} examples an update."
        )

    def noise(self, best: Wish) -> NoiseAlong:
        """Returns the noise scale along a run of the setting that finishes first."""
        job = of_batch_size(replace(self.jobs[0], learning_rate=best.learning_rate), best.batch_size)
        found = noise_along(job, self.data, max(1, round(best.updates.value)))
        self.note("noise", **found.record())
        return found

    def grain(self, curve: HardwareCurve, sizes: Sequence[int]) -> HardwareCurve:
        """Returns the curve with the sizes beside some measured too, for as many of them as there is time for."""
        for m in dict.fromkeys(sizes):
            more, left = with_neighbours([m], self.n_train), self.budget.left(0.98)
            if len(more) > 1 and left > _GRAIN_SECONDS:
                curve = extend(curve, self.jobs[0], self.data, more, seconds=left)
        return curve


def fit_of(sizes: Sequence[Sized]) -> CriticalFit | None:
    """Returns the fit of the updates over the batch size; sizes whose rate lies on the edge are rejected."""
    reached = [size for size in sizes if size.reached]
    edge = {size.batch_size: "its best rate lies on the edge of those tried" for size in reached if size.on_edge}
    return fit_critical({size.batch_size: size.seen for size in reached}, rejected=edge)


def _with_range(curve: HardwareCurve) -> Callable[[int], Interval]:
    """Returns batch size -> seconds per update with the range of the rounds; of what lies between, the nearest's."""
    points = {point.batch_size: point for point in curve.points}

    def seconds(m: int) -> Interval:
        near = points[min(points, key=lambda size: abs(math.log(size / m)))]
        value = curve.seconds(m)
        return Interval(value, value * near.low / near.median, value * near.high / near.median)

    return seconds
