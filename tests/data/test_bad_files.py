"""A corpus of bad data, made here: each gives one sentence on stderr, exit code 2, no traceback, nothing left behind.

Every case runs through the command line; what only Python can give (arrays, data sets) runs through `backbeat.fit`.
"""

import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import polars as pl
import pytest
from hypothesis import strategies as st
from PIL import Image

import backbeat as bb
from backbeat.cli import run
from backbeat.data import Reading, load
from backbeat.errors import DataError

RNG = np.random.default_rng(0)
HEADER = "width,height,label\n"
ROWS = [f"{i % 7},{i / 3:.2f},{'ab'[i % 2]}\n" for i in range(20)]
TABLE = HEADER + "".join(ROWS)
X, Y = RNG.normal(size=(20, 3)).astype(np.float32), np.arange(20) % 2


class Bad(NamedTuple):
    """A case: its name, what writes it (None for the file `data` with the given content), the command, the sentence."""

    name: str
    write: Callable[[], Any] | str | bytes
    command: str
    said: tuple[str, ...]


def file_of(write: Any, path: str) -> None:
    """Writes a file by a function of its own, or with the content that is given."""
    if callable(write):
        write()
    else:
        Path(path).write_bytes(write.encode() if isinstance(write, str) else write)


def row(i: int, text: str) -> str:
    """Returns the table with another row at `i`."""
    return HEADER + "".join([*ROWS[:i], text + "\n", *ROWS[i + 1 :]])


def csvs(**contents: str) -> Callable[[], None]:
    """Returns what writes several CSV files."""

    def write() -> None:
        for name, content in contents.items():
            Path(f"{name}.csv").write_text(content, encoding="utf-8")

    return write


def images_table(content: str) -> Callable[[], None]:
    """Returns what writes a table of images beside two that can be read and one that cannot."""

    def write() -> None:
        for i in range(8):
            save(f"letters/{i}.png", size=(4, 4))
        save("letters/large.png", size=(9, 9))
        Path("letters/broken.png").write_bytes(b"no image")
        Path("data.csv").write_text("file,label\n" + content, encoding="utf-8")

    return write


PATHS = "".join(f"letters/{i}.png,{'ab'[i % 2]}\n" for i in range(8))


def held(train: str, test: str) -> Callable[[], None]:
    return csvs(data=train, test=test)


