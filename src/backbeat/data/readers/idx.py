"""IDX files, the form in which MNIST and EMNIST are shipped: images and labels in two files, gzipped or not.

An IDX file is 00 00, a byte for the type of its numbers, a byte for how many axes there are, the length of each axis as
32 bits, then the numbers; all with the most significant byte first (Y. LeCun, C. Cortes, C. J. C. Burges: THE MNIST
DATABASE of handwritten digits). EMNIST stores its images transposed and numbers its letters from 1 (G. Cohen,
S. Afshar, J. Tapson, A. van Schaik: EMNIST, an extension of MNIST to handwritten letters, 2017).
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..raw import Raw, Reading
from .pieces import refuse_columns, rows_in
from .pixels import parse_size, resized
from .values import is_pixels

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NAME = re.compile(r"(?P<stem>.*?)(?P<what>images|labels)(?P<end>[-._]idx\d[-._]\w+?)(?P<gz>\.gz)?", re.IGNORECASE)
_PART = re.compile(r"(?P<set>.*?)(?P<part>train|training|t10k|test)[-._]", re.IGNORECASE)
_EMNIST = re.compile(r"emnist-(letters|balanced|byclass|bymerge|digits|mnist)-", re.IGNORECASE)
_MOST_DEFLATED = 1032  # bytes that one byte of a gzipped file can stand for
_EXAMPLE = "give a file such as train-images-idx3-ubyte.gz."


def recognises(path: Path) -> bool:
    """Whether a file has the name of an IDX file, or a folder holds one.

    Example:
        >>> recognises(Path("train-images-idx3-ubyte.gz")), recognises(Path("letters.csv.gz"))
        (True, False)
    """
    if path.is_dir():
        return any(_NAME.fullmatch(file.name) for file in path.iterdir())
    return bool(_NAME.fullmatch(path.name)) or path.name.lower().removesuffix(".gz").endswith(".idx")


class Idx:
    """The images of an IDX file with their labels, or of a folder with a training and a test part, held out."""

    def __init__(self, path: Path, reading: Reading) -> None:
        refuse_columns(reading, path.name, "an IDX file")
        self.name, self.path = path.name or path.resolve().name, path
        self._size = None if reading.resize is None else parse_size(reading.resize)

    @property
    def without_labels(self) -> str:
        """What to say where labels are needed and there are none."""
        images = self._parts[0].images.path
        named = _NAME.fullmatch(images.name)
        wanted = f"{named['stem']}labels-idx1-ubyte.gz" if named else "…-labels-idx1-ubyte.gz"
        return f"{images} has no labels beside it; put {wanted} into the same folder."

    def files(self) -> list[Path]:
        """Returns the files that are read."""
        files = [file.path for part in self._parts for file in (part.images, part.labels) if file is not None]
        images = self._parts[0].images.path
        variant = _EMNIST.match(images.name)
        mapping = None if variant is None else _mapping(images, variant[1].lower())
        return [*files, *([] if mapping is None else [mapping])]

    def n_bytes(self) -> int:
        """Returns how many bytes the images take as float32."""
        each = [self._size or part.images.shape[1:3] for part in self._parts]
        return sum(
            4 * math.prod((part.images.shape[0], *size, *part.images.shape[3:]))
            for part, size in zip(self._parts, each, strict=True)
        )

    def read(self) -> Raw:
        """Returns all examples.

        Raises:
            DataError: a file that is no IDX file, is cut off or too long, or labels that do not fit the images.
        """
        raws = list(self._read(None))
        if len(raws) == 1:
            return raws[0]
        held = None if raws[0].held is None else np.concatenate([raw.held for raw in raws])  # pyright: ignore[reportCallIssue, reportArgumentType]
        y = None if raws[0].y is None else np.concatenate([raw.y for raw in raws])
        x = np.concatenate([raw.x for raw in raws])
        return Raw(raws[0].kind, x, y, None, held, self.name, raws[0].source, raws[0].classes, raws[0].notes)

    def pieces(self, n_bytes: int) -> Iterator[Raw]:
        """Yields all examples in order, in pieces that take about `n_bytes`; the files are never held whole."""
        yield from self._read(n_bytes)

    @cached_property
    def _parts(self) -> list[_Part]:
        parts = [_Part.of(path) for path in (_images_in(self.path) if self.path.is_dir() else [self.path])]
        if len(parts) == 2:
            shapes = [part.images.shape[1:] for part in parts]
            if shapes[0] != shapes[1]:
                raise DataError(
                    f"{self.path}: an image has the shape {list(shapes[0])} in {parts[0].images.path.name} and "
                    f"{list(shapes[1])} in {parts[1].images.path.name}; they must be the same."
                )
            if (parts[0].labels is None) != (parts[1].labels is None):
                without = parts[0] if parts[0].labels is None else parts[1]
                raise DataError(f"{without.images.path} has no labels beside it, but the other part has; add them.")
        return parts

    def _read(self, n_bytes: int | None) -> Iterator[Raw]:
        variant = _EMNIST.match(self._parts[0].images.path.name)
        letters = variant is not None and variant[1].lower() == "letters"
        classes = _class_names(self._parts[0].images.path, variant[1].lower()) if variant else None
        source, first = str(self.path.resolve()), True
        for i, part in enumerate(self._parts):
            images, labels = part.images, part.labels
            rows = images.shape[0] if n_bytes is None else rows_in(n_bytes, images.shape[1:])
            y = None if labels is None else _whole(labels)
            y = _letters_from_0(y, labels) if letters and y is not None else y
            for start, x in zip(range(0, max(1, images.shape[0]), max(1, rows)), _blocks(images, rows), strict=True):
                x = np.ascontiguousarray(x.swapaxes(1, 2)) if variant and x.ndim == 3 else x
                yield Raw(
                    "image" if is_pixels(x) else "array",
                    self._resized(x),
                    None if y is None else y[start : start + rows],
                    held=np.full(len(x), i == 1) if len(self._parts) == 2 else None,
                    name=self.name,
                    source=source,
                    classes=classes,
                    notes=self._notes(variant, classes) if first else (),
                )
                first = False

    def _resized(self, x: np.ndarray) -> np.ndarray:
        if self._size is None:
            return x
        if not is_pixels(x):
            raise DataError(f"{self.path} holds no images of 8-bit numbers, so resize does nothing; leave it out.")
        return resized(x, self._size)

    def _notes(self, variant: Any, classes: tuple[str, ...] | None) -> tuple[str, ...]:
        notes = [
            f"The labels of {part.images.path.name} are those of {part.labels.path.name}."
            for part in self._parts
            if part.labels is not None
        ]
        if len(self._parts) == 2:
            n = [part.images.shape[0] for part in self._parts]
            notes.append(f"{self._parts[1].images.path.name} is the held-out part, {n[1]} of {sum(n)} images.")
        if variant:
            notes.append("EMNIST stores its images transposed: they are turned back, so that letters stand upright.")
            if variant[1].lower() == "letters":
                notes.append("The labels 1 to 26 are the letters a to z, in upper and lower case alike.")
            elif classes:
                notes.append(f"The names of the {len(classes)} classes are those of the mapping beside the images.")
        if self._size and self._parts[0].images.shape[1:3] != self._size:
            h, w = self._parts[0].images.shape[1:3]
            notes.append(f"The images were resized from {h}x{w} to {self._size[0]}x{self._size[1]}.")
        return tuple(notes)


@dataclass(frozen=True)
class _File:
    """What the header of an IDX file says."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def start(self) -> int:
        """Where the numbers begin."""
        return 4 + 4 * len(self.shape)


