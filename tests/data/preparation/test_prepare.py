"""Preparation: learnt from the training part alone, however it is cut; kept without pickle and applied again."""

import json
import pickle
import zipfile
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, StandardScaler

from backbeat.data.preparation import recut
from backbeat.data.preparation.moments import Moments
from backbeat.data.preparation.prepare import Preparation
from backbeat.data.raw import Raw, Reading
from backbeat.errors import DataError, SettingsError

RNG = np.random.default_rng(0)
N = 200
NUMBERS = RNG.normal(3, 5, (N, 3))
TEXTS = np.array(["blue", "amber", "cyan"])[RNG.integers(0, 3, N)]
FRAME = pl.DataFrame(NUMBERS, schema=["p", "q", "r"]).with_columns(
    colour=pl.Series(TEXTS), on=pl.Series(RNG.integers(0, 2, N).astype(bool)), n=pl.Series(RNG.integers(0, 9, N))
)
LABELS = pl.DataFrame({"label": [*"ab" * (N // 2)]})
TABLE = Raw("table", FRAME, LABELS, name="t")
# float32 rounds what float64 computes; the moments themselves are summed in another order than scikit-learn's
ROUNDING = 1e-6


def assert_equal_to_rounding(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=ROUNDING, atol=ROUNDING)


def by_scikit_learn(train: pl.DataFrame, frame: pl.DataFrame) -> np.ndarray:
    """Returns the same inputs, made by scikit-learn alone and fitted at once."""
    numbers = make_pipeline(StandardScaler(), SimpleImputer(strategy="constant", fill_value=0.0))
    made = ColumnTransformer(
        [("n", numbers, ["p", "q", "r", "n"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["colour", "on"])],
        sparse_threshold=0,
    )
    as_float = [pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in ("p", "q", "r", "n")]
    return np.asarray(made.fit(train.with_columns(as_float)).transform(frame.with_columns(as_float)))


def test_inputs_are_those_of_scikit_learn():
    preparation = Preparation.of(Reading(), "table").fit([TABLE])
    x = preparation.inputs(TABLE)
    assert x.dtype == np.float32
    assert x.ctypes.data % 64 == 0
    assert_equal_to_rounding(x, by_scikit_learn(FRAME, FRAME))
    assert preparation.feature_names == (
        "p", "q", "r", "n", "colour=amber", "colour=blue", "colour=cyan", "on=false", "on=true",
    )  # fmt: skip
    assert preparation.notes == ()


def test_only_the_training_part_is_learnt_from():
    part = TABLE.take(np.arange(50, 120))
    x = Preparation.of(Reading(), "table").fit([part]).inputs(TABLE)
    assert_equal_to_rounding(x, by_scikit_learn(part.x, FRAME))
    np.testing.assert_allclose(x[50:120, :4].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x[50:120, :4].std(axis=0), 1, atol=1e-6)


def test_empty_cells_are_the_mean_of_the_rest():
    frame = FRAME.with_columns(p=pl.when(pl.col("n") > 4).then(None).otherwise("p"))
    raw = Raw("table", frame, LABELS)
    x = Preparation.of(Reading(), "table").fit([raw]).inputs(raw)
    assert_equal_to_rounding(x, by_scikit_learn(frame, frame))
    np.testing.assert_array_equal(x[frame["p"].is_null().to_numpy(), 0], 0)


def test_empty_texts_are_a_category_where_training_has_some():
    train = Raw("table", pl.DataFrame({"c": ["u", None, "v"]}), pl.DataFrame({"y": [0, 1, 0]}))
    preparation = Preparation.of(Reading(), "table").fit([train])
    assert preparation.feature_names == ("c=(empty)", "c=u", "c=v")
    assert preparation.inputs(train).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    other = Raw("table", pl.DataFrame({"c": ["u", "v"]}), pl.DataFrame({"y": [0, 1]}))
    preparation = Preparation.of(Reading(), "table").fit([other])
    assert preparation.inputs(train).tolist() == [[1, 0], [0, 0], [0, 1]]
    assert preparation.said_of_new() == []


def test_texts_that_training_never_saw_are_counted():
    preparation = Preparation.of(Reading(), "table").fit([TABLE])
    new = FRAME.with_columns(colour=pl.Series(["green"] * 7 + ["blue"] * (N - 7)))
    x = preparation.inputs(Raw("table", new))
    assert x[:, 4:7].sum(axis=1).tolist() == [0] * 7 + [1] * (N - 7)
    assert preparation.said_of_new() == [
        "'colour': 7 cells hold a text that the training part never has, and so no category."
    ]
    assert preparation.said_of_new() == []


def test_columns_that_tell_nothing_are_set_aside_and_said():
    frame = FRAME.with_columns(
        same=pl.lit(3.5), none=pl.lit(None, pl.Float64), alike=pl.lit("x"), gone=pl.lit(None, pl.String)
    )
    preparation = Preparation.of(Reading(), "table").fit([Raw("table", frame, LABELS)])
    assert_equal_to_rounding(preparation.inputs(Raw("table", frame)), by_scikit_learn(FRAME, FRAME))
    assert preparation.notes == (
        "Set aside, because they are empty in all training examples: none, gone.",
        "Set aside, because they are the same in all training examples: same, alike.",
    )
    with pytest.raises(DataError, match="No input tells anything"):
        Preparation.of(Reading(), "table").fit([Raw("table", frame.select("same", "gone"), LABELS)])


def test_rare_categories_have_no_input_and_are_said():
    counts = [103 - i if i < 99 else 1 for i in range(130)]
    texts = [f"{i:03}" for i, n in enumerate(counts) for _ in range(n)]
    raw = Raw("table", pl.DataFrame({"c": texts}), pl.DataFrame({"y": [i % 2 for i in range(len(texts))]}))
    preparation = Preparation.of(Reading(), "table").fit([raw])
    assert preparation.feature_names == tuple(f"c={i:03}" for i in range(100))
    assert preparation.notes == (
        "'c' has 130 categories: the 100 most frequent have an input each, the others (30 training examples) none.",
    )
    assert preparation.inputs(raw).sum(axis=1).tolist() == [int(text < "100") for text in texts]
    assert preparation.said_of_new() == []


@settings(max_examples=15)
@given(st.lists(st.integers(1, N - 1), max_size=6), st.sampled_from([1, 7, 64, 1 << 16]))
def test_how_the_training_part_is_cut_changes_no_bit(edges: list[int], rows: int):
    frame = FRAME.with_columns(late=pl.Series([None] * 150 + [float(i * i) for i in range(50)]))
    raw = Raw("table", frame, LABELS)
    edges = [0, *sorted(set(edges)), N]
    pieces = [raw.take(np.arange(a, b)) for a, b in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recut, "ROWS", rows)
        whole = Preparation.of(Reading(), "table").fit([raw]).inputs(raw)
        cut = Preparation.of(Reading(), "table").fit(iter(pieces))
        np.testing.assert_array_equal(np.concatenate([cut.inputs(piece) for piece in pieces]), whole)
    fresh = frame.select("late").to_numpy()
    np.testing.assert_allclose(whole[150:, 4], StandardScaler().fit_transform(fresh[150:])[:, 0], rtol=1e-5, atol=1e-6)


def test_moments_over_pieces_are_those_of_the_whole():
    values = RNG.normal(1e6, 1, (1000, 4))  # far from 0, where sums of squares would lose the variance
    values[RNG.random(values.shape) < 0.2] = np.nan
    values[:500, 2] = np.nan
    values[:, 3] = np.nan
    moments = Moments()
    for piece in np.array_split(values, 10):
        moments.add(piece)
    some = values[:, :3]
    np.testing.assert_allclose(moments.mean[:3], np.nanmean(some, axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.squares[:3] / moments.n[:3], np.nanvar(some, axis=0), rtol=1e-9)
    np.testing.assert_array_equal(moments.low[:3], np.nanmin(some, axis=0))
    np.testing.assert_array_equal(moments.high[:3], np.nanmax(some, axis=0))
    assert (moments.n[3], moments.mean[3]) == (0, 0)
    scaler = moments.scaler(np.arange(3))
    np.testing.assert_allclose(scaler.transform(some), StandardScaler().fit_transform(some), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "reading", "raw"),
    [
        ("table", Reading(), TABLE),
        ("table", Reading(prepare="none", inputs="p,q"), Raw("table", FRAME.select("p", "n"), LABELS)),
        ("table", Reading(prepare=MinMaxScaler()), Raw("table", FRAME.select("p", "n"), LABELS)),
        ("array", Reading(missing="impute"), Raw("array", NUMBERS, np.arange(N) % 2)),
        ("array", Reading(prepare=make_pipeline(StandardScaler(), PCA(2))), Raw("array", NUMBERS, np.arange(N) % 2)),
        ("array", Reading(prepare=FunctionTransformer(np.arcsinh)), Raw("array", NUMBERS, np.arange(N) % 2)),
        ("image", Reading(), Raw("image", RNG.integers(0, 256, (N, 3, 3), np.uint8), np.array([*"xy"] * (N // 2)))),
    ],
)
def test_what_is_kept_gives_the_same_bits(kind: str, reading: Reading, raw: Raw):
    preparation = Preparation.of(reading, kind).fit([raw])
    kept = preparation.to_bytes()
    again = Preparation.from_bytes(kept)
    np.testing.assert_array_equal(again.inputs(raw), preparation.inputs(raw))
    np.testing.assert_array_equal(again.labels(raw), preparation.labels(raw))
    for name in ("classes", "task", "feature_names", "input_names", "label_names", "kinds", "notes"):
        assert getattr(again, name) == getattr(preparation, name)
    assert again.to_bytes() is not None


def parts_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def of_parts(parts: dict[str, bytes]) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return data.getvalue()


def test_what_is_kept_is_no_pickle_and_damage_is_said():
    kept = Preparation.of(Reading(), "table").fit([TABLE]).to_bytes()
    parts = parts_of(kept)
    about = json.loads(parts["preparation.json"])
    damaged = [
        b"",
        kept[:-50],
        pickle.dumps({}),
        of_parts({}),
        of_parts({**parts, "preparation.json": b"{"}),
        of_parts({**parts, "preparation.json": b"[]"}),
        of_parts({**parts, "preparation.json": json.dumps({**about, "more": 1}).encode()}),
        of_parts({**parts, "transformers.skops": b"no zip"}),
        of_parts({**parts, "transformers.skops": of_parts({"schema.json": b"{}"})}),
    ]
    for data in damaged:
        with pytest.raises(DataError, match="the preparation is damaged"):
            Preparation.from_bytes(data)


class Plus:
    """A transformer of a user's own, of a type that nobody else knows."""

    def fit(self, x: Any, y: Any = None) -> Any:
        return self

    def transform(self, x: Any) -> Any:
        return np.asarray(x) + 1


@pytest.mark.parametrize("own", [Plus(), FunctionTransformer(lambda x: x + 1), FunctionTransformer(np.save)])
def test_what_cannot_be_kept_is_said_and_refused_later(own: Any):
    raw = Raw("array", NUMBERS, np.arange(N) % 2)
    if getattr(own, "func", None) is np.save:  # a function that writes files is not trusted from a file
        own = FunctionTransformer(np.save, check_inverse=False)
        preparation = Preparation("array", "own", transformers={"own": own})
    else:
        preparation = Preparation.of(Reading(prepare=own), "array").fit([raw])
        np.testing.assert_allclose(preparation.inputs(raw), NUMBERS + 1, rtol=1e-6)
        (note,) = preparation.notes
        assert "cannot be stored without pickle: the run can be trained" in note
    with pytest.raises(DataError, match="could not be kept without pickle, so that new data cannot be prepared"):
        Preparation.from_bytes(preparation.to_bytes())


def test_a_type_that_is_not_trusted_is_not_made():
    import skops.io

    kept = Preparation.of(Reading(prepare=MinMaxScaler()), "array").fit([Raw("array", NUMBERS, np.arange(N) % 2)])
    parts = parts_of(kept.to_bytes())
    parts["transformers.skops"] = skops.io.dumps({"own": FunctionTransformer(np.save)})
    with pytest.raises(DataError, match=r"holds numpy\.\S*save, which is not trusted"):
        Preparation.from_bytes(of_parts(parts))


def test_a_users_own_transformer_gets_a_frame_with_names_and_stays_as_it_was():
    own = ColumnTransformer(
        [("n", StandardScaler(), ["q", "p"]), ("c", OneHotEncoder(), ["colour"])], sparse_threshold=1
    )
    part = TABLE.take(np.arange(100))
    preparation = Preparation.of(Reading(prepare=own), "table").fit([part])
    x = preparation.inputs(TABLE)
    assert not hasattr(own, "transformers_")
    wanted = np.asarray(ColumnTransformer(own.transformers, sparse_threshold=0).fit(part.x).transform(FRAME))
    np.testing.assert_allclose(x, wanted, rtol=1e-6)  # float32 of float64
    assert x.dtype == np.float32
    assert preparation.feature_names == ("n__q", "n__p", "c__colour_amber", "c__colour_blue", "c__colour_cyan")


def test_a_users_own_transformer_may_look_at_the_labels():
    y = (NUMBERS[:, 1] > 3).astype(int)
    preparation = Preparation.of(Reading(prepare=SelectKBest(k=1)), "array").fit([Raw("array", NUMBERS, y)])
    np.testing.assert_allclose(preparation.inputs(Raw("array", NUMBERS)), NUMBERS[:, 1:2], rtol=1e-6)


def test_a_users_own_transformer_over_pieces():
    pieces = [Raw("array", piece, np.arange(len(piece)) % 2) for piece in np.array_split(NUMBERS, 4)]
    preparation = Preparation.of(Reading(prepare=StandardScaler()), "array").fit(pieces)
    wanted = StandardScaler().fit_transform(NUMBERS)
    assert_equal_to_rounding(preparation.inputs(Raw("array", NUMBERS)), wanted)
    with pytest.raises(DataError, match="PCA cannot be fitted piece by piece"):
        Preparation.of(Reading(prepare=PCA(2)), "array").fit(pieces)


class Words(Plus):
    def transform(self, x: Any) -> Any:
        return np.array([["a"]] * len(x))


class Fewer(Plus):
    def transform(self, x: Any) -> Any:
        return np.asarray(x)[1:]


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (Words(), r"Words makes <U1 of the shape \[200, 1\] of 200 examples; it must give numbers"),
        (Fewer(), r"Fewer makes float64 of the shape \[199, 3\] of 200 examples"),
        (PCA(7), r"PCA refuses arrays: n_components=7 must be between 0 and .*\.$"),
    ],
)
def test_a_users_own_transformer_that_does_not_fit(own: Any, sentence: str):
    raw = Raw("array", NUMBERS, np.arange(N) % 2)
    with pytest.raises(DataError, match=sentence):
        Preparation.of(Reading(prepare=own), "array").fit([raw]).inputs(raw)


@pytest.mark.parametrize("wrong", [3, "scale", StandardScaler, lambda x: x])
def test_what_is_no_preparation(wrong: Any):
    with pytest.raises(SettingsError, match=r"prepare=.*(must be 'auto', 'none', or|allowed: auto, none)"):
        Preparation.of(Reading(prepare=wrong), "table")


def test_none_leaves_numbers_as_they_are():
    preparation = Preparation.of(Reading(prepare="none"), "table").fit([Raw("table", FRAME.drop("colour"), LABELS)])
    raw = Raw("table", FRAME.drop("colour"))
    np.testing.assert_array_equal(
        preparation.inputs(raw), FRAME.drop("colour").cast(pl.Float64).to_numpy().astype("f4")
    )
    with pytest.raises(DataError, match="the columns colour hold texts, which prepare='none' leaves"):
        Preparation.of(Reading(prepare="none"), "table").fit([TABLE])
    hole = FRAME.drop("colour").with_columns(q=pl.Series([None, *NUMBERS[1:, 1]]))
    with pytest.raises(DataError, match="q has empty cells, which prepare='none' leaves empty"):
        preparation.inputs(Raw("table", hole))


def test_imputed_numbers_are_the_training_mean_and_others_keep_their_bits():
    x = NUMBERS.reshape(N, 3, 1).copy()
    x[::7, 1], x[3, 0] = np.nan, np.inf
    train = Raw("array", x[:100], np.arange(100) % 2)
    made = Preparation.of(Reading(missing="impute"), "array").fit([train]).inputs(Raw("array", x))
    finite = np.where(np.isfinite(x[:100]), x[:100], np.nan)
    wanted = np.where(np.isfinite(x), x, np.nanmean(finite, axis=0)).astype(np.float32)
    np.testing.assert_allclose(made, wanted, rtol=1e-6)
    np.testing.assert_array_equal(made[np.isfinite(x)], wanted[np.isfinite(x)])
    frame = pl.DataFrame({"a": [1.0, None, 3.0]})
    raw = Raw("table", frame, pl.DataFrame({"y": [0, 1, 0]}))
    made = Preparation.of(Reading(prepare="none", missing="impute"), "table").fit([raw]).inputs(raw)
    assert made.tolist() == [[1], [2], [3]]


def test_pixels_become_shares_unless_they_are_to_stay():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 4, 4)
    raw = Raw("image", pixels, np.arange(16) % 2)
    made = Preparation.of(Reading(), "image").fit([raw]).inputs(raw)
    np.testing.assert_array_equal(made, pixels / np.float32(255))
    preparation = Preparation.of(Reading(prepare="none"), "image").fit([raw])
    np.testing.assert_array_equal(preparation.inputs(raw), pixels)
    assert not preparation.needed


def test_a_table_and_an_array_are_not_taken_for_each_other():
    preparation = Preparation.of(Reading(), "table").fit([TABLE])
    with pytest.raises(DataError, match="is read as array, but the preparation was fitted on table"):
        preparation.inputs(Raw("array", NUMBERS))
