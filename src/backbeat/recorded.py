"""Runs as their folders tell of them: what is in one, whether one trains there now; without JAX, so at once."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from .changes import STOPPED
from .errors import DataError

FORMAT = 1
PARAMETERS, PREPARATION, CHECKPOINTS, LOCK = "model.safetensors", "preparation.zip", "checkpoints", ".lock"
MISTAKES, CONTROL, LOGS = "mistakes.json", "control", "logs.json"
OWN_FILES = (
    "settings.toml", "environment.json", "events.jsonl", "record.json", MISTAKES, PARAMETERS, PREPARATION, CHECKPOINTS,
    CONTROL, LOGS,
)  # fmt: skip
ENDED_BY_HAND = ("interrupted", "terminated", STOPPED)  # reasons of runs that can go on
_NEEDED = {
    "run": ("data", "model", "every", "finished", "history"),
    "comparison": ("data", "model", "answer", "cadences", "equal"),
    "advice": ("data", "model", "answer", "sizes", "hardware", "confirmed"),
}


def in_use(folder: Path) -> bool:
    """Returns whether a process trains in a run's folder now, or measures in that of a comparison or of advice.

    Example:
        >>> in_use(Path("no-such-run"))
        False
    """
    from filelock import FileLock, Timeout

    lock = next((path for path in (folder / CHECKPOINTS / LOCK, folder / LOCK) if path.exists()), None)
    if lock is None:
        return False
    try:
        with FileLock(lock, timeout=0):
            lock.unlink(missing_ok=True)  # made here, if its owner took it away just now
        return False
    except Timeout:
        return True
    except OSError:  # of somebody else, or read-only: nobody trains in what cannot be written
        return False


def found_folder(run: Path) -> Path:
    """Returns the folder that a person means by RUN: a path, or a name under `runs/`.

    A folder of that name which is no run, such as that of the data, does not hide the run.

    Example:
        >>> found_folder(Path("2026-11-23-lively-fern")).as_posix()
        'runs/2026-11-23-lively-fern'
    """
    named = Path("runs") / run
    if len(run.parts) > 1 or (run.exists() and not named.exists()):
        return run
    return run if any((run / name).exists() for name in ("record.json", "events.jsonl")) else named


def read_record(folder: Path) -> dict[str, Any]:
    """Returns the record of a finished run, comparison or advice.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    file = folder / "record.json" if folder.is_dir() else folder
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}); give the folder of a finished run, comparison or advice."
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is not the record of a run, a comparison or advice.") from None
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}); it cannot be shown.") from None
    if not isinstance(record, dict) or record.get("kind") not in _NEEDED:
        raise DataError(f"{file} is not the record of a run, a comparison or advice.")
    if record.get("format") != FORMAT:
        raise DataError(
            f"{file} has the format {record.get('format')}, and this version reads format {FORMAT}; "
            "use the version that wrote it."
        )
    missing = [name for name in _NEEDED[record["kind"]] if name not in record]
    if missing:
        raise DataError(f"{file} is damaged (it has no {missing[0]!r}); it cannot be shown.")
    return record


def list_runs(parent: Path) -> list[dict[str, Any]]:
    """Returns one row for each run, comparison and advice below a folder, newest first: name, kind, state, how far.

    Raises:
        DataError: the folder is not there.
    """
    if not parent.is_dir():
        raise DataError(
            f"{parent} is not there, so there are no runs in it; `backbeat train` and `backbeat compare` make some."
        )
    folders = sorted(
        (path for path in parent.iterdir() if path.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True
    )
    return [row for folder in folders if (row := _row(folder)) is not None]


def _row(folder: Path) -> dict[str, Any] | None:
    row: dict[str, Any] = {"name": folder.name, "kind": "run", "state": "not finished"}
    if in_use(folder):
        row["state"] = "running"
    elif (folder / CHECKPOINTS).is_dir():
        row["state"] = "cut off"
    if (folder / "record.json").is_file() and row["state"] != "running":
        try:
            return row | _of_record(read_record(folder))
        except (DataError, KeyError, TypeError):
            return row | {"state": "damaged"}
    try:
        lines = (folder / "events.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    with suppress(ValueError, AttributeError, IndexError):
        row["kind"] = json.loads(lines[0]).get("kind", "run")
    for line in reversed(lines):  # the last line may be half written
        try:
            last = json.loads(line)
            return row | {"updates": last.get("updates", 0), "seconds": last.get("wall_seconds", 0.0)}
        except (ValueError, AttributeError):
            continue
    return row


def _of_record(record: dict[str, Any]) -> dict[str, Any]:
    row = {"kind": record["kind"], "data": record["data"]["name"], "model": record["model"]}
    if record["kind"] == "advice":
        best = record.get("finish_first") or {}
        return row | {"state": "finished", "every": best.get("every", "–")}
    if record["kind"] == "comparison":
        return row | {"state": "finished", "every": ", ".join(c["every"] for c in record["cadences"])}
    done = record["finished"]
    ended = done["reason"] if done["reason"] in ENDED_BY_HAND else "finished"
    state = "diverged" if done["diverged"] else ended
    known = {name: done[name] for name in ("reason", "updates", "seconds")}
    return row | {"state": state, "every": record["every"], **known}


def with_mistakes(record: dict[str, Any], run: Path | None) -> dict[str, Any]:
    """Returns a run's record with what it was last seen to get wrong, where that is known.

    Example:
        >>> with_mistakes({"kind": "run"}, Path("no-such-run"))
        {'kind': 'run'}
    """
    found = None if run is None else read_mistakes(run)
    return record if found is None else record | {"mistakes": found}


def read_mistakes(run: Path) -> dict[str, Any] | None:
    """Returns what a run was last seen to get wrong; None where that is not known.

    Example:
        >>> read_mistakes(Path("no-such-run")) is None
        True
    """
    try:
        found = json.loads((run / MISTAKES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == 1 else None