TABLES = [
    Bad("no file", lambda: None, "nowhere.csv", ("nowhere.csv", "not there")),
    Bad("empty", "", "data.csv", ("data.csv", "empty")),
    Bad("blank lines", "\n\n\n", "data.csv", ("data.csv",)),
    Bad("header only", HEADER, "data.csv", ("data.csv", "no examples")),
    Bad("wrong label", TABLE, "data.csv --label lable", ("lable", "did you mean 'label'")),
    Bad("wrong label as target", TABLE, "data.csv --target lable", ("lable", "did you mean 'label'")),
    Bad("wrong input", TABLE, "data.csv --inputs widht", ("widht", "did you mean 'width'")),
    Bad("wrong weight", TABLE, "data.csv --weight w", ("'w'", "width")),
    Bad("label among inputs", TABLE, "data.csv --inputs width,label --label label", ("label",)),
    Bad("no label known", TABLE.replace("label", "name"), "data.csv", ("--target", "name")),
    Bad("text in numbers", row(4, "1.5,wide,a"), "data.csv", ("'height'", "'wide'", "line 6")),
    Bad("infinite", row(4, "inf,1,a"), "data.csv", ("'width'", "1 infinite", "line 6")),
    Bad("empty cells refused", row(4, ",1,a"), "data.csv --missing refuse", ("'width'", "1 empty", "line 6")),
    Bad("NaN refused", row(4, "nan,1,a"), "data.csv --missing refuse", ("'width'", "1 empty", "line 6")),
    Bad("empty label", row(4, "1,1,"), "data.csv", ("'label'", "1 empty", "line 6")),
    Bad("short row", row(4, "1,1"), "data.csv", ("line 6", "2", "3")),
    Bad("long row", row(4, "1,1,a,a"), "data.csv", ("line 6", "4", "3")),
    Bad("one class", TABLE.replace(",b", ",a"), "data.csv", ("'label'", "'a' for all")),
    Bad("fewer than M", TABLE, "data.csv --every 17", ("every=17", "16", "'dataset'")),
    Bad("duplicated column", TABLE.replace("height", "width"), "data.csv", ("'width'", "two columns")),
    Bad("Latin-1", TABLE.replace("width", "größe").encode("latin-1"), "data.csv", ("data.csv", "UTF-8")),
    Bad("UTF-16", TABLE.encode("utf-16"), "data.csv", ("data.csv", "UTF-8")),
    Bad("NUL bytes", TABLE.replace("1.00", "\0"), "data.csv", ("data.csv",)),
    Bad("binary", bytes(RNG.integers(0, 256, 5000, dtype=np.uint8)), "data.csv", ("data.csv",)),
    Bad("open quote", row(4, '1,"2,a'), "data.csv", ("data.csv",)),
    Bad("huge label", row(4, f"1,1,{'a' * 2_000_000}"), "data.csv", ("2,000,000 characters",)),
    Bad("names as label", HEADER + "".join(f"1,2,name {i}\n" for i in range(50)), "data.csv", ("'label'", "50")),
    Bad("text label as value", TABLE, "data.csv --task regression", ("'label'", "regression")),
    Bad("fractions as classes", TABLE, "data.csv --label height --task classification", ("'height'", "fractions")),
    Bad("wrong task", TABLE, "data.csv --task clasification", ("clasification", "did you mean 'classification'")),
    Bad("wrong missing", TABLE, "data.csv --missing drop", ("drop", "impute")),
    Bad("wrong prepare", TABLE, "data.csv --prepare scale", ("scale",)),
    Bad("date", TABLE.replace("0.33", "2024-05-01"), "data.csv", ("'height'", "2024-05-01")),
    Bad(
        "dates",
        HEADER + "".join(f"{i},2024-05-{i + 1:02},{'ab'[i % 2]}\n" for i in range(20)),
        "data.csv",
        ("'height'", "dates", "inputs=width"),
    ),
    Bad(
        "names as input",
        HEADER + "".join(f"{i},name {i},{'ab'[i % 2]}\n" for i in range(300)),
        "data.csv",
        ("'height'", "another text in most rows"),
    ),
    Bad("negative weight", row(4, "-1,1,a"), "data.csv --weight width", ("weights", "0 or more")),
    Bad("text weight", row(4, "no,1,a"), "data.csv --weight width", ("'width'", "'no'", "line 6")),
    Bad("no weight", HEADER + "0,1,a\n0,2,b\n" * 5, "data.csv --weight width", ("weights", "more than 0")),
    Bad("too large a label", row(4, "1,1e300,a"), "data.csv --label height --task regression", ("height", "too large")),
    Bad("too large an input", row(4, "1e300,1,a"), "data.csv", ("'width'", "up to 1e+300", "float32")),
    Bad("two text labels", TABLE, "data.csv --label label,width", ("label", "width")),
    Bad("single column", "label\n" + "a\nb\n" * 5, "data.csv", ("data.csv",)),
    Bad("wrong separator", TABLE.replace(",", "~"), "data.csv", ("data.csv",)),
    Bad("new label held out", held(TABLE, row(4, "1,1,c")), "data.csv --held-out test.csv", ("'c'", "never saw")),
    Bad("other columns held out", held(TABLE, "a,b\n1,2\n"), "data.csv --held-out test.csv", ("width", "test.csv")),
    Bad("held-out file missing", TABLE, "data.csv --held-out test.csv", ("test.csv", "that is there")),
    Bad("label held out", TABLE, "data.csv --held-out label", ("'label'", "held_out")),
    Bad("odd held-out column", TABLE, "data.csv --held-out height", ("'height'", "held")),
    Bad("wrong held-out column", TABLE, "data.csv --held-out widht", ("widht",)),
    Bad("held-out share", TABLE, "data.csv --held-out 1.5", ("1.5", "less than 1")),
    Bad("truncated gz", gzip.compress(TABLE.encode())[:-20], "data.csv.gz", ("data.csv.gz", "cut off")),
    Bad("no gz", TABLE, "data.csv.gz", ("data.csv.gz",)),
    Bad("damaged gz", gzip.compress(TABLE.encode())[:-8] + bytes(8), "data.csv.gz", ("data.csv.gz",)),
    Bad("empty gz", gzip.compress(b""), "data.csv.gz", ("data.csv.gz", "empty")),
    Bad("ragged TSV", TABLE.replace(",", "\t") + "1\t2\n", "data.tsv", ("line 22", "2", "3")),
    Bad("image that is not there", images_table(PATHS + "letters/no.png,a\n"), "data.csv", ("no.png", "no such file")),
    Bad("broken image in a table", images_table(PATHS + "letters/broken.png,a\n"), "data.csv", ("broken.png",)),
    Bad("large image in a table", images_table(PATHS + "letters/large.png,a\n"), "data.csv", ("large.png is 9x9",)),
    Bad("row without an image", images_table(PATHS + ",a\n"), "data.csv", ("data.csv",)),
]


