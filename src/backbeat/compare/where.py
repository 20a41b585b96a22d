"""Where independent trainings are carried out: here, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import importlib.util
import multiprocessing
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MissingExtraError, SettingsError

WORKER = "backbeat worker"  # what a worker process is called
_MOST = 1024
GUARD = (
    "a worker runs the script that asks for workers once more, from the top: put what it does under "
    '`if __name__ == "__main__":`.'
)
_ALLOWED = (
    'give a number of processes, such as 4; "ray" for a Ray of this machine\'s own; "ray:auto" or "ray://host:port" '
    "for a cluster that runs; or leave it out"
)


@dataclass(frozen=True)
class Where:
    """Workers, as they were asked for.

    Attributes:
        processes: how many of this machine; None for Ray.
        address: of the Ray cluster; "local" for one that is started for this.
    """

    processes: int | None = None
    address: str | None = None

    def __str__(self) -> str:
        if self.processes is None:
            return "Ray on this machine" if self.address == "local" else f"the Ray cluster {self.address}"
        return f"{self.processes} process{'es' * (self.processes != 1)}"


def where(on: Any) -> Where | None:
    """Returns where to work, of what a person gives; None for this process.

    Raises:
        SettingsError: anything else.
        MissingExtraError: Ray is not installed.

    Example:
        >>> where(None), str(where("4")), str(where("1 process"))
        (None, '4 processes', '1 process')
        >>> where("cluster")
        Traceback (most recent call last):
            ...
        backbeat.errors.SettingsError: on='cluster' is no place to work; give a number of processes, such as 4; ...
    """
    if on is None:
        return None
    if multiprocessing.current_process().name == WORKER:
        raise SettingsError(GUARD)
    text = on.strip() if isinstance(on, str) else ""
    number = re.fullmatch(r"(\d+)(?: process(?:es)?)?", text)
    count = int(number[1]) if number else on
    if not isinstance(count, (str, bool)) and hasattr(count, "__index__"):
        if not 1 <= int(count) <= _MOST:
            raise SettingsError(f"on={on!r} must be from 1 to {_MOST} processes; {_ALLOWED}.")
        return Where(processes=int(count))
    if text == "ray" or text == "ray:auto" or re.fullmatch(r"ray://[^\s/:]+:\d+", text):
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError(f"on={on!r} needs ray, which is not installed; run: pip install 'backbeat[ray]'.")
        return Where(address={"ray": "local", "ray:auto": "auto"}.get(text, text))
    raise SettingsError(f"on={on!r} is no place to work; {_ALLOWED}.")


def check_sent(place: Where, parts: Mapping[str, Any]) -> None:
    """Refuses what cannot be sent to workers, before anything is measured.

    Args:
        place: where they are.
        parts: what is sent, by the names of the settings.

    Raises:
        SettingsError: a function that no other process can find, such as a lambda, or an object that cannot be copied.

    Example:
        >>> check_sent(Where(2), {"model": "mlp:32", "loss": lambda prediction, label: 0.0})
        Traceback (most recent call last):
            ...
        backbeat.errors.SettingsError: loss cannot be sent to 2 processes (...); define it at the top of a module ...
    """
    dumps = packer(place)
    for name, value in parts.items():
        try:
            dumps(value)
        except Exception as error:  # whatever the objects raise that do not want to be copied
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise SettingsError(
                f"{name} cannot be sent to {place} ({said}); define it at the top of a module and give it by name, or "
                "leave on out."
            ) from None


def packer(place: Where) -> Callable[[Any], bytes]:
    """Returns what makes bytes of values: with Ray also of functions that stand in no module."""
    if place.processes is not None:
        return pickle.dumps
    from ray import cloudpickle

    return cloudpickle.dumps  # pyright: ignore[reportPrivateImportUsage]
