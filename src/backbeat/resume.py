"""Going on with a run that was cut off: from its newest whole checkpoint, to the bits that it would have come to.

What decides these is compared with what the run recorded: data, model and settings must be the same; processor, cores
and versions may differ, which is said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .changes import RATE, STOP, STOPPED, as_texts, changes_of
from .checkpoint import Saved, newest
from .config import Job, Settings, as_columns, resolve
from .errors import DataError, SettingsError
from .folder import environment, read_settings
from .history import read_lines
from .mesh import agreed, leads
from .models import parse_model
from .recorded import ENDED_BY_HAND
from .snapshot import OtherStateError, Snapshot, put_together, taken_apart
from .train import Resumed
from .update import State

_DECIDE_BITS = {
    "jax": "jax", "jaxlib": "jaxlib", "optax": "optax", "processor": "processor", "cores": "cores",
    "pjrt_nproc": "PJRT_NPROC", "device": "device",
}  # fmt: skip
_SHARED_BY = {"shared_by": "devices for each batch"}  # which decides them too, unless the order of sums is fixed


@dataclass(frozen=True)
class Continued:
    """What is needed to go on with a run.

    Attributes:
        resumed: from where.
        lines: the events up to there, as events.jsonl has them.
        offset: how many bytes of that file they take.
        best: the name of the checkpoint with the best loss.
    """

    resumed: Resumed
    lines: list[dict[str, Any]]
    offset: int
    best: str | None


def about_of(job: Job) -> dict[str, Any]:
    """Returns what decides the bits that a job comes to, as text and numbers."""
    columns = as_columns(job)
    settings = job.settings.as_text()
    if job.rate_range is not None or settings.get("learning_rate") == "auto":
        settings["learning_rate"] = job.learning_rate  # the number that was found
    return {
        "data": {"name": columns["data"]["name"], "sha256": job.dataset.sha256},
        "model": columns["model"], "settings": settings,
        "environment": environment() | {"shared_by": max(1, len(job.team.devices))},
    }  # fmt: skip


def with_recorded_rate(job: Job, run: Path) -> Job:
    """Returns a job with the learning rate that its run found, where a range test was asked for."""
    if not job.rate_asked:
        return job
    rate = _settings(run).get("learning_rate")
    return job if not isinstance(rate, (int, float)) else replace(job, learning_rate=float(rate))


def _ended(run: Path) -> tuple[str, str, int]:
    """Returns of what kind a folder is, why the run ended and after how many updates; of one that was cut off, −1."""
    try:
        record = json.loads((run / "record.json").read_text(encoding="utf-8"))
        done = record["finished"] if record["kind"] == "run" else {"reason": "", "updates": -1}
        return record["kind"], done["reason"], done["updates"]
    except (OSError, ValueError, KeyError, TypeError):  # cut off before it was written, or while it was
        return "run", STOPPED, -1


def with_recorded_changes(job: Job, run: Path) -> Job:
    """Returns a job with the changes that were made of its run; a stop that has ended it is none any more.

    Raises:
        SettingsError: the job has others.
    """
    recorded = changes_of(_settings(run).get("changes"))
    ended = agreed(_ended(run)[2] if leads() else None)
    given = changes_of(job.settings.changes)
    recorded = [change for change in recorded if change.what == RATE or change.after > ended]
    other = [c for c in given if c not in recorded and not (c.what == STOP and c.after <= ended)]
    if other:
        raise SettingsError(
            f"{run} was not trained with changes={str(other[0])!r}; leave changes out: those of the run are taken."
        )
    return replace(job, settings=replace(job.settings, changes=as_texts(recorded)))


class _Any:
    """Contains everything: which settings there are is looked at later."""

    def __contains__(self, name: object) -> bool:
        return True


def _settings(run: Path) -> dict[str, Any]:
    """Returns the settings of a run; only process 0 reads them, the others may not have the folder."""
    return agreed(read_settings(run, _Any()) if leads() else None)


def check_resumable(run: Path, *, anyway: bool = False) -> None:
    """Refuses a folder that holds no run that was cut off.

    Raises:
        DataError: it is not there, or is no run.
        SettingsError: the run is over; `anyway` goes on with it all the same, with a longer duration for example.
    """
    if not leads():
        return
    if not run.is_dir():
        raise DataError(f"{run} is not there; `backbeat runs` lists the runs that are.")
    if not (run / "settings.toml").is_file() or not (run / "events.jsonl").is_file():
        raise DataError(f"{run} is not the folder of a run: it has no settings.toml or no events.jsonl.")
    kind, reason, _ = _ended(run)
    if kind != "run":
        raise DataError(f"{run} is a {kind}, which is not resumed; only a run is.")
    if reason not in ENDED_BY_HAND and not anyway:
        raise SettingsError(
            f"{run} is over ({reason}); there is nothing to go on with. To train it for longer, train anew with "
            f"`backbeat train --settings {run} --for ...`, or in Python fit(..., resume=..., anyway=True)."
        )


def continued(job: Job, run: Path, *, anyway: bool) -> Continued:
    """Returns where a job goes on.

    Args:
        job: what the caller means to go on with.
        run: the run's folder.
        anyway: whether to go on although data, model or settings differ from those recorded.

    Raises:
        SettingsError: they differ, and how; or the saved parameters do not fit the model at all.
    """
    like = job.initial_state()
    found = _read(job, run, like, anyway=anyway) if leads() else Continued(Resumed(None), [], 0, None)
    snapshot, notes = _handed_out(job, like, found.resumed.snapshot, found.resumed.notes)

    def earlier(back: int) -> Snapshot | None:
        return _handed_out(job, like, found.resumed.earlier(back))[0]

    return replace(found, resumed=Resumed(snapshot, tuple(notes), earlier))


def _handed_out(job: Job, like: State, snapshot: Snapshot | None, notes: Sequence[str] = ()) -> tuple[Any, list[str]]:
    """Returns a snapshot and notes as process 0, which alone read them, has them."""
    if job.team.alone:
        return snapshot, list(notes)
    arrays: list[np.ndarray] = []
    (parts, notes), arrays = job.team.handed_out([taken_apart(snapshot, arrays), list(notes)], arrays)
    return put_together(parts, arrays, like), list(notes)


def _read(job: Job, run: Path, like: State, *, anyway: bool) -> Continued:
    """Returns where a job goes on, as its folder has it; see `continued`."""
    text = (run / "events.jsonl").read_bytes()
    lines, _ = read_lines(text.decode("utf-8", errors="replace"))
    mine = about_of(job)
    differs = _difference(_first(lines), mine)
    if differs and not anyway:
        raise SettingsError(
            f"{run} {differs}; give the same, or say that you want to go on all the same: --anyway, in Python "
            "anyway=True."
        )
    try:
        saved, notes = newest(run, like)
    except OtherStateError as error:
        raise SettingsError(f"{run}: {error}; give the model and the optimizer that it was trained with.") from None
    if differs:
        notes.append(f"{run} {differs}; it goes on all the same, as was asked")
    before = _environment(run) if saved is None else saved.about["environment"]
    notes += _elsewhere(before, mine["environment"], deterministic=job.team.deterministic)
    if saved is None:
        notes.append(f"{run} has no checkpoint that is whole, so it begins anew, with the same result")
        return Continued(Resumed(None, tuple(notes)), [], 0, None)
    return _from(saved, run, like, text, notes)


def _from(saved: Saved, run: Path, like: Any, text: bytes, notes: list[str]) -> Continued:
    offset = min(saved.offset, len(text))
    lines, damaged = read_lines(text[:offset].decode("utf-8", errors="replace"))
    if damaged or offset < saved.offset:
        what = f"{damaged} damaged line{'s' * (damaged != 1)}" if damaged else "lines missing at its end"
        notes.append(f"{run}/events.jsonl has {what}, which the history leaves out; the weights do not depend on it")

    def earlier(back: int) -> Snapshot | None:
        older, _ = newest(run, like, skip=back, before=saved.name)
        return None if older is None else older.snapshot

    clock = saved.snapshot.clock
    notes.append(f"resumed after {clock.updates:,} updates, {clock.epochs:.4g} epochs")
    return Continued(Resumed(saved.snapshot, tuple(notes), earlier), lines, offset, saved.best)


def _first(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what the newest start of the run says of it; nothing where that line is damaged."""
    started = next((line for line in reversed(lines) if line["event"] in ("started", "resumed")), {})
    return {name: started[name] for name in ("data", "model", "settings", "learning_rate") if name in started}