def nested() -> None:
    pl.DataFrame({"pixels": [[1, 2], [3, 4]] * 5, "label": [0, 1] * 5}).write_parquet("data.parquet")


def parquet(frame: pl.DataFrame, name: str = "data.parquet") -> Callable[[], None]:
    def write() -> None:
        Path(name).parent.mkdir(exist_ok=True)
        frame.write_parquet(name)

    return write


def parquet_bytes() -> bytes:
    file = io.BytesIO()
    pl.DataFrame({"width": np.arange(1000.0), "label": [0, 1] * 500}).write_parquet(file)
    return file.getvalue()


def parts() -> None:
    Path("data").mkdir()
    pl.DataFrame({"a": [1.0, 2.0], "label": [0, 1]}).write_parquet("data/1.parquet")
    pl.DataFrame({"b": [1.0, 2.0], "label": [0, 1]}).write_parquet("data/2.parquet")


PARQUETS = [
    Bad("nested column", nested, "data.parquet", ("'pixels'", "nested")),
    Bad("truncated", parquet_bytes()[:-50], "data.parquet", ("data.parquet", "Parquet")),
    Bad("damaged", parquet_bytes()[:50] + b"damaged!" * 20 + parquet_bytes()[210:], "data.parquet", ("data.parquet",)),
    Bad("a table as text", TABLE, "data.parquet", ("data.parquet", "Parquet")),
    Bad("empty", b"", "data.parquet", ("data.parquet",)),
    Bad(
        "no rows",
        parquet(pl.DataFrame({"a": pl.Series([], dtype=pl.Float64), "label": []})),
        "data.parquet",
        ("no rows",),
    ),
    Bad(
        "no label", parquet(pl.DataFrame({"a": [1.0, 2.0], "label": [None, 1]})), "data.parquet", ("'label'", "1 empty")
    ),
    Bad("bytes", parquet(pl.DataFrame({"a": [b"1", b"2"], "label": [0, 1]})), "data.parquet", ("'a'",)),
    Bad("infinite", parquet(pl.DataFrame({"a": [1.0, np.inf], "label": [0, 1]})), "data.parquet", ("'a'", "infinite")),
    Bad("other columns in a part", parts, "data", ("2.parquet", "a", "b")),
]


def npy(x: Any, y: Any = None, **options: Any) -> Callable[[], None]:
    def write() -> None:
        np.save("x.npy", x, **options)
        if y is not None:
            np.save("y.npy", y)

    return write


def npz(**arrays: Any) -> Callable[[], None]:
    return lambda: np.savez("data.npz", **arrays)


