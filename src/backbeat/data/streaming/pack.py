"""Packing: a source larger than the memory given becomes shards in the cache folder, once, a piece at a time.

Inputs go to the shards as they will be trained on (pixels as bytes, which are divided when they are read); labels,
weights and the order stay in memory, which takes about 40 bytes an example. What is packed is known again by its
content: by the hash of the source's files and of all that decides the numbers made of them.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError
from ..dataset import Dataset, from_arrays
from ..held_out import Split, split
from ..preparation.prepare import Preparation
from ..preparation.recut import labels_together
from ..raw import Raw, Reading, Source
from ..readers.columns import held_out_kind
from ..readers.sources import open_source
from .cache import cache_folder, found_entry, new_entry
from .content import Progress, content_of, let_go
from .memory import left_for_data
from .packed import Packed
from .shards import Shards

FORMAT = 1
_PIECE_BYTES = 1 << 24  # 16 MiB
_FIRST_BYTES = 1 << 20
_PREPARATION = "preparation"


class _Given(NamedTuple):
    """What is packed: a source, perhaps one more whose examples are held out, how it is read, and a first look."""

    source: Source
    held_out: Source | None
    reading: Reading
    seed: int
    first: Raw


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
    first = next(iter(source.pieces(_FIRST_BYTES)), None)
    if first is None or not len(first):
        raise DataError(f"{source.name}: there are no examples; give at least one.")
    if first.y is None:
        raise DataError(getattr(source, "without_labels", f"{source.name} has no labels, which training needs."))
    other = None
    if held_out_kind(reading.held_out, getattr(source, "names", None), source.name) == "data":
        other = _held_out_source(reading, None)
    given = _Given(source, other, reading, seed, first)
    key = _key(given, tell)
    entry = cache_folder() / key
    manifest, damaged = found_entry(entry)
    if manifest is None:
        with new_entry(entry) as (folder, complete):
            complete(_write(folder, given, tell))
        manifest, problem = found_entry(entry)
        if manifest is None:
            raise DataError(f"{entry} was packed and cannot be read ({problem}); remove it and run again.")
    dataset = _opened(entry, manifest, key)
    dataset = replace(dataset, x=dataset.x.keep(left_for_data(reading.memory, len(dataset))))
    notes = [
        f"Larger than the memory given: packed into {entry}, {dataset.x.bytes_in_files / 1e9:.3g} GB, which may be "
        "removed when it is not needed any more."
    ]
    if damaged is not None:
        notes.append(f"What had been packed before was damaged ({damaged}), so it was packed anew.")
    # the same content may have been packed from another place
    held = None if other is None else next(iter(other.pieces(_FIRST_BYTES))).source
    notes = (*dataset.notes, *notes)
    return replace(dataset, name=source.name, source=first.source, held_out_source=held, notes=notes)


def _opened(entry: Path, manifest: dict[str, Any], key: str) -> Dataset:
    about = manifest["inputs"]
    shards = [entry / file["name"] for file in manifest["files"] if file["name"].startswith("x-")]
    x = Packed(shards, about["shape"], about["dtype"], about["per_shard"], key, divisor=about["divisor"])
    arrays = {path.stem: np.load(path) for path in entry.glob("*.npy") if not path.name.startswith("x-")}
    parts = Split(arrays["train"], arrays["held_out"]) if "held_out" in arrays else None
    kept = entry / _PREPARATION
    classes = manifest["classes"]
    return Dataset(
        x, arrays["y"], arrays.get("weight"), classes=None if classes is None else tuple(classes), parts=parts,
        preparation=Preparation.from_bytes(kept.read_bytes()) if kept.exists() else None, task=manifest["task"],
        notes=tuple(manifest["notes"]), whole=manifest["whole"],
    )  # fmt: skip


def _write(folder: Path, given: _Given, tell: Progress) -> dict[str, Any]:
    """Writes the shards and arrays of an entry; returns what the manifest says of them."""
    _refuse_little_room(folder, given)
    preparation = Preparation.of(given.reading, given.first.kind)
    parts = None
    if preparation.fitted_on_a_part or given.held_out is not None:  # then labels have to be known first
        given, parts = _fitted(preparation, given, tell)
    shards = Shards(folder, _bytes_on_disk(given))
    divisor = None if given.first.kind != "image" or preparation.mode == "own" else 255 if preparation.needed else 1
    kept, notes, whole = [], {}, divisor != 255 and (given.first.kind != "table" or preparation.kept_whole)
    for piece in _pieces(given, tell, "packing"):
        x = np.asarray(piece.x if divisor is not None else preparation.inputs(piece))
        whole = whole and (given.first.kind == "table" or _is_whole(x))
        shards.add(x if divisor is not None else _as_floats(x, shards.n, piece.name))
        kept.append(_without_inputs(piece))
        notes |= dict.fromkeys(piece.notes)  # in order, each once
    shards.close()
    labels = _labels(kept)
    if labels.held is not None:
        parts = _by_mark(labels)
    if given.held_out is not None:
        notes[f"{given.held_out.name} is the held-out part, {np.count_nonzero(np.asarray(labels.held))} examples."] = (
            None
        )
    if preparation.labels_are is None:
        preparation.fit_labels([labels if parts is None else labels.take(parts.train)])
    made = from_arrays(
        np.zeros((shards.n, 1), np.float32), preparation.labels(labels), labels.weight,
        name=given.source.name, classes=preparation.classes,
    )  # fmt: skip
    arrays = {"y": made.y, "weight": made.weight}
    if parts is not None:
        arrays |= parts._asdict()
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    if preparation.needed:
        (folder / _PREPARATION).write_bytes(preparation.to_bytes())
    said = () if preparation.labels_are is None else preparation.labels_are.notes
    about = {"shape": shards.shape, "dtype": shards.dtype.str, "per_shard": shards.per_shard, "divisor": divisor}
    return {
        "format": FORMAT, "inputs": about, "classes": made.classes, "task": preparation.task, "whole": whole,
        "notes": [*notes, *said, *preparation.notes, *preparation.said_of_new(), *made.notes],
    }  # fmt: skip


def _pieces(given: _Given, tell: Progress, doing: str) -> Iterator[Raw]:
    """Yields all examples, those of a held-out source last, and says how far it is."""
    sources = [given.source, *([] if given.held_out is None else [given.held_out])]
    total, done = max(1, sum(source.n_bytes() for source in sources)), 0
    for source in sources:
        for piece in source.pieces(_PIECE_BYTES):
            if piece.y is None:
                raise DataError(getattr(source, "without_labels", f"{source.name} has no labels; add them."))
            yield (
                piece if given.held_out is None else replace(piece, held=np.full(len(piece), source is given.held_out))
            )
            let_go(piece.x)
            done += _n_bytes(piece, given.first)
            tell(min(1.0, done / total), f"{doing} {source.name}")


def _n_bytes(piece: Raw, first: Raw) -> int:
    return 4 * len(piece) * (first.x.width if first.kind == "table" else int(np.prod(np.shape(first.x)[1:])))


def _labels(pieces: Iterable[Raw]) -> Raw:
    """Returns labels, weights and held-out marks of all pieces together, without inputs."""
    kept = [_without_inputs(piece) for piece in pieces]
    for name in ("weight", "held"):
        having = [getattr(piece, name) is not None for piece in kept]
        if any(having) and not all(having):
            raise DataError(f"{kept[0].name}: some of the examples have a {name} and others none; give all or none.")
    together = labels_together(kept)
    columns = {
        name: None if getattr(kept[0], name) is None else np.concatenate([getattr(piece, name) for piece in kept])
        for name in ("weight", "held")
    }
    return replace(together, x=np.zeros((sum(map(len, kept)), 0), np.float32), **columns)


def _without_inputs(piece: Raw) -> Raw:
    """Returns a piece without its inputs; its labels are copied, so that a mapped file is let go."""
    y = np.array(piece.y) if isinstance(piece.y, np.ndarray) else piece.y
    return replace(piece, x=np.zeros((len(piece), 0), np.float32), y=y, notes=())


def _fitted(preparation: Preparation, given: _Given, tell: Progress) -> tuple[_Given, Split | None]:
    """Fits a preparation on the training part; returns the sources to pack, and the parts where these decide it."""
    train = given._replace(held_out=None)
    labels = _labels(_pieces(train, tell, "reading the labels of"))
    if given.held_out is not None:
        preparation.fit_labels([labels]).scale_labels(labels)
        preparation.fit_inputs(_pieces(train, tell, "fitting the preparation of"))
        like = preparation if given.first.kind == "table" else None
        return given._replace(held_out=_held_out_source(given.reading, like)), None
    if labels.held is not None:
        parts = _by_mark(labels)
        preparation.fit_labels([labels.take(parts.train)])
    else:
        preparation.fit_labels([labels])
        parts = split(preparation.labels(labels), given.reading.held_out, given.seed)
    preparation.scale_labels(labels.take(parts.train))
    preparation.fit_inputs(_part(_pieces(given, tell, "fitting the preparation of"), parts.train))
    return given, parts


def _held_out_source(reading: Reading, like: Preparation | None) -> Source:
    label = None if str(reading.label).endswith(".npy") else reading.label
    return open_source(reading.held_out, replace(reading, held_out=0.0, label=label), like)


def _by_mark(labels: Raw) -> Split:
    parts = Split(*(np.flatnonzero(labels.held == held).astype(np.int32) for held in (False, True)))
    for part, what in zip(parts, ("to train on", "held out"), strict=True):
        if not len(part):
            raise DataError(f"{labels.name}: no example is {what}; both parts need some.")
    return parts


def _part(pieces: Iterable[Raw], train: np.ndarray) -> Iterator[Raw]:
    """Yields the examples of pieces that are in the training part."""
    start = 0
    for piece in pieces:
        end = start + len(piece)
        inside = train[np.searchsorted(train, start) : np.searchsorted(train, end)] - start
        if len(inside):
            yield piece.take(inside)
        start = end


def _as_floats(x: np.ndarray, start: int, name: str) -> np.ndarray:
    """Returns inputs as float32; refuses what is not finite, with where it is."""
    with np.errstate(over="ignore", invalid="ignore"):
        x = x.astype(np.float32, copy=False)
        total = x.sum(dtype=np.float64)
    if not np.isfinite(total) and not (finite := np.isfinite(x)).all():
        where = [int(i) for i in np.argwhere(~finite)[0]]
        raise DataError(
            f"{name}: inputs hold values that are not finite numbers, the first at {[start + where[0], *where[1:]]}; "
            "remove or replace them."
        )
    return x


def _is_whole(x: np.ndarray) -> bool:
    """Returns whether inputs are whole numbers that float32 holds exactly."""
    most = 1 << 24
    return x.dtype.kind in "iu" and (x.dtype.itemsize <= 2 or (int(x.min()) >= -most and int(x.max()) <= most))


def _bytes_on_disk(given: _Given) -> int:
    n_bytes = given.source.n_bytes() + (0 if given.held_out is None else given.held_out.n_bytes())
    return max(1, n_bytes // (4 if given.first.kind == "image" else 1))


def _refuse_little_room(folder: Path, given: _Given) -> None:
    wanted, free = _bytes_on_disk(given), shutil.disk_usage(folder).free
    if free < wanted:
        raise DataError(
            f"{given.source.name}: packing takes {wanted / 1e9:.3g} GB, but only {free / 1e9:.3g} GB are free under "
            f"{folder.parent}; make room there, or name another folder with BACKBEAT_CACHE."
        )


def _key(given: _Given, tell: Progress) -> str:
    """Returns what an entry is called: the hash of the content and of all that decides the numbers made of it."""
    reading, first = given.reading, given.first
    names = ("label", "inputs", "task", "weight", "missing", "skip_bad", "resize")
    made = {
        "format": FORMAT, "content": content_of(given.source, tell), "kind": first.kind,
        "source": type(given.source).__name__, **{name: repr(getattr(reading, name)) for name in names},
        "prepare": reading.prepare if isinstance(reading.prepare, str) else _bytes_of(reading.prepare),
    }  # fmt: skip
    if given.held_out is not None:
        made["held_out"] = content_of(given.held_out, tell)
    elif isinstance(reading.held_out, str):
        made["held_out"] = reading.held_out
    elif Preparation.of(reading, first.kind).fitted_on_a_part:
        made |= {"held_out": repr(reading.held_out), "seed": given.seed}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def _bytes_of(transformer: Any) -> str:
    """Returns what tells a user's transformer from others; where nothing does, it is like none."""
    try:
        return hashlib.sha256(pickle.dumps(transformer)).hexdigest()  # only written, never read
    except Exception:
        return uuid.uuid4().hex


class _Rarely:
    """Passes progress on, but not more often than is seen."""

    def __init__(self, on_progress: Progress | None) -> None:
        self.on_progress, self.last = on_progress, 0.0

    def __call__(self, share: float, text: str) -> None:
        if self.on_progress is not None and (share >= 1 or time.monotonic() - self.last > 0.1):
            self.last = time.monotonic()
            self.on_progress(share, text)
