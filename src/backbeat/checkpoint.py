"""Checkpoints of a run: snapshots on disk, written by Orbax in a thread while training goes on.

checkpoints/000007-12300/   the seventh, after 12,300 updates
    arrays/                 parameters, optimizer state, what was measured of the noise
    values/                 clocks, the place in the plan, settings, environment; as JSON
    SHA256SUMS              of the files above, written last: a folder without it is not complete

One is written beside the others and never over one, so that whenever the process ends there is a whole one. Which are
kept: the newest ones and the one with the best loss.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .changes import PAUSE
from .clock import Clock, Duration
from .errors import DataError, SettingsError
from .events import Changed, Evaluated, Event, Finished, StretchDone
from .folder import plain, write_whole
from .mesh import process_index
from .record import CHECKPOINTS as FOLDER
from .record import not_written
from .snapshot import Snapshot, put_together, taken_apart
from .update import State

SUMS = "SHA256SUMS"
FORMAT = 1
SECONDS, SHARE = 5.0, 0.03  # the default: so often at most, and writing takes no more of the time
KEEP = 3
_SMALL_FILES = 1 << 17  # bytes that a checkpoint takes on the disk beside its arrays, at most
_UNFINISHED = ".orbax-checkpoint-tmp"


def interval_of(given: Any) -> Duration | None:
    """Returns how often a run is saved: an interval; None for "auto"; one without end for "never".

    Raises:
        SettingsError: neither.

    Example:
        >>> interval_of("30 s"), interval_of("auto"), interval_of("never").amount
        (Duration(amount=30.0, unit='seconds'), None, inf)
    """
    if given in (None, "auto"):
        return None
    return Duration(math.inf, "seconds") if given == "never" else Duration.parse(given, "checkpoint")


def checked_keep(keep: Any) -> int:
    """Returns how many of the newest checkpoints are kept; refuses what is no whole number from 1 on.

    Raises:
        SettingsError: not one.

    Example:
        >>> checked_keep(3)
        3
    """
    if isinstance(keep, bool) or not hasattr(keep, "__index__") or int(keep) < 1:
        raise SettingsError(f"keep={keep!r} must be a whole number of checkpoints, 1 or more; 3 is the default.")
    return int(keep)


def numbered(run: Path) -> list[Path]:
    """Returns the folders of a run's checkpoints, the oldest first; those that are not complete too.

    Example:
        >>> numbered(Path("no-such-run"))
        []
    """
    folder = run / FOLDER
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and path.name[:6].isdigit() and _UNFINISHED not in path.name
    )


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read.

    Attributes:
        name: of its folder.
        snapshot: where the run stood.
        offset: bytes of events.jsonl that were written then.
        best: the name of the checkpoint with the best loss; None where there is none.
        about: settings, model, data and environment of the run.
    """

    name: str
    snapshot: Snapshot
    offset: int
    best: str | None
    about: dict[str, Any]


def write(path: Path, snapshot: Snapshot, values: dict[str, Any]) -> None:
    """Writes a checkpoint, completely or so that it is seen to be incomplete.

    Args:
        path: its folder, which is not there yet.
        snapshot: what to save.
        values: what else to keep with it, as JSON.

    Raises:
        OSError: it cannot be written.
    """
    import orbax.checkpoint as ocp

    arrays: list[np.ndarray] = []
    parts = taken_apart(snapshot, arrays)
    empty = {
        str(number): [list(array.shape), str(array.dtype)] for number, array in enumerate(arrays) if not array.size
    }
    tree = {f"{number:05d}": array for number, array in enumerate(arrays) if array.size}  # Orbax takes no empty one
    kept = plain({**values, "format": FORMAT, "n_arrays": len(arrays), "empty": empty}) | {"snapshot": parts}
    needed = sum(array.nbytes for array in arrays) + _SMALL_FILES
    path.parent.mkdir(exist_ok=True)
    if shutil.disk_usage(path.parent).free < needed:  # Orbax would notice too, and leave threads that fail later
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with _checkpointer() as checkpointer:
        args = ocp.args.Composite(arrays=ocp.args.PyTreeSave(tree), values=ocp.args.JsonSave(kept))  # pyright: ignore[reportCallIssue]
        checkpointer.save(path.absolute(), args=args)
    lines = "".join(f"{_sum(file)}  {file.relative_to(path).as_posix()}\n" for file in _files(path))
    write_whole(path / SUMS, lambda file: file.write(lines))


