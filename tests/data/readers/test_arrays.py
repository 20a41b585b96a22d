"""Arrays as data: what becomes of each kind, which file holds the labels, and what is refused, in one sentence."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse

from backbeat.data.raw import Raw, Reading
from backbeat.data.readers.arrays import Arrays, NpyFile, NpzFile
from backbeat.errors import DataError

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 2, 1])


def together(pieces: Any) -> Raw:
    """Returns pieces put one after the other."""
    pieces = list(pieces)
    y = None if pieces[0].y is None else np.concatenate([piece.y for piece in pieces])
    held = None if pieces[0].held is None else np.concatenate([piece.held for piece in pieces])
    notes = tuple(note for piece in pieces for note in piece.notes)
    return Raw(pieces[0].kind, np.concatenate([piece.x for piece in pieces]), y, held=held, notes=notes)


class Dlpack:
    """Something that speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize(
    "x",
    [
        X.tolist(),
        tuple(map(tuple, X)),
        X.astype(">f4"),
        X.astype(np.float16),
        X.astype(ml_dtypes.bfloat16),
        X.astype(np.int64),
        X.astype(">i2"),
        np.asfortranarray(X),
        jnp.asarray(X),
        jnp.asarray(X, jnp.bfloat16),
        Dlpack(X),
        scipy.sparse.csr_matrix(X),
        scipy.sparse.coo_array(X),
        np.ma.MaskedArray(X),
    ],
    ids=lambda x: type(x).__name__,
)
def test_every_kind_of_array_holds_the_same_numbers(x: Any):
    source = Arrays(x, Y)
    raw = source.read()
    assert isinstance(raw.x, np.ndarray)
    assert not isinstance(raw.x, np.ma.MaskedArray)
    assert raw.x.dtype.kind in "fi"
    assert raw.x.dtype.isnative
    np.testing.assert_array_equal(raw.x, X)  # all are small whole numbers, which every one of the formats holds
    assert (raw.kind, len(raw), source.n_bytes()) == ("array", 4, 48)
    pieces = list(source.pieces(24))  # two rows of three numbers
    assert [len(piece) for piece in pieces] == [2, 2]
    np.testing.assert_array_equal(together(pieces).x, X)
    np.testing.assert_array_equal(together(pieces).y, Y)
    assert together(pieces).notes == raw.notes


def test_a_pytorch_tensor_is_taken_whatever_it_carries(torch: Any):
    tensor = torch.tensor(X.tolist(), requires_grad=True)
    for x in (tensor, tensor.bfloat16(), tensor.detach().to_sparse(), tensor * 1):
        np.testing.assert_array_equal(Arrays(x, torch.tensor(Y)).read().x, X)


def test_bools_stay_bools_and_nothing_is_copied_in_vain():
    assert np.shares_memory(Arrays(X, Y).read().x, X)
    assert Arrays(X > 3, Y).read().x.dtype == bool


def test_masked_values_are_missing_and_counted():
    raw = Arrays(np.ma.masked_greater(X.astype(int), 9), Y).read()
    expected = X.copy()
    expected[3, 1:] = np.nan
    np.testing.assert_array_equal(raw.x, expected)
    assert raw.notes == ("arrays: inputs: 2 masked values are missing.",)


def test_a_sparse_matrix_says_what_it_takes_dense():
    x = scipy.sparse.random_array((50, 40), density=0.1, rng=np.random.default_rng(0))
    raw = Arrays(x, np.zeros(50)).read()
    np.testing.assert_array_equal(raw.x, x.todense())
    assert raw.notes == ("The inputs are a sparse matrix, 10.00% filled: held dense, 8 kB.",)


def test_a_large_sparse_matrix_is_read_in_pieces_only():
    x = scipy.sparse.csr_array((2_000_000, 1000), dtype=np.float32)
    source = Arrays(x, np.zeros(2_000_000))
    with pytest.raises(DataError, match=r"would take 8 GB dense; reduce its columns .* or give memory="):
        source.read()
    assert next(iter(source.pieces(4_000_000))).x.shape == (1000, 1000)


def test_8_bit_images_are_taken_for_pixels():
    raw = Arrays(np.full((4, 5, 6), 255, np.uint8), Y).read()
    assert (raw.kind, raw.x.dtype) == ("image", np.uint8)
    assert raw.notes == ("The inputs are 8-bit numbers of [5, 6] each, taken for pixels from 0 to 255.",)
    assert Arrays(np.full((4, 5), 255, np.uint8), Y).read().kind == "array"


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (["a", "b", "ä", "a"], ["a", "b", "ä", "a"]),
        (np.array(["a", "b", "ä", "a"], object), ["a", "b", "ä", "a"]),
        (np.array(["a", "b", "ä", "a"], np.dtypes.StringDType()), ["a", "b", "ä", "a"]),
        (np.array(["a", "b", "ä", "a"]).astype(object)[:, None], ["a", "b", "ä", "a"]),
        ([s.encode() for s in ("a", "b", "ä", "a")], ["a", "b", "ä", "a"]),
        (np.array([1, 0, 2, 1], object), [1, 0, 2, 1]),
        (np.array([0.5, 1, 2, 3], ">f8"), [0.5, 1, 2, 3]),
        ([True, False, True, True], [True, False, True, True]),
    ],
)
def test_labels_are_texts_or_numbers(y: Any, expected: list):
    assert Arrays(X, y).read().y.tolist() == expected