def bytes_of(save_as: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    file = io.BytesIO()
    save_as(file, *arrays, **named)
    return file.getvalue()


GOOD_NPY, GOOD_NPZ = bytes_of(np.save, X), bytes_of(np.savez, x=X, y=Y)
WITH_NAN = np.where(np.arange(60).reshape(20, 3) == 7, np.nan, X)

ARRAYS = [
    Bad("truncated npy", GOOD_NPY[:-3], "x.npy", ("x.npy", "another length")),
    Bad("longer npy", GOOD_NPY + b"more", "x.npy", ("x.npy", "another length")),
    Bad("wrong magic of npy", TABLE, "x.npy", ("x.npy", "magic")),
    Bad("empty npy", b"", "x.npy", ("x.npy",)),
    Bad("objects in npy", npy(np.array([{}, None], object), allow_pickle=True), "x.npy", ("x.npy", "objects")),
    Bad("fields in npy", npy(np.zeros(4, [("a", int), ("b", int)]), np.zeros(4)), "x.npy", ("fields a, b", "Parquet")),
    Bad("npy without labels", npy(X), "x.npy", ("x.npy", "x_labels.npy")),
    Bad("npy with fewer labels", npy(X, Y[:7]), "x.npy", ("20 inputs but 7 labels",)),
    Bad("npy of no dimension", npy(np.float32(1), Y), "x.npy", ("shape []",)),
    Bad("npy of one dimension", npy(X[:, 0], Y), "x.npy", ("[examples, features]",)),
    Bad("labels alone", lambda: np.save("y.npy", Y), "y.npy", ("y.npy holds labels",)),
    Bad("npz without y", npz(x=X, labels=Y), "data.npz", ("'y'", "labels")),
    Bad("npz without x", npz(images=X, y=Y), "data.npz", ("'x'", "images")),
    Bad("wrong name in npz", npz(x=X, digits=Y), "data.npz --label digit", ("'digit'", "did you mean 'digits'")),
    Bad("truncated npz", GOOD_NPZ[:-100], "data.npz", ("data.npz",)),
    Bad("damaged npz", GOOD_NPZ[:200] + b"damaged" + GOOD_NPZ[207:], "data.npz", ("data.npz", "CRC")),
    Bad("pickle as npz", pickle.dumps({"x": 1}), "data.npz", ("data.npz",)),
    Bad("objects in npz", npz(x=np.array([{}, {}], object), y=[0, 1]), "data.npz", ("objects",)),
    Bad("NaN in npz", npz(x=WITH_NAN, y=Y), "data.npz", ("1 values", "not finite", "[2, 1]")),
    Bad("infinite label", npz(x=X, y=np.where(Y == 1, np.inf, 0.5)), "data.npz", ("labels", "not finite")),
    Bad("complex inputs", npz(x=X.astype(complex), y=Y), "data.npz", ("complex128",)),
    Bad("texts as inputs", npz(x=X.astype(str), y=Y), "data.npz", ("<U", "give numbers")),
    Bad("no examples", npz(x=X[:0], y=Y[:0]), "data.npz", ("no examples",)),
    Bad("one class in npz", npz(x=X, y=Y * 0), "data.npz", ("at least two",)),
    Bad("one name in npz", npz(x=X, y=["cat"] * 20), "data.npz", ("class, cat", "at least two")),
    Bad("negative class", npz(x=X, y=Y - 1), "data.npz --loss cross_entropy", ("-1",)),
    Bad("huge class", npz(x=X, y=Y * 2**40), "data.npz", (str(2**40),)),
    Bad("too large a number", npz(x=X.astype(float) * 1e300, y=Y), "data.npz", ("not finite",)),
    Bad("huge name of a class", npz(x=X, y=["a" * 3000, "b"] * 10), "data.npz", ("3000 characters",)),
    Bad("weights of another length", npz(x=X, y=Y, weight=[1, 2]), "data.npz", ("20 inputs but 2 weights",)),
    Bad(
        "new class held out",
        npz(x_train=X, y_train=Y, x_test=X[:4], y_test=np.array([0, 1, 7, 7])),
        "data.npz",
        ("label", "7", "training never saw"),
    ),
    Bad("columns of arrays", npy(X, Y), "x.npy --inputs a,b", ("inputs='a,b'", "no")),
]


def idx(array: np.ndarray) -> bytes:
    code = {"uint8": 8, "int32": 12}[array.dtype.name]
    axes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, code, array.ndim)) + axes + array.astype(array.dtype.newbyteorder(">")).tobytes()


