"""Tables in files and in memory: what is read from them, in one piece or many, and what is refused and where."""

import csv
import gzip
import importlib.util
import io
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbeat.data import Reading
from backbeat.data.readers import delimited
from backbeat.data.readers.delimited import Delimited
from backbeat.data.readers.frames import Frame, Parquet, built_in, polars_of
from backbeat.data.readers.sources import open_source
from backbeat.data.readers.tables import Table
from backbeat.errors import DataError

GOOD = "a,b,label\n" + "".join(f"{i % 7}.5,{'xyz'[i % 3]},{'no' if i % 2 else 'yes'}\n" for i in range(40))
A = [i % 7 + 0.5 for i in range(40)]


def written(folder: Path, content: Any, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **reading: Any) -> Any:
    return open_source(path, Reading(**reading)).read()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (GOOD, "t.csv"),
        (GOOD.encode(), "t.CSV"),
        (GOOD.rstrip("\n"), "t.csv"),
        (gzip.compress(GOOD.encode(), mtime=0), "t.csv.gz"),
        (GOOD.replace(",", "\t"), "t.tsv"),
        (gzip.compress(GOOD.replace(",", "\t").encode(), mtime=0), "t.tsv.gz"),
        (GOOD.replace(",", "\t"), "t.txt"),
        (GOOD.replace(",", ";"), "t.csv"),
        (GOOD.replace(",", "|"), "t.txt"),
        (GOOD.replace(",", ";").replace(".5", ",5"), "t.csv"),
        (GOOD.replace("\n", "\r\n"), "t.csv"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "t.csv"),
        (GOOD.replace("\n", "\n\n"), "t.csv"),
        (GOOD.replace("x", '"x"').replace("label", '"label"'), "t.csv"),
        (GOOD.replace(",", " , "), "t.csv"),
    ],
)
def test_forms_of_a_text_file(content: Any, name: str, tmp_path: Path):
    raw = read(written(tmp_path, content, name))
    assert raw.x.schema == {"a": pl.Float64, "b": pl.String}
    assert raw.x["a"].to_list() == A
    assert raw.x["b"].to_list() == [*"xyz" * 13, "x"]
    assert raw.y["label"].to_list() == ["yes", "no"] * 20
    assert (raw.name, raw.source) == (name, str((tmp_path / name).resolve()))


def test_what_was_recognised_in_a_text_file_is_said(tmp_path: Path):
    semicolons = read(written(tmp_path, GOOD.replace(",", ";").replace(".5", ",5")))
    assert "Columns are separated by semicolons." in semicolons.notes
    assert "Numbers with a decimal comma: a." in semicolons.notes
    tabs = read(written(tmp_path, GOOD.replace(",", "\t")))
    assert tabs.notes == ("Columns are separated by tabs.", "The label is the column 'label'.")


def test_quotes_hold_separators_quotes_and_line_ends(tmp_path: Path):
    text = 'a,label\n"one, two",u\n"said ""three""",v\n"four\nfive",u\n,v\n'
    raw = read(written(tmp_path, text))
    assert raw.x["a"].to_list() == ["one, two", 'said "three"', "four\nfive", None]


def test_a_file_in_pieces_is_the_file(tmp_path: Path):
    rng = np.random.default_rng(0)
    n = 30_000
    texts = np.array(["plain", '"with, comma"', '"two\nlines"', "é", "?"])[rng.integers(0, 5, n)]
    rows = [f"{i % 50},{text},{i % 3}\n" for i, text in enumerate(texts)]
    path = written(tmp_path, "a,b,label\n" + "".join(rows))
    whole = read(path)
    pieces = list(open_source(path).pieces(1 << 18))
    assert len(pieces) > 3
    assert pl.concat([piece.x for piece in pieces]).equals(whole.x)
    assert pl.concat([piece.y for piece in pieces]).equals(whole.y)
    assert pieces[0].notes == whole.notes
    assert all(piece.notes == () for piece in pieces[1:])
    wanted = [None if text == "?" else text.strip('"') for text in texts.tolist()]
    assert whole.x["b"].to_list() == wanted
    assert f"b {wanted.count(None)}" in whole.notes[-1]


