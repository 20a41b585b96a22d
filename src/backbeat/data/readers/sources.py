"""Which source reads what a person gives: arrays, frames, files, folders, data sets of other libraries, or a name."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, MissingExtraError, nearest
from ..raw import Raw, Reading, Source

BUILT_IN = ("digits", "iris", "diabetes", "breast_cancer", "wine", "california")
_TEXT_TABLES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_ALLOWED = (
    ".csv, .tsv (also .gz), .parquet, .npz, .npy, an IDX file, a folder of images or of Parquet files, or one of "
    f"{', '.join(BUILT_IN)}"
)


def open_source(data: Any = None, reading: Reading | None = None, like: Any = None) -> Source:
    """Returns the source that reads a user's value.

    Args:
        data: as in `load`.
        reading: how it is read; None for the defaults.
        like: a fitted `Preparation`, for new data that is read as the data that it was fitted on; the columns of
            labels may lack then.

    Raises:
        DataError: what is not understood, or a file that is not there.

    Example:
        >>> open_source("digits").read().x.shape
        (1797, 8, 8)
    """
    reading = Reading() if reading is None else reading
    if data is None or (isinstance(data, str) and data == "digits"):
        return digits()
    if isinstance(data, (str, os.PathLike)):
        try:
            return _named(data, reading, like)
        except OSError as error:  # such as a folder that may not be entered, or a name that is too long
            raise DataError(
                f"{data} cannot be read ({(error.strerror or str(error)).lower()}); check the path."
            ) from None
    library = type(data).__module__.partition(".")[0]
    if library in ("pandas", "polars"):
        from .frames import Frame, polars_of

        if getattr(data, "ndim", 2) == 1 or type(data).__name__ == "Series":
            raise DataError("data is one column; give a frame with a column of labels, or (frame, labels).")
        return _table(Frame(polars_of(data)), reading, like)
    if library == "datasets" and hasattr(data, "column_names"):
        return _hugging_face(data, "data set", reading, like)
    if isinstance(data, (tuple, list)) and (pair := _of_arrays(data, reading, like)) is not None:
        return pair
    if hasattr(data, "__array__") or hasattr(data, "__dlpack__") or library == "scipy":
        from .arrays import Arrays

        return Arrays(data)
    items = hasattr(data, "__getitem__") or hasattr(data, "__iter__")  # a stream is refused there, with what to do
    if items and not isinstance(data, (dict, tuple, bytes)):
        from .mapped import Mapped

        return Mapped(data, reading)
    raise DataError(
        f"data of the type {type(data).__name__} is not understood; give (x, y) or (x, y, weight) arrays, a frame, a "
        f"data set with __len__ and __getitem__, or the path of a file: {_ALLOWED}."
    )


def digits() -> Source:
    """Returns scikit-learn's copy of the UCI optical digits: 1,797 images of 8×8 pixels, scaled to 0..1.

    Its file is read where it lies: importing scikit-learn takes longer than training on it.
    """
    from .arrays import Arrays

    package: Any = find_spec("sklearn")
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz") as file:
        table = np.loadtxt(file, dtype=np.float32, delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1]
    return Arrays(images, labels.astype(np.int32), name="digits", source="digits")


def _named(data: Any, reading: Reading, like: Any) -> Source:
    """Returns the source of a path, or of a table that scikit-learn ships."""
    if not str(data).strip():
        raise DataError(f"the path of the data is empty; give {_ALLOWED}.")
    path = Path(data)
    if isinstance(data, str) and data in BUILT_IN and not path.exists():
        from .frames import built_in

        return _table(built_in(data), reading, like)
    if path.is_dir():
        return _folder(path, reading, like)
    return _file(path, reading, like)


def _file(path: Path, reading: Reading, like: Any) -> Source:
    from . import idx, images

    name = path.name.lower()
    if not path.exists() and path.suffix.lower() != ".npz":
        known = nearest(str(path), BUILT_IN)
        hint = known.partition("?")[0] + "?" if "did you mean" in known and not path.suffix else "check the path."
        raise DataError(f"{path} is not there; {hint}")
    if name.endswith((".npz", ".npy")):
        from .arrays import NpyFile, NpzFile

        return NpzFile(path, reading) if name.endswith(".npz") else NpyFile(path, reading)
    if idx.recognises(path):
        return idx.Idx(path, reading)
    if name.endswith(_TEXT_TABLES):
        from .delimited import Delimited

        return _table(Delimited(path, skip_bad=reading.skip_bad), reading, like, path.parent)
    if name.endswith((".parquet", ".pq")):
        from .frames import Parquet

        return _table(Parquet(path), reading, like, path.parent)
    if images.recognises(path):
        return images.ImageFile(path, reading)
    raise DataError(f"{path} is not a kind of file that is read; give {_ALLOWED}.")


def _folder(path: Path, reading: Reading, like: Any) -> Source:
    from . import idx, images

    if (path / "dataset_dict.json").exists():
        parts = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
        raise DataError(
            f"{path} holds several parts, {', '.join(parts)}; give one, such as {path / (parts or ['train'])[0]}, and "
            "another as held_out."
        )
    if (path / "state.json").exists() and (path / "dataset_info.json").exists():
        return _saved_to_disk(path, reading, like)
    if idx.recognises(path):
        return idx.Idx(path, reading)
    if next(path.rglob("*.parquet"), None) is not None:
        from .frames import Parquet

        return _table(Parquet(path), reading, like, path)
    if images.recognises(path):
        return images.ImageFolder(path, reading)
    raise DataError(
        f"{path} is a folder without images, Parquet files, IDX files or a saved data set; give a folder that holds "
        "one of these, or a file."
    )


def _table(rows: Any, reading: Reading, like: Any, folder: Path | None = None) -> Source:
    """Returns the source of a table's rows; one whose input is a column of paths reads the images."""
    from .tables import Table

    table = Table(rows, reading, like)
    paths = table.image_column() if like is None or like.kind == "image" else None
    return table if paths is None else _images(table, paths, reading, Path() if folder is None else folder)