def read(path: Path, like: State) -> Saved:
    """Returns a checkpoint; refuses one whose files are not to the bit those that were written.

    Args:
        path: its folder.
        like: a state of the same structure.

    Raises:
        DataError: it is damaged, not complete, or of another format; says what is wrong.
    """
    problem = _problem(path)
    if problem is not None:
        raise DataError(problem)
    import orbax.checkpoint as ocp

    with _checkpointer() as checkpointer:
        only = ocp.args.Composite(values=ocp.args.JsonRestore())  # pyright: ignore[reportCallIssue]
        values = checkpointer.restore(path.absolute(), args=only)["values"]
        if values.get("format") != FORMAT:
            raise DataError(f"has the format {values.get('format')}, and this version reads format {FORMAT}")
        empty = {int(number): np.zeros(*about) for number, about in values["empty"].items()}
        names = [f"{number:05d}" for number in range(values["n_arrays"]) if number not in empty]
        kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        some = ocp.args.Composite(arrays=ocp.args.PyTreeRestore(restore_args=kinds))  # pyright: ignore[reportCallIssue]
        found = checkpointer.restore(path.absolute(), args=some)["arrays"]
    arrays = [empty[n] if n in empty else np.asarray(found[f"{n:05d}"]) for n in range(values["n_arrays"])]
    snapshot = put_together(values["snapshot"], arrays, like)
    return Saved(path.name, snapshot, values["offset"], values["best"], values["about"])


def _checkpointer() -> Any:
    """Returns what writes and reads arrays and JSON; of several processes that train together, by this one alone.

    Left to itself Orbax would wait for all of them, in the middle of the sums that they make together.
    """
    import orbax.checkpoint as ocp

    this = process_index()
    own = ocp.options.MultiprocessingOptions(this, active_processes={this}, barrier_sync_key_prefix="backbeat")
    parts: dict[str, Any] = {
        "arrays": ocp.PyTreeCheckpointHandler(multiprocessing_options=own),
        "values": ocp.JsonCheckpointHandler(multiprocessing_options=own),
    }
    options = ocp.CompositeOptions(multiprocessing_options=own)
    both = ocp.CompositeCheckpointHandler(composite_options=options, **parts)
    return ocp.Checkpointer(both, multiprocessing_options=own)


def _problem(path: Path) -> str | None:
    """Returns what is wrong with the files of a checkpoint; None where nothing is."""
    try:
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
        wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except FileNotFoundError:
        return f"is not complete ({SUMS} is missing)"
    except (OSError, UnicodeDecodeError):
        return f"is damaged ({SUMS} cannot be read)"
    for name, digest in wanted.items():
        if not (path / name).is_file():
            return f"is damaged ({name} is missing)"
        if _sum(path / name) != digest:
            return f"is damaged ({name} is not what was written)"
    return None if wanted else f"is damaged ({SUMS} is empty)"


def _files(path: Path) -> Iterator[Path]:
    return iter(sorted(file for file in path.rglob("*") if file.is_file() and file.name != SUMS))


