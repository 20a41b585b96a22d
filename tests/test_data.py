"""Data from outside: what is read, what is refused and where it is wrong, and which part is held out."""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.data import from_arrays, load, split
from backbeat.errors import DataError, SettingsError

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 2, 1])


def test_arrays_become_float32_and_int32():
    data = from_arrays(X.astype(float).tolist(), Y)
    assert (data.x.dtype, data.y.dtype, data.weight, data.classes) == (np.float32, np.int32, None, None)
    np.testing.assert_array_equal(data.x, X)
    assert (len(data), data.input_shape) == (4, (3,))
    assert from_arrays(X, Y).x is X  # not copied where nothing has to be changed
    assert from_arrays(X, Y, np.ones(4)).weight is None
    assert from_arrays(X, [True, False, True, True]).y.tolist() == [1, 0, 1, 1]
    assert from_arrays(X, np.array([0.5, 1, 2, 3])).y.dtype == np.float32


def test_names_are_numbered_in_their_order():
    data = from_arrays(X, ["dog", "cat", "owl", "cat"])
    assert data.classes == ("cat", "dog", "owl")
    assert data.y.tolist() == [1, 0, 2, 0]


def test_the_hash_sees_every_array():
    digest = from_arrays(X, Y).sha256
    assert from_arrays(X.copy(), Y.copy()).sha256 == digest
    changed = X.copy()
    changed[3, 2] += 1
    others = [from_arrays(changed, Y), from_arrays(X, Y[::-1]), from_arrays(X, Y, [1, 2, 1, 1])]
    assert len({digest, *(other.sha256 for other in others)}) == 4


WITH_NAN = X.astype(float)
WITH_NAN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ((np.zeros((0, 3)), []), "there are no examples"),
        ((X[:, 0], Y), r"give \[examples, features\], for one feature x\[:, None\]"),
        ((X, Y[:3]), "4 inputs but 3 labels"),
        ((X, 3), "4 inputs but no labels"),
        ((X.astype(str), Y), "inputs are of the type <U.*; give numbers"),
        ((X.astype(complex), Y), "give numbers"),
        ((WITH_NAN, Y), r"inputs hold 1 values that are not finite numbers, the first at \[2, 1\]"),
        ((X.astype(float) * 1e300, Y), "not finite numbers"),
        ((X, [0.5, np.inf, 1, 2]), r"labels hold 1 values that are not finite numbers, the first at \[1\]"),
        ((X, [2**31, 0, 1, 2]), "labels run from 0 to 2147483648"),
        ((X, Y, np.ones(3)), "4 inputs but 3 weights"),
        ((X, Y, [-1, 1, 1, 1]), "weights must be 0 or more"),
        ((X, Y, np.zeros(4)), "more than 0 for at least one example"),
        ((X, Y, [1, np.nan, 1, 1]), "weights hold 1 values that are not finite"),
    ],
)
def test_arrays_that_are_wrong_are_refused(arrays: tuple, sentence: str):
    with pytest.raises(DataError, match=sentence):
        load(arrays if len(arrays) == 3 else (*arrays,))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_holds_what_was_saved(tmp_path: Path, save: Any):
    path = tmp_path / "some.npz"
    save(path, x=X, y=Y, weight=[1, 2, 3, 4])
    for given_path in (path, str(path)):
        data = load(given_path)
        np.testing.assert_array_equal(data.x, X)
        np.testing.assert_array_equal(data.y, Y)
        assert data.weight is not None
        assert data.weight.tolist() == [1, 2, 3, 4]
        assert data.name == "some.npz"


def test_arrays_that_are_read_or_cast_need_no_copy_for_jax(tmp_path: Path):
    path = tmp_path / "some.npz"
    np.savez(path, x=np.asfortranarray(X), y=Y)
    data = load(path)
    np.testing.assert_array_equal(data.x, X)
    np.savez(path, x=X, y=Y)
    for x in (load(path).x, from_arrays(X.astype(float), Y).x):
        np.testing.assert_array_equal(x, X)
        assert x.ctypes.data % 64 == 0


