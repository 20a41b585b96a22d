"""The same images in every form that data comes in are the same data set, number for number."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from backbeat.data import Reading, load

RNG = np.random.default_rng(0)
Y = np.sort(np.arange(24) % 3)  # by class, as folders are read
X = RNG.integers(0, 256, (24, 5, 4), dtype=np.uint8)


def arrays(_: Path) -> Any:
    return X, Y


def npz(folder: Path) -> Any:
    np.savez(folder / "data.npz", x=X, y=Y)
    return folder / "data.npz"


def npy(folder: Path) -> Any:
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    return folder / "x.npy"


def idx(folder: Path) -> Any:
    (folder / "images-idx3-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, *X.shape) + X.tobytes())
    )
    (folder / "labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, len(Y)) + bytes(Y.tolist()))
    return folder / "images-idx3-ubyte.gz"


def images(folder: Path) -> Any:
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        path = folder / "images" / str(y) / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path)
    return folder / "images"


def table_of_images(folder: Path) -> Any:
    root = images(folder)
    paths = [f"images/{y}/{i:02}.png" for i, y in enumerate(Y)]
    pl.DataFrame({"file": paths, "label": Y}).write_csv(folder / "data.csv")
    assert root.is_dir()
    return folder / "data.csv"


def pairs(_: Path) -> Any:
    return [(Image.fromarray(x), int(y)) for x, y in zip(X, Y, strict=True)]


def hugging_face(_: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["0", "1", "2"])})
    columns = {"image": [Image.fromarray(x) for x in X], "label": Y.tolist()}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("form", [arrays, npz, npy, idx, images, table_of_images, pairs, hugging_face])
def test_every_form_is_the_same_data(form: Callable[[Path], Any], tmp_path: Path):
    data = load(form(tmp_path), Reading())
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.x, X.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.y, Y)
    assert data.task in ("auto", "classification")
    assert data.classes in (None, ("0", "1", "2"))
