"""Runs as they are now, read from their folders: what has been added is read, and nothing is written.

A run's events.jsonl grows line by line; one that is resumed is cut back first, and its last line may be half written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..clock import Durations
from ..errors import BackbeatError, DataError
from ..folder import plain
from ..history import Account, replayed
from ..record import in_use, read_record
from ..report.page import thinned

EVENTS, RECORD = "events.jsonl", "record.json"
_MOST_ROWS = 1000  # of a history that is sent; a chart is not as many points wide
_POINTS = 300  # of a curve among others


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes when a file does; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass
class Followed:
    """A run, comparison or advice, followed as its folder grows.

    Attributes:
        folder: of it.
        version: how often something new was seen.
        about: what its start says of it.
        last: its newest event.
        running: whether a process trains in it.
    """

    folder: Path
    version: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    running: bool = False
    _account: Account = field(default_factory=lambda: Account(follows=False))
    _offset: int = 0
    _stamps: Any = None
    _record: dict[str, Any] | None = None
    _error: str | None = None

    def refresh(self) -> bool:
        """Reads what is new; returns whether anything is."""
        events, record = _stamp(self.folder / EVENTS), _stamp(self.folder / RECORD)
        before = self._stamps
        if (events, record) == before and record is not None and not self.running:
            return False
        running = events is not None and in_use(self.folder)
        changed = (events, record) != before or running != self.running
        self._stamps, self.running = (events, record), running
        if events is not None and (before is None or events != before[0]):
            if before is None or before[0] is None or events[0] != before[0][0] or events[1] < self._offset:
                self._begin()
            self._read()
        if record is None or running:
            self._record = self._error = None
        elif before is None or record != before[1] or self._record is None:
            self._finished()
        self.version += changed
        return changed

    def _begin(self) -> None:
        self._account, self._offset, self.about, self.last = Account(follows=False), 0, {}, {}

    def _read(self) -> None:
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # the rest is being written
        lines = []
        for text in whole.splitlines():
            try:
                line = json.loads(text)
                line["event"]
            except (ValueError, TypeError, KeyError):
                continue  # a damaged line: the run goes on without it, and so does its page
            if line["event"] in ("started", "resumed"):
                if not self.about:
                    self._account = Account(follows=str(line.get("every")).startswith("noise"))
                self.about = {**self.about, **line}
            lines.append(line)
        replayed(self._account, lines)
        self._offset += len(whole)
        self.last = lines[-1] if lines else self.last

    def _finished(self) -> None:
        try:
            self._record, self._error = read_record(self.folder), None
        except DataError as error:
            self._record, self._error = None, str(error)

    @property
    def state(self) -> str:
        """Running, finished, interrupted, terminated, diverged, cut off or damaged."""
        if self.running:
            return "running"
        if self._error is not None:
            return "damaged"
        if self._record is None:
            return "cut off"
        done = self._record.get("finished") or {}
        if done.get("diverged"):
            return "diverged"
        return done["reason"] if done.get("reason") in ("interrupted", "terminated") else "finished"

    def row(self) -> dict[str, Any]:
        """Returns what the list shows of it."""
        record = self._record or {}
        kind = record.get("kind", "run")
        row: dict[str, Any] = {
            "name": self.folder.name, "kind": kind, "state": self.state, "version": self.version,
            "data": ((record or self.about).get("data") or {}).get("name"),
            "model": (record or self.about).get("model"),
        }  # fmt: skip
        if kind != "run":
            return row
        row |= {"every": (record or self.about).get("every"), **{
            name: self.last.get(name) for name in ("updates", "examples", "epochs", "wall_seconds")
        }}  # fmt: skip
        row |= self._progress() if self.running else {}
        return row | self._scores()

    def _progress(self) -> dict[str, Any]:
        """Returns how far the run is, from 0 to 1, and the seconds that are left at the speed so far."""
        try:
            durations = Durations.parse(str((self.about.get("settings") or {}).get("duration")))
            clock = {**self.last, "seconds": self.last.get("wall_seconds", 0.0)}
            share = max(float(clock.get(limit.unit) or 0.0) / limit.amount for limit in durations.each)
        except (BackbeatError, TypeError, ValueError):
            return {}
        share, spent = min(1.0, share), float(self.last.get("wall_seconds") or 0.0)
        return {"progress": share, "seconds_left": spent * (1 - share) / share if share > 0 and spent else None}

    def _scores(self) -> dict[str, Any]:
        history = self._history()
        scores = {}
        for name, column in history.items():
            if name.startswith(("train_", "held_out_")) or name == "loss_mean":
                known = [value for value in column if isinstance(value, (int, float)) and math.isfinite(value)]
                if known:
                    scores[name] = known[-1]
        return {"scores": scores}

    def _history(self) -> Mapping[str, Any]:
        if self._record is not None and self._record.get("kind") == "run":
            return self._record.get("history") or {}
        return plain(dict(self._account.history()))

    def record(self) -> dict[str, Any]:
        """Returns it as a report shows it, its history thinned; of a run that is under way, what is known so far."""
        if self._record is not None:
            return plain(thinned(self._record, _MOST_ROWS)) | {"name": self.folder.name, "state": self.state}
        account = self._account
        shown = {name: value for name, value in self.about.items() if name not in ("event", "time")}
        shown |= {
            "kind": "run", "name": self.folder.name, "state": self.state, "created": self.about.get("time", ""),
            "history": dict(account.history()), "compile_seconds": account.compile_seconds,
            "set_aside": account.set_aside, "notes": account.notes, **self._progress(),
            "finished": {
                "reason": "", **{name: self.last.get(name) for name in ("updates", "examples", "epochs")},
                "seconds": self.last.get("wall_seconds"),
            },
        }  # fmt: skip
        return plain(thinned(shown, _MOST_ROWS))

    def curve(self) -> dict[str, Any]:
        """Returns its loss and scores on three clocks, thinned to a few hundred points, to be drawn among others."""
        record = thinned({"history": self._history()}, _POINTS)
        names = ("updates", "examples", "epochs", "wall_seconds", "loss_mean")
        wanted = {
            name: column for name, column in record["history"].items()
            if name in names or name.startswith(("train_", "held_out_"))
        }  # fmt: skip
        return plain({"name": self.folder.name, "version": self.version, "history": wanted})


class Watched:
    """All runs, comparisons and advice below a folder, or one of them alone.

    Args:
        folder: the folder of runs, or that of one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.one = (folder / EVENTS).exists() or (folder / RECORD).exists()
        self.followed: dict[str, Followed] = {}
        self.version = 0

    def refresh(self) -> bool:
        """Reads what is new; returns whether anything is."""
        folders = [self.folder] if self.one else self._folders()
        names = {folder.name for folder in folders}
        gone = [name for name in self.followed if name not in names]
        for name in gone:
            del self.followed[name]
        for folder in folders:
            self.followed.setdefault(folder.name, Followed(folder))
        changed = sum([followed.refresh() for followed in self.followed.values()])
        self.version += bool(changed or gone)
        return bool(changed or gone)

    def _folders(self) -> list[Path]:
        try:
            inside = [path for path in self.folder.iterdir() if path.is_dir()]
        except OSError:
            return []
        return [path for path in inside if (path / EVENTS).exists() or (path / RECORD).exists()]

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each, those that run first and then the newest first."""
        newest = sorted(self.followed.values(), key=lambda each: each.folder.name, reverse=True)
        return plain([each.row() for each in sorted(newest, key=lambda each: not each.running)])
