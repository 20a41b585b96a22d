"""Models in a file of the user's own, `file.py:name`: code that is run because it was named, and only then."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import BackbeatError, MissingExtraError, SettingsError
from .refusal import one_line, place_of
from .source import EXTRAS, missing

_LOADED: dict[Path, tuple[dict[str, tuple], ModuleType]] = {}  # with what its files were like then


@dataclass(frozen=True)
class OwnCode:
    """A model or function named by a file and a name in it; a model may be a class or a function that makes one.

    Its text, `str(...)`, has the whole path, so that a record can be read from another folder.
    """

    path: Path
    name: str

    @classmethod
    def of(cls, text: str, what: str = "model") -> OwnCode:
        """Returns what `file.py:name` names; a folder may hold colons, as on Windows. Nothing is run yet.

        Args:
            text: what was given.
            what: the setting that it was given for.

        Raises:
            SettingsError: no name after the colon.

        Example:
            >>> OwnCode.of("nets/letters.py:Net").name
            'Net'
        """
        file, _, name = text.strip().rpartition(".py:")
        if not file or not name.strip():
            example = {"model": "net.py:Net"}.get(what, "train.py:step")
            raise SettingsError(f"{what}={text!r} names no {what}; write file.py:name, for example {example}.")
        return cls(Path(f"{file}.py").expanduser().absolute(), name.strip())

    def load(self, *, again: bool = False) -> Any:
        """Returns what the name stands for, by running the file; not a second time while its files stay the same.

        Args:
            again: run it even then, for an object that nobody else has.

        Raises:
            SettingsError: there is no such file or name, or the file fails.
            MissingExtraError: it imports a library that is not installed.
        """
        known = _LOADED.get(self.path)
        if again or known is None or known[0] != {file: _stamp(Path(file)) for file in known[0]}:
            files, module = _run(self.path)
            if again:
                return self._found(module)
            _LOADED[self.path] = known = ({file: _stamp(Path(file)) for file in files}, module)
        return self._found(known[1])

    def _found(self, module: ModuleType) -> Any:
        value: Any = module
        for part in self.name.split("."):
            if not hasattr(value, part):
                own = [n for n, v in vars(value).items() if not n.startswith("_") and not isinstance(v, ModuleType)]
                close = difflib.get_close_matches(part, own, n=1, cutoff=0.5)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(own) or 'no names'}."
                raise SettingsError(f"{self.path} has no {part!r}; {hint}")
            value = getattr(value, part)
        return value

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


def _stamp(file: Path) -> tuple:
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size


def _run(path: Path) -> tuple[list[str], ModuleType]:
    """Returns the module of a file that was run, and the files that it consists of.

    What it prints goes to standard error, since standard output may be read by a program. Modules that it imported from
    its own folder are forgotten, so that another file gets those beside itself.
    """
    if not path.is_file():
        names = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1, cutoff=0.5)
        raise SettingsError(f"{path} does not exist; {f'did you mean {names[0]}?' if names else 'check the path.'}")
    name = f"_backbeat_own_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module, before = importlib.util.module_from_spec(spec), set(sys.modules)
    if "keras" not in sys.modules:  # its backend is chosen at import
        os.environ.setdefault("KERAS_BACKEND", "jax")
    sys.modules[name] = module  # where dataclasses look their annotations up
    sys.path.insert(0, str(path.parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failure(path, error) from error
    finally:
        with contextlib.suppress(ValueError):  # the file may have changed it
            sys.path.remove(str(path.parent))
        beside = {n: _file_of(sys.modules[n]) for n in set(sys.modules) - before - {name}}
        beside = {n: file for n, file in beside.items() if file and Path(file).is_relative_to(path.parent)}
        beside = {n: file for n, file in beside.items() if "site-packages" not in file}
        for other in beside:
            del sys.modules[other]
    return [str(path), *beside.values()], module


def _file_of(module: Any) -> str:
    return getattr(module, "__file__", None) or ""


def _failure(path: Path, error: BaseException) -> BackbeatError:
    """Returns the sentence for a file that failed, with the line in it."""
    if isinstance(error, BackbeatError):
        return error
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRAS:
        return MissingExtraError(missing(error, path.name))
    at = place_of(error, path.parent)
    return SettingsError(f"{path} failed at {at or 'its start'}: {one_line(error, kind=True)}.")