class Refusing:
    """An array that cannot be made one, as a traced array of JAX."""

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise RuntimeError("not now\nand not here")


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (X.astype(complex), Y, "inputs are of the type complex128; give numbers."),
        (X.astype(str), Y, "inputs are of the type <U32; give numbers."),
        (X.astype("M8[s]"), Y, r"inputs are of the type datetime64\[s\]; give numbers."),
        (np.array([[1, "a"]] * 4, object), Y, r"of the type object \(at \[0, 1\] is 'a'\); give numbers, such as"),
        (X.astype(object), Y, r"of the type object; give numbers, such as x.astype\(float\)."),
        (np.zeros(4, [("a", int), ("b", float)]), Y, "have the fields a, b; give one array of numbers"),
        (
            [[1, 2], [3, 4], [5], [6, 7]],
            Y,
            "rows of different lengths: the first has 2 numbers, that at 2 has 1 number;",
        ),
        ([[1, 2], 3], Y[:2], "the first has 2 numbers, that at 1 has no length"),
        (Refusing(), Y, r"inputs cannot be made an array of \(not now\)"),
        (X, Y[:3], "4 inputs but 3 labels; give one label for each input."),
        (X, 3, "4 inputs but no labels"),
        (X, ["a", 1, "b", "c"], None),  # NumPy itself makes texts of all
        (X, np.array(["a", 1, "b", "c"], object), "labels hold 1 at 1, of the type int; give all as texts"),
        (X, np.array([0, None, 1, 2], object), "labels hold None at 1, of the type NoneType"),
        (X, np.array([0, {"a": 1}, 1, 2], object), r"labels hold \{'a': 1\} at 1, of the type dict"),
        (X, np.ma.masked_equal(Y, 2), "labels are masked for 1 examples, the first at 2"),
        (X, ["a", "b" * 5000, "c", "d"], "labels hold a text of 5000 characters at 1; the name of a class has at most"),
        (X, np.array(["a", "b", "c" * 5000, "d"], object), "labels hold a text of 5000 characters at 2"),
        (X, [b"a", b"\xff", b"c", b"d"], "labels are bytes that are not UTF-8"),
        (X, Y.astype(complex), "labels are of the type complex128"),
    ],
)
def test_what_is_no_number_is_refused(x: Any, y: Any, sentence: str | None):
    if sentence is None:
        assert Arrays(x, y).read().y.tolist() == ["a", "1", "b", "c"]
        return
    with pytest.raises(DataError, match=sentence) as caught:
        Arrays(x, y).read()
    assert "\n" not in str(caught.value)


def test_weights_are_numbers_one_for_each():
    weight: Any = Arrays(X, Y, [1, 2, 3, 4]).read().weight
    assert weight.tolist() == [1, 2, 3, 4]
    with pytest.raises(DataError, match="4 inputs but 2 weights; give one weight for each input"):
        Arrays(X, Y, [1, 2])


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        ("x", "y"),
        ("X", "y"),
        ("X_train", "y_train"),
        ("train_x", "train_y"),
        ("x-train", "y-train"),
        ("train_images", "train_labels"),
        ("letters", "letters_labels"),
        ("letters", "labels"),
        ("letters", "y"),
        ("features", "targets"),
    ],
)
def test_a_npy_file_finds_its_labels_and_says_which(tmp_path: Path, inputs: str, labels: str):
    np.save(tmp_path / f"{inputs}.npy", X)
    np.save(tmp_path / f"{labels}.npy", Y)
    np.save(tmp_path / "else.npy", np.zeros(4))
    source = NpyFile(tmp_path / f"{inputs}.npy", Reading())
    raw = source.read()
    np.testing.assert_array_equal(raw.x, X)
    np.testing.assert_array_equal(raw.y, Y)
    assert raw.notes == (f"The labels are those of {labels}.npy, beside {inputs}.npy.",)
    assert raw.source == str((tmp_path / f"{inputs}.npy").resolve())
    pieces = together(source.pieces(24))
    np.testing.assert_array_equal(pieces.x, X)
    np.testing.assert_array_equal(pieces.y, Y)
    assert (pieces.notes, source.n_bytes()) == (raw.notes, 48)
    assert source.files() == [tmp_path / f"{inputs}.npy", tmp_path / f"{labels}.npy"]


def test_the_training_part_never_takes_the_labels_of_another(tmp_path: Path):
    np.save(tmp_path / "x_train.npy", X)
    np.save(tmp_path / "y.npy", Y)
    source = NpyFile(tmp_path / "x_train.npy", Reading())
    assert source.read().y is None
    assert "save them as x_train_labels.npy" in source.without_labels
    named = NpyFile(tmp_path / "x_train.npy", Reading(label="y.npy"))
    np.testing.assert_array_equal(named.read().y, Y)