def _environment(run: Path) -> dict[str, Any]:
    """Returns where the run was trained before; nothing where that is not known."""
    try:
        found = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _difference(recorded: dict[str, Any], mine: dict[str, Any]) -> str | None:
    """Returns what differs, as the end of a sentence; None where nothing does."""
    data, own = recorded.get("data") or {}, mine["data"]
    if data.get("sha256") not in (None, own["sha256"]):
        return f"was trained on other data ({data.get('name')}) than what is there now ({own['name']})"
    if recorded.get("model") not in (None, mine["model"]):
        return f"was trained with the model {recorded['model']}, and {mine['model']} is given"
    before, now = recorded.get("settings"), mine["settings"]
    if before is None:
        return None
    if before.get("learning_rate") == "auto":
        before = {**before, "learning_rate": recorded.get("learning_rate")}
    for name in sorted({*before, *now} - {"devices", "changes"}):  # of which it may be more or fewer now
        if before.get(name) != now.get(name):
            return f"was trained with {name}={before.get(name)!r}, and {name}={now.get(name)!r} is given"
    return None


def _elsewhere(recorded: dict[str, Any], mine: dict[str, Any], *, deterministic: bool) -> list[str]:
    """Returns a sentence on what decides the last bits and is not as it was; nothing where all is."""
    names = _DECIDE_BITS | ({} if deterministic else _SHARED_BY)
    names = {name: words for name, words in names.items() if name in recorded and recorded[name] != mine.get(name)}
    if not names:
        return []
    was, now = (
        ", ".join(f"{words} {'not set' if place.get(name) is None else place[name]}" for name, words in names.items())
        for place in (recorded, mine)
    )
    return [f"it was trained with {was}, and goes on with {now}: the last bits of the weights may differ"]


