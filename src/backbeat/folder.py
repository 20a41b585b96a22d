"""A run's folder and the files in it: names, files written whole or not at all, settings as TOML, the environment."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
import tomllib
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .cores import asked_cores, n_cores
from .errors import SettingsError

_WORDS = [
    "amber", "autumn", "birch", "calm", "cedar", "cobalt", "copper", "coral", "dawn", "ember", "fern", "flint",
    "golden", "harbour", "hazel", "indigo", "ivory", "juniper", "lake", "lively", "lunar", "maple", "meadow", "mint",
    "moss", "north", "ocean", "olive", "opal", "pearl", "pine", "quartz", "quiet", "river", "robin", "sage", "silver",
    "slate", "snow", "solar", "spring", "stone", "summer", "swift", "tidal", "violet", "willow",
]  # fmt: skip


def new_folder(parent: Path | None = None) -> Path:
    """Returns a folder name that is not taken: `runs/<time>-<two words>`."""
    parent = Path("runs") if parent is None else parent
    rng = np.random.default_rng()
    while True:
        words = "-".join(rng.choice(_WORDS, 2, replace=False))
        folder = parent / f"{datetime.now():%Y-%m-%d-%H%M%S}-{words}"
        if not folder.exists():
            return folder


def named_folder(name: str | None) -> Path:
    """Returns the folder that `--run` names: a path as it is, a plain name under `runs/`, or a new name for None."""
    if name is None:
        return new_folder()
    return Path(name) if any(sign in name for sign in ("/", os.sep)) or name in (".", "..") else Path("runs") / name


def create_folder(folder: Path) -> Path:
    """Makes a run's folder; refuses one that holds something, so that nothing is ever overwritten.

    Raises:
        SettingsError: it is a file, is not empty, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SettingsError(
                f"{folder} already holds something; choose another name for the run, or remove it first."
            )
    except OSError as error:
        raise SettingsError(f"{folder} cannot be made ({error.strerror}); choose another folder for the run.") from None
    return folder


def write_whole(path: Path, write: Callable[[Any], object], mode: str = "w") -> None:
    """Writes a file completely or not at all: into a neighbour first, which then takes its place.

    Raises:
        SettingsError: the folder is not there, is read-only or is full; what was there before is unchanged.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror}); choose another place.") from None
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            write(file)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SettingsError(f"{path} cannot be written ({error.strerror}); what was there is unchanged.") from None
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file completely or not at all; numbers that are not finite become null."""
    write_whole(path, lambda file: file.write(json.dumps(plain(value), ensure_ascii=False, indent=1) + "\n"))


_SCALARS = frozenset((float, int, str, bool, type(None)))


def plain(value: Any) -> Any:
    """Returns a value as JSON has it: NumPy numbers and arrays become Python's, what is not finite becomes None.

    Example:
        >>> plain({"loss": np.array([1.0, np.nan])})
        {'loss': [1.0, None]}
    """
    kind = type(value)
    if kind in _SCALARS:  # first: most values are one
        return value if kind is not float or math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and value.ndim == 1:  # a column: most of what is long
            column = value.tolist()
            for i in np.flatnonzero(~np.isfinite(value)).tolist():
                column[i] = None
            return column
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        item = value.item()
        return plain(float(value) if isinstance(item, np.generic) else item)  # a long double's item is itself
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (int, str)) else str(value)


def environment() -> dict[str, Any]:
    """Returns what else decides a run's figures: versions, processor, cores, device."""
    import jax

    from .mesh import n_processes

    found: dict[str, Any] = {"python": platform.python_version()}
    for name in ("backbeat", "jax", "jaxlib", "optax", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    device = jax.devices()[0]
    return found | {
        "platform": platform.platform(), "processor": _processor(), "cores": n_cores(),
        "device": device.device_kind if device.platform != "cpu" else "cpu",
        "devices": len(jax.devices()), "processes": n_processes(),
        "pjrt_nproc": asked_cores(),
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def settings_text(settings: Mapping[str, Any]) -> str:
    """Returns flat settings as TOML; a JSON string, number or boolean is one in TOML too.

    Example:
        >>> tomllib.loads(settings_text({"every": "32 then 128 after 10 epochs", "held_out": 0.2}))["held_out"]
        0.2
    """
    return "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items() if value is not None
    )


def change_setting(file: Path, name: str, value: Any) -> None:
    """Writes a settings file anew with one setting changed, or left out for None; its comments stay.

    Raises:
        OSError: the file cannot be read.
        SettingsError: it cannot be written.
    """
    text = file.read_text(encoding="utf-8")
    before = tomllib.loads(text)
    if before.get(name) == value:
        return
    comments = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("#"))
    write_whole(file, lambda new: new.write(settings_text(before | {name: value}) + comments))


def read_settings(path: Path, known: Container[str]) -> dict[str, Any]:
    """Returns the settings of a TOML file, or of a run's folder.

    Args:
        path: the file or the folder.
        known: names of the settings that can be used.

    Raises:
        SettingsError: it is not there, is not TOML, or holds something else than these.
    """
    file = path / "settings.toml" if path.is_dir() else path
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read ({error.strerror}); give a settings.toml or a run's folder."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not a settings file ({error}); give the settings.toml of a run.") from None
    for name in settings:
        if name not in known:
            raise SettingsError(
                f"{file}: {name} is not a setting of this command; `train` repeats a run, `compare` a comparison."
            )
    return settings
