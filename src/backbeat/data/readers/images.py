"""Images in files: a folder with a folder for each class, a table of paths, or one image to predict.

Each file is opened twice, its header first: whether all are grey has to be known before the first is decoded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..raw import Raw, Reading
from .pieces import refuse_columns, rows_in
from .pixels import LEAVE_OUT, Look, brought_together, is_image, look_at, parse_size, pixels_of, with_files

_TRAIN, _VALIDATION, _TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")


def recognises(path: Path) -> bool:
    """Whether a file is an image by its name, or a folder holds images at any depth.

    Example:
        >>> recognises(Path("letter.png")), recognises(Path("letters.csv"))
        (True, False)
    """
    if not path.is_dir():
        return is_image(path.name)
    seen: set[str] = set()  # links are followed, but not in circles
    for folder, folders, names in os.walk(path, followlinks=True):
        if any(is_image(name) and not _hidden(name) for name in names):
            return True
        seen.add(os.path.realpath(folder))
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(folder, name)) not in seen]
    return False


class Images:
    """Image files with their labels; what a folder, a table and one image have in common."""

    def __init__(self, paths: Sequence[Path], reading: Reading, about: Raw, what_without_labels: str) -> None:
        self.name, self.without_labels = about.name, what_without_labels
        self._paths, self._about, self._skip_bad = list(paths), about, reading.skip_bad
        self._size = None if reading.resize is None else parse_size(reading.resize)
        self._bad: dict[int, str] = {}
        self._sizes: dict[tuple[int, ...], int] = {}  # the shapes that were met, each with the index of one image

    @property
    def paths(self) -> list[Path]:
        """The files in the order of their examples, once all were read: without those that were left out."""
        return [path for i, path in enumerate(self._paths) if i not in self._bad]

    def files(self) -> list[Path]:
        """Returns all files that decide what is read; none where links make a class of files that lie elsewhere."""
        source = None if self._about.source is None else Path(self._about.source)
        if source is None or (
            source.is_dir() and not all(path.resolve().is_relative_to(source) for path in self._paths)
        ):
            return []
        return [*([] if source.is_dir() else [source]), *(path for path in self._paths if path.exists())]

    def n_bytes(self) -> int:
        """Returns how many bytes the images take as float32."""
        return 4 * len(self._paths) * math.prod(self._shape)

    def read(self) -> Raw:
        """Returns all images with their labels.

        Raises:
            DataError: an image that cannot be read (unless such ones are left out), or images of several sizes.
        """
        return next(iter(self._read(None)))

    def pieces(self, n_bytes: int) -> Iterator[Raw]:
        """Yields all images in order, in pieces that take about `n_bytes`; what was left out is said with the last."""
        yield from self._read(n_bytes)

    @cached_property
    def _looks(self) -> dict[int, Look]:
        """What the headers of all files say, without those that cannot be read."""
        looks: dict[int, Look] = {}
        failed = with_files(lambda image, i: looks.__setitem__(i, look_at(image)), self._paths, range(len(self._paths)))
        self._refuse(failed)
        if not looks:
            raise DataError(f"{self.name}: none of the {len(self._paths)} images can be read.")
        return dict(sorted(looks.items()))

    @cached_property
    def _grey(self) -> bool:
        return all(look.grey for look in self._looks.values())

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """The shape of the first image that can be decoded, which all others must have."""
        for i in self._looks:
            found: list[np.ndarray] = []
            self._refuse(with_files(lambda image, _: found.append(self._pixels(image)), self._paths, [i]))  # noqa: B023
            if found:
                return found[0].shape
        raise DataError(f"{self.name}: none of the {len(self._paths)} images can be read.")

    def _pixels(self, image: Any) -> np.ndarray:
        return pixels_of(image, grey=self._grey, size=self._size)

    def _refuse(self, failed: dict[int, str]) -> None:
        """Keeps which images cannot be read, or refuses the first one."""
        self._bad |= failed
        if self._bad and not self._skip_bad:
            first = min(self._bad)
            raise DataError(f"{self._paths[first]} cannot be read as an image ({self._bad[first]}); {LEAVE_OUT}")

    def _read(self, n_bytes: int | None) -> Iterator[Raw]:
        chosen = list(self._looks)
        rows = len(chosen) if n_bytes is None else rows_in(n_bytes, self._shape)
        notes = (*self._about.notes, *brought_together(self._looks.values(), grey=self._grey))
        for start in range(0, len(chosen), rows):
            indices, x = self._decoded(chosen[start : start + rows])
            last = start + rows >= len(chosen)
            y, weight, held = (None if a is None else a[indices] for a in _labels(self._about))
            notes = (*notes, *(self._last_notes() if last else ()))
            yield replace(self._about, x=x, y=y, weight=weight, held=held, notes=notes)
            notes = ()

    def _decoded(self, chosen: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the indices of the images that could be decoded, and their pixels."""
        shape, place = self._shape, {i: k for k, i in enumerate(chosen)}
        try:
            out = np.empty((len(chosen), *shape), np.uint8)
        except MemoryError:
            raise DataError(
                f"{self.name}: {len(chosen)} images of {_size(shape)} do not fit into memory; resize them to less, or "
                'give memory="2 GB".'
            ) from None

        def decode(image: Any, i: int) -> None:
            self._sizes.setdefault(image.size, i)
            pixels = self._pixels(image)
            if pixels.shape != shape:
                first = next(iter(self._looks))
                raise DataError(
                    f"{self._paths[first]} is {_size(shape)} but {self._paths[i]} is {_size(pixels.shape)} (height x "
                    f'width); all must have one size, which resize="{_size(shape)}" (--resize) brings them to.'
                )
            out[place[i]] = pixels

        failed = with_files(decode, self._paths, chosen)
        self._refuse(failed)
        good = [k for k, i in enumerate(chosen) if i not in failed]
        return np.array(chosen, np.int64)[good], out if len(good) == len(chosen) else out[good]

    def _last_notes(self) -> Iterator[str]:
        """Yields what is known once all images were decoded."""
        if self._size is not None:
            n = len(self._sizes)
            yield (
                f"Images of {n} size{'s' * (n != 1)} were brought to {_size(self._size)} (bilinear; their "
                "proportions are not kept)."
            )
        if self._bad:
            first = min(self._bad)
            yield (
                f"{len(self._bad)} of {len(self._paths)} images cannot be read and were left out, the first is "
                f"{self._paths[first].name} ({self._bad[first]})."
            )


