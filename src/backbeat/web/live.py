"""Runs as they are now, read from their folders: what has been added is read, and nothing is written.

A run's events.jsonl grows line by line; one that is resumed is cut back first, and its last line may be half written.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..changes import GO_ON, PAUSE
from ..clock import Clock, Duration, Durations
from ..errors import BackbeatError, DataError
from ..folder import plain
from ..history import Account, replayed
from ..recorded import ENDED_BY_HAND, MISTAKES, in_use, read_mistakes, read_record
from ..report.page import rows_kept, thinned
from .underway import record_so_far, time_given

DAMAGED = (AttributeError, KeyError, IndexError, TypeError, ValueError)  # what files of another form lead to
EVENTS, RECORD = "events.jsonl", "record.json"
_MOST_ROWS = 1000  # of a history that is sent; a chart is not as many points wide
_POINTS, _FEWER_POINTS, _FEW = 300, 120, 40  # of a curve among others, and among more than a few
_ON_CURVES = ("updates", "examples", "epochs", "wall_seconds", "loss_mean")
_HELD, _MOST_HELD = 4000, 20_000  # rows of a history in memory: where there are more, they are thinned to fewer
_LINES = 1000  # of a file that are counted in at once


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes when a file does; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _share(each: tuple[Duration, ...], event: Mapping[str, Any]) -> float:
    """Returns how far an event is on the way to the first of some durations, from 0 to 1."""
    clock = Clock(
        int(event.get("updates") or 0), int(event.get("examples") or 0), float(event.get("epochs") or 0.0),
        float(event.get("wall_seconds") or 0.0),
    )  # fmt: skip
    return min(1.0, max(getattr(clock, limit.unit) / limit.amount for limit in each))


@dataclass
class Followed:
    """A run, comparison or advice, followed as its folder grows.

    Attributes:
        folder: of it.
        version: is greater whenever something new was seen, also by a server that was started anew.
        about: what its start says of it.
        last: its newest event.
        running: whether a process trains in it.
        paused: whether that waits, because somebody wished it.
    """

    folder: Path
    version: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    about: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    running: bool = False
    paused: bool = False
    _account: Account = field(default_factory=Account)
    _offset: int = 0
    _stamps: Any = None
    _read_of: tuple[int, int, int] | None = None  # the stamp of the events that were read
    _record: dict[str, Any] | None = None
    _error: str | None = None
    _left_out: int = 0  # rows
    _since: dict[str, Any] = field(default_factory=dict)  # the newest event before the process that trains now
    _found: list[dict[str, Any]] = field(default_factory=list)  # what is known of a comparison or of advice
    _at: dict[str, Any] = field(default_factory=dict)  # and how far it is
    _known: tuple[int, Any] = (-1, None)  # the history of a version
    _drawn: tuple[int, int, str] = (-1, 0, "")  # the curve of a version, of so many points

    def refresh(self) -> bool:
        """Reads what is new; returns whether anything is."""
        events, record, mistakes = (_stamp(self.folder / name) for name in (EVENTS, RECORD, MISTAKES))
        before = self._stamps
        if (events, record, mistakes) == before and record is not None and not self.running:
            return False
        running = events is not None and in_use(self.folder)
        changed = (events, record, mistakes) != before or running != self.running
        self._stamps, self.running = (events, record, mistakes), running
        if record is None or running:
            self._record = self._error = None
        elif before is None or record != before[1] or self._record is None:
            self._finished()
        if events is not None and self._record is None:  # a record says all that the events do
            if self._read_of is None or events[0] != self._read_of[0] or events[1] < self._offset:
                self._begin()
            if events != self._read_of:
                with suppress(OSError):  # no file, or not ours to read
                    self._read()
            self._read_of = events
        self.version += changed
        return changed

    def _begin(self) -> None:
        self._account, self._offset, self.about, self.last = Account(), 0, {}, {}
        self._left_out, self._since, self._found, self._at, self.paused = 0, {}, [], {}, False

    def _read(self) -> None:
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(self._offset)
            lines = []
            for text in file:
                if not text.endswith(b"\n"):
                    break  # it is being written
                self._offset += len(text)
                lines += self._line(text)
                if len(lines) == _LINES:
                    self._count(lines)
                    lines = []
            self._count(lines)

    def _line(self, text: bytes) -> list[dict[str, Any]]:
        """Returns the event of a line; nothing for a damaged one: the run goes on without it, and so does its page."""
        try:
            line = json.loads(text.decode())
            line["event"]
        except (ValueError, TypeError, KeyError):
            return []
        line.pop("repeats", None)  # of every batch; only the record sums them up
        if line["event"] in ("started", "resumed"):
            self.about, self._since, self.paused = {**self.about, **line}, self.last, False
        else:
            self.last = line
            if line["event"] == "changed" and line.get("what") in (PAUSE, GO_ON):
                self.paused = line["what"] == PAUSE
            if line["event"] == "progress":
                self._at = line
            elif self.kind != "run":
                self._found.append(line)
        return [line]

    def _count(self, lines: list[dict[str, Any]]) -> None:
        replayed(self._account, lines)
        rows = self._account.rows
        if len(rows) > _MOST_HELD:
            kept = rows_kept(self._account.history(), _HELD)
            self._left_out += len(rows) - len(kept)
            self._account.rows = [rows[i] for i in kept]

    def _finished(self) -> None:
        try:
            self._record, self._error = read_record(self.folder), None
        except DataError as error:
            self._record, self._error = None, str(error)

    @property
    def kind(self) -> str:
        """Run, comparison or advice."""
        return (self._record or self.about).get("kind", "run")

    @property
    def state(self) -> str:
        """Running, finished, interrupted, terminated, stopped, diverged, cut off or damaged."""
        if self.running:
            return "running"
        if self._error is not None:
            return "damaged"
        if self._record is None:
            return "cut off"
        done = self._record.get("finished") or {}
        if done.get("diverged"):
            return "diverged"
        return done["reason"] if done.get("reason") in ENDED_BY_HAND else "finished"

    def row(self) -> dict[str, Any]:
        """Returns what the list shows of it."""
        record, kind = self._record or {}, self.kind
        row: dict[str, Any] = {
            "name": self.folder.name, "kind": kind, "state": self.state, "version": self.version,
            "data": ((record or self.about).get("data") or {}).get("name"),
            "model": (record or self.about).get("model"),
        }  # fmt: skip
        if kind != "run":
            wall = record.get("took_seconds") if record else self.last.get("wall_seconds")
            return row | {"wall_seconds": wall} | (self._progress() if self.running else {})
        about = record or self.about
        done = record.get("finished") or self.last
        row |= {"every": about.get("every"), "seed": about.get("seed"), "alike": self._alike()}
        row |= {name: done.get(name) for name in ("updates", "examples", "epochs")}
        row["wall_seconds"] = done.get("seconds") if record else done.get("wall_seconds")
        row |= self._progress() | {"paused": self.paused} if self.running else {}
        return row | self._scores()

    def _progress(self) -> dict[str, Any]:
        """Returns how far the run is, from 0 to 1, and the seconds left at the speed of the process that trains now.

        Of several durations the one counts that ends first; with a target the run may end before, which `at_most` says.
        """
        settings = self.about.get("settings") or {}
        if self.kind != "run":
            return self._stage()
        try:
            each = Durations.parse(str(settings.get("duration"))).each
            now, before = (_share(each, event) for event in (self.last, self._since))
        except (BackbeatError, TypeError, ValueError):
            return {}
        spent = float(self.last.get("wall_seconds") or 0.0) - float(self._since.get("wall_seconds") or 0.0)
        done = now - before
        left = spent * (1 - now) / done if done > 0 and spent > 0 else None
        at_most = bool(settings.get("target") or settings.get("patience"))
        return {"progress": now, "seconds_left": left, "at_most": at_most}

    def _stage(self) -> dict[str, Any]:
        """Returns how far a comparison or advice is, at what, and the seconds that are left of those it was given."""
        wall, given = float(self.last.get("wall_seconds") or 0.0), time_given(self.about)
        left = None if given is None or wall > given else given - wall
        at = self._at
        return {
            "progress": at.get("overall", 0.0), "stage": at.get("stage"), "at_every": at.get("every"),
            "seconds_left": left, "at_most": False,
        }  # fmt: skip

    def _scores(self) -> dict[str, Any]:
        scores = {}
        for name, column in self._history().items():
            if name.startswith(("train_", "held_out_")) or name == "loss_mean":
                known = (value for value in reversed(column) if isinstance(value, (int, float)))
                newest = next(known, None)
                if newest is not None:
                    scores[name] = newest
        return {"scores": scores}

    def _history(self) -> dict[str, Any]:
        """Returns the columns as JSON has them."""
        if self._record is not None and self._record.get("kind") == "run":
            return self._record.get("history") or {}
        if self._known[0] != self.version:
            self._known = self.version, plain(dict(self._account.history()))
        return self._known[1]

    def _alike(self) -> str:
        """Returns what runs have in common that differ in nothing but the seed, as a short text."""
        about = self._record or self.about
        data, settings = about.get("data") or {}, about.get("settings") or {}
        settings = {name: value for name, value in settings.items() if name != "seed"}
        same = [data.get("sha256") or data.get("name"), settings]
        same += [about.get(name) for name in ("model", "loss", "optimizer", "every", "learning_rate")]
        return hashlib.sha256(json.dumps(plain(same), sort_keys=True).encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """Returns it as a report shows it, its history thinned; of a run that is under way, what is known so far."""
        if self._record is not None:
            own = {"name": self.folder.name, "state": self.state, "mistakes": read_mistakes(self.folder)}
            return plain(thinned(self._record, _MOST_ROWS)) | own
        if self.kind != "run":
            return self._so_far()
        account = self._account
        shown = {name: value for name, value in self.about.items() if name not in ("event", "time")}
        shown |= {
            "kind": "run", "name": self.folder.name, "state": self.state, "created": self.about.get("time", ""),
            "history": self._history(), "mistakes": read_mistakes(self.folder),
            "compile_seconds": account.compile_seconds, "set_aside": account.set_aside, "notes": account.notes,
            "changes": account.changes, "paused": self.running and self.paused,
            **self._progress(),
            "finished": {
                "reason": "", **{name: self.last.get(name) for name in ("updates", "examples", "epochs")},
                "seconds": self.last.get("wall_seconds"),
            },
        }  # fmt: skip
        shown = thinned(shown, _MOST_ROWS)
        if self._left_out:
            n_shown = len(shown["history"]["updates"])
            shown["thinned"] = {"rows": len(account.rows) + self._left_out, "shown": n_shown}
        return plain(shown)

    def _so_far(self) -> dict[str, Any]:
        """Returns what is known of a comparison or of advice that is not finished."""
        known = record_so_far(self.kind, self.about, self._found)
        own = {"kind": self.kind, "name": self.folder.name, "created": self.about.get("time", "")}
        underway = {"state": self.state, "wall_seconds": self.last.get("wall_seconds"), **self._stage()}
        return plain(known | own | {"underway": underway})

    def curve(self, among: int = 1) -> str:
        """Returns its loss and scores on its clocks as JSON text, thinned: the more curves there are, the fewer points.

        Args:
            among: how many curves are drawn.
        """
        most = _POINTS if among <= _FEW else _FEWER_POINTS
        if self._drawn[:2] != (self.version, most):
            record = thinned({"history": self._history()}, most)
            wanted = {
                name: [_rounded(value) for value in column] for name, column in record["history"].items()
                if name in _ON_CURVES or name.startswith(("train_", "held_out_"))
            }  # fmt: skip
            curve = {"name": self.folder.name, "version": self.version, "history": wanted}
            self._drawn = self.version, most, json.dumps(plain(curve), ensure_ascii=False)
        return self._drawn[2]

    def curve_or_none(self, among: int = 1) -> str | None:
        """Returns the same; None where its files are of another form than runs write."""
        try:
            return self.curve(among)
        except DAMAGED:
            return None


def _rounded(value: Any) -> Any:
    """Returns a number with the digits that a drawing has; whole numbers as they are."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Watched:
    """All runs, comparisons and advice below a folder, or one of them alone.

    Args:
        folder: the folder of runs, or that of one.
        one: whether it is that of one; None to look.
    """

    def __init__(self, folder: Path, one: bool | None = None) -> None:
        self.folder = folder
        self.one = _holds_one(folder) if one is None else one
        self.followed: dict[str, Followed] = {}
        self.version = 0
        self._one_at_a_time = threading.Lock()

    def refresh(self) -> bool:
        """Reads what is new; returns whether anything is."""
        with self._one_at_a_time:
            return self._refresh()

    def _refresh(self) -> bool:
        folders = ([self.folder] if _holds_one(self.folder) else []) if self.one else self._folders()
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
        return [path for path in inside if _holds_one(path)]

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each, those that run first and then the newest first."""
        newest = sorted(self.followed.values(), key=lambda each: each.folder.name, reverse=True)
        with self._one_at_a_time:
            return [_row(each) for each in sorted(newest, key=lambda each: not each.running)]


def _holds_one(folder: Path) -> bool:
    """Returns whether a folder is that of a run, a comparison or advice."""
    return (folder / EVENTS).exists() or (folder / RECORD).exists()


def _row(run: Followed) -> dict[str, Any]:
    """Returns what the list shows of a run, whatever its files hold."""
    try:
        return plain(run.row())
    except DAMAGED:
        return {"name": run.folder.name, "kind": "run", "state": "damaged", "version": run.version}