@dataclass(frozen=True)
class _Part:
    images: _File
    labels: _File | None

    @classmethod
    def of(cls, path: Path) -> _Part:
        """Returns the headers of a file of images and of its labels, checked against each other."""
        if not path.is_file():
            raise DataError(f"{path} is not there; check the path, or {_EXAMPLE}")
        named = _NAME.fullmatch(path.name)
        images = _header(path)
        if (named and named["what"].lower() == "labels") or len(images.shape) == 1:
            beside = _beside(path, "images")
            raise DataError(
                f"{path} holds labels, not images; give {beside.name if beside else 'the file of the images'}, which "
                "finds its labels by itself."
            )
        beside = _beside(path, "labels")
        labels = None if beside is None else _header(beside)
        if labels is not None and (len(labels.shape) > 2 or labels.shape[:1] != images.shape[:1]):
            raise DataError(
                f"{images.path.name} has the shape {list(images.shape)} but {labels.path.name} {list(labels.shape)}; "
                "there must be one label for each image."
            )
        return cls(images, labels)


def _beside(path: Path, what: str) -> Path | None:
    """Returns the file of labels that belongs to a file of images, or the other way round."""
    named = _NAME.fullmatch(path.name)
    if not named:
        return None
    found = []
    for file in sorted(path.parent.iterdir()):
        other = _NAME.fullmatch(file.name)
        if file != path and other and other["what"].lower() == what and other["stem"].lower() == named["stem"].lower():
            found.append((bool(other["gz"]) != bool(named["gz"]), file))
    return min(found)[1] if found else None


