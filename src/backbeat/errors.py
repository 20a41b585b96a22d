"""What can go wrong on the user's side: one sentence each, with what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

ENDED = {"interrupted": 130, "terminated": 143}  # exit codes of what was ended from outside (SIGINT, SIGTERM)


class BackbeatError(Exception):
    """The base of every error that a user can cause; the command line prints it in one sentence.

    `exit_code` is what the process ends with: 2 for wrong input or settings, 3 for a run that diverged.

    Example:
        >>> BackbeatError("no data").exit_code
        2
    """

    exit_code = 2


class SettingsError(BackbeatError, ValueError):
    """A setting that cannot be used: `every=0`, a learning rate of −1, an unknown loss."""


class DataError(BackbeatError, ValueError):
    """Data that cannot be used: an empty array, a value that is not finite, labels of another length."""


class MissingExtraError(BackbeatError, ImportError):
    """A library that an optional feature needs is not installed; the sentence names the extra."""


class StorageError(BackbeatError, OSError):
    """A run's folder can no longer be written: the disk is full, or it has become read-only. What was saved is kept."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): a run ends as after Ctrl-C, with everything saved."""


class WorkerError(BackbeatError, RuntimeError):
    """Workers were lost again and again over one piece of work."""


class DivergedError(BackbeatError, ArithmeticError):
    """The loss or the parameters stopped being finite; `run` holds the last finite state."""

    exit_code = 3

    def __init__(self, message: str, run: object = None) -> None:
        super().__init__(message)
        self.run = run


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory was too short, in Python or in a compiled program.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
        (True, True)
    """
    text = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "bad_alloc" in text


def nearest(given: object, allowed: Iterable[str]) -> str:
    """Returns the end of an error sentence: the allowed spellings, and the nearest one to what was given.

    Example:
        >>> nearest("cross_entorpy", ["cross_entropy", "squared_error"])
        "did you mean 'cross_entropy'? Allowed: cross_entropy, squared_error."
        >>> nearest("?", ["sgd", "adam"])
        'allowed: sgd, adam.'
    """
    allowed = list(allowed)
    close = difflib.get_close_matches(str(given).lower(), allowed, n=1, cutoff=0.5)
    names = ", ".join(allowed)
    return f"did you mean {close[0]!r}? Allowed: {names}." if close else f"allowed: {names}."


def choose(setting: str, given: object, allowed: Iterable[str]) -> str:
    """Returns `given` if it is one of the allowed names; raises a `SettingsError` with the nearest one if not.

    Example:
        >>> choose("order", "as given", ["reshuffled", "as given"])
        'as given'
    """
    allowed = list(allowed)
    if given not in allowed:
        raise SettingsError(f"{setting}={given!r} is not known; {nearest(given, allowed)}")
    return str(given)
