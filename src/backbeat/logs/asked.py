"""Where to log: "tensorboard:DIR" and "mlflow:URI"; each is opened, or refused, before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from .log import Log

_EXAMPLE = "write tensorboard:DIR, mlflow:sqlite:///mlflow.db or mlflow:http://localhost:5000"
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")  # of a server or data base


@dataclass(frozen=True)
class Place:
    """Where to log.

    Attributes:
        tool: "tensorboard" or "mlflow".
        where: a folder, or an address as MLflow has them.

    Example:
        >>> place = Place.parse("mlflow:postgresql://me:secret@example.org/runs")
        >>> str(place), place.has_password
        ('mlflow:postgresql://***@example.org/runs', True)
    """

    tool: str
    where: str

    @classmethod
    def parse(cls, text: Any) -> Place:
        """Returns the place that a text names; files of this machine with their whole path.

        Raises:
            SettingsError: it names none.
        """
        tool, colon, where = text.partition(":") if isinstance(text, str) else ("", "", "")
        where = where.strip()
        if tool not in ("tensorboard", "mlflow") or not colon or not where:
            raise SettingsError(f"log={text!r} is not understood; {_EXAMPLE}.")
        if tool == "tensorboard":
            if "://" in where:
                raise SettingsError(f"log={text!r}: TensorBoard reads a folder of this machine; write tensorboard:DIR.")
            return cls(tool, str(Path(where).expanduser().absolute()))
        return cls(tool, _address(where, text))

    @property
    def has_password(self) -> bool:
        """Whether the address holds a password, which is neither kept nor shown."""
        return bool(_PASSWORD.search(self.where))

    def __str__(self) -> str:
        return f"{self.tool}:{_PASSWORD.sub('***@', self.where)}"

    def opened(self) -> Log:
        """Returns it ready to be written.

        Raises:
            MissingExtraError: the library that it needs is not installed.
            SettingsError: it cannot be written or reached.
        """
        if self.tool == "tensorboard":
            from .to_tensorboard import TensorBoard

            return TensorBoard(Path(self.where), str(self))
        from .to_mlflow import MLflow

        return MLflow(self.where, str(self))


def _address(where: str, text: str) -> str:
    scheme, found, rest = where.partition("://")
    if not found:
        raise SettingsError(
            f"log={text!r}: MLflow keeps runs in a data base or on a server, not in a folder; write "
            "mlflow:sqlite:///mlflow.db or mlflow:http://localhost:5000."
        )
    if scheme != "sqlite":
        return where
    file = rest.removeprefix("/")
    if not file or file.startswith(":memory:"):
        raise SettingsError(f"log={text!r} names no file; write mlflow:sqlite:///mlflow.db.")
    return f"sqlite:///{Path(file).expanduser().absolute()}"  # four slashes before a whole path


def places_of(given: Any) -> list[Place]:
    """Returns the places that a setting names: None, a text, or a list of texts; each once.

    Raises:
        SettingsError: a text that names none.

    Example:
        >>> [place.tool for place in places_of(["mlflow:http://localhost:5000", "tensorboard:logs"])]
        ['mlflow', 'tensorboard']
    """
    if given is None:
        return []
    if not isinstance(given, (str, list, tuple)):
        raise SettingsError(f"log={given!r} is no text and no list of texts; {_EXAMPLE}.")
    return list(dict.fromkeys(map(Place.parse, [given] if isinstance(given, str) else given)))


def opened_places(places: Sequence[Place]) -> list[tuple[Place, Log]]:
    """Returns each place with its log, ready to be written; see `Place.opened`."""
    return [(place, place.opened()) for place in places]