TONES = RNG.integers(0, 256, (20, 4, 4), dtype=np.uint8)
NAME, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
Y8 = Y.astype(np.uint8)


def pair(images: bytes, labels: bytes | None = None, stem: str = "") -> Callable[[], None]:
    def write() -> None:
        Path(stem + NAME).write_bytes(images)
        Path(stem + LABELS).write_bytes(idx(Y8) if labels is None else labels)

    return write


def two_sets() -> None:
    pair(idx(TONES), stem="emnist-digits-")()
    pair(idx(TONES), stem="emnist-mnist-")()


def mapped_wrongly() -> None:
    pair(idx(TONES), stem="emnist-balanced-")()
    Path("emnist-balanced-mapping.txt").write_text("zero 48\n")


IDX = [
    Bad("wrong magic", pair(b"\0\0\x07\x03" + idx(TONES)[4:]), NAME, ("00 00 07 03", "IDX")),
    Bad("a web page", pair(b"<!DOCTYPE html>"), NAME, ("3c 21 44 4f", "IDX")),
    Bad("empty", pair(b""), NAME, ("is empty",)),
    Bad("truncated", pair(idx(TONES)[:-1]), NAME, ("cut off", "319", "320")),
    Bad("truncated gz", pair(gzip.compress(idx(TONES))[:-30]), NAME, ("cut off", "gzipped")),
    Bad("truncated labels", pair(idx(TONES), idx(Y8)[:-3]), NAME, (LABELS, "cut off")),
    Bad("too long", pair(idx(TONES) + b"\n"), NAME, ("goes on after the 320 bytes",)),
    Bad("cut header", pair(idx(TONES)[:9]), NAME, ("ends within its header",)),
    Bad("fewer labels", pair(idx(TONES), idx(Y8[:7])), NAME, ("[20, 4, 4]", "[7]", "one label for each image")),
    Bad("labels for images", pair(idx(TONES)), LABELS, (LABELS, f"give {NAME}")),
    Bad("no labels", NAME, NAME, ("begins with",)),
    Bad("one digit alone", pair(idx(TONES), idx(Y8 * 0)), NAME, ("at least two",)),
    Bad("letters from 0", pair(idx(TONES), stem="emnist-letters-"), f"emnist-letters-{NAME}", ("1 to 26",)),
    Bad("several sets", two_sets, ".", ("2 sets", "emnist-digits", "emnist-mnist")),
    Bad("wrong mapping", mapped_wrongly, f"emnist-balanced-{NAME}", ("mapping.txt", "10 65")),
    Bad("a column of images", pair(idx(TONES)), f"{NAME} --label digit", ("label='digit'", "none")),
    Bad("gigantic", pair(b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3), NAME, ("too few",)),
]


def save(path: str, size: tuple[int, int] = (6, 5), **options: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, size, dtype=np.uint8)).save(path, **options)


def folder(*more: tuple[str, Any], classes: tuple[str, ...] = ("cat", "dog"), root: str = "data") -> Callable[[], None]:
    """Returns what writes five images for each class, and more files: a content, a size, or None for a folder."""

    def write() -> None:
        for name in classes:
            for i in range(5):
                save(f"{root}/{name}/{i}.png")
        for path, content in more:
            Path(root, path).parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                Path(root, path).mkdir()
            elif isinstance(content, tuple):
                save(f"{root}/{path}", content)
            else:
                Path(root, path).write_bytes(content)

    return write


