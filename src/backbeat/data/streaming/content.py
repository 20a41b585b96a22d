"""What a source holds, as a hash: of the bytes of its files, whatever they are called and wherever they lie."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..raw import Source
from .cache import cache_folder

Progress = Callable[[float, str], None]

_PIECE_BYTES = 1 << 22  # 4 MiB
_SETTLED_SECONDS = 2.0  # a file changed less than this ago may change again within its time's resolution


def content_of(source: Source, tell: Progress) -> str:
    """Returns the SHA-256 of what a source holds: of its files, or else, read once more, of all that it gives.

    The hash of files is remembered in the cache folder, by their paths, sizes and times: it takes 0.6 s a GB.

    Args:
        source: of which `files()`, where it has that, tells all files that decide what it gives.
        tell: is told (share done, what is done).
    """
    files = _files(source)
    if not files:
        return _hash_of_pieces(source, tell)
    now = time.time_ns()
    states = [path.stat() for path in files]
    listing = [[str(path), state.st_size, state.st_mtime_ns] for path, state in zip(files, states, strict=True)]
    known = cache_folder() / "known" / hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    try:
        return known.read_text(encoding="ascii")
    except OSError:
        pass
    total, done, digest = sum(state.st_size for state in states), 0, hashlib.sha256()
    base = os.path.commonpath([path.parent for path in files])
    for path in files:
        digest.update(f"{path.relative_to(base).as_posix()}\0".encode() if len(files) > 1 else b"")
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                done += len(piece)
                tell(done / max(1, total), f"looking whether {source.name} was packed before")
    value = digest.hexdigest()
    if all(state.st_mtime_ns < now - _SETTLED_SECONDS * 1e9 for state in states):
        _remember(known, value)
    return value


def _remember(known: Path, value: str) -> None:
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        part = known.with_suffix(f".{os.getpid()}")
        part.write_text(value, encoding="ascii")
        part.replace(known)
    except OSError:  # then it is hashed again the next time; packing itself says what is wrong with the folder
        return


def _files(source: Any) -> list[Path]:
    """Returns the files of a source, sorted; none where it has none or does not say."""
    return sorted(Path(path).resolve() for path in source.files()) if hasattr(source, "files") else []


def _hash_of_pieces(source: Source, tell: Progress) -> str:
    digest, done, total = hashlib.sha256(), 0, max(1, source.n_bytes())
    for piece in source.pieces(_PIECE_BYTES):
        for part in (piece.x, piece.y, piece.weight, piece.held):
            if part is not None:
                digest.update(_bytes_of(part))
        let_go(piece.x)
        done += getattr(piece.x, "nbytes", 0)
        tell(min(1.0, done / total), f"looking whether {source.name} was packed before")
    return digest.hexdigest()


def let_go(x: Any) -> None:
    """Lets a mapped file's pages go, which else count as memory of this process until the system needs them."""
    while x is not None and not isinstance(x, mmap.mmap):
        x = getattr(x, "base", None)
    if x is not None and hasattr(mmap, "MADV_DONTNEED"):
        x.madvise(mmap.MADV_DONTNEED)


def _bytes_of(part: Any) -> Any:
    if hasattr(part, "write_ipc"):  # a Polars frame
        buffer = io.BytesIO()
        part.write_ipc(buffer)
        return buffer.getvalue()
    part = np.ascontiguousarray(part)
    return f"{part.dtype.str}{part.shape}".encode() + part.reshape(-1).view(np.uint8).tobytes()
