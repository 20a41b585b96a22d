"""Arrays as data: in memory (NumPy, lists, PyTorch, JAX, SciPy's sparse matrices), and in `.npy` and `.npz` files."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from ...errors import DataError, nearest
from ..dataset import aligned
from ..raw import Raw, Reading
from .pieces import cut, refuse_columns, rows_in, size_in_words
from .values import array_of, is_pixels, is_sparse, labels_of, numbers_of

_MOST_DENSE = 4 << 30  # bytes that a sparse matrix may take once it is dense


class Arrays:
    """Examples in memory: inputs `[n, ...]`, labels `[n, ...]` or None, weights `[n]` or None.

    Example:
        >>> Arrays([[0.5], [1.5]], ["no", "yes"]).read().y.tolist()
        ['no', 'yes']
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weight: Any = None,
        *,
        name: str = "arrays",
        source: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.source, self.notes = name, source, notes
        self._x = array_of(x, f"{name}: inputs")
        self._y = None if y is None else array_of(y, f"{name}: labels")
        self._weight = None if weight is None else array_of(weight, f"{name}: weights")
        for what, array in (("labels", self._y), ("weights", self._weight)):
            if self._x.ndim and array is not None and array.shape[:1] != self._x.shape[:1]:
                n = array.shape[0] if array.ndim else "no"
                raise DataError(
                    f"{name}: {self._x.shape[0]} inputs but {n} {what}; give one {what[:-1]} for each input."
                )

    @property
    def without_labels(self) -> str:
        """What to say where labels are needed and there are none."""
        return f"{self.name}: there are inputs but no labels; give both, (x, y)."

    def n_bytes(self) -> int:
        """Returns how many bytes the inputs take as float32."""
        return 4 * math.prod(self._x.shape)

    def read(self) -> Raw:
        """Returns all examples.

        Raises:
            DataError: what is no number where one is due, or a sparse matrix that is too large once it is dense.
        """
        if is_sparse(self._x) and self.n_bytes() > _MOST_DENSE:
            raise DataError(
                f"{self.name}: the inputs are a sparse matrix of {list(self._x.shape)}, which would take "
                f"{size_in_words(self.n_bytes())} dense; reduce its columns (scikit-learn's TruncatedSVD), or give "
                'memory="2 GB", with which it is read in pieces.'
            )
        return self._piece(slice(None))

    def pieces(self, n_bytes: int) -> Iterator[Raw]:
        """Yields all examples in order, in pieces that take about `n_bytes`."""
        if not self._x.ndim:
            yield self.read()
            return
        rows = rows_in(n_bytes, self._x.shape[1:])
        for start in range(0, max(1, self._x.shape[0]), rows):
            yield self._piece(slice(start, start + rows), first=start == 0)

    def _piece(self, part: slice, *, first: bool = True) -> Raw:
        notes = list(self.notes)
        x = self._x[part] if self._x.ndim else self._x
        if is_sparse(x):
            filled = self._x.nnz / max(1, math.prod(self._x.shape))
            notes.append(
                f"The inputs are a sparse matrix, {filled:.2%} filled: held dense, {size_in_words(self.n_bytes())}."
            )
            x = x.toarray()
        x = numbers_of(x, f"{self.name}: inputs", notes)
        pixels = is_pixels(x)
        if pixels:
            notes.append(f"The inputs are 8-bit numbers of {list(x.shape[1:])} each, taken for pixels from 0 to 255.")
        y = None if self._y is None else labels_of(self._y[part] if self._y.ndim else self._y, f"{self.name}: labels")
        weight = self._weight
        if weight is not None:
            weight = numbers_of(weight[part] if weight.ndim else weight, f"{self.name}: weights", notes)
        kind = "image" if pixels else "array"
        return Raw(kind, x, y, weight, name=self.name, source=self.source, notes=tuple(notes) if first else ())