def png(width: int, height: int) -> bytes:
    """Returns a PNG that claims a size and has next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 40), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def unknown_class() -> None:
    folder(root="data/train")()
    folder(root="data/test", classes=("cat", "eel"))()


def all_broken() -> None:
    for name in ("cat", "dog"):
        folder((f"{name}/0.png", b"broken"), classes=())()


IMAGES = [
    Bad("no image", folder(("cat/bad.png", b"no image")), "data", ("bad.png", "--skip-bad")),
    Bad("empty image", folder(("cat/bad.png", b"")), "data", ("bad.png", "--skip-bad")),
    Bad("truncated image", folder(("cat/bad.jpg", jpeg()[:-200])), "data", ("bad.jpg", "truncated")),
    Bad("bomb", folder(("cat/bad.png", png(40_000, 40_000))), "data", ("bad.png", "decompression bomb")),
    Bad("all broken", all_broken, "data --skip-bad", ("none of the 2 images",)),
    Bad("mixed sizes", folder(("cat/large.png", (9, 8))), "data", ("is 6x5", "large.png is 9x8", "--resize")),
    Bad("wrong resize", folder(), "data --resize big", ("big", "28x28")),
    Bad("one class", folder(classes=("cat",)), "data", ("class, cat", "at least two")),
    Bad("empty class", folder(("eel", None)), "data", ("eel", "no images")),
    Bad("class of other files", folder(("eel/a.txt", b"text")), "data", ("eel", "1 other file")),
    Bad("no classes", folder(("0.png", (4, 4)), ("1.png", (4, 4)), classes=()), "data", ("no folder for each class",)),
    Bad("stray image", folder(("stray.png", (6, 5))), "data", ("stray.png", "no class's folder", "cat or dog")),
    Bad("new class held out", unknown_class, "data", ("'eel'", "train")),
    Bad("fewer than M", folder(), "data --every 9", ("every=9", "8")),
    Bad("column of a folder", folder(), "data --label cat", ("label='cat'", "none")),
    Bad("one image", folder(), "data/cat/0.png", ("0.png", "without a label")),
]


def saved_in_parts() -> None:
    Path("data/train").mkdir(parents=True)
    Path("data/dataset_dict.json").write_text('{"splits": ["train"]}')


def damaged_data_set() -> None:
    Path("data").mkdir()
    for name in ("state.json", "dataset_info.json"):
        Path("data", name).write_text("{")


class Wrong:
    """A data set whose items are wrong in one way."""

    def __init__(self, item: Callable[[int], Any], length: Any = 20) -> None:
        self.item, self.length = item, length

    def __len__(self) -> Any:
        return self.length

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


def division(i: int) -> Any:
    return X[i], 1 // (i - 3)


OBJECTS = {
    "an item that fails": (Wrong(division), ("item 3", "ZeroDivisionError")),
    "an item of another shape": (Wrong(lambda i: (X[i, : 3 - i // 19], 0)), ("item 19", "[2]", "[3]")),
    "an item of another form": (Wrong(lambda i: (X[i], "a" if i == 5 else 0)), ("item 5", "a text", "a number")),
    "an item without a label": (Wrong(lambda i: (X[i], None if i == 5 else 0)), ("item 5", "nothing")),
    "a negative length": (Wrong(division, -1), ("Wrong", "how many items")),
    "no end": (Wrong(division, 1 << 62), ("Wrong", "without an end")),
    "texts as items": ([("a text", 0), ("another", 1)], ("<U", "give numbers")),
    "no labels": (list(X), ("its items have no labels",)),
    "fields that nobody knows": ([{"a": 1.0, "b": 2.0}] * 4, ("a, b", "label")),
    "nothing": ([], ("no examples",)),
    "a generator": ((x for x in X), ("generator", "list(data)")),
    "a number": (7, ("int", "not understood")),
    "a dict": ({"x": X, "y": Y}, ("dict", "not understood")),
    "rows of two lengths": (([[1, 2], [3]], [0, 1]), ("different lengths", "2 numbers", "1 number")),
    "objects": ((np.array([[{}], [[]]], object), [0, 1]), ("object", "give numbers")),
    "complex numbers": ((X + 1j, Y), ("complex", "give numbers")),
    "missing labels": ((X, np.ma.masked_equal(Y, 1)), ("masked", "10 examples")),
    "masked inputs": ((np.ma.masked_greater(X, 1), Y), ("not finite",)),
    "labels of two kinds": ((X, np.array([1, "a"] * 10, object)), ("1 at 0", "all as texts")),
    "more than any memory": (
        (np.broadcast_to(np.zeros((), ">f8"), (1 << 24, 1 << 24)), np.broadcast_to(np.int8(0), 1 << 24)),
        ("does not fit", "--memory"),
    ),
    "a huge label": ((X, ["a", "b" * 100_000] * 10), ("100000 characters",)),
}


OTHERS = [
    Bad("too long a name", lambda: None, "a" * 300 + ".csv", ("name too long",)),
    Bad(
        "a file as a folder",
        lambda: Path("data.csv").write_text(TABLE),
        "data.csv/x.csv",
        ("data.csv/x.csv", "not there"),
    ),
    Bad("unknown kind", TABLE, "data.xlsx", ("data.xlsx", ".csv")),
    Bad("empty folder", lambda: Path("data").mkdir(), "data", ("data", "folder")),
    Bad("folder of other files", lambda: (Path("data").mkdir(), Path("data/a.txt").write_text("a")), "data", ("data",)),
    Bad("misspelt built-in", lambda: None, "irsi", ("irsi", "'iris'")),
    Bad("data set in parts", saved_in_parts, "data", ("train",)),
    Bad("damaged data set", damaged_data_set, "data", ("data",)),
    Bad("no amount of memory", TABLE, "data.csv --memory much", ("much", "2 GB")),
    Bad("too little memory", TABLE, "data.csv --memory 1MB", ("1MB", "too little")),
]

GROUPS = {"table": TABLES, "parquet": PARQUETS, "array": ARRAYS, "idx": IDX, "images": IMAGES, "other": OTHERS}
CORPUS = [pytest.param(case, id=f"{group}: {case.name}") for group, cases in GROUPS.items() for case in cases]


def everything() -> dict[str, int]:
    """Returns the size of every file and the names of all folders below this one, but for an empty folder of runs."""
    found = {str(path): path.stat().st_size if path.is_file() else -1 for path in Path().rglob("*")}
    return (
        found
        if found.keys() & {"runs/"} or any(Path("runs").glob("*"))
        else {k: v for k, v in found.items() if k != "runs"}
    )


@pytest.mark.parametrize("case", CORPUS)
def test_bad_data_gives_one_sentence(case: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = case.command.split()
    file_of(case.write, arguments[0])
    before = everything()
    code = run(["train", *arguments, "--model", "linear", "--for", "1 epoch"])
    out, err = capsys.readouterr()
    print(err)
    assert (code, out) == (2, "")
    assert err.startswith("backbeat: ")
    assert err.count("\n") == 1
    assert err.endswith((".\n", "?\n"))
    assert "Traceback" not in err
    assert "Error" not in err
    for word in case.said:
        assert word in err
    assert everything() == before


@pytest.mark.parametrize(("data", "said"), OBJECTS.values(), ids=OBJECTS)
def test_bad_values_give_one_sentence(data: Any, said: tuple[str, ...], tmp_path: Path):
    with pytest.raises(DataError) as caught:
        bb.fit("linear", data, duration="1 epoch", run=tmp_path / "run")
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    for word in said:
        assert word in sentence
    assert not any(tmp_path.iterdir())


def damaged(content: bytes, at: int, how: str, more: bytes) -> bytes:
    at %= len(content)
    return content[:at] + {"cut": b"", "changed": more + content[at + len(more) :], "longer": more + content[at:]}[how]


FORMS = {
    "x.npy": GOOD_NPY,
    "data.npz": GOOD_NPZ,
    NAME: idx(TONES),
    f"{NAME}.gz": gzip.compress(idx(TONES)),
    "data.csv": TABLE.encode(),
    "data.csv.gz": gzip.compress(TABLE.encode()),
    "data/cat/0.png": (lambda file: (Image.fromarray(TONES[0]).save(file, "PNG"), file.getvalue())[1])(io.BytesIO()),
    "data/cat/0.jpg": jpeg(),
}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with what belongs to the forms beside them."""
    folder_of_forms = tmp_path_factory.mktemp("forms")
    np.save(folder_of_forms / "y.npy", Y)
    (folder_of_forms / LABELS).write_bytes(idx(Y8))
    for name in ("cat", "dog"):
        (folder_of_forms / "data" / name).mkdir(parents=True)
        Image.fromarray(TONES[0]).save(folder_of_forms / "data" / name / "good.png")
    return folder_of_forms


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    st.sampled_from(sorted(FORMS)),
    st.integers(0, 10_000),
    st.sampled_from(("cut", "changed", "longer")),
    st.binary(min_size=1, max_size=4),
)
def test_whatever_is_damaged_is_read_or_refused_in_one_sentence(
    beside: Path, name: str, at: int, how: str, more: bytes
):
    """Where a form has no checksum, other numbers may be read; anything but that or a `DataError` is a fault."""
    path = beside / name
    path.write_bytes(damaged(FORMS[name], at, how, more))
    try:
        load(beside / "data" if "/" in name else path)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(error).endswith((".", "?"))  # noqa: PT017
    finally:
        path.unlink()