def broken_file(kind: str, folder: Path) -> Path:
    path = folder / ("data.xlsx" if kind == "another kind" else "data.npz")
    good = folder / "good.npz"
    np.savez(good, x=np.zeros((500, 30), np.float32), y=np.zeros(500, int))
    content = good.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "damaged":
        path.write_bytes(content[:30_000] + b"\xff" * 100 + content[30_100:])
    elif kind == "one array missing":
        np.savez(path, x=X, labels=Y)
    elif kind == "objects":
        np.savez(path, x=X, y=np.array([{"a": 1}, None, 2, 3], dtype=object))
    elif kind == "longer":
        with zipfile.ZipFile(path, "w") as archive, zipfile.ZipFile(good) as source:
            archive.writestr("x.npy", source.read("x.npy") + b"more")
            archive.writestr("y.npy", source.read("y.npy"))
    elif kind == "another kind":
        path.write_bytes(b"PK")
    elif kind == "one array alone":
        with path.open("wb") as file:
            np.save(file, X)
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "is not there; check the path"),
        ("another kind", "is not a kind of file that is read"),
        ("truncated", "cannot be read as an .npz file"),
        ("empty", "cannot be read as an .npz file"),
        ("damaged", "cannot be read as an .npz file"),
        ("one array missing", "has no array 'y', only labels, x"),
        ("objects", "cannot be read as an .npz file"),
        ("longer", "has another length than its header says"),
        ("one array alone", "cannot be read as an .npz file"),
    ],
)
def test_files_that_are_wrong_are_refused(kind: str, sentence: str, tmp_path: Path):
    with pytest.raises(DataError, match=sentence):
        load(broken_file(kind, tmp_path))


def test_a_pickled_object_is_never_run():
    """An array of objects could run code when it is read: allow_pickle is off, so the trap stays shut."""

    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (marker,)

    with tempfile.TemporaryDirectory() as folder:
        marker = str(Path(folder, "sprung"))
        path = Path(folder, "trap.npz")
        np.savez(path, x=X, y=np.array([Trap(), None, None, None], dtype=object))
        with pytest.raises(DataError):
            load(path)
        assert not Path(marker).exists()


@pytest.mark.parametrize("wrong", [3, {"x": X}, (X,), (X, Y, Y, Y)])
def test_what_is_no_data_is_refused(wrong: Any):
    with pytest.raises(DataError, match=r"give \(x, y\) or \(x, y, weight\) arrays"):
        load(wrong)


def test_the_digits():
    data = load(None)
    assert (data.x.shape, data.x.min(), data.x.max()) == ((1797, 8, 8), 0, 1)
    assert np.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=10, max_size=80), st.floats(0.1, 0.9))
def test_a_split_is_disjoint_complete_stratified_and_pure(seed: int, labels: list[int], share: float):
    y = np.array(labels, np.int32)
    parts = split(y, share, seed)
    assert sorted([*parts.train.tolist(), *parts.held_out.tolist()]) == list(range(len(y)))
    assert len(parts.held_out) == round(len(y) * share)
    assert all((np.diff(part) > 0).all() for part in parts)
    for label in set(labels):
        held, n = (y[parts.held_out] == label).sum(), (y == label).sum()
        assert abs(held - n * share) <= 1.5  # in proportion, up to rounding of the class and of the whole
    again = split(y, share, seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_values_are_held_out_at_random_and_seeds_differ():
    y = np.linspace(0, 1, 100).astype(np.float32)
    one, other = split(y, 0.2, 0), split(y, 0.2, 1)
    assert len(one.held_out) == 20
    assert (one.held_out != other.held_out).any()
    assert 0.3 < y[one.held_out].mean() < 0.7


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        (1.0, "must be a share from 0"),
        (-0.1, "must be a share from 0"),
        (float("nan"), "must be a share from 0"),
        (0.01, "leaves none to hold out"),
        (0.99, "leaves none to train on"),
    ],
)
def test_shares_that_leave_a_part_empty_are_refused(share: float, sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        split(np.zeros(10, np.int32), share, 0)


def test_nothing_held_out():
    parts = split(np.zeros(5, np.int32), 0.0, 0)
    assert (len(parts.train), len(parts.held_out)) == (5, 0)