class ImageFolder(Images):
    """A folder with a folder of images for each class; `train` and `test` (or `val`) above them are the two parts."""

    def __init__(self, path: Path, reading: Reading) -> None:
        refuse_columns(reading, path.name, "a folder of images")
        found = _found(path)
        classes = _in_order({label for label in found.labels if label is not None})
        number = {label: i for i, label in enumerate(classes)}
        y = np.array([number[str(label)] for label in found.labels], np.int64) if classes else None
        held = np.array(found.held) if any(found.held) else None
        name = path.name or path.resolve().name
        source = str(path.resolve())
        about = Raw("image", (), y, None, held, name, source, classes or None, tuple(found.notes()))
        super().__init__(
            found.paths,
            reading,
            about,
            f"{path} holds images but no folder for each class; move them into folders such as {path.name}/cat and "
            f"{path.name}/dog, or give a table of paths and labels.",
        )


class ImageTable(Images):
    """A table whose input column holds the paths of image files.

    Args:
        paths: one for each row, relative to `folder` or absolute.
        folder: the table's own.
        reading: whether what cannot be read is left out, and the size to bring images to.
        about: the rest of the table: labels `[n, ...]`, weights, held-out rows, name, notes.
        rows: what each row is called in errors, such as its line; None for "row 1" and so on.
    """

    def __init__(self, paths: Sequence[Any], folder: Path, reading: Reading, about: Raw, rows: Any = None) -> None:
        for i, path in enumerate(paths):
            if not isinstance(path, str) or not path.strip():
                where = f"row {i + 1}" if rows is None else rows[i]
                raise DataError(f"{about.name}: {where} has no path of an image; fill it in, or remove the row.")
        without = f"{about.name} has paths of images but no labels; name their column with label (--label)."
        super().__init__([folder / path for path in paths], reading, replace(about, kind="image"), without)


class ImageFile(Images):
    """One image, which has no label: something to predict."""

    def __init__(self, path: Path, reading: Reading) -> None:
        if not path.is_file():
            raise DataError(f"{path} is not there; check the path.")
        about = Raw("image", (), name=path.name, source=str(path.resolve()))
        without = f"{path} is one image without a label; give a folder with a folder of images for each class."
        super().__init__([path], replace(reading, skip_bad=False), about, without)