def npy_with_an_infinite_end() -> None:
    x = np.lib.format.open_memmap("x.npy", "w+", np.float32, (5000, 4000))
    x[-1, -1] = np.inf
    np.save("y.npy", np.arange(5000) % 2)


@pytest.mark.parametrize(
    ("write", "data", "said"),
    [
        (
            lambda: pair(idx(np.zeros((5000, 64, 64), np.uint8))[:-1], idx((np.arange(5000) % 2).astype(np.uint8)))(),
            NAME,
            "cut off",
        ),
        (npy_with_an_infinite_end, "x.npy", "[4999, 3999]"),
    ],
    ids=["idx", "npy"],
)
def test_what_turns_out_bad_while_it_is_packed_leaves_nothing(
    write: Callable[[], None], data: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    """Data of more than the memory given is packed piece by piece: here the last one is bad."""
    monkeypatch.chdir(tmp_path)
    write()
    before = everything()
    monkeypatch.setenv("BACKBEAT_CACHE", str(tmp_path / "cache"))
    assert run(["train", data, "--memory", "600 MB", "--model", "linear", "--for", "1 epoch"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err
    left = {path: size for path, size in everything().items() if path not in before}
    assert all(path.startswith("cache") and not path.endswith(".npy") for path in left), left


def test_the_corpus_is_large_and_its_cases_are_called_apart():
    assert len(CORPUS) >= 60
    assert len({case.id for case in CORPUS}) == len(CORPUS)


def test_what_is_bad_in_part_is_left_out_and_counted_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder(("cat/bad.png", b"no image"), ("dog/bad.png", b""))()
    data = load("data", Reading(skip_bad=True))
    assert len(data) == 10
    assert any("2 of 12 images cannot be read and were left out" in note for note in data.notes)
    Path("data.csv").write_text(row(4, "1,1") + "1\n")
    data = load("data.csv", Reading(skip_bad=True))
    assert len(data) == 19
    assert any("2 lines" in note for note in data.notes)
    images_table(PATHS + "letters/broken.png,a\n")()
    assert len(load("data.csv", Reading(skip_bad=True))) == 8
    folder(("cat/large.png", (9, 8)), root="mixed")()
    assert load("mixed", Reading(resize="4x4")).x.shape == (11, 4, 4)


def test_what_is_missing_is_imputed_and_counted_where_asked(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_text(row(4, "inf,nan,a"))
    data = load(path, Reading(missing="impute"))
    assert np.isfinite(data.x).all()
    for said in ("height 1", "width 1"):
        assert any(said in note for note in data.notes)


def test_whole_numbers_that_float32_cannot_tell_apart_are_said(tmp_path: Path):
    ids = [f"{2**40 + 7 * (i * 37 % 41)},{i % 5},{'ab'[i % 2]}\n" for i in range(40)]
    (tmp_path / "data.csv").write_text(HEADER + "".join(ids))
    data = load(tmp_path / "data.csv")
    assert any("'width'" in note and "float32 cannot tell apart" in note for note in data.notes)
    np.savez(tmp_path / "data.npz", x=np.array([[2**40], [2**40 + 1]] * 10), y=Y)
    data = load(tmp_path / "data.npz")
    assert any("float32 cannot tell apart" in note for note in data.notes)
