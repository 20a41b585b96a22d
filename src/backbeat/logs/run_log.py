"""A run in logs, as a consumer of its events: written by a thread of its own for each, so training waits for none.

A log that fails is given up, and said at the end; the run goes on. Under what a log has a run stands in the run's
folder, logs.json, so that one that is resumed goes on there too, from where it stands.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ENDED, BackbeatError, SettingsError
from ..events import Changed, Diverged, Evaluated, Event, Finished, Noted, Started, StretchDone
from ..folder import write_json
from ..history import event_line
from ..recorded import LOGS
from .asked import Place, opened_places, places_of
from .log import FAILED, FINISHED, KILLED, Log, LoggedRun, Named, named

_END_SECONDS = 30.0


class Written:
    """What is written into one log, in order, in a thread of its own.

    Args:
        place: of the log.
        note: is told, once, in a sentence, if it fails.
    """

    def __init__(self, place: Place, note: Callable[[str], None]) -> None:
        self._place, self._note = place, note
        self._work: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._failed = False
        self._last: Callable[[], Any] = lambda: None
        self._thread = threading.Thread(target=self._write, name=f"log to {place.tool}", daemon=True)
        self._thread.start()

    def later(self, work: Callable[[], Any]) -> None:
        """Does something after all that came before."""
        self._work.put(work)

    def close(self, last: Callable[[], Any]) -> None:
        """Does a last thing, in any case, and waits until all is done; gives up after half a minute."""
        self._last = last
        self._work.put(None)
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            self._fail(f"it did not take all within {_END_SECONDS:g} s")

    def _write(self) -> None:
        while (work := self._work.get()) is not None:
            if not self._failed:
                self._try(work)
        self._try(self._last)

    def _try(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:  # whatever the library, the network or the disk has
            text = str(error).strip().partition("\n")[0][:200].rstrip(".")
            self._fail(f"{type(error).__name__}: {text}")

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._note(f"{self._place} was given up: {why}; the run itself lacks nothing")


class RunLog:
    """A consumer of the events of a run, which passes on what they say to the logs that were asked for.

    Args:
        given: "tensorboard:DIR", "mlflow:URI" or a list of these; None for none.
        folder: of the run; None where it is not recorded.
        resumed: whether it goes on: then also where it was logged before, as far as that can be opened.

    Attributes:
        notes: what has to be said of them, in sentences.

    Raises:
        SettingsError: one of those given cannot be written.
        MissingExtraError: its library is not installed.
    """

    def __init__(self, given: Any, folder: Path | None = None, *, resumed: bool = False) -> None:
        self._folder, self.notes = folder, list[str]()
        self._kept = _read(folder) if folder is not None and resumed else {}
        opened = opened_places(places_of(given))
        known = {str(place) for place, _ in opened}
        for text in [text for text in self._kept if text not in known]:
            try:
                if "***@" in text:
                    raise SettingsError("its password is not kept; give it again with log=")
                opened += opened_places([Place.parse(text)])
            except BackbeatError as error:
                self.notes.append(f"the run is no longer logged to {text}: {str(error).rstrip('.')}")
        self._each = [_Run(place, log, self) for place, log in opened]
        self._started: Started | None = None

    def __call__(self, event: Event) -> None:
        """Passes an event on."""
        if isinstance(event, Started):
            self._started = event
            return
        if self._started is not None:
            known, clock = flat(self._started.about), event.clock
            at = clock.updates if self._started.resumed else 0
            name = self._folder.name if self._folder is not None else time.strftime("%Y-%m-%d-%H%M%S")
            for each in self._each:
                kept = self._kept.get(str(each.place))
                each.begin(Named(name, known, time.time() - clock.seconds, kept, at))
            self._started = None
        for each in self._each:
            each.take(event)

    def keep(self, place: Place, kept: str) -> None:
        """Remembers under what a log has the run."""
        if self._folder is not None:
            self._kept[str(place)] = kept
            write_json(self._folder / LOGS, self._kept)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all logs; a run that told of no end has failed."""
        while self._each:
            self._each.pop().close()


class _Run:
    """A run in one log."""

    def __init__(self, place: Place, log: Log, of: RunLog) -> None:
        self.place, self._log, self._of = place, log, of
        self._written = Written(place, of.notes.append)
        self._run: LoggedRun | None = None
        self._state = FAILED

    def begin(self, run: Named) -> None:
        def begin() -> None:
            self._run = self._log.begin(run)
            self._of.keep(self.place, self._run.kept)

        self._written.later(begin)

    def take(self, event: Event) -> None:
        self._written.later(lambda: self._take(event))

    def _take(self, event: Event) -> None:
        run = self._run
        assert run is not None
        assert not isinstance(event, Started)
        at = event.clock.updates, event.clock.seconds
        if isinstance(event, (StretchDone, Evaluated)):
            run.numbers(*at, named(columns(event_line(event))))
        elif isinstance(event, Noted):
            run.say(*at, event.note)
            if event.back_to is not None:
                run.back_to(event.back_to)
        elif isinstance(event, Changed):
            run.say(*at, event.sentence)
        elif isinstance(event, (Finished, Diverged)):
            run.say(*at, event.reason)
            killed = KILLED if event.reason in ENDED else FINISHED
            self._state = FAILED if isinstance(event, Diverged) else killed

    def close(self) -> None:
        self._written.close(lambda: None if self._run is None else self._run.end(self._state))


def columns(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the line of an event by the names of a history's columns.

    Example:
        >>> columns({"updates": 3, "train": {"loss": 0.5}, "held_out": {}})
        {'updates': 3, 'train_loss_mean': 0.5}
    """
    found = {name: value for name, value in line.items() if name not in ("train", "held_out", "seconds")}
    for part in ("train", "held_out"):
        found |= {f"{part}_{name}": value for name, value in (line.get(part) or {}).items()}
    return {f"{name}_mean" if name.endswith("_loss") else name: value for name, value in found.items()}


def flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is known of a run as one level of names: data, model and settings.

    Example:
        >>> flat({"model": "linear", "data": {"name": "iris", "n_train": 120}, "settings": {"seed": 0, "every": "32"}})
        {'seed': 0, 'every': '32', 'model': 'linear', 'data': 'iris', 'n_train': 120}
    """
    data = about.get("data") or {}
    whole = {name: about.get(name) for name in ("model", "loss", "optimizer", "every", "seed", "learning_rate")}
    known = {**(about.get("settings") or {}), **{name: value for name, value in whole.items() if value is not None}}
    return {**known, "data": data.get("name"), "n_train": data.get("n_train")}


def _read(folder: Path) -> dict[str, str]:
    """Returns under what each log has a run; nothing where that cannot be read."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / LOGS).read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
            return found
    return {}