def _labels(about: Raw) -> tuple[Any, Any, Any]:
    return about.y, about.weight, about.held


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Returns names in their order; numbers by their value, so that 2 comes before 10."""
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))


@dataclass
class _Found:
    """The images below a folder, with their classes, and what else was there."""

    paths: list[Path] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def add(self, folder: Path, label: str | None, *, held: bool, deep: bool = True) -> None:
        """Adds the images in a folder and below it as one class."""
        before, others = len(self.paths), len(self.others)
        self._walk(folder, _real(folder), deep)
        n = len(self.paths) - before
        if label is not None and not n:
            there = len(self.others) - others
            also = f", only {there} other file{'s' * (there != 1)}" if there else ""
            raise DataError(f"{folder} is the folder of a class but holds no images{also}; add some, or remove it.")
        self.labels += [label] * n
        self.held += [held] * n

    def _walk(self, folder: Path, above: tuple[str, ...], deep: bool) -> None:
        for entry in _entries(folder):
            path = folder / entry.name
            if _is_folder(entry):
                if _leads_back(path, above):
                    self.loops.append(path)
                elif deep:
                    self._walk(path, above + _real(path), deep)
            elif is_image(entry.name):
                self.paths.append(path)
            else:
                self.others.append(path)

    def notes(self) -> Iterator[str]:
        """Yields what was recognised and what was left out."""
        yield from self.parts
        for what, left in (("file that is no image", self.others), ("link to a folder above it", self.loops)):
            if left:
                named = ", ".join(path.name for path in left[:3]) + (", …" if len(left) > 3 else "")
                one = len(left) == 1
                what = what if one else what.replace("file that is no image", "files that are no images")
                what = what if one else what.replace("link to a folder above it", "links to folders above them")
                yield f"{len(left)} {what} {'was' if one else 'were'} left out ({named})."


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what a folder holds, in order, without hidden files."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not _hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read ({(error.strerror or str(error)).lower()}); check the path."
        ) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _real(path: Path) -> tuple[str, ...]:
    return (os.path.realpath(path),)


def _leads_back(path: Path, above: tuple[str, ...]) -> bool:
    """Whether a folder is, by a link, one of those above it or holds one of them."""
    (real,) = _real(path)
    return any(folder == real or folder.startswith(real + os.sep) for folder in above)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _found(root: Path) -> _Found:
    """Returns the images below a folder, by parts and classes."""
    found = _Found()
    folders = {entry.name: root / entry.name for entry in _entries(root) if _is_folder(entry)}
    parts = _as_parts(root, folders, found)
    if parts is None:
        _add_classes(root, found, held=False)
    else:
        _add_classes(parts[0], found, held=False)
        known = set(found.labels)
        for part in parts[1:]:
            _add_classes(part, found, held=True)
            if new := sorted(str(label) for label in set(found.labels) - known):
                raise DataError(
                    f"{part} has the class {new[0]!r}, which {parts[0]} has not; train on images of it "
                    "too, or leave it out."
                )
            n = sum(found.held)
            found.parts.append(f"{part.name} is the held-out part, {n} of {len(found.held)} images.")
    if not found.paths:
        n = len(found.others)
        also = f", only {n} other file{'s' * (n != 1)} such as {found.others[0].name}" if n else ""
        raise DataError(f"{root} holds no images{also}; give a folder with a folder of images for each class.")
    return found


def _as_parts(root: Path, folders: dict[str, Path], found: _Found) -> list[Path] | None:
    """Returns the folder to train on and that to hold out, where a folder is divided so; None where it is not."""
    by_part: dict[str, Path] = {}
    for name, folder in folders.items():
        part = next((part[0] for part in (_TRAIN, _VALIDATION, _TEST) if name.lower() in part), None)
        if part is None or part in by_part or not any(_is_folder(entry) for entry in _entries(folder)):
            return None
        by_part[part] = folder
    if "train" not in by_part:
        return None
    if any(is_image(entry.name) for entry in _entries(root)):
        raise DataError(
            f"{root} holds images beside its folder {by_part['train'].name}; move them into a class's folder."
        )
    if "val" in by_part and "test" in by_part:
        found.parts.append(f"{by_part['test'].name} was left out: it is there to evaluate the run with at the end.")
    held = by_part.get("val", by_part.get("test"))
    return [by_part["train"], *([held] if held else [])]


def _add_classes(folder: Path, found: _Found, *, held: bool) -> None:
    """Adds the folders inside one as classes; images that lie in it directly have none."""
    entries = _entries(folder)
    here = _real(folder)
    inside = [entry.name for entry in entries if _is_folder(entry) and not _leads_back(folder / entry.name, here)]
    direct = [entry.name for entry in entries if not _is_folder(entry) and is_image(entry.name)]
    if direct and inside:
        raise DataError(
            f"{folder / direct[0]} lies in no class's folder, but other images do; move it into "
            f"{' or '.join(inside[:3])}."
        )
    found.add(folder, None, held=held, deep=False)
    for name in inside:
        found.add(folder / name, name, held=held)