class NpyFile:
    """A `.npy` file of inputs, with the file of its labels beside it."""

    def __init__(self, path: Path, reading: Reading) -> None:
        refuse_columns(reading, path.name, "an array", allowed=("label",))
        self.name, self.path = path.name, path
        if not path.is_file():
            raise DataError(f"{path} is not there; check the path.")
        self.labels = _labels_beside(path, reading.label)

    @property
    def without_labels(self) -> str:
        """What to say where labels are needed and there are none."""
        return (
            f"{self.path} has no labels beside it; save them as {self.path.stem}_labels.npy in the same folder, or "
            "give an .npz file with the arrays x and y."
        )

    def n_bytes(self) -> int:
        """Returns how many bytes the inputs take as float32."""
        return self._arrays(mapped=True).n_bytes()

    def read(self) -> Raw:
        """Returns all examples.

        Raises:
            DataError: a file that cannot be read, or arrays that do not fit together.
        """
        return self._arrays(mapped=False).read()

    def pieces(self, n_bytes: int) -> Iterator[Raw]:
        """Yields all examples in order, in pieces that take about `n_bytes`; the files stay on the disk."""
        yield from self._arrays(mapped=True).pieces(n_bytes)

    def files(self) -> list[Path]:
        """Returns the files that are read."""
        return [self.path, *([] if self.labels is None else [self.labels])]

    def _arrays(self, *, mapped: bool) -> Arrays:
        x = _read_npy(self.path, mapped=mapped)
        y, notes = None, ()
        if self.labels is not None:
            y = _read_npy(self.labels, mapped=mapped)
            notes = (f"The labels are those of {self.labels.name}, beside {self.path.name}.",)
        elif x.ndim == 1 and _is_labels(self.path.stem):
            raise DataError(
                f"{self.path} holds labels, by its name and its shape {list(x.shape)}; give the inputs' file."
            )
        return Arrays(x, y, name=self.name, source=str(self.path.resolve()), notes=notes)


class NpzFile:
    """An `.npz` file with the arrays `x` and `y`, and `weight` if it has one.

    Where a file has `x_train`, `y_train`, `x_test` and `y_test` instead, the test part is held out. Other names are
    given as `inputs` and `label`.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.name, self.path, self.reading = path.name, path, reading
        if not path.is_file():
            raise DataError(f"{path} is not there; check the path, or leave it out to use the handwritten digits.")

    @property
    def without_labels(self) -> str:
        """What to say where labels are needed and there are none."""
        with _as_archive(self.path) as archive:
            return self._missing(self._label(), _names(archive))

    def n_bytes(self) -> int:
        """Returns how many bytes the inputs take as float32."""
        total = 0
        with _as_archive(self.path) as archive:
            for x, _ in self._parts(_names(archive)):
                with archive.open(f"{x}.npy") as file:
                    total += 4 * math.prod(_read_header(file, f"the array {x!r}")[0])
        return total

    def read(self) -> Raw:
        """Returns all examples.

        Raises:
            DataError: a file that cannot be read, an array that is missing, or arrays that do not fit together.
        """
        with _as_archive(self.path) as archive:
            names = _names(archive)
            parts = self._parts(names)
            found = [[_read_member(archive, name) if name in names else None for name in part] for part in parts]
            weight_name = self.reading.weight or "weight"
            if self.reading.weight is not None and weight_name not in names:
                raise DataError(self._missing(weight_name, names))
            weight = _read_member(archive, weight_name) if len(parts) == 1 and weight_name in names else None
        source = str(self.path.resolve())
        if len(parts) == 1:
            x, y = found[0]
            return Arrays(x, y, weight, name=self.name, source=source).read()
        return _with_held_out(self.name, source, parts, found)

    def pieces(self, n_bytes: int) -> Iterator[Raw]:
        """Yields all examples in order, in pieces that take about `n_bytes`; the file itself is read whole."""
        yield from cut(self.read(), n_bytes)

    def files(self) -> list[Path]:
        """Returns the file that is read."""
        return [self.path]

    def _label(self) -> str:
        return "y" if self.reading.label is None else str(self.reading.label)

    def _parts(self, names: list[str]) -> list[tuple[str, str]]:
        """Returns the names of inputs and labels, of one part or of the training and the held-out part."""
        x = "x" if self.reading.inputs is None else str(self.reading.inputs)
        by_lower = {name.lower(): name for name in names}
        trained = [by_lower.get(name, "") for name in ("x_train", "y_train", "x_test", "y_test")]
        if x not in names and self.reading.inputs is None and self.reading.label is None and all(trained):
            return [(trained[0], trained[1]), (trained[2], trained[3])]
        if x not in names:
            raise DataError(self._missing(x, names))
        return [(x, self._label())]

    def _missing(self, name: str, names: list[str]) -> str:
        if self.reading.inputs is None and self.reading.label is None and name in ("x", "y"):
            return (
                f"{self.path} has no array {name!r}, only {', '.join(sorted(names)) or 'none'}; save it with "
                "np.savez(path, x=..., y=...)."
            )
        return f"{self.path} has no array {name!r}; {nearest(name, sorted(names))}"


def _with_held_out(name: str, source: str, parts: list, found: list) -> Raw:
    """Returns the examples of two parts one after the other, the second held out."""
    raws = [Arrays(x, y, name=f"{name}, {part[0]}").read() for part, (x, y) in zip(parts, found, strict=True)]
    for what, arrays in (("inputs", [raw.x for raw in raws]), ("labels", [raw.y for raw in raws])):
        if arrays[0].shape[1:] != arrays[1].shape[1:]:
            raise DataError(
                f"{name}: one example's {what} have the shape {list(arrays[0].shape[1:])} in the training part and "
                f"{list(arrays[1].shape[1:])} in the test part; they must be the same."
            )
    n = [len(raw) for raw in raws]
    notes = (*raws[0].notes, f"{parts[1][0]} and {parts[1][1]} are the held-out part, {n[1]} of {sum(n)} examples.")
    return Raw(
        raws[0].kind,
        np.concatenate([raw.x for raw in raws]),
        np.concatenate([raw.y for raw in raws]),
        held=np.repeat([False, True], n),
        name=name,
        source=source,
        notes=notes,
    )


_INPUT_WORDS = ("x", "images", "image", "inputs", "input", "features", "data")
_LABEL_WORDS = ("y", "labels", "label", "targets", "target")


def _is_labels(stem: str) -> bool:
    return any(word in _LABEL_WORDS for word in stem.lower().replace("-", "_").split("_"))


def _labels_beside(path: Path, given: Any) -> Path | None:
    """Returns the `.npy` file with the labels of another one, by its name: `x_train` has `y_train`."""
    if given is not None:
        named = Path(str(given))
        for file in (named, path.parent / named):
            if file.is_file() and file.suffix.lower() == ".npy":
                return file
        raise DataError(f"label={str(given)!r} is no .npy file beside {path}; give the path of the labels' file.")
    if _is_labels(path.stem):
        return None
    words = path.stem.lower().replace("-", "_").split("_")
    stems = []
    for i, word in enumerate(words):
        if word in _INPUT_WORDS:
            stems += ["_".join([*words[:i], label, *words[i + 1 :]]) for label in _LABEL_WORDS]
    whole = "_".join(words)
    stems += [f"{whole}_{label}" for label in _LABEL_WORDS]
    if not {"train", "test", "val", "valid"} & set(words):
        stems += _LABEL_WORDS
    beside = {file.stem.lower().replace("-", "_"): file for file in sorted(path.parent.iterdir()) if _is_npy(file)}
    return next((beside[stem] for stem in stems if stem in beside and beside[stem] != path), None)


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy" and path.is_file()


_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, MemoryError)


class _as_archive:
    """Opens an `.npz` file; what goes wrong while it is open becomes one sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> zipfile.ZipFile:
        try:
            self.archive = zipfile.ZipFile(self.path)
        except _UNREADABLE as error:
            raise self._sentence(error) from None
        return self.archive

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.archive.close()
        if isinstance(error, _UNREADABLE) and not isinstance(error, DataError):
            raise self._sentence(error) from None

    def _sentence(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path} cannot be read as an .npz file ({error}); save it again with np.savez(path, x=..., y=...)."
        )


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    opened: Any = archive.open(f"{name}.npy")
    with opened as file:
        return _read_array(file, f"the array {name!r}")


