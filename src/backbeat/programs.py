"""Compiled programs kept from one process to the next, so that the second start of the same training does not compile.

XLA's programs are machine code. What decides it is in an entry's name or in that of its folder: the program, its
options and XLA's version are in the name that JAX gives (`jax._src.cache_key`); the processor with all its features,
the number of cores and jaxlib are in the folder's, since a program for other cores is cut otherwise and its last bits
differ. Each entry begins with its SHA-256: one that was cut off or damaged is thrown away and compiled again, never
run. An entry is written beside its place and renamed. The folder is its owner's alone, else nothing is kept: who can
write there can have a program run.

JAX's own files (`jax_compilation_cache_dir`) have neither checksums nor whole writes, and where that setting is given
it holds, and nothing is done here.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from .cores import asked_cores, n_cores
from .data.streaming.cache import cache_folder
from .mesh import n_processes

LIMIT = 256 << 20  # bytes of all programs of one folder; the ones that were not used for longest go first
_SUFFIX, _CHECKED = ".program", 32


class Programs:
    """A folder of compiled programs: at most so many bytes, each checked when it is read.

    Args:
        folder: of the programs, which is there.
        limit: bytes of all of them.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     programs = Programs(Path(folder), limit=1000)
        ...     programs.put("add", b"machine code")
        ...     programs.get("add"), programs.get("multiply")
        (b'machine code', None)
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._path, self._limit = folder, limit  # `_path` is JAX's name for it

    def get(self, key: str) -> bytes | None:
        """Returns an entry; None where there is none that is whole."""
        path = self._path / (key + _SUFFIX)
        try:
            text = path.read_bytes()
            os.utime(path)  # used just now
        except OSError:
            return None
        if hashlib.sha256(text[_CHECKED:]).digest() == text[:_CHECKED]:
            return text[_CHECKED:]
        path.unlink(missing_ok=True)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Keeps an entry, where there is room for it; a disk that is full or read-only keeps none."""
        if len(value) + _CHECKED > self._limit:
            return
        with suppress(OSError):
            self._make_room(len(value) + _CHECKED)
            descriptor, name = tempfile.mkstemp(prefix=".", dir=self._path)
            try:
                with open(descriptor, "wb") as file:
                    file.write(hashlib.sha256(value).digest() + value)
                os.replace(name, self._path / (key + _SUFFIX))
            except BaseException:
                os.unlink(name)
                raise

    def _make_room(self, size: int) -> None:
        found = []
        for entry in os.scandir(self._path):
            with suppress(FileNotFoundError):  # another process threw it away
                about = entry.stat()
                found.append((about.st_mtime, about.st_size, entry.path))
        spare = self._limit - size - sum(n_bytes for _, n_bytes, _ in found)
        for _, n_bytes, path in sorted(found):
            if spare >= 0:
                return
            with suppress(FileNotFoundError):
                os.unlink(path)
            spare += n_bytes


def keep_programs() -> Path | None:
    """Has JAX keep what it compiles in this process, and take what earlier ones kept; before it compiles anything.

    Returns:
        the folder; None where nothing is kept: the user has JAX's own setting, or no folder that is theirs alone, or
        this is one of several processes.
    """
    given: Any = jax.config
    mine = given.jax_compilation_cache_dir is None and given.jax_enable_compilation_cache
    if not mine or n_processes() > 1:
        return None
    folder = _own_folder(cache_folder() / "programs" / _machine())
    if folder is None:
        return None
    try:
        from jax._src import compilation_cache as kept

        with kept._cache_initialized_mutex:
            if kept._cache_initialized:
                return None
            kept._cache, kept._cache_initialized = Programs(folder), True  # pyright: ignore[reportAttributeAccessIssue]
    except (ImportError, AttributeError):  # a JAX that has this elsewhere
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # a program that XLA would not take is compiled, and one that could not be written is compiled the next time
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    return folder


def _own_folder(folder: Path) -> Path | None:
    """Returns the folder, made where it is missing, if only its owner can write there and that is this user."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = folder.stat()
    except OSError:
        return None
    if os.name != "posix":
        return folder
    shared = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if about.st_uid == os.geteuid() and not shared and os.access(folder, os.W_OK) else None


def _machine() -> str:
    """Returns a name that differs wherever the same program may be compiled to other machine code."""
    from jaxlib.version import __version__

    about: list[Any] = [platform.system(), platform.machine(), __version__, n_cores(), asked_cores()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        about += [line for line in lines if line.startswith(wanted)]
    except OSError:
        about.append(platform.processor())
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]
