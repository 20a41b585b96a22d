"""Packing: a source larger than the memory given becomes shards in the cache folder, once, a piece at a time.

Inputs go to the shards as they will be trained on; labels, weights and the order stay in memory, which takes about 40
bytes an example. What is packed is known again by its content: by the hash of the source's files, whatever they are
called, and all that decides the numbers made of them. The hash of files that did not change since is remembered.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .cache import cache_folder, found_entry, new_entry
from .dataset import Dataset, from_arrays
from .held_out import Split
from .packed import Packed
from .raw import Raw, Reading, Source

FORMAT = 1
_PIECE_BYTES = 1 << 24  # 16 MiB
_SHARD_BYTES, _MOST_SHARDS = 1 << 28, 256
_SETTLED_SECONDS = 2.0  # a file changed less than this ago may change again within its time's resolution

Progress = Callable[[float, str], None]


def packed(source: Source, reading: Reading, seed: int, *, on_progress: Progress | None = None) -> Dataset:
    """Returns the data set of a source, its inputs in shards of the cache folder: packed now, or as packed before.

    Args:
        source: where the data comes from.
        reading: how it is read.
        seed: what decides the training part, where a preparation is fitted on it.
        on_progress: is told (share done, what is done) about ten times a second.

    Raises:
        DataError: data that cannot be used, or a cache folder that cannot be written.
    """
    tell = _Rarely(on_progress)
    first = next(iter(source.pieces(1 << 16)), None)
    if first is None or not len(first):
        raise DataError(f"{source.name}: there are no examples; give at least one.")
    if first.y is None:
        raise DataError(getattr(source, "without_labels", f"{source.name}: there are no labels; give them too."))
    key = _key(source, reading, seed, first, tell)
    entry = cache_folder() / key
    manifest, damaged = found_entry(entry)
    if manifest is None:
        with new_entry(entry) as (folder, complete):
            complete(_write(folder, source, first, tell))
        manifest, problem = found_entry(entry)
        if manifest is None:
            raise DataError(f"{entry} was packed and cannot be read ({problem}); remove it and run again.")
    dataset = _opened(entry, manifest, key)
    notes = [
        f"Larger than the memory given, so it was packed into {entry} ({dataset.x.nbytes / 1e9:.3g} GB), which may be "
        "removed when it is not needed any more."
    ]
    if damaged is not None:
        notes.append(f"It had been packed before, but that was damaged ({damaged}): packed anew.")
    return replace(
        dataset, name=source.name, source=first.source, notes=(*dataset.notes, *notes)
    )  # the same content may be found at another place


def _opened(entry: Path, manifest: dict[str, Any], key: str) -> Dataset:
    about = manifest["inputs"]
    shards = [entry / file["name"] for file in manifest["files"] if file["name"].startswith("x-")]
    x = Packed(shards, about["shape"], about["dtype"], about["per_shard"], key, divisor=about["divisor"])
    arrays = {path.stem: np.load(path) for path in entry.glob("*.npy") if not path.name.startswith("x-")}
    parts = Split(arrays["train"], arrays["held_out"]) if "held_out" in arrays else None
    classes = manifest["classes"]
    return Dataset(
        x, arrays["y"], arrays.get("weight"), classes=None if classes is None else tuple(classes), parts=parts,
        notes=tuple(manifest["notes"]),
    )  # fmt: skip


def _write(folder: Path, source: Source, first: Raw, tell: Progress) -> dict[str, Any]:
    """Writes a source's shards and arrays; returns what the manifest says of them."""
    n_bytes = max(1, source.n_bytes()) // (4 if first.kind == "image" else 1)
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise DataError(
            f"{source.name}: packing takes {n_bytes / 1e9:.3g} GB, but there are only {free / 1e9:.3g} GB free under "
            f"{folder.parent}; make room there, or name another folder with BACKBEAT_CACHE."
        )
    shards = _Shards(folder, max(_SHARD_BYTES, n_bytes // _MOST_SHARDS))
    kept: dict[str, list[np.ndarray]] = {"y": [], "weight": [], "held": []}
    notes: list[str] = []
    for piece in source.pieces(_PIECE_BYTES):
        shards.add(_inputs(piece, shards.n))
        for name, arrays in kept.items():
            if (array := getattr(piece, name)) is not None:
                arrays.append(np.array(array))
        notes += [note for note in piece.notes if note not in notes]
        tell(min(1.0, shards.n_bytes / n_bytes), f"packing {source.name}")
    shards.close()
    y, weight, held = (np.concatenate(arrays) if arrays else None for arrays in kept.values())
    none = np.zeros((shards.n, 1), np.float32)
    checked = from_arrays(none, y, weight, name=source.name, classes=first.classes)
    arrays = {"y": checked.y, "weight": checked.weight}
    if held is not None:
        arrays |= {"train": np.flatnonzero(~held).astype(np.int32), "held_out": np.flatnonzero(held).astype(np.int32)}
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    about = {"shape": shards.shape, "dtype": shards.dtype.str, "per_shard": shards.per_shard}
    return {
        "format": FORMAT, "inputs": {**about, "divisor": 255 if first.kind == "image" else None},
        "classes": checked.classes, "notes": notes,
    }  # fmt: skip


def _inputs(piece: Raw, start: int) -> np.ndarray:
    """Returns a piece's inputs as they are packed: pixels as bytes, any other numbers as float32."""
    x = np.asarray(piece.x)
    if piece.kind == "image":
        return x.astype(np.uint8, copy=False)
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x.sum(dtype=np.float64)) and not (finite := np.isfinite(x)).all():
        where = [int(i) for i in np.argwhere(~finite)[0]]
        raise DataError(
            f"{piece.name}: inputs hold values that are not finite numbers, the first at "
            f"{[start + where[0], *where[1:]]}; remove or replace them."
        )
    return x


class _Shards:
    """Writes examples into `.npy` files of equally many."""

    def __init__(self, folder: Path, n_bytes: int) -> None:
        self.folder, self._most_bytes, self.n, self.n_bytes, self.per_shard = folder, n_bytes, 0, 0, 0
        self._file: Any = None
        self.example: tuple[int, ...] = ()
        self.dtype = np.dtype(np.float32)

    @property
    def shape(self) -> list[int]:
        """The shape of all that was written."""
        return [self.n, *self.example]

    def add(self, x: np.ndarray) -> None:
        """Writes some examples more."""
        if not self.n:
            self.example, self.dtype = x.shape[1:], x.dtype
            self.per_shard = max(1, self._most_bytes // max(1, x[:1].nbytes))
        if x.shape[1:] != self.example:
            raise DataError(
                f"one example has the shape {list(self.example)}, that at {self.n} {list(x.shape[1:])}; give all the "
                "same shape."
            )
        while len(x):
            place = self.n % self.per_shard
            if not place:
                self._begin()
            now, x = x[: self.per_shard - place], x[self.per_shard - place :]
            self._file.write(np.ascontiguousarray(now).reshape(-1).view(np.uint8).data)
            self.n, self.n_bytes = self.n + len(now), self.n_bytes + now.nbytes

    def _begin(self) -> None:
        """Closes a full shard and begins the next one."""
        if self._file is not None:
            self._file.close()
        self._file = (self.folder / f"x-{self.n // self.per_shard:05}.npy").open("wb", buffering=0)
        self._header(self.per_shard)

    def _header(self, n: int) -> None:
        about = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (n, *self.example)}
        np.lib.format.write_array_header_1_0(self._file, about)

    def close(self) -> None:
        """Closes the last shard, whose header says how many examples it holds."""
        start = self._file.seek(0)
        self._header(self.n - (self.n - 1) // self.per_shard * self.per_shard)
        assert self._file.tell() > start
        self._file.close()


def _key(source: Source, reading: Reading, seed: int, first: Raw, tell: Progress) -> str:
    """Returns what an entry is called: the hash of the content and of all that decides the numbers made of it."""
    made = {
        "format": FORMAT, "content": _content(source, tell), "kind": first.kind, "source": type(source).__name__,
        **{name: repr(getattr(reading, name)) for name in ("label", "inputs", "task", "weight", "missing", "skip_bad",
                                                           "resize", "prepare")},
    }  # fmt: skip
    if first.kind == "table":  # the preparation is fitted on the training part
        made |= {"seed": seed, "held_out": repr(reading.held_out)}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def _content(source: Source, tell: Progress) -> str:
    """Returns the hash of what a source holds: of its files, or else of all that it gives."""
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
    if hasattr(source, "files"):
        return sorted(Path(path).resolve() for path in source.files())
    given = [Path(path).resolve() for name in ("path", "labels") if (path := getattr(source, name, None)) is not None]
    return sorted({file for path in given for file in (_below(path) if path.is_dir() else [path])})


def _below(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _hash_of_pieces(source: Source, tell: Progress) -> str:
    digest, done, total = hashlib.sha256(), 0, max(1, source.n_bytes())
    for piece in source.pieces(_PIECE_BYTES):
        for part in (piece.x, piece.y, piece.weight, piece.held):
            if part is not None:
                digest.update(_bytes_of(part))
        done += getattr(piece.x, "nbytes", 0)
        tell(min(1.0, done / total), f"looking whether {source.name} was packed before")
    return digest.hexdigest()


def _bytes_of(part: Any) -> Any:
    if hasattr(part, "write_ipc"):  # a Polars frame
        buffer = io.BytesIO()
        part.write_ipc(buffer)
        return buffer.getvalue()
    part = np.ascontiguousarray(part)
    return f"{part.dtype.str}{part.shape}".encode() + part.reshape(-1).view(np.uint8).tobytes()


class _Rarely:
    """Passes progress on, but not more often than is seen."""

    def __init__(self, on_progress: Progress | None) -> None:
        self.on_progress, self.last = on_progress, 0.0

    def __call__(self, share: float, text: str) -> None:
        if self.on_progress is not None and (share >= 1 or time.monotonic() - self.last > 0.1):
            self.last = time.monotonic()
            self.on_progress(share, text)