def test_a_npy_file_by_columns_is_read_as_it_is(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    np.save(tmp_path / "y.npy", Y.astype(">i8"))
    source = NpyFile(tmp_path / "x.npy", Reading())
    for raw in (source.read(), together(source.pieces(24))):
        np.testing.assert_array_equal(raw.x, X)
        np.testing.assert_array_equal(raw.y, Y)


def npy_bytes(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read as an .npy file"),
        (b"x,y\n1,2\n", "cannot be read as an .npy file .*magic"),
        (npy_bytes(X)[:-5], "it has another length than its header says"),
        (npy_bytes(X) + b"more", "it has another length than its header says"),
        (npy_bytes(X)[:40], "cannot be read as an .npy file"),
        (npy_bytes(np.array([{}], object), allow_pickle=True), "it holds Python objects, which are not read"),
        (npy_bytes(np.zeros(4, [("a", int)])), "have the fields a;"),
        (pickle.dumps(X), "cannot be read as an .npy file"),
    ],
)
def test_a_bad_npy_file_is_refused(tmp_path: Path, content: bytes, sentence: str):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    source = NpyFile(path, Reading())
    for reads in (source.read, lambda: list(source.pieces(24))):
        with pytest.raises(DataError, match=sentence) as caught:
            reads()
        assert "\n" not in str(caught.value)


def test_a_file_of_labels_is_no_file_of_inputs(tmp_path: Path):
    np.save(tmp_path / "y_train.npy", Y)
    with pytest.raises(DataError, match=r"y_train.npy holds labels, by its name and its shape \[4\]"):
        NpyFile(tmp_path / "y_train.npy", Reading()).read()
    with pytest.raises(DataError, match="is not there"):
        NpyFile(tmp_path / "x.npy", Reading())
    with pytest.raises(DataError, match="inputs='a' names a column, but an array has none"):
        NpyFile(tmp_path / "y_train.npy", Reading(inputs="a"))
    with pytest.raises(DataError, match=r"label='z' is no \.npy file beside"):
        NpyFile(tmp_path / "y_train.npy", Reading(label="z"))


def test_an_npz_file_in_pieces_is_the_whole(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    source = NpzFile(tmp_path / "a.npz", Reading())
    pieces = list(source.pieces(24))
    assert ([len(piece) for piece in pieces], source.n_bytes()) == ([2, 2], 48)
    np.testing.assert_array_equal(together(pieces).x, source.read().x)


def test_an_npz_file_may_name_its_arrays_otherwise(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez(path, images=X, digits=Y, importance=[1, 2, 3, 4])
    raw = NpzFile(path, Reading(inputs="images", label="digits", weight="importance")).read()
    np.testing.assert_array_equal(raw.x, X)
    np.testing.assert_array_equal(raw.y, Y)
    assert raw.weight is not None
    assert raw.weight.tolist() == [1, 2, 3, 4]
    with pytest.raises(DataError, match="has no array 'image'; did you mean 'images'"):
        NpzFile(path, Reading(inputs="image", label="digits")).read()
    with pytest.raises(DataError, match="has no array 'x', only digits, images, importance; save it with"):
        NpzFile(path, Reading()).read()


def test_the_test_part_of_an_npz_file_is_held_out(tmp_path: Path):
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=X, y_train=Y, x_test=X[:2] + 1, y_test=Y[:2])
    source = NpzFile(path, Reading())
    for raw in (source.read(), together(source.pieces(24))):
        np.testing.assert_array_equal(raw.x, np.concatenate([X, X[:2] + 1]))
        np.testing.assert_array_equal(raw.y, np.concatenate([Y, Y[:2]]))
        assert raw.held is not None
        assert raw.held.tolist() == [False] * 4 + [True] * 2
        assert raw.notes == ("x_test and y_test are the held-out part, 2 of 6 examples.",)
    assert source.n_bytes() == 6 * 3 * 4
    np.savez(path, x_train=X, y_train=Y, x_test=X[:, :2], y_test=Y)
    with pytest.raises(DataError, match=r"have the shape \[3\] in the training part and \[2\] in the test part"):
        NpzFile(path, Reading()).read()


def test_an_npz_file_without_labels_says_so_where_they_are_needed(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=X, labels=Y)
    source = NpzFile(tmp_path / "a.npz", Reading())
    assert source.read().y is None
    assert "has no array 'y', only labels, x; save it with" in source.without_labels


def test_an_encrypted_archive_is_refused(tmp_path: Path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_bytes(X))
        archive.writestr("y.npy", npy_bytes(Y))
    content = bytearray(path.read_bytes())
    for at in [i for i in range(len(content)) if content[i : i + 4] in (b"PK\x03\x04", b"PK\x01\x02")]:
        content[at + (6 if content[at + 2] == 3 else 8)] |= 1  # the flag that says so
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file .*encrypted"):
        NpzFile(path, Reading()).read()