def _read_npy(path: Path, *, mapped: bool) -> np.ndarray:
    try:
        with path.open("rb") as file:
            if not mapped:
                return _read_array(file, "it")
            shape, columns_first, dtype = _read_header(file, "it")
            start, size = file.tell(), path.stat().st_size
        if size - start != math.prod(shape) * dtype.itemsize:
            raise EOFError("it has another length than its header says")
        if not math.prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", start, shape, "F" if columns_first else "C")
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an .npy file ({error}); save it again with np.save.") from None


def _read_header(file: Any, what: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{what} has the unknown format {version}")
    one = version == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    try:
        shape, columns_first, dtype = read_header(file)
    except (TokenError, SyntaxError) as error:
        raise ValueError(f"{what} has a damaged header: {error}") from None
    if dtype.hasobject:
        raise ValueError(f"{what} holds Python objects, which are not read")
    return shape, columns_first, dtype


def _read_array(file: Any, what: str) -> np.ndarray:
    """Returns one array, read straight into memory that JAX takes without a copy; never an array of objects.

    `np.load` would read it into memory that has to be copied once more, and leaves a damaged file open.
    """
    shape, columns_first, dtype = _read_header(file, what)
    array = aligned(shape[::-1] if columns_first else shape, dtype)
    memory, done = array.reshape(-1).view(np.uint8).data, 0
    while done < len(memory) and (read := file.readinto(memory[done:])):
        done += read
    if done < len(memory) or file.read(1):  # reading on to the end also makes zipfile compare the checksum
        raise EOFError(f"{what} has another length than its header says")
    return array.T if columns_first else array
