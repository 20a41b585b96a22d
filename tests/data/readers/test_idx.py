"""IDX files as MNIST and EMNIST ship them: every type, both parts, what EMNIST does differently, damaged files."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbeat.data.raw import Reading
from backbeat.data.readers.idx import Idx, recognises
from backbeat.errors import DataError, SettingsError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array: np.ndarray) -> bytes:
    """Returns an array as IDX, number by number, as the format is described."""
    code = CODES[array.dtype.str[1:]]
    letter = {8: "B", 9: "b", 11: "h", 12: "i", 13: "f", 14: "d"}[code]
    content = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return content + struct.pack(f">{array.size}{letter}", *array.reshape(-1).tolist())


def write(path: Path, array: np.ndarray) -> Path:
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 4, 5), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 7, dtype=np.uint8)
NAME = "images-idx3-ubyte"


def same_in_pieces(source: Idx) -> Any:
    """Returns what is read whole, after a look that the pieces hold the same."""
    raw = source.read()
    pieces = list(source.pieces(3 * 4 * 4 * 5))
    assert max(len(piece) for piece in pieces) <= 3
    assert all(len(piece) for piece in pieces)
    for name in ("x", "y", "held"):
        if getattr(raw, name) is None:
            assert all(getattr(piece, name) is None for piece in pieces)
        else:
            np.testing.assert_array_equal(
                np.concatenate([getattr(piece, name) for piece in pieces]), getattr(raw, name)
            )
    assert tuple(note for piece in pieces for note in piece.notes) == raw.notes
    assert {(piece.kind, piece.classes) for piece in pieces} == {(raw.kind, raw.classes)}
    return raw


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"),
        ("train-images.idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        ("images-idx3-ubyte", "labels-idx1-ubyte"),
        ("Train-Images-IDX3-ubyte", "train-labels-idx1-ubyte"),
    ],
)
def test_images_find_their_labels(tmp_path: Path, images: str, labels: str):
    path = write(tmp_path / images, IMAGES)
    write(tmp_path / labels, LABELS)
    write(tmp_path / "t10k-labels-idx1-ubyte", LABELS[:2])
    raw = same_in_pieces(Idx(path, Reading()))
    np.testing.assert_array_equal(raw.x, IMAGES)
    np.testing.assert_array_equal(raw.y, LABELS)
    assert (raw.kind, raw.held, raw.classes, raw.name) == ("image", None, None, images)
    assert raw.notes == (f"The labels of {images} are those of {labels}.",)
    assert Idx(path, Reading()).n_bytes() == 7 * 4 * 5 * 4


def test_the_name_of_a_file_does_not_decide_whether_it_is_gzipped(tmp_path: Path):
    (tmp_path / f"{NAME}.gz").write_bytes(idx_bytes(IMAGES))  # as some browsers leave it
    (tmp_path / "labels-idx1-ubyte").write_bytes(gzip.compress(idx_bytes(LABELS)))
    raw = Idx(tmp_path / f"{NAME}.gz", Reading()).read()
    np.testing.assert_array_equal(raw.x, IMAGES)
    np.testing.assert_array_equal(raw.y, LABELS)


@pytest.mark.parametrize("dtype", CODES)
def test_every_type_of_number_is_read(tmp_path: Path, dtype: str):
    array = RNG.integers(0, 100, (7, 4, 5)).astype(dtype)
    if dtype in ("i2", "i4", "f4", "f8"):
        array = array * np.asarray(-200).astype(dtype)
    raw = same_in_pieces(Idx(write(tmp_path / NAME, array), Reading()))
    np.testing.assert_array_equal(raw.x, array)
    assert raw.x.dtype == np.dtype(dtype)
    assert raw.y is None
    assert raw.kind == ("image" if dtype == "u1" else "array")


def test_rows_and_colour_images_are_read(tmp_path: Path):
    rows = RNG.integers(0, 256, (7, 6), dtype=np.uint8)
    assert Idx(write(tmp_path / "images-idx2-ubyte", rows), Reading()).read().kind == "array"
    colour = RNG.integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)
    raw = Idx(write(tmp_path / "colour-images-idx4-ubyte.gz", colour), Reading()).read()
    assert (raw.kind, raw.x.shape) == ("image", (7, 4, 5, 3))


@pytest.mark.parametrize("test", ["t10k", "test"])
def test_a_folder_holds_out_its_test_part(tmp_path: Path, test: str):
    folder = tmp_path / "mnist"
    folder.mkdir()
    write(folder / f"train-{NAME}.gz", IMAGES)
    write(folder / f"train-{NAME}", IMAGES)  # unpacked beside it: the same part
    write(folder / "train-labels-idx1-ubyte.gz", LABELS)
    write(folder / f"{test}-{NAME}.gz", IMAGES[:2] + 1)
    write(folder / f"{test}-labels-idx1-ubyte.gz", LABELS[:2] + 1)
    (folder / "README.txt").write_text("digits")
    assert recognises(folder)
    source = Idx(folder, Reading())
    raw = same_in_pieces(source)
    np.testing.assert_array_equal(raw.x, np.concatenate([IMAGES, IMAGES[:2] + 1]))
    np.testing.assert_array_equal(raw.y, np.concatenate([LABELS, LABELS[:2] + 1]))
    assert raw.held.tolist() == [False] * 7 + [True] * 2
    assert raw.notes[-1] == f"{test}-{NAME}.gz is the held-out part, 2 of 9 images."
    assert (raw.name, source.n_bytes()) == ("mnist", 9 * 4 * 5 * 4)


def test_a_folder_with_one_part_holds_nothing_out(tmp_path: Path):
    write(tmp_path / f"t10k-{NAME}", IMAGES)
    write(tmp_path / "t10k-labels-idx1-ubyte", LABELS)
    assert Idx(tmp_path, Reading()).read().held is None


def emnist(folder: Path, variant: str, labels: np.ndarray) -> Path:
    path = write(folder / f"emnist-{variant}-train-{NAME}.gz", IMAGES)
    write(folder / f"emnist-{variant}-train-labels-idx1-ubyte.gz", labels)
    return path


def test_emnist_letters_are_turned_back_and_named(tmp_path: Path):
    labels = np.array([1, 26, 2, 3, 3, 4, 5], np.uint8)
    raw = same_in_pieces(Idx(emnist(tmp_path, "letters", labels), Reading()))
    assert raw.x.shape == (7, 5, 4)
    for i in range(7):
        np.testing.assert_array_equal(raw.x[i], IMAGES[i].T)
    assert [raw.classes[k] for k in raw.y] == ["a", "z", "b", "c", "c", "d", "e"]
    assert "turned back" in raw.notes[1]
    assert raw.notes[2] == "The labels 1 to 26 are the letters a to z, in upper and lower case alike."
    emnist(tmp_path, "letters", labels - 1)
    with pytest.raises(DataError, match="labels of EMNIST's letters run from 1 to 26"):
        Idx(tmp_path / f"emnist-letters-train-{NAME}.gz", Reading()).read()


def test_other_variants_of_emnist_take_their_names_from_the_mapping(tmp_path: Path):
    path = emnist(tmp_path, "balanced", LABELS)
    raw = Idx(path, Reading()).read()
    np.testing.assert_array_equal(raw.x, IMAGES.transpose(0, 2, 1))
    assert (raw.classes, raw.y.tolist()) == (None, LABELS.tolist())
    mapping = tmp_path / "emnist-balanced-mapping.txt"
    mapping.write_text("".join(f"{i} {ord(letter)}\n" for i, letter in enumerate("0123456789ABc")))
    raw = same_in_pieces(Idx(path, Reading()))
    assert raw.classes == tuple("0123456789ABc")
    assert raw.notes[-1] == "The names of the 13 classes are those of the mapping beside the images."
    assert [file.name for file in Idx(path, Reading()).files()] == [
        f"emnist-balanced-train-{NAME}.gz",
        "emnist-balanced-train-labels-idx1-ubyte.gz",
        "emnist-balanced-mapping.txt",
    ]
    for content in ("0 48\n2 50\n", "nothing\n", "0\n"):
        mapping.write_text(content)
        with pytest.raises(DataError, match="is not a mapping of EMNIST"):
            Idx(path, Reading()).read()
    assert Idx(emnist(tmp_path, "digits", LABELS), Reading()).read().classes is None


def test_a_folder_of_several_sets_is_refused_with_their_names(tmp_path: Path):
    emnist(tmp_path, "digits", LABELS)
    emnist(tmp_path, "letters", LABELS)
    with pytest.raises(DataError, match=f"holds 2 sets of images; give one of .*emnist-digits-train-{NAME}.gz"):
        Idx(tmp_path, Reading()).read()


def test_images_are_resized_as_asked(tmp_path: Path):
    flat = np.repeat(np.arange(7, dtype=np.uint8), 20).reshape(7, 4, 5)
    path = write(tmp_path / NAME, flat)
    source = Idx(path, Reading(resize="8x3"))
    raw = source.read()
    np.testing.assert_array_equal(raw.x, np.broadcast_to(np.arange(7)[:, None, None], (7, 8, 3)))
    assert raw.notes == ("The images were resized from 4x5 to 8x3.",)
    assert source.n_bytes() == 7 * 8 * 3 * 4
    write(path, IMAGES.astype("f4"))
    with pytest.raises(DataError, match="so resize does nothing"):
        Idx(path, Reading(resize="8x3")).read()
    with pytest.raises(SettingsError, match="resize='8' is not a size"):
        Idx(path, Reading(resize="8"))


GOOD = idx_bytes(IMAGES)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty, but an IDX file"),
        (b"\0\0", "begins with the bytes 00 00, but an IDX file"),
        (b"<html>", "begins with the bytes 3c 68 74 6d, but an IDX file"),
        (b"\0\0\x0a\x03" + GOOD[4:], "begins with the bytes 00 00 0a 03"),
        (b"\0\0\x08\x00" + GOOD[4:], "begins with the bytes 00 00 08 00"),
        (GOOD[:9], "ends within its header, after 9 bytes"),
        (GOOD[:-1], r"is cut off: it holds 139 bytes of numbers, 140 belong to the shape \[7, 4, 5\]"),
        (GOOD + b"\n", "goes on after the 140 bytes"),
        (gzip.compress(GOOD, mtime=0)[:-12], "is cut off: its gzipped content has no end"),
        (gzip.compress(GOOD, mtime=0)[:6], "is cut off: its gzipped content has no end"),
        (
            gzip.compress(GOOD, mtime=0)[:40] + b"damaged" + gzip.compress(GOOD, mtime=0)[47:],
            "cannot be read|is cut off",
        ),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "cannot be read .CRC check failed"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + GOOD[16:], "has only 156 bytes, too few for the shape"),
        (idx_bytes(LABELS), "holds labels, not images; give the file of the images"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes, sentence: str):
    path = tmp_path / NAME
    path.write_bytes(content)
    for reads in (lambda s: s.read(), lambda s: list(s.pieces(200))):
        with pytest.raises(DataError, match=sentence) as caught:
            reads(Idx(path, Reading()))
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path):
    path = write(tmp_path / NAME, IMAGES)
    labels = write(tmp_path / "labels-idx1-ubyte", LABELS[:6])
    with pytest.raises(DataError, match=r"images-idx3-ubyte has the shape \[7, 4, 5\] but labels-idx1-ubyte \[6\]"):
        Idx(path, Reading()).read()
    labels.write_bytes(idx_bytes(LABELS) + b"more")
    with pytest.raises(DataError, match="labels-idx1-ubyte goes on after the 7 bytes"):
        Idx(path, Reading()).read()
    with pytest.raises(DataError, match="holds labels, not images; give images-idx3-ubyte, which finds"):
        Idx(labels, Reading()).read()
    write(labels, IMAGES)  # images under the name of labels
    with pytest.raises(DataError, match="holds labels, not images"):
        Idx(labels, Reading()).read()


def test_what_is_missing_or_means_nothing_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="is not there"):
        Idx(tmp_path / NAME, Reading()).read()
    with pytest.raises(DataError, match="label='digit' names a column, but an IDX file has none"):
        Idx(tmp_path / NAME, Reading(label="digit"))
    path = write(tmp_path / f"train-{NAME}", IMAGES)
    assert Idx(path, Reading()).without_labels.endswith("put train-labels-idx1-ubyte.gz into the same folder.")
    write(tmp_path / f"t10k-{NAME}", IMAGES[:, :3])
    with pytest.raises(DataError, match=r"shape \[4, 5\] in train-.* and \[3, 5\] in t10k-"):
        Idx(tmp_path, Reading()).read()
    write(tmp_path / f"t10k-{NAME}", IMAGES)
    write(tmp_path / "t10k-labels-idx1-ubyte", LABELS)
    with pytest.raises(DataError, match=f"train-{NAME} has no labels beside it, but the other part has"):
        Idx(tmp_path, Reading()).read()
    (tmp_path / f"train-{NAME}").unlink()
    (tmp_path / f"t10k-{NAME}").unlink()
    with pytest.raises(DataError, match="holds files of labels but none of images"):
        Idx(tmp_path, Reading()).read()