CELLS = st.text(st.sampled_from([*'ab1.,;|\t"\n\r é']), max_size=6)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8),
    st.sampled_from([*",;|\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.integers(1, 60),
)
def test_what_python_writes_is_read(rows: list, separator: str, end: str, quoting: Any, size: int):
    """Whatever stands in the cells, wherever the blocks of a file end: the oracle is Python's csv."""
    if (
        quoting == csv.QUOTE_MINIMAL
    ):  # which leaves a carriage return bare, so that a reader may take it for a line's end
        rows = [tuple(cell.replace("\r", "") for cell in row) for row in rows]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerows([["a", "b", "c"], *rows])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_CHUNK_BYTES", size)
        found = Delimited(written(Path(folder), text.getvalue()))
        pieces = list(found.rows(["a", "b", "c"]))
    read = [row for piece in pieces for row in piece.frame.iter_rows()]
    assert [tuple(cell or "" for cell in row) for row in read] == rows
    # a record begins in the line that an editor shows: the header is line 1
    parsed, begins = csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=separator), []
    lines = [piece.numbers.tolist() for piece in pieces]
    whole, place = text.getvalue(), 0
    for _ in parsed:
        begins.append(1 + whole.count("\n", 0, place))
        place = end_of_record(whole, place)
    assert [line for each in lines for line in each] == begins[1:]


def end_of_record(text: str, start: int) -> int:
    """Returns where a record ends, letter by letter."""
    inside = False
    for i in range(start, len(text)):
        inside ^= text[i] == '"'
        if text[i] == "\n" and not inside:
            return i + 1
    return len(text)


def test_lines_in_errors_are_those_of_an_editor(tmp_path: Path):
    text = GOOD + '1.5,"two\nlines",no\n\nabc,x,yes\n'
    bad = text.splitlines().index("abc,x,yes") + 1
    with pytest.raises(DataError, match=f"'abc' in line {bad} "):
        read(written(tmp_path, text))
    with pytest.raises(DataError, match=f"line {bad + 1} has 2 cells, but the header names 3 columns; mend it"):
        read(written(tmp_path, text + "1,2\n"))


def test_ragged_lines_are_left_out_and_counted_where_asked(tmp_path: Path):
    path = written(tmp_path, GOOD + "1,2\n1.5,x,no\n1,x,no,4\n")
    raw = read(path, skip_bad=True)
    assert raw.x["a"].to_list() == [*A, 1.5]
    assert "Left out: 2 lines with a wrong number of cells." in raw.notes


def test_words_for_nothing_are_empty_cells_and_counted(tmp_path: Path):
    text = "a,b,label\n1,u,x\nNA,?,y\n,null,x\nNaN,v,y\n"
    raw = read(written(tmp_path, text))
    assert raw.x["a"].to_list() == [1, None, None, None]
    assert raw.x["b"].to_list() == ["u", None, None, "v"]
    assert raw.notes[-1] == (
        "Empty cells (also those with '?', 'NA', 'NaN', 'null'): a 3, b 2; they count as the mean or a category of "
        "their own."
    )
    with pytest.raises(DataError, match=r"'a' \(input\) has 3 empty cells, the first in line 3; fill it in"):
        read(written(tmp_path, text), missing="refuse")


def test_infinite_numbers_are_refused_or_imputed_as_asked(tmp_path: Path):
    path = written(tmp_path, "a,label\n1,x\n-inf,y\ninf,x\n2,y\n")
    with pytest.raises(DataError, match=r"'a' holds 2 infinite numbers, the first \(-inf\) in line 3"):
        read(path)
    raw = read(path, missing="impute")
    assert raw.x["a"].to_list() == [1, None, None, 2]
    assert "Infinite numbers, which count as empty cells: a 2." in raw.notes


def test_an_index_without_a_name_is_left_out(tmp_path: Path):
    rows = "".join(f"{i},{i * 3 % 17},{'xy'[i % 2]}\n" for i in range(30))
    raw = read(written(tmp_path, ",v,label\n" + rows))
    assert raw.x.columns == ["v"]
    assert "column_1, which counts the rows, was left out." in raw.notes
    raw = read(written(tmp_path, "id,v,label\n" + rows))
    assert raw.x.columns == ["id", "v"]
    assert "'id' only counts the rows; leave it out by naming the other inputs." in raw.notes


def test_numbers_of_things_are_warned_of(tmp_path: Path):
    rows = "".join(f"{2**24 + 5 * i},{i % 3},{'xy'[i % 2]}\n" for i in range(30))
    raw = read(written(tmp_path, "id,v,label\n" + rows))
    assert any(note.startswith(f"'id' holds whole numbers up to {2**24 + 145}") for note in raw.notes)


