"""The same handwritten digits in every form in which people have them: the same network comes out."""

import gzip
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import backbeat as bb

# 30 images of each digit, in the order in which a folder of classes is read
BUNCH: Any = load_digits()
ORDER = np.concatenate([np.flatnonzero(BUNCH.target == digit)[:30] for digit in range(10)])
PIXELS, LABELS = (BUNCH.images[ORDER] * 15).astype(np.uint8), BUNCH.target[ORDER].astype(np.int64)
SCALED = PIXELS.astype(np.float32) / 255
COLUMNS = {f"p{i}": SCALED.reshape(300, -1)[:, i] for i in range(64)}
SETTINGS: dict = {"every": 32, "order": "as given", "held_out": 0, "duration": "3 epochs", "seed": 3}


def trained(data: Any, **reading: Any) -> np.ndarray:
    return np.asarray(bb.fit(bb.mlp((32,)), data, **SETTINGS, **reading).theta)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return trained((SCALED, LABELS))


def table() -> pl.DataFrame:
    return pl.DataFrame({**COLUMNS, "digit": LABELS})


def as_images(folder: Path) -> Path:
    for digit, number, pixels in zip(LABELS, range(300), PIXELS, strict=True):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / str(digit) / f"{number:03}.png")
    return folder


def as_idx(folder: Path) -> Path:
    for name, array in (
        ("train-images-idx3-ubyte.gz", PIXELS),
        ("train-labels-idx1-ubyte.gz", LABELS.astype(np.uint8)),
    ):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / name).write_bytes(gzip.compress(head + array.tobytes()))
    return folder / "train-images-idx3-ubyte.gz"


def as_table_of_paths(folder: Path) -> Path:
    as_images(folder)
    paths = [f"{digit}/{number:03}.png" for number, digit in enumerate(LABELS)]
    pl.DataFrame({"file": paths, "digit": LABELS}).write_csv(folder / "digits.csv")
    return folder / "digits.csv"


def as_files(folder: Path, form: str) -> tuple[Any, dict]:
    """Returns the digits in a form, and how it is to be read."""
    columns = {"label": "digit", "prepare": "none"}
    if form == "npz":
        np.savez(folder / "digits.npz", x=SCALED, y=LABELS)
        return folder / "digits.npz", {}
    if form == "npy":
        np.save(folder / "x.npy", SCALED)
        np.save(folder / "y.npy", LABELS)
        return folder / "x.npy", {}
    if form in ("csv", "tsv"):
        table().write_csv(folder / f"digits.{form}", separator="," if form == "csv" else "\t")
        return folder / f"digits.{form}", columns
    if form == "csv.gz":
        table().write_csv(folder / "plain")
        (folder / "digits.csv.gz").write_bytes(gzip.compress((folder / "plain").read_bytes()))
        return folder / "digits.csv.gz", columns
    if form == "parquet":
        table().write_parquet(folder / "digits.parquet")
        return folder / "digits.parquet", columns
    if form == "folder of parquet":
        for part in range(3):
            table().slice(100 * part, 100).write_parquet(folder / f"part-{part}.parquet")
        return folder, columns
    made = {"images": as_images, "idx": as_idx, "table of paths": as_table_of_paths}[form](folder)
    return made, {"label": "digit"} if form == "table of paths" else {}


FORMS = ("npz", "npy", "csv", "tsv", "csv.gz", "parquet", "folder of parquet", "images", "idx", "table of paths")


@pytest.mark.parametrize("form", FORMS)
def test_files(form: str, expected: np.ndarray, tmp_path: Path):
    data, reading = as_files(tmp_path, form)
    # the inputs are the same float32 numbers, but for a text's or a division's last bit, over 30 updates
    np.testing.assert_allclose(trained(data, **reading), expected, rtol=1e-5, atol=1e-6)


class Pairs:
    """A map-style data set, as PyTorch's are."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple:
        return SCALED[index], int(LABELS[index])


def test_objects(expected: np.ndarray):
    columns = {"label": "digit", "prepare": "none"}
    frame = pd.DataFrame({**COLUMNS, "digit": LABELS})
    for data, reading in (
        ((SCALED, LABELS), {}), ((PIXELS, LABELS), {}), (table(), columns), (frame, columns), (Pairs(), {}),
        ((frame.drop(columns="digit"), frame["digit"]), {"prepare": "none"}), ((SCALED.tolist(), LABELS.tolist()), {}),
    ):  # fmt: skip
        np.testing.assert_allclose(trained(data, **reading), expected, rtol=1e-5, atol=1e-6)


def test_torch_tensors(torch: Any, expected: np.ndarray):
    tensors = torch.from_numpy(SCALED), torch.from_numpy(LABELS)
    for data in (tensors, torch.utils.data.TensorDataset(*tensors)):
        np.testing.assert_allclose(trained(data), expected, rtol=1e-5, atol=1e-6)


def test_hugging_face(expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({**{name: column.tolist() for name, column in COLUMNS.items()}, "digit": LABELS})
    made.save_to_disk(tmp_path / "saved")
    for data in (made, tmp_path / "saved"):
        found = trained(data, label="digit", prepare="none")
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["npy", "csv", "folder of parquet", "images", "idx"])
def test_files_larger_than_the_memory_given(
    form: str, expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BACKBEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        sys.modules["backbeat.data.load"], "larger_than_memory", lambda source, memory: memory is not None
    )
    (tmp_path / "data").mkdir()
    data, reading = as_files(tmp_path / "data", form)
    run = bb.fit(bb.mlp((32,)), data, **SETTINGS, **reading, memory="2 GB")
    assert not isinstance(run.job.dataset.x, np.ndarray)
    np.testing.assert_allclose(run.theta, expected, rtol=1e-5, atol=1e-6)
