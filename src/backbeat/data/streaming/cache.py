"""The cache folder: one folder for each packed data set, named by its content, there whole or not at all.

An entry is written into a neighbour whose name begins with a dot, and renamed when it is complete; its manifest holds
the size and checksum of every file. What an interrupted packing left behind is removed by the next one. Entries stay
until they are deleted: a folder or all of them, at any time; what is needed again is packed again.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...places import cache_folder as cache_folder

MANIFEST, _LOCK, _PART = "manifest.json", "lock", ".part"
_PIECE = 1 << 22
_YOUNG, _DAY = 10, 86400  # seconds


def found_entry(entry: Path, *, checksums: bool = False) -> tuple[dict[str, Any] | None, str | None]:
    """Returns (the manifest of an entry or None, what is damaged in it or None).

    Args:
        entry: its folder, which need not be there.
        checksums: whether to compare every file's checksum; else only where a file is not as it was left, by its time.
    """
    if not entry.is_dir():
        return None, None
    try:
        manifest = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
        for file in manifest["files"]:
            state = (entry / file["name"]).stat()
            if state.st_size != file["n_bytes"]:
                return None, f"{file['name']} has {state.st_size} bytes instead of {file['n_bytes']}"
            if (checksums or state.st_mtime_ns != file["mtime_ns"]) and checksum(entry / file["name"]) != file["crc32"]:
                return None, f"{file['name']} has another checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, " ".join(str(error).split())
    return manifest, None


def checksum(path: Path) -> int:
    """Returns the CRC-32 of a file; about 0.3 s a GB."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            value = zlib.crc32(piece, value)
    return value


@contextmanager
def new_entry(entry: Path) -> Iterator[tuple[Path, Callable[[dict[str, Any]], None]]]:
    """Gives a folder to write an entry's files into, and what to call with the rest of the manifest at the end.

    Without that call, or after an exception, the folder is removed and the entry is not there. Where another process
    was first, its entry stays and this one is removed.

    Raises:
        DataError: the folder cannot be made or written, or the disk is full.
    """
    cache, part, handle = entry.parent, None, None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _clean(cache)
        part = Path(tempfile.mkdtemp(prefix=f".{entry.name[:16]}-", suffix=_PART, dir=cache))
        handle = _locked(part)
        part.chmod(0o777 & ~_umask())
        yield part, lambda about: _complete(part, about)
        if handle is not None:
            handle = handle.close()
        if (part / MANIFEST).is_file():
            (part / _LOCK).unlink(missing_ok=True)
            _take_place(part, entry)
    except OSError as error:
        raise DataError(
            f"data that is larger than the memory given is packed under {cache}, which does not work "
            f"({error.strerror or error}); make room there, or name another folder with BACKBEAT_CACHE."
        ) from error
    finally:
        if handle is not None:
            handle.close()
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _complete(part: Path, about: dict[str, Any]) -> None:
    """Writes the manifest: after every file is on the disk, so that a power cut leaves no entry that looks whole."""
    files = []
    for path in sorted(part.iterdir()):
        if path.name == _LOCK:
            continue
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        state = path.stat()
        files.append({
            "name": path.name, "n_bytes": state.st_size, "mtime_ns": state.st_mtime_ns,
            "crc32": checksum(path),
        })  # fmt: skip
    text = json.dumps({**about, "files": files}, indent=1)
    with (part / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _take_place(part: Path, entry: Path) -> None:
    """Renames a complete folder to an entry, unless one that is whole is there already."""
    for _ in range(3):
        try:
            os.rename(part, entry)
        except OSError:
            if not entry.is_dir():
                raise
        else:
            return
        if found_entry(entry)[0] is not None:
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{entry.name[:16]}-", suffix=_PART, dir=entry.parent))
        with suppress(OSError):
            os.rename(entry, aside / "damaged")
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(f"{entry} cannot be replaced")


def _clean(cache: Path) -> None:
    """Removes what interrupted packings left: folders that no living process has locked."""
    for part in cache.glob(f".*{_PART}"):
        with suppress(OSError):
            age = time.time() - part.stat().st_mtime
            handle = _locked(part) if age > _YOUNG else None  # its process may be about to lock it
            if handle is not None:
                handle.close()
            if handle is not None or age > _DAY:
                shutil.rmtree(part, ignore_errors=True)


def _locked(part: Path) -> Any:
    """Returns a file that tells, as long as it is open, that a process works in the folder; None where one does."""
    file = (part / _LOCK).open("w")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # no such locks here: what is a day old is taken for left behind
        file.close()
        return None
    return file


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
