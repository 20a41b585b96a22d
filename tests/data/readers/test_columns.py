"""Which columns are what, what their cells hold, and what labels are."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from backbeat.data.preparation.labels import recognised
from backbeat.data.raw import Raw
from backbeat.data.readers.cells import Found, as_kind
from backbeat.data.readers.columns import choose_columns, columns_like, held_by, held_out_kind, listed, names_of
from backbeat.errors import DataError, SettingsError

NAMES = ["width", "height", "part", "weight", "species"]


@pytest.mark.parametrize(
    ("given", "names"),
    [("a", ["a"]), (" a , b ", ["a", "b"]), (["a,b", "c"], ["a,b", "c"]), (("a",), ["a"]), (None, None)],
)
def test_names_are_a_text_with_commas_or_a_list(given: Any, names: Any):
    assert names_of(given, "inputs") == names


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "holds an empty name"),
        ("", "holds an empty name"),
        ("a,,b", "holds an empty name"),
        ("a,b,a", "names the column 'a' twice"),
        (3, "must be names of columns"),
        ([1, 2], "must be names of columns"),
    ],
)
def test_names_that_are_none(given: Any, sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        names_of(given, "inputs")


def test_all_other_columns_are_inputs_in_their_order():
    found = choose_columns(NAMES, "t", label="species", weight="weight", held_out="part")
    assert (found.inputs, found.labels, found.weight, found.held) == (
        ("width", "height"),
        ("species",),
        "weight",
        "part",
    )
    assert choose_columns(NAMES, "t", label="species", inputs=["height", "width"]).inputs == ("height", "width")
    assert choose_columns(NAMES, "t", label="width,height").inputs == ("part", "weight", "species")
    assert choose_columns(NAMES, "t", label="species", held_out="other.csv").held is None


@pytest.mark.parametrize("label", ["label", "Target", "CLASS", "y"])
def test_a_label_that_is_called_so_is_recognised_and_said(label: str):
    found = choose_columns(["a", label], "t")
    assert found.labels == (label,)
    assert found.notes == (f"The label is the column {label!r}.",)
    assert choose_columns(["a", label], "t", label="a").notes == ()


@pytest.mark.parametrize(
    ("names", "given", "sentence"),
    [
        (NAMES, {}, "is not clear (none is called label, target, class or y); name it with label (--target): width, "),
        (["y", "label"], {}, "is not clear (y and label may each be it)"),
        (NAMES, {"label": "specie"}, "t has no column 'specie' (label): did you mean 'species'?"),
        (NAMES, {"label": "Species"}, "did you mean 'species'?"),
        (NAMES, {"label": "species", "inputs": "width,zzz"}, "no column 'zzz' (inputs): allowed: width, height,"),
        (NAMES, {"label": "species", "weight": "wieght"}, "(weight): did you mean 'weight'?"),
        (["label"], {}, "no column left to predict from"),
        (["a", "b", "a"], {}, "two columns called 'a', number 1 and number 3; rename one."),
        ([f"c{i}" for i in range(90)], {"label": "zzz"}, "c19 and 70 more."),
    ],
)
def test_columns_that_are_not_there(names: list[str], given: dict, sentence: str):
    with pytest.raises(DataError) as caught:
        choose_columns(names, "t", **given)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"label": "species", "inputs": "width,species"}, "'species' is label and among inputs too"),
        ({"label": "species", "weight": "species"}, "'species' is weight and label too"),
        ({"label": "species", "weight": "part", "held_out": "part"}, "'part' is held_out and weight too"),
        ({"label": "species", "weight": "weight", "inputs": "weight"}, "'weight' is weight and among inputs too"),
    ],
)
def test_a_column_is_for_one_thing(given: dict, sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        choose_columns(NAMES, "t", **given)


def test_new_data_may_lack_the_labels_and_have_more():
    found = columns_like(["b", "a"], ["y"], ["a", "id", "b"], "new", weight="w")
    assert (found.inputs, found.labels, found.weight) == (("b", "a"), (), None)
    found = columns_like(["b", "a"], ["y"], ["a", "y", "b", "w"], "new", weight="w")
    assert (found.labels, found.weight) == (("y",), "w")
    with pytest.raises(DataError, match="new has no column 'b'"):
        columns_like(["b"], ["y"], ["a", "y"], "new")


def test_names_in_sentences_stay_short_and_on_one_line():
    assert listed(["a\nb"]) == r"'a\nb'"
    assert len(listed(["x" * 1000])) == 60


@pytest.mark.parametrize(
    ("values", "held"),
    [
        (["train", "test"], [False, True]),
        (["Training", " VALIDATION "], [False, True]),
        ([True, False], [True, False]),
        ([0, 1], [False, True]),
        ([0.0, 1.0], [False, True]),
        (["dev"], [True]),
    ],
)
def test_words_that_hold_out(values: list, held: list[bool]):
    assert list(held_by(values, "part", "t").values()) == held


@pytest.mark.parametrize(("value", "shown"), [("maybe", "'maybe'"), (2, "2"), (None, "an empty cell"), ("", "''")])
def test_words_that_say_neither(value: Any, shown: str):
    with pytest.raises(DataError, match=f"holds {shown}; allowed are train and test"):
        held_by([value], "part", "t")


def test_what_held_out_is(tmp_path: Any):
    file = tmp_path / "other.csv"
    file.touch()
    assert held_out_kind(0.2, ["a"], "t") == held_out_kind(np.float64(0.2), None, "t") == "share"
    assert held_out_kind(None, ["a"], "t") == held_out_kind("0.2", ["a"], "t") == "share"
    assert held_out_kind("a", ["a"], "t") == "column"
    assert held_out_kind(str(file), ["a"], "t") == held_out_kind(file, None, "t") == "data"
    assert held_out_kind((np.ones(3), np.ones(3)), None, "t") == held_out_kind(np.ones((3, 2)), None, "t") == "data"
    with pytest.raises(DataError, match=r"neither a share such as 0.2, nor a file that is there, nor a column, of"):
        held_out_kind("b", ["a"], "t")
    with pytest.raises(DataError, match=r"nor a column\."):
        held_out_kind("b", None, "t")


def found(*pieces: Any) -> Found:
    made, n = Found("column"), 0
    for piece in pieces:
        cells = pl.Series("column", piece)
        made.add(cells, np.arange(n + 1, n + 1 + len(cells)))
        n += len(cells)
    return made


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([["1", "2", None]], "whole"),
        ([["1", "2.0"], ["3e2"]], "whole"),
        ([["1", "2.5"]], "number"),
        ([[" 1 ", "?", "NA", "null", "2"]], "whole"),
        ([["1", "inf"]], "number"),
        ([[str(2**53), "1"]], "number"),
        ([["a", "b", None]], "text"),
        ([["1", "2"], ["a"]], "text"),
        ([["True", "FALSE", "true"]], "boolean"),
        ([["", "?", None]], "empty"),
        ([["2024-01-31", "2023-12-01"]], "date"),
        ([["31.12.2024", "1.1.2025"]], "date"),
        ([[str(i) for i in range(30)], ["12,5"]], "mixed"),
        ([["0.5", "1.5", "abc"]], "mixed"),
        ([["1", "2", "3", "A"]], "text"),
        ([[1, 2, None]], "whole"),
        ([[1.0, float("nan"), 2.0]], "whole"),
        ([[1.5]], "number"),
        ([[True, False]], "boolean"),
        ([[None, None]], "empty"),
    ],
)
def test_what_a_column_holds(pieces: list, kind: str):
    assert found(*pieces).kind() == kind


def test_decimal_commas_are_numbers_only_where_commas_separate_nothing():
    column = found(["1,5", "2", ",25", "-3,0e2"])
    assert column.kind(comma=True) == "comma"
    assert column.kind() == "mixed"
    assert as_kind(pl.Series(["1,5", "2", ",25", "-3,0e2", "?"]), "comma").to_list() == [1.5, 2, 0.25, -300, None]


def test_a_column_counts_what_it_holds():
    column = found(["1", "?", "inf", " "], ["x", "-7", None, "NA"])
    assert (column.n, column.n_missing, column.n_numbers, column.n_infinite) == (8, 4, 3, 1)
    assert column.markers == {"?": 1, "": 2, "NA": 1}
    assert column.first == {"missing": (2, ""), "infinite": (3, "inf"), "text": (5, "x")}
    assert found([0, 1], [2, 3]).counts
    assert found([1, 2, 3]).counts
    assert not found([0, 1], [3, 4]).counts
    assert not found([0, 2, 1, 3]).counts


def test_cells_become_what_the_column_is():
    assert as_kind(pl.Series(["1", " 2.0", "NA", None]), "whole").to_list() == [1, 2, None, None]
    assert as_kind(pl.Series([1.5, float("nan"), None]), "number").to_list() == [1.5, None, None]
    assert as_kind(pl.Series(["TRUE", "false", "?"]), "boolean").to_list() == [True, False, None]
    assert as_kind(pl.Series([1, 0, 2]), "boolean").to_list() == [True, False, None]
    assert as_kind(pl.Series([1, 2]), "text").to_list() == ["1", "2"]
    exact = 2**53 + 1
    assert as_kind(pl.Series([exact]), "whole").to_list() == [exact]


def labels(*columns: Any, task: str = "auto") -> Any:
    frame = pl.DataFrame({f"l{i}": column for i, column in enumerate(columns)})
    raw = Raw("table", frame, frame, name="t")
    made = recognised(raw, task)
    return made, made.numbers(raw)


@pytest.mark.parametrize(
    ("column", "task", "classes", "numbers"),
    [
        (["b", "a", "b"], "classification", ("a", "b"), [1, 0, 1]),
        ([True, False, True], "classification", ("false", "true"), [1, 0, 1]),
        ([0, 1, 2, 1], "classification", None, [0, 1, 2, 1]),
        ([1, 2, 10, 2], "classification", ("1", "2", "10"), [0, 1, 2, 1]),
        ([-1, 1, 1], "classification", ("-1", "1"), [0, 1, 1]),
        ([1.0, 3.0, 1.0], "classification", ("1", "3"), [0, 1, 0]),
        ([0.5, 1.0], "regression", None, [0.5, 1.0]),
        (list(range(0, 63, 3)), "regression", None, list(range(0, 63, 3))),
        (list(range(21)), "regression", None, list(range(21))),
        (list(range(21)) * 10, "classification", None, list(range(21)) * 10),
        ([1900 + i % 30 for i in range(900)], "regression", None, [1900 + i % 30 for i in range(900)]),
    ],
)
def test_labels_are_recognised(column: list, task: str, classes: Any, numbers: list):
    made, given = labels(column)
    assert (made.task, made.classes) == (task, classes)
    assert given.tolist() == numbers
    assert given.dtype == (np.int32 if task == "classification" else np.float32)


def test_categories_keep_their_order():
    made, given = labels(pl.Series(["low", "high", "low"], dtype=pl.Enum(["low", "mid", "high"])))
    assert made.classes == ("low", "high")  # one that no example has is no class
    assert given.tolist() == [0, 1, 0]


def test_the_task_overrides():
    assert labels([1, 2, 3], task="regression")[1].tolist() == [1, 2, 3]
    assert labels(list(range(0, 63, 3)), task="classification")[0].n_classes == 21
    assert labels([0, 1, 1], task="labels")[0].task == "labels"


def test_several_labels():
    made, given = labels([0, 1, 1], [True, False, True])
    assert made.task == "labels"
    np.testing.assert_array_equal(given, [[0, 1], [1, 0], [1, 1]])
    made, given = labels([0.5, 1, 1], [3, 4, 5])
    assert made.task == "regression"
    np.testing.assert_array_equal(given, np.array([[0.5, 3], [1, 4], [1, 5]], np.float32))
    assert labels([0, 1, 1], [1, 1, 0], task="regression")[0].task == "regression"


@pytest.mark.parametrize(
    ("columns", "task", "sentence"),
    [
        ([["a", "a"]], "auto", "the label 'l0' is 'a' for all examples"),
        ([[3, 3]], "auto", "is 3 for all examples; classification needs at least two classes"),
        ([["a", "x" * 201]], "auto", "holds a text of 201 characters"),
        ([[str(i) + "!" for i in range(50)]], "auto", "holds 50 different texts in 50 rows, too many to be classes"),
        ([["a", "b"]], "regression", "holds texts such as 'a', but regression needs numbers"),
        ([[0.5, 1]], "classification", "has fractions, which classes have not"),
        ([list(range(0, 4000, 2))], "classification", "2,000 different numbers, too many"),
        ([[1, 2], ["a", "b"]], "auto", "the labels l0, l1 are several, but 'l1' holds texts"),
        ([[1, 2], [0, 1]], "classification", "hold other numbers than 0 and 1"),
    ],
)
def test_labels_that_cannot_be_used(columns: list, task: str, sentence: str):
    with pytest.raises(DataError) as caught:
        labels(*columns, task=task)
    assert sentence in str(caught.value)


def test_an_unknown_task():
    with pytest.raises(SettingsError, match="did you mean 'regression'"):
        labels([1, 2], task="regresion")


def test_labels_of_arrays_keep_their_numbers():
    x = np.zeros((3, 1))
    for y, task, wanted in (
        (np.array([5, 7, 5]), "classification", [5, 7, 5]),
        (np.array([0.5, 1, 2]), "regression", [0.5, 1, 2]),
        (np.array(["b", "a", "b"]), "classification", [1, 0, 1]),
        (np.array([True, False, True]), "classification", [1, 0, 1]),
    ):
        raw = Raw("array", x, y)
        made = recognised(raw)
        assert made.task == task
        assert made.numbers(raw).tolist() == wanted
    raw = Raw("array", x, np.array([1.0, 2.0, 1.0]))
    assert recognised(raw, "classification").numbers(raw).dtype == np.int32
    raw = Raw("array", x, np.array([1, 2, 1]))
    assert recognised(raw, "regression").numbers(raw).dtype == np.float32


def test_classes_of_another_folder_are_the_same_by_name():
    train = Raw("image", np.zeros((3, 1)), np.array([0, 1, 2]), classes=("ant", "bee", "cat"))
    made = recognised(train)
    other = Raw("image", np.zeros((2, 1)), np.array([0, 1]), classes=("bee", "cat"))
    assert made.numbers(other).tolist() == [1, 2]
    with pytest.raises(DataError, match="a label that training never saw, 'dog'; it knows ant, bee, cat"):
        made.numbers(Raw("image", np.zeros((2, 1)), np.array([0, 1]), classes=("bee", "dog")))