def recorded_job(run: Path, model: str | None = None, data: str | None = None, devices: str | None = None) -> Job:
    """Returns the job that a run's folder describes.

    Args:
        run: the folder.
        model: "file.py:name", for a run with a network of the user's own: code is not run only as a folder names it.
        data: where the data is now, if it has moved.
        devices: how many devices of each process share a batch now; None for as many as then.

    Raises:
        SettingsError: the run was given objects that a file cannot hold, or code that has to be named again.
        DataError: the data is not there any more, or cannot be read.
    """
    settings = _settings(run) | ({} if devices is None else {"devices": devices})
    own, source = settings.pop("model", None), settings.pop("data", None)
    if source is None and data is None:
        raise SettingsError(
            f"{run} was recorded for arrays in memory and names no data; name the file that holds them (--data), or go "
            "on in Python: fit(model, data, resume=...)."
        )
    if model is None and ".py:" in str(own):
        raise SettingsError(
            f"{run} was trained with the code in {own}, which is not run only because a folder names it; add "
            f"--model {own} if you trust it."
        )
    try:
        return resolve(parse_model(str(model or own)), data or source, Settings.given(settings))
    except SettingsError as error:
        raise SettingsError(
            f"{run} cannot be gone on with from its settings alone: {error} If it was trained in Python with objects "
            "of your own, go on there: fit(model, data, resume=...)."
        ) from None
