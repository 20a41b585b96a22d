"""From what a person gives to a data set: which part is held out, what is learnt from the rest, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import backbeat as bb
from backbeat.data import Reading, from_arrays, load, open_source, split
from backbeat.errors import DataError, SettingsError

RNG = np.random.default_rng(0)
N = 120
VALUES = RNG.normal(2, 3, (N, 2))
KINDS = np.array(["ash", "birch", "cedar"])[np.sort(RNG.integers(0, 3, N))]
FRAME = pl.DataFrame({"a": VALUES[:, 0], "b": VALUES[:, 1], "label": KINDS})


def scaled(train: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (values - train.mean(axis=0)) / train.std(axis=0)


def test_a_share_is_held_out_in_proportion_and_not_learnt_from():
    data = load(FRAME, Reading(held_out=0.25), seed=3)
    y = np.searchsorted(["ash", "birch", "cedar"], KINDS).astype(np.int32)
    np.testing.assert_array_equal(data.y, y)
    wanted = split(y, 0.25, 3)
    assert data.parts is not None
    for part, other in zip(data.parts, wanted, strict=True):
        np.testing.assert_array_equal(part, other)
    assert abs(np.bincount(y[wanted.held_out]) / np.bincount(y) - 0.25).max() < 1 / np.bincount(y).min()
    np.testing.assert_allclose(data.x, scaled(VALUES[wanted.train], VALUES), rtol=1e-5, atol=1e-6)  # float32
    assert (data.classes, data.task) == (("ash", "birch", "cedar"), "classification")


def test_nothing_held_out():
    data = load(FRAME, Reading(held_out=0))
    assert data.parts is not None
    assert [len(part) for part in data.parts] == [N, 0]


def test_a_column_holds_out():
    held = np.arange(N) % 3 == 0
    for words in (np.where(held, "test", "train"), held, held.astype(int)):
        data = load(FRAME.with_columns(part=pl.Series(words)), Reading(held_out="part"))
        assert data.parts is not None
        np.testing.assert_array_equal(data.parts.held_out, np.flatnonzero(held))
        np.testing.assert_allclose(data.x, scaled(VALUES[~held], VALUES), rtol=1e-5, atol=1e-6)  # float32
    with pytest.raises(DataError, match="no example is held out; both parts need some"):
        load(FRAME.with_columns(part=pl.lit("train")), Reading(held_out="part"))
    with pytest.raises(DataError, match="have a label that training never saw, 'cedar'"):
        load(FRAME.with_columns(part=pl.col("label") == "cedar"), Reading(held_out="part"))


@pytest.mark.parametrize("form", ["file", "path", "frame"])
def test_a_second_file_is_held_out(form: str, tmp_path: Path):
    path = tmp_path / "test.csv"
    other = pl.DataFrame(
        {"id": range(4), "label": ["cedar", "ash", "ash", "birch"], "b": [1.0, 2, 3, 4], "a": [0.5, None, 1, 2]}
    )
    other.write_csv(path)
    data = load(FRAME, Reading(held_out={"file": str(path), "path": path, "frame": other}[form]))
    assert data.parts is not None
    assert data.parts.train.tolist() == list(range(N))
    assert data.parts.held_out.tolist() == list(range(N, N + 4))
    assert data.y[N:].tolist() == [2, 0, 0, 1]
    new = np.array([[0.5, 1], [VALUES[:, 0].mean(), 2], [1, 3], [2, 4]])
    wanted = scaled(VALUES, np.concatenate([VALUES, new]))
    np.testing.assert_allclose(data.x, wanted, rtol=1e-5, atol=1e-6)  # float32
    assert any(note.endswith("is the held-out part, 4 examples.") for note in data.notes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b,label\n1,2,dog\n3,4,ash\n", "1 example has a label that training never saw, 'dog'; it knows ash, birch"),
        ("a,c,label\n1,2,ash\n", "other.csv has no column 'b' (inputs)"),
        ("a,b\n1,2\n", "other.csv has no labels; add the column label."),
        ("a,b,label\n1,2,ash\n1,x,ash\n", "the column 'b' holds numbers, but 'x' in line 3"),
        ("a,b,label\n1,u,ash\n1,x,ash\n", "the column 'b' holds numbers, but 'u' in line 2"),
        ("a,b,label\n1,2,\n", "'label' (label) has 1 empty cell, the first in line 2"),
        ("", "other.csv is empty"),
    ],
)
def test_a_second_file_that_does_not_fit(text: str, sentence: str, tmp_path: Path):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load(FRAME, Reading(held_out=str(path)))
    assert sentence in str(caught.value)


def test_arrays_with_a_second_part():
    x, y = VALUES, np.arange(N) % 3
    data = load((x, y), Reading(held_out=(x[:5] + 1, y[:5])))
    np.testing.assert_array_equal(data.x, np.concatenate([x, x[:5] + 1]).astype(np.float32))
    assert data.parts is not None
    assert data.parts.held_out.tolist() == list(range(N, N + 5))
    assert data.preparation is None
    with pytest.raises(DataError, match="the label '7' is held out, but training never saw it"):
        load((x, y), Reading(held_out=(x[:5], [7] * 5)))
    with pytest.raises(DataError, match="training never saw, 'dog'; it knows ash"):
        load((x, KINDS), Reading(held_out=(x[:5], ["dog"] * 5)))
    with pytest.raises(DataError, match=r"one example's inputs have the shape \[1\], but \[2\] in arrays"):
        load((x, y), Reading(held_out=(x[:5, :1], y[:5])))
    with pytest.raises(DataError, match="arrays has weights, but arrays has none; give both or neither"):
        load((x, y, np.arange(N) + 1), Reading(held_out=(x[:5], y[:5])))


def test_classes_by_name_are_the_same_in_both_parts():
    x = VALUES
    data = load((x, KINDS), Reading(held_out=(x[:2], ["cedar", "birch"])))
    assert data.y[-2:].tolist() == [2, 1]


def test_arrays_and_images_leave_the_split_to_the_seed_of_a_run():
    pixels = RNG.integers(0, 256, (N, 4, 4), np.uint8)
    images = load((pixels, KINDS))
    assert images.parts is None
    np.testing.assert_array_equal(images.x, pixels / np.float32(255))
    assert images.preparation is not None
    arrays = load((VALUES, KINDS))
    assert arrays.parts is None
    assert arrays.preparation is None
    assert load("digits").parts is None


def test_arrays_with_holes_are_imputed_where_asked():
    x = VALUES.copy()
    x[::5, 0] = np.nan
    with pytest.raises(DataError, match="24 values that are not finite numbers"):
        load((x, KINDS))
    data = load((x, KINDS), Reading(missing="impute"))
    assert data.parts is not None
    train = x[data.parts.train]
    np.testing.assert_allclose(data.x[::5, 0], np.nanmean(train[:, 0]), rtol=1e-6)  # float32
    np.testing.assert_array_equal(data.x[:, 1], x[:, 1].astype(np.float32))


def test_a_users_own_transformer_is_fitted_on_the_training_part():
    from sklearn.preprocessing import MinMaxScaler

    for given in ((VALUES, KINDS), FRAME):
        data = load(given, Reading(prepare=MinMaxScaler()))
        assert data.parts is not None
        train = VALUES[data.parts.train]
        wanted = (VALUES - train.min(axis=0)) / (train.max(axis=0) - train.min(axis=0))
        np.testing.assert_allclose(data.x, wanted, rtol=1e-5, atol=1e-6)  # float32


def test_the_task_of_arrays():
    x, y = VALUES, np.arange(N)
    assert load((x, y)).y.dtype == np.int32
    values = load((x, y), Reading(task="regression"))
    assert (values.y.dtype, values.task) == (np.float32, "regression")
    assert load((x, y % 2 * 1.0), Reading(task="classification")).y.dtype == np.int32
    with pytest.raises(DataError, match="labels have fractions"):
        load((x, y + 0.5), Reading(task="classification"))
    with pytest.raises(DataError, match="labels are texts such as 'ash'; regression needs numbers"):
        load((x, KINDS), Reading(task="regression"))


def test_a_frame_and_its_labels():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(VALUES, columns=["a", "label"])
    for x, y in (
        (frame, pd.Series(KINDS, name="label", index=range(N, 0, -1))),  # by place, as scikit-learn does, not by index
        (frame, KINDS),
        (pl.from_pandas(frame), pl.Series("kind", KINDS)),
        (frame, [str(kind) for kind in KINDS]),
    ):
        data = load((x, y))
        assert data.classes == ("ash", "birch", "cedar")
        assert data.preparation.feature_names == ("a", "label")
        np.testing.assert_array_equal(data.y, np.searchsorted(["ash", "birch", "cedar"], KINDS))
    weights = np.arange(N) + 1.0
    weighed = load((frame, KINDS, weights))
    np.testing.assert_array_equal(weighed.weight, weights.astype(np.float32))
    several = load((frame, np.stack([np.arange(N) % 2, np.arange(N) % 3 % 2], axis=1)))
    assert several.task == "labels"
    with pytest.raises(DataError, match="120 inputs but 7 labels"):
        load((frame, KINDS[:7]))
    with pytest.raises(DataError, match="labels are given beside the frame"):
        load((frame, KINDS), Reading(label="a"))


def test_weights_of_a_column():
    data = load(FRAME.with_columns(w=pl.Series(np.arange(N))), Reading(weight="w"))
    assert data.weight is not None
    assert data.weight.tolist() == list(range(N))
    assert data.input_shape == (2,)
    with pytest.raises(DataError, match="weights must be 0 or more"):
        load(FRAME.with_columns(w=pl.Series(-np.arange(N))), Reading(weight="w"))
    with pytest.raises(DataError, match="'w' is the weight of each example, so it must hold numbers: 'no' in row 1"):
        load(FRAME.with_columns(w=pl.lit("no")), Reading(weight="w"))


def test_the_same_table_from_every_form(tmp_path: Path):
    """One table, read from eight forms, gives the same bits."""
    frame = FRAME.with_columns(
        c=pl.Series(["u", None, "v"] * (N // 3)),
        n=pl.Series([None, *range(1, N)]),
        on=pl.Series([True, False] * (N // 2)),
    )
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    (tmp_path / "t2.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "t.csv").read_bytes().replace(b"\n", b"\r\n"))
    frame.write_parquet(tmp_path / "t.parquet")
    (tmp_path / "parts").mkdir()
    frame[:50].write_parquet(tmp_path / "parts" / "0.parquet")
    frame[50:].write_parquet(tmp_path / "parts" / "1.parquet")
    wanted = load(frame)
    files = [tmp_path / name for name in ("t.csv", "t.tsv", "t2.csv", "t.parquet", "parts")]
    for given in (*files, frame.lazy(), frame.to_pandas(), frame.to_pandas(use_pyarrow_extension_array=True)):
        data = load(given)
        np.testing.assert_array_equal(data.x, wanted.x)
        np.testing.assert_array_equal(data.y, wanted.y)
        assert data.preparation.feature_names == wanted.preparation.feature_names
        assert (data.sha256, data.classes) == (wanted.sha256, wanted.classes)


def test_new_data_is_read_as_the_old_was(tmp_path: Path):
    data = load(FRAME)
    path = tmp_path / "new.csv"
    path.write_text("b,more,a\n1,x,2\n3,y,\n")
    raw = open_source(path, Reading(label="label"), like=data.preparation).read()
    assert raw.y is None
    assert raw.x.columns == ["a", "b"]
    assert data.parts is not None
    train = VALUES[data.parts.train]
    wanted = scaled(train, np.array([[2, 1], [train[:, 0].mean(), 3]]))
    np.testing.assert_allclose(data.preparation.inputs(raw), wanted, rtol=1e-5, atol=1e-6)  # float32
    pieces = list(open_source(path, like=data.preparation).pieces(16))
    assert sum(map(len, pieces)) == 2


def test_labels_that_cannot_be_read_do_not_stop_who_needs_none(tmp_path: Path):
    data = load(FRAME)
    path = tmp_path / "new.csv"
    for text, why in (
        ("a,b,label\n1,2,ash\n3,4,\n", "'label' (label) has 1 empty cell, the first in line 3"),
        ("a,b\n1,2\n3,4\n", "new.csv has no labels; add the column label."),
    ):
        path.write_text(text)
        source: Any = open_source(path, like=data.preparation)
        raw = source.read()
        assert raw.y is None
        assert len(data.preparation.inputs(raw)) == 2
        assert why in source.without_labels
        assert [piece.y for piece in open_source(path, like=data.preparation).pieces(1 << 20)] == [None]
    numbers = load(FRAME.with_columns(label=pl.col("a") * 2))
    path.write_text("a,b,label\n1,2,unknown\n")
    source = open_source(path, like=numbers.preparation)
    assert source.read().y is None
    assert "'label' holds numbers, but 'unknown' in line 2" in source.without_labels


def test_texts_stay_texts_and_numbers_numbers_in_new_data(tmp_path: Path):
    frame = FRAME.with_columns(
        code=pl.Series([f"{i % 3}" for i in range(N)]), zone=pl.Series(["A", "1", "2"] * (N // 3))
    )
    data = load(frame)
    assert data.preparation.kinds["code"] == "whole"
    assert data.preparation.kinds["zone"] == "text"
    path = tmp_path / "new.csv"
    path.write_text("a,b,code,zone\n1,2,0.5,1\n1,2,,2\n")
    raw = open_source(path, like=data.preparation).read()
    assert raw.x["zone"].to_list() == ["1", "2"]
    assert raw.x["code"].to_list() == [0.5, None]


def test_numbers_that_can_be_no_classes():
    y = np.array([0, 1, 2_000_000_000] * (N // 3))
    with pytest.raises(
        DataError, match=r"3 different whole numbers up to 2000000000, which cannot be the numbers of c"
    ):
        bb.fit("linear", (VALUES, y), every=8)
    allowed: list[dict[str, Any]] = [{"task": "regression"}, {"loss": "squared_error"}]
    for settings in allowed:
        assert bb.fit("linear", (VALUES, y % 1001), every=8, duration="1 update", learning_rate=1e-9, **settings)
    assert load(FRAME.with_columns(label=pl.Series(y))).classes == ("0", "1", "2000000000")  # a table's are names


def test_labels_alone_or_none_at_all():
    with pytest.raises(DataError, match="there are inputs but no labels"):
        load(VALUES)
    with pytest.raises(DataError, match="data is one column"):
        load(FRAME["a"])


def test_a_share_that_is_none():
    with pytest.raises(SettingsError, match="must be a share from 0"):
        load(FRAME, Reading(held_out=1.5))


def test_whole_numbers_are_kept_for_networks_that_index_with_them():
    tokens = RNG.integers(0, 1000, (N, 5))
    for dtype in (np.int64, np.int32, np.uint16, np.uint8):
        data = load((tokens.astype(dtype), KINDS))
        assert data.x.dtype == np.float32
        whole = data.as_whole()
        assert whole is not None
        assert whole.x.dtype == np.int32
        np.testing.assert_array_equal(whole.x, tokens.astype(dtype))
    assert load((tokens.astype(float), KINDS)).as_whole() is None
    assert load((tokens > 500, KINDS)).as_whole() is None
    assert load((RNG.integers(0, 256, (N, 4, 4), np.uint8), KINDS)).as_whole() is None
    frame = pl.DataFrame(tokens, schema=[*"abcde"]).with_columns(label=pl.Series(KINDS))
    assert load(frame).as_whole() is None
    whole = load(frame, Reading(prepare="none")).as_whole()
    assert whole is not None
    np.testing.assert_array_equal(whole.x, tokens)


def test_whole_numbers_beyond_float32_are_kept_exactly_and_warned_of():
    ids = np.array([[2**24 + 1, 0], [2**24, 5]])
    data = from_arrays(ids, [0, 1])
    assert data.notes == (
        "arrays: inputs are whole numbers beyond 16,777,216, which float32 cannot tell apart; where they are numbers "
        "of something, number that from 0.",
    )
    whole = data.as_whole()
    assert whole is not None
    np.testing.assert_array_equal(whole.x, ids)
    assert whole.notes == ()
    with pytest.raises(DataError, match=f"run from 0 to {2**40}, beyond int32; number them from 0"):
        from_arrays([[2**40, 0]], [0]).as_whole()


@pytest.mark.parametrize("wrong", [b"bytes", object(), 1.5])
def test_what_is_not_understood(wrong: Any):
    with pytest.raises(DataError, match=r"is not understood; give \(x, y\) or \(x, y, weight\) arrays, a frame"):
        load(wrong)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_path_is_not_the_folder_that_one_is_in(empty):
    with pytest.raises(DataError, match="the path of the data is empty"):
        load(empty)


def test_a_size_for_what_holds_no_images_is_refused_rather_than_passed_over():
    frame = pl.DataFrame({"a": np.arange(N, dtype=float), "label": KINDS})
    for data in (frame, (np.ones((N, 3)), KINDS), "digits"):
        with pytest.raises(DataError, match="so resize does nothing; leave it out"):
            load(data, Reading(resize="28x28"))