def _images_in(folder: Path) -> list[Path]:
    """Returns the file of images of a folder, or those of its training and its test part."""
    sets: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir(), reverse=True):  # so that a.gz comes before a, which then takes its place
        named = _NAME.fullmatch(file.name)
        if named and named["what"].lower() == "images":
            part = _PART.fullmatch(named["stem"])
            which = "train" if part and part["part"].lower().startswith("train") else "test" if part else ""
            sets.setdefault((part["set"] if part else named["stem"]).lower(), {})[which] = file
    if not sets:
        raise DataError(f"{folder} holds files of labels but none of images; {_EXAMPLE}")
    if len(sets) > 1:
        names = ", ".join(sorted(next(iter(parts.values())).name for parts in sets.values()))
        raise DataError(f"{folder} holds {len(sets)} sets of images; give one of the files {names}.")
    parts = next(iter(sets.values()))
    return [parts[which] for which in ("train", "", "test") if which in parts][:2]


def _opened(path: Path) -> Any:
    """Returns an open file, decompressed if its content (whatever its name) is gzipped."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")


def _header(path: Path) -> _File:
    try:
        with _opened(path) as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not magic[3]:
                begins = f"begins with the bytes {magic.hex(' ')}" if magic else "is empty"
                raise DataError(
                    f"{path} {begins}, but an IDX file with 00 00, a type (08, 09, 0b to 0e) and its number of axes; "
                    f"{_EXAMPLE}"
                )
            sizes = file.read(4 * magic[3])
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{path} ends within its header, after {4 + len(sizes)} bytes; fetch it anew.")
    shape: tuple[int, ...] = tuple(np.frombuffer(sizes, ">u4").tolist())
    found = _File(path, np.dtype(_TYPES[magic[2]]), shape)
    there = path.stat().st_size
    if math.prod(shape) * found.dtype.itemsize > there * _MOST_DEFLATED:
        raise DataError(f"{path} has only {there} bytes, too few for the shape {list(shape)}; fetch it anew.")
    return found


def _blocks(header: _File, rows: int) -> Iterator[np.ndarray]:
    """Yields the numbers of a file, `rows` along the first axis at a time, in this machine's own byte order."""
    path, n, row = header.path, header.shape[0], math.prod(header.shape[1:]) * header.dtype.itemsize
    try:
        with _opened(path) as file:
            file.read(header.start)
            for start in range(0, max(1, n), max(1, rows)):
                k = min(rows, n - start)
                data = file.read(k * row)
                if len(data) < k * row:
                    raise DataError(
                        f"{path} is cut off: it holds {start * row + len(data)} bytes of numbers, {n * row} belong to "
                        f"the shape {list(header.shape)}; fetch it anew."
                    )
                block = np.frombuffer(data, header.dtype).reshape(k, *header.shape[1:])
                yield block.astype(header.dtype.newbyteorder("="), copy=False)
            if file.read(1):
                raise DataError(
                    f"{path} goes on after the {n * row} bytes that belong to the shape {list(header.shape)}; fetch it "
                    "anew."
                )
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def _whole(header: _File) -> np.ndarray:
    (block,) = _blocks(header, header.shape[0])  # to the end, so that what follows the numbers is seen
    return block


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, EOFError):
        return DataError(f"{path} is cut off: its gzipped content has no end; fetch it anew.")
    return DataError(f"{path} cannot be read ({error}); fetch it anew.")


def _letters_from_0(y: np.ndarray, file: Any) -> np.ndarray:
    if y.size and (y.min() < 1 or y.max() > 26):
        raise DataError(
            f"{file.path}: the labels of EMNIST's letters run from 1 to 26, but these from {y.min()} to {y.max()}."
        )
    return y - 1


def _mapping(images: Path, variant: str) -> Path | None:
    """Returns the file that names the classes, where a variant has one and it is there."""
    path = images.with_name(f"emnist-{variant}-mapping.txt")
    return path if variant not in ("letters", "digits", "mnist") and path.is_file() else None


def _class_names(images: Path, variant: str) -> tuple[str, ...] | None:
    """Returns the names of the classes: letters by their number, others from the mapping beside the images."""
    if variant == "letters":
        return tuple("abcdefghijklmnopqrstuvwxyz")
    path = _mapping(images, variant)
    if path is None:
        return None
    try:  # lines of a class and the number of its character: "10 65"
        pairs = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
        named = {int(pair[0]): chr(int(pair[1])) for pair in pairs}
        return tuple(named[i] for i in range(len(named)))
    except (ValueError, IndexError, KeyError, OverflowError):
        raise DataError(f"{path} is not a mapping of EMNIST (lines such as '10 65'); fetch it anew.") from None