def test_weights_and_held_out_rows_come_from_columns(tmp_path: Path):
    rows = "".join(f"{i % 5},{i + 1},{'test' if i % 4 == 0 else 'Train'},{'xy'[i % 2]}\n" for i in range(20))
    raw = read(written(tmp_path, "a,w,part,label\n" + rows), weight="w", held_out="part")
    assert raw.x.columns == ["a"]
    assert raw.weight.tolist() == list(range(1, 21))
    assert raw.held.tolist() == [i % 4 == 0 for i in range(20)]


HEAD = "a,label\n"
BAD = {
    "empty": (b"", "is empty; give a file with a line of column names"),
    "blank": (b"\n \n", "is empty"),
    "header alone": (b"a,b,label\n", "has column names but no examples"),
    "no header": (b"5.1,3.5,setosa\n" * 9, "the first line holds numbers (5.1, 3.5, setosa, ...), not names"),
    "columns twice": (b"a,a,label\n1,2,x\n", "has two columns called 'a', number 1 and number 2; rename one."),
    "ragged": (
        (GOOD + "1,2\n1,2\n").encode(),
        "line 42 has 2 cells, but the header names 3 columns; 1 more line around it is like that",
    ),
    "latin-1": ((GOOD + "1,é,no\n").encode("latin-1"), f"is not UTF-8: byte {len(GOOD) + 2} in line 42 is 0xe9"),
    "utf-16": (GOOD.encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "nul": (GOOD.encode() + b"1,\0,no\n", f"holds a NUL byte in line 42 (byte {len(GOOD) + 2})"),
    "carriage returns": (GOOD.replace("\n", "\r").encode(), "ends its lines with carriage returns alone"),
    "an open quote": ((GOOD + '1,"x,no\n').encode(), "line 42 has 2 cells (a quote in it may lack its pair)"),
    "a text": ((HEAD + "".join(f"{i},x\n" for i in range(30)) + "12 cm,y\n").encode(), "'12 cm' in line 32 (1 of 31"),
    "a comma": ((HEAD + "".join(f"{i},x\n" for i in range(30)) + '"1,5",y\n').encode(), "'1,5' with a decimal comma"),
    "a label missing": ((GOOD + "1.5,x,\n").encode(), "'label' (label) has 1 empty cell, the first in line 42"),
    "dates": ((HEAD + "2024-01-02,x\n2024-01-03,y\n").encode(), "'a' holds dates; give other inputs."),
    "names": (
        ("v," + HEAD + "".join(f"1,name {i},x\n" for i in range(200))).encode(),
        "'a' has another text in most rows, like a name or a number of the row; leave them out, with inputs=v.",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_text_files_that_are_wrong(kind: str, tmp_path: Path):
    content, sentence = BAD[kind]
    with pytest.raises(DataError) as caught:
        read(written(tmp_path, content))
    text = str(caught.value)
    assert sentence in text
    assert "table.csv" in text
    assert "\n" not in text
    assert text.endswith(".")


def test_compressed_files_that_are_wrong(tmp_path: Path):
    whole = gzip.compress(GOOD.encode() * 30)
    with pytest.raises(DataError, match="is cut off: the compressed data ends too early"):
        read(written(tmp_path, whole[:-20], "t.csv.gz"))
    with pytest.raises(DataError, match="cannot be decompressed"):
        read(written(tmp_path, whole[:-8] + b"\0" * 8, "t.csv.gz"))
    with pytest.raises(DataError, match=r"cannot be decompressed .* name it without \.gz"):
        read(written(tmp_path, GOOD, "t.csv.gz"))


def test_a_header_may_be_long(tmp_path: Path):
    names = [f"feature_{i:06}_" + "x" * 200 for i in range(6000)]  # 1.3 MB in one line
    path = written(tmp_path, ",".join([*names, "label"]) + "\n" + (",".join(["1"] * 6000) + ",x\n") * 2)
    assert Delimited(path).names == [*names, "label"]


def test_about_how_large_a_file_is(tmp_path: Path):
    text = "a,b,label\n" + "1.25,3.5,x\n" * 5000
    for path in (written(tmp_path, text), written(tmp_path, gzip.compress(text.encode()), "t.csv.gz")):
        assert 0.9 < Delimited(path).n_bytes(2) / (5000 * 2 * 4) < 1.1
    frame = pl.DataFrame({"a": range(7), "label": [*"xyxyxyx"]})
    assert Table(Frame(frame)).n_bytes() == 7 * 4
    frame.write_parquet(tmp_path / "t.parquet")
    assert Table(Parquet(tmp_path / "t.parquet")).n_bytes() == 7 * 4


FRAME = pl.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "label": ["x", "y", "x", "y"]})


def test_parquet_and_its_parts(tmp_path: Path):
    FRAME.write_parquet(tmp_path / "one.parquet")
    raw = read(tmp_path / "one.parquet")
    assert raw.x.equals(FRAME.select("a"))
    assert raw.y.equals(FRAME.select("label"))
    folder = tmp_path / "parts"
    folder.mkdir()
    FRAME.with_columns(pl.col("a") + 10).write_parquet(folder / "part-1.parquet")
    FRAME.select("label", pl.col("a").cast(pl.Int32)).write_parquet(folder / "part-0.parquet")
    raw = read(folder)
    assert raw.x["a"].to_list() == [1, 2, 3, 4, 11, 12, 13, 14]
    assert "parts has 2 parts, read in the order of their names." in raw.notes
    pieces = list(open_source(folder).pieces(64))
    assert len(pieces) == 4
    assert pl.concat([piece.x for piece in pieces]).equals(raw.x)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "cannot be read as Parquet"), (b"hello" * 10, "cannot be read as Parquet"), (None, "as Parquet")],
)
def test_parquet_files_that_are_wrong(content: bytes | None, sentence: str, tmp_path: Path):
    path = tmp_path / "t.parquet"
    FRAME.write_parquet(path)
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(DataError, match=sentence):
        read(path)