def _images(table: Any, column: str, reading: Reading, folder: Path) -> Source:
    from .images import ImageTable

    raw = table.read()
    y = None
    if raw.y is not None:
        y = raw.y.to_numpy() if raw.y.width > 1 else raw.y.to_series().to_numpy()
    about = Raw("image", (), y, raw.weight, raw.held, raw.name, raw.source, None, raw.notes)
    return ImageTable(raw.x[column].to_list(), folder, reading, about)


def _of_arrays(data: Any, reading: Reading, like: Any) -> Source | None:
    """Returns the source of (x, y) or (x, y, weight); None for what is something else."""
    if len(data) not in (2, 3) or (isinstance(data, list) and isinstance(data[0], (tuple, dict))):
        return None
    if type(data[0]).__module__.partition(".")[0] in ("pandas", "polars") and hasattr(data[0], "columns"):
        return _of_frame_and_labels(*data, reading=reading, like=like)
    from .arrays import Arrays
    from .pieces import refuse_columns

    refuse_columns(reading, "arrays", "an array")
    return Arrays(*data)


def _of_frame_and_labels(x: Any, y: Any, weight: Any = None, *, reading: Reading, like: Any) -> Source:
    import polars as pl

    from .frames import Frame, polars_of

    if reading.label is not None:
        raise DataError(f"label={reading.label!r} names a column, but labels are given beside the frame; give one.")
    frame = polars_of(x)
    labels = polars_of(y) if type(y).__module__.partition(".")[0] in ("pandas", "polars") else _columns_of(y)
    added = labels.rename({name: _free(name, frame.columns) for name in labels.columns})
    names = list(frame.columns)
    if weight is not None:
        added = added.with_columns(pl.Series(_free("weight", [*names, *added.columns]), np.asarray(weight)))
    if len(added) != len(frame):
        raise DataError(f"table: {len(frame)} inputs but {len(added)} labels; give one label for each input.")
    inputs = names if reading.inputs is None else reading.inputs
    reading = replace(
        reading,
        label=added.columns[: labels.width],
        inputs=inputs,
        weight=None if weight is None else added.columns[-1],
    )
    return _table(Frame(pl.concat([frame, added], how="horizontal")), reading, like)


def _free(name: str, taken: Any) -> str:
    return name if name not in taken else _free(f"{name}_", taken)


def _columns_of(y: Any) -> Any:
    import polars as pl

    y = np.asarray(y)
    if y.dtype.kind in "USO":
        y = y.astype(str)
    if y.ndim == 1:
        return pl.DataFrame({"label": y})
    return pl.DataFrame({f"label_{i}": each for i, each in enumerate(y.T)})


def _saved_to_disk(path: Path, reading: Reading, like: Any) -> Source:
    try:
        from datasets import load_from_disk
    except ImportError:
        raise MissingExtraError(
            f"{path} is a data set of the library datasets; install it with `pip install backbeat[datasets]`."
        ) from None
    try:
        data = load_from_disk(str(path))
    except Exception as error:  # whatever the library raises for a damaged folder
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read as a saved data set ({said}); save it again.") from None
    return _hugging_face(data, path.name, reading, like, str(path.resolve()))


def _hugging_face(data: Any, name: str, reading: Reading, like: Any, source: str | None = None) -> Source:
    """Returns the source of a Hugging Face data set: a table where all its columns are plain."""
    if not hasattr(data, "__len__"):
        raise DataError("the data set is a stream, which is not read; save it with save_to_disk, and give the folder.")
    if isinstance(data, dict):
        raise DataError(
            f"the data set has several parts, {', '.join(data)}; give one of them as data, and another as held_out."
        )
    if data.features is not None and all(
        type(each).__name__ in ("Value", "ClassLabel") for each in data.features.values()
    ):
        from .frames import hugging_face

        return _table(hugging_face(data, name, source), reading, like)
    from .mapped import Mapped

    return Mapped(data, reading)