def _sum(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


class Checkpoints:
    """Saves a run while it goes on: a consumer of events.

    Args:
        run: the run's folder.
        about: settings, model, data and environment, kept in each checkpoint.
        interval: how often; None for every 5 s, or less often where writing would take more than 3 % of the time.
        keep: how many of the newest to keep beside the best.
        offset: returns the bytes of events.jsonl that are written.
        best: the name of the best one so far, of a run that is resumed.
    """

    def __init__(
        self, run: Path, about: dict[str, Any], interval: Duration | None, keep: int, offset: Callable[[], int],
        best: str | None = None,
    ) -> None:  # fmt: skip
        self._run, self._about, self._interval, self._keep, self._offset = run, about, interval, keep, offset
        self._number = max((int(path.name[:6]) for path in numbered(run)), default=0)
        self._best_name, self._best = best, (None, None)  # the best snapshot with its offset, until it is written
        self._cost, self._since, self._saved = 0.0, time.perf_counter(), Clock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="backbeat checkpoint")
        self._writing: Future[float] | None = None
        for noisy in ("absl", "orbax"):  # what each save did, and what went wrong, which is said in a sentence
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        _clear(run)

    def __call__(self, event: Event) -> None:
        """Saves if it is time, where the run is paused, and at the end.

        Raises:
            StorageError: the newest could not be written.
        """
        self._collect()
        snapshot = getattr(event, "snapshot", None)
        if snapshot is None or (self._interval is not None and math.isinf(self._interval.amount)):
            return
        if isinstance(event, Evaluated) and snapshot.best_at == snapshot.clock:
            self._best = (snapshot, self._offset())
        if isinstance(event, Finished) or (isinstance(event, Changed) and event.what == PAUSE):
            self._save(snapshot)
            self._collect(wait=True)
        elif isinstance(event, (StretchDone, Evaluated)) and self._due(snapshot.clock):
            self._save(snapshot)

    def close(self) -> None:
        """Waits for what is being written; what went wrong there does not matter any more."""
        self._thread.shutdown(wait=True)

    def _due(self, clock: Clock) -> bool:
        elapsed = time.perf_counter() - self._since
        if self._interval is None:
            return self._writing is None and elapsed >= max(SECONDS, self._cost / SHARE)
        if self._interval.unit == "seconds":
            return elapsed >= self._interval.amount
        unit, every = self._interval.unit, self._interval.amount
        return math.floor(getattr(clock, unit) / every + 1e-9) > math.floor(getattr(self._saved, unit) / every + 1e-9)

    def _save(self, snapshot: Snapshot) -> None:
        best, self._best = self._best, (None, None)
        wanted = [(*best, True)] if best[0] is not None else []
        if best[0] is snapshot:
            wanted = []
        wanted.append((snapshot, self._offset(), best[0] is snapshot))
        self._since, self._saved = time.perf_counter(), snapshot.clock
        if self._writing is not None:
            self._collect(wait=True)
        self._writing = self._thread.submit(self._write, wanted)

    def _write(self, wanted: list) -> float:
        start = time.perf_counter()
        for snapshot, offset, is_best in wanted:
            self._number += 1
            name = f"{self._number:06d}-{snapshot.clock.updates}"
            self._best_name = name if is_best else self._best_name
            values = {"offset": offset, "best": self._best_name, "about": self._about}
            write(self._run / FOLDER / name, snapshot, values)
        complete = [path for path in numbered(self._run) if (path / SUMS).is_file()]
        kept = {self._best_name, *(path.name for path in complete[-self._keep :])}
        for path in numbered(self._run):
            if path.name not in kept:
                shutil.rmtree(path)
        return time.perf_counter() - start

    def _collect(self, *, wait: bool = False) -> None:
        if self._writing is None or not (wait or self._writing.done()):
            return
        writing, self._writing = self._writing, None
        try:
            self._cost = writing.result()
        except (OSError, ValueError, SettingsError, MemoryError, RuntimeError) as error:
            raise not_written(self._run, error) from None


def _clear(run: Path) -> None:
    """Removes what a process that was killed left half written."""
    for path in (run / FOLDER).glob(f"*{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def newest(run: Path, like: State, *, skip: int = 0, before: str | None = None) -> tuple[Saved | None, list[str]]:
    """Returns the newest checkpoint that is whole, and a sentence for each newer one that is not.

    Args:
        run: the run's folder.
        like: as in `read`.
        skip: how many whole ones to leave out.
        before: only look at older ones than that of this name, and at it.

    Raises:
        OtherStateError: one is whole, and is not of this model and this rule.
    """
    notes = []
    for path in reversed(numbered(run)):
        if before is not None and path.name > before:
            continue
        try:
            saved = read(path, like)
        except DataError as error:
            notes.append(f"{path} {error}; the one before it is used.")
            continue
        except (ValueError, KeyError, TypeError, OSError) as error:
            notes.append(f"{path} cannot be read ({' '.join(str(error).split())[:200]}); the one before it is used.")
            continue
        if skip == 0:
            return saved, notes
        skip -= 1
    return None, notes