def test_parts_that_do_not_belong_together(tmp_path: Path):
    FRAME.write_parquet(tmp_path / "0.parquet")
    FRAME.rename({"a": "b"}).write_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"1.parquet has other columns than 0.parquet: a, b is in one of them alone"):
        read(tmp_path)
    FRAME.with_columns(a=pl.lit([1])).write_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"1.parquet: the column 'a' is nested or binary \(List"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pl.lit([1, 2]), "the column 'odd' is nested or binary (List(Int"),
        (pl.struct("a"), "the column 'odd' is nested or binary (Struct("),
        (pl.lit(b"1"), "the column 'odd' is nested or binary (Binary)"),
        (pl.date(2024, 1, 1), "the column 'odd' holds dates or times (Date)"),
        (pl.duration(days=1), "the column 'odd' holds dates or times (Duration"),
    ],
)
def test_columns_that_are_neither_numbers_nor_texts(column: Any, sentence: str, tmp_path: Path):
    frame = FRAME.with_columns(column.alias("odd"))
    frame.write_parquet(tmp_path / "t.parquet")
    for data in (frame, tmp_path / "t.parquet"):
        with pytest.raises(DataError) as caught:
            open_source(data).read()
        assert sentence in str(caught.value)
        assert open_source(data, Reading(inputs="a")).read().x.columns == ["a"]


def test_types_of_numbers():
    frame = FRAME.with_columns(
        decimal=pl.Series([Decimal("1.5")] * 4),
        unsigned=pl.Series([2**64 - 1] * 4, dtype=pl.UInt64),
        small=pl.lit(3, pl.Int8),
    )
    x = open_source(frame).read().x
    assert x.schema == {"a": pl.Float64, "decimal": pl.Float64, "unsigned": pl.Float64, "small": pl.Int64} | {
        "a": pl.Int64  # all of them whole
    }
    assert x.row(0) == (1, 1.5, 2.0**64, 3)


def test_labels_that_float64_would_run_into_one_another():
    frame = FRAME.with_columns(label=pl.Series([2**53, 2**53 + 1] * 2))
    assert open_source(frame).read().y["label"].to_list() == [str(2**53), str(2**53 + 1)] * 2


