"""What a person wishes of a run that another process trains: small files in the run's folder, each acted on once.

control/<time>-<number>.json    {"what": "learning_rate", "value": 0.05}; renamed into its place, so never half there

The process that trains looks here between stretches, a few times a second. What is no wish is put aside under another
name and said. What lies here when a process begins was meant for one that is gone: it is left out.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .changes import GO_ON, PAUSE, RATE, STOP, is_rate
from .errors import SettingsError, choose
from .folder import write_whole
from .recorded import CONTROL

LONGEST = 1024  # bytes of a wish
_LOOK_SECONDS = 0.2
_NAME, _ASIDE = re.compile(r"[0-9]{20}-[0-9a-f]{8}\.json"), ".aside"


@dataclass(frozen=True)
class Wish:
    """What is wished.

    Attributes:
        what: "pause", "go_on", "stop" or "learning_rate".
        value: γ, before any schedule; None for the others.
    """

    what: str
    value: float | None = None

    @classmethod
    def of(cls, value: Any) -> Wish:
        """Returns the wish that a JSON object says.

        Raises:
            SettingsError: it says none.

        Example:
            >>> Wish.of({"what": "learning_rate", "value": 0.05})
            Wish(what='learning_rate', value=0.05)
        """
        if not isinstance(value, Mapping) or not {"what"} <= value.keys() <= {"what", "value"}:
            raise SettingsError(
                'A wish is an object like {"what": "pause"} or {"what": "learning_rate", "value": 0.05}.'
            )
        what, rate = choose("what", value["what"], (PAUSE, GO_ON, STOP, RATE)), value.get("value")
        if what != RATE:
            if rate is not None:
                raise SettingsError(f"{what} takes no value; leave it out.")
            return cls(what)
        if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not is_rate(rate):
            raise SettingsError("The learning rate must be a number above 0, for example 0.05.")
        return cls(what, float(rate))


def ask(run: Path, wish: Wish) -> None:
    """Writes a wish into the folder of a run that goes on.

    Raises:
        SettingsError: the folder cannot be written.
    """
    place = run / CONTROL
    try:
        place.mkdir(exist_ok=True)
        if place.is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
    except OSError as error:
        raise SettingsError(f"{place} cannot be written ({error.strerror}); the run goes on as before.") from None
    text = json.dumps({"what": wish.what} | ({} if wish.value is None else {"value": wish.value}))
    write_whole(place / f"{time.time_ns():020d}-{secrets.token_hex(4)}.json", lambda file: file.write(text))


class Wishes:
    """The wishes for the run that this process trains.

    Args:
        run: its folder; None in a process that is told by another one.

    Example:
        >>> Wishes(None).look()
        ([], [])
    """

    def __init__(self, run: Path | None) -> None:
        self._place = None if run is None else run / CONTROL
        self._looked, self._done = -_LOOK_SECONDS, set[str]()
        self._notes: list[str] = []
        n = self._clear()
        if n:
            self._notes.append(f"{n} wish{'es' * (n != 1)} from before this process began: left out")

    def look(self) -> tuple[list[Wish], list[str]]:
        """Returns what is wished since the last look, and sentences about what was no wish."""
        now = time.monotonic()
        if self._place is None or now - self._looked < _LOOK_SECONDS:
            return [], []
        self._looked = now
        found, notes, self._notes = [], self._notes, []
        for path in self._new():
            self._done.add(path.name)
            try:
                found.append(_read(path))
                path.unlink()
            except (OSError, ValueError, RecursionError, SettingsError) as error:
                with suppress(OSError):
                    path.rename(path.with_name(path.name + _ASIDE))
                why = str(error) if isinstance(error, SettingsError) else "It cannot be read."
                notes.append(f"{path} is no wish for this run, and was put aside. {why.rstrip('.')}")
        return found, notes

    def close(self) -> None:
        """Takes away what came too late."""
        self._clear()
        if self._place is not None:
            with suppress(OSError):  # something was put aside there
                self._place.rmdir()

    def _new(self) -> list[Path]:
        """Returns what lies there and was not looked at, the oldest first."""
        assert self._place is not None
        try:
            names = [] if self._place.is_symlink() else os.listdir(self._place)
        except OSError:  # nobody has wished anything
            return []
        names = [name for name in names if not name.startswith(".") and not name.endswith(_ASIDE)]
        return [self._place / name for name in sorted(names) if name not in self._done]

    def _clear(self) -> int:
        """Takes away all wishes that lie there; returns how many."""
        n = 0
        for path in [] if self._place is None else self._new():
            with suppress(OSError):
                if _NAME.fullmatch(path.name):  # what is none of ours is put aside when wishes are looked for
                    path.unlink()
                    n += 1
        return n


def _read(path: Path) -> Wish:
    """Returns the wish in a file; no link is followed, nothing waited for, and no more read than a wish is long."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError
    return Wish.of(json.loads(data))