def test_pandas_frames_become_the_same_without_pyarrow():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "float": [1.0, np.nan, 3.0],
            "whole": pd.array([1, None, 2**53 + 1], dtype="Int64"),
            "bool": [True, False, True],
            "object": ["u", None, np.nan],
            "string": pd.array(["u", None, "v"], dtype="string"),
            "mixed": ["a", 1, 2.5],
            "category": pd.Categorical(["v", "u", None], categories=["v", "u"]),
            7: [1, 2, 3],
        },
        index=[5, 3, 1],
    )
    made = polars_of(frame)
    assert made.to_dict(as_series=False) == {
        "float": [1.0, pytest.approx(np.nan, nan_ok=True), 3.0],
        "whole": [1, None, 2**53 + 1],
        "bool": [True, False, True],
        "object": ["u", None, None],
        "string": ["u", None, "v"],
        "mixed": ["a", "1", "2.5"],
        "category": ["v", "u", None],
        "7": [1, 2, 3],
    }
    assert made["category"].dtype == pl.Enum(["v", "u"])


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"a": [[1], 2], "label": [0, 1]}, "the column 'a' holds list in row 1"),
        ({"a": [1, {}], "label": [0, 1]}, "the column 'a' holds dict in row 2"),
        ({"a": [], "label": []}, "table has no rows"),
    ],
)
def test_pandas_frames_that_are_wrong(columns: dict, sentence: str):
    pd = pytest.importorskip("pandas")
    with pytest.raises(DataError, match=sentence):
        open_source(pd.DataFrame(columns)).read()
    with pytest.raises(DataError, match="has two columns called 'a'"):
        open_source(pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]))


def test_dates_of_pandas_are_refused_by_name():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=3), "label": [0, 1, 0]})
    with pytest.raises(DataError, match="the column 'when' holds dates or times"):
        open_source(frame).read()


def test_tables_of_scikit_learn():
    from sklearn.datasets import load_iris

    made = built_in("iris")
    bunch: Any = load_iris()
    x = made.frame.drop("target").to_numpy()
    np.testing.assert_array_equal(x, bunch.data)
    assert made.frame["target"].to_list() == bunch.target_names[bunch.target].tolist()
    assert made.names == ["sepal_length", "sepal_width", "petal_length", "petal_width", "target"]


def test_california_is_never_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    with pytest.raises(DataError, match="is not on this machine, and nothing is downloaded"):
        open_source("california")


def test_hugging_face_tables(tmp_path: Path):
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("the library datasets is not installed")
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"a": Value("float32"), "b": Value("string"), "kind": ClassLabel(names=["zebra", "ant"])})
    data = Dataset.from_dict({"a": [1.5, 2.5, 3.5], "b": ["u", "v", "u"], "kind": [0, 1, 1]}, features=features)
    data.save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "two"))
    for form in (data, tmp_path / "one", str(tmp_path / "two" / "train")):
        raw = open_source(form, Reading(label="kind")).read()
        assert raw.x.to_dict(as_series=False) == {"a": [1.5, 2.5, 3.5], "b": ["u", "v", "u"]}
        assert raw.y["kind"].to_list() == ["zebra", "ant", "ant"]
        assert raw.y["kind"].dtype == pl.Enum(["zebra", "ant"])
    with pytest.raises(
        DataError, match=r"holds several parts, test, train; give one, such as .*test, and another as held_out"
    ):
        open_source(tmp_path / "two")
    with pytest.raises(DataError, match="has several parts, train, test; give one of them"):
        open_source(DatasetDict({"train": data, "test": data}))
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a saved data set"):
        open_source(tmp_path / "one")


def test_a_table_of_images_reads_the_images(tmp_path: Path):
    from PIL import Image

    for i in range(4):
        Image.fromarray(np.full((3, 3), 60 * i, np.uint8)).save(tmp_path / f"{i}.png")
    path = written(tmp_path, "file,label\n" + "".join(f"{i}.png,{'uv'[i % 2]}\n" for i in range(4)))
    raw = read(path)
    assert raw.kind == "image"
    assert raw.x[:, 0, 0].tolist() == [0, 60, 120, 180]
    assert raw.y.tolist() == ["u", "v", "u", "v"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing.csv", "is not there; check the path."),
        ("digit", "is not there; did you mean 'digits'?"),
        ("t.xlsx", "is not a kind of file that is read; give .csv, .tsv"),
        ("folder", "is a folder without images, Parquet files, IDX files or a saved data set"),
    ],
)
def test_paths_that_lead_nowhere(name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("t.xlsx").touch()
    Path("folder").mkdir()
    with pytest.raises(DataError) as caught:
        open_source(name)
    assert sentence in str(caught.value)
