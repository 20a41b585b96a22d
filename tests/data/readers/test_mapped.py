"""Data sets of other libraries: forms of items, images, fields, what is left out, and what is refused by its index."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from backbeat.data.raw import Raw, Reading
from backbeat.data.readers.mapped import Mapped
from backbeat.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype(np.float32)
Y = [0, 1, 2, 1, 0]
TONES = RNG.integers(0, 256, (5, 4, 6), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


class Pair(NamedTuple):
    inputs: Any
    label: Any


class Source:
    """What Grain and PyTorch share: a length and items by index, which must be plain whole numbers."""

    def __init__(self, items: Any, length: Any = None) -> None:
        self.items, self.length = items, length

    def __len__(self) -> Any:
        return len(self.items) if self.length is None else self.length

    def __getitem__(self, i: int) -> Any:
        assert type(i) is int
        item = self.items[i]
        if isinstance(item, Exception):
            raise item
        return item


def read_both_ways(data: Any, reading: Reading | None = None) -> Raw:
    """Returns what is read whole, after a look that the pieces hold the same."""
    reading = Reading() if reading is None else reading
    raw = Mapped(data, reading).read()
    pieces = list(Mapped(data, reading).pieces(2 * 4 * raw.x[0].size))
    assert max(len(piece) for piece in pieces) <= 2
    for name in ("x", "y", "weight"):
        whole, parts = getattr(raw, name), [getattr(piece, name) for piece in pieces]
        if whole is None:
            assert parts == [None] * len(parts)
        else:
            np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert {(piece.kind, piece.classes) for piece in pieces} == {(raw.kind, raw.classes)}
    return raw


@pytest.mark.parametrize(
    "items",
    [
        list(zip(X, Y, strict=True)),
        [Pair(x, y) for x, y in zip(X, Y, strict=True)],
        [(x.tolist(), np.int64(y)) for x, y in zip(X, Y, strict=True)],
        [[x.tolist(), y] for x, y in zip(X, Y, strict=True)],
        [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)],
        [{"label": y, "numbers": x} for x, y in zip(X, Y, strict=True)],
        [{"id": i, "features": x, "Target": y} for i, (x, y) in enumerate(zip(X, Y, strict=True))],
        [{"a": x[0], "b": float(x[1]), "c": x[2], "label": y} for x, y in zip(X, Y, strict=True)],
    ],
)
def test_items_of_every_form_are_inputs_and_labels(items: list):
    for data in (items, Source(items)):
        raw = read_both_ways(data)
        np.testing.assert_array_equal(raw.x, X)
        np.testing.assert_array_equal(raw.y, Y)
        assert (raw.kind, raw.name, raw.classes) == ("array", type(data).__name__, None)
        assert Mapped(data, Reading()).n_bytes() == 5 * 3 * 4


def test_fields_are_chosen_by_name_and_said():
    items = [
        {"a": x, "b": x + 1, "label": 9, "kind": "no" if y else "yes", "w": 2.0} for x, y in zip(X, Y, strict=True)
    ]
    raw = read_both_ways(items, Reading(inputs="b", label="kind", weight="w"))
    np.testing.assert_array_equal(raw.x, X + 1)
    assert raw.y.tolist() == ["yes", "no", "no", "no", "yes"]
    assert raw.weight is not None
    assert raw.weight.tolist() == [2.0] * 5
    assert raw.notes == ("The inputs are the field b and the label kind.",)


def test_weights_and_soft_labels_come_with_the_items():
    soft = np.eye(3)[Y]
    raw = read_both_ways([(x, y, w) for x, y, w in zip(X, soft, range(5), strict=True)])
    np.testing.assert_array_equal(raw.y, soft)
    assert raw.weight is not None
    assert raw.weight.tolist() == [0, 1, 2, 3, 4]


def test_inputs_alone_have_no_labels():
    for items in (list(X), [(x,) for x in X], [x.tolist() for x in X]):
        source = Mapped(items, Reading())
        assert source.read().y is None
        assert "its items have no labels; give items (x, y)" in source.without_labels
    source = Mapped([{"x": x, "which": 1} for x in X], Reading())
    assert source.read().y is None
    assert "none of the fields x, which is known as the label" in source.without_labels


def test_a_pytorch_data_set_keeps_its_shapes(torch: Any):
    tones = torch.tensor(TONES / 255, dtype=torch.float32)[:, None]
    data = torch.utils.data.TensorDataset(tones, torch.tensor(Y))
    raw = read_both_ways(data)
    np.testing.assert_array_equal(raw.x, (TONES / 255).astype(np.float32)[:, None])
    np.testing.assert_array_equal(raw.y, Y)
    assert raw.notes == ("One example has the shape [1, 4, 6]: channels first, as PyTorch orders them.",)
    some = torch.utils.data.Subset(data, [3, 1])
    assert read_both_ways(some).y.tolist() == [1, 1]


def test_a_pytorch_stream_or_loader_is_refused_with_what_to_do(torch: Any):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter([])

    with pytest.raises(DataError, match=r"Stream is a stream, without an index.*give list\(data\)"):
        Mapped(Stream(), Reading())
    loader = torch.utils.data.DataLoader(list(zip(X, Y, strict=True)))
    with pytest.raises(DataError, match=r"DataLoader is a stream.*give its data set, loader\.dataset"):
        Mapped(loader, Reading())
    with pytest.raises(DataError, match="generator is a stream"):
        Mapped((x for x in X), Reading())


def test_names_of_classes_are_those_of_the_data_set():
    data = Source(list(zip(X, Y, strict=True)))
    data.classes = ["0 - zero", "1 - one", "2 - two", "3 - three"]  # pyright: ignore[reportAttributeAccessIssue]
    assert read_both_ways(data).classes == ("0 - zero", "1 - one", "2 - two", "3 - three")
    data.classes = ["zero", "one"]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(DataError, match="labels run from 0 to 2, but there are 2 classes"):
        Mapped(data, Reading()).read()
    texts = Source([(x, "abc"[y]) for x, y in zip(X, Y, strict=True)])
    texts.classes = ["a", "b", "c"]  # pyright: ignore[reportAttributeAccessIssue]
    assert read_both_ways(texts).classes is None


def test_images_of_pillow_are_pixels():
    raw = read_both_ways([(Image.fromarray(image), y) for image, y in zip(TONES, Y, strict=True)])
    np.testing.assert_array_equal(raw.x, TONES)
    assert (raw.kind, raw.notes) == ("image", ())
    mixed = [Image.fromarray(image) for image in (*TONES[:3], *COLOURS[3:])]
    raw = read_both_ways(list(zip(mixed, Y, strict=True)))
    np.testing.assert_array_equal(raw.x[:3], TONES[:3, ..., None].repeat(3, -1))
    np.testing.assert_array_equal(raw.x[3:], COLOURS[3:])
    assert raw.notes == ("Images of the modes 3 L, 2 RGB were brought to RGB of 8 bits.",)


def test_images_of_several_sizes_are_resized_as_asked():
    items = [(Image.new("L", (4 + i, 6), 10 * i), i) for i in range(5)]
    with pytest.raises(DataError, match=r'item 1 has the shape \[6, 5\], but the first \[6, 4\].*resize="6x4" brings'):
        Mapped(items, Reading()).read()
    raw = read_both_ways(items, Reading(resize="2x3"))
    np.testing.assert_array_equal(raw.x, np.broadcast_to(10 * np.arange(5)[:, None, None], (5, 2, 3)))
    with pytest.raises(DataError, match="no images of Pillow, so resize does nothing"):
        Mapped(list(zip(X, Y, strict=True)), Reading(resize="2x3")).read()


def test_arrays_of_8_bits_are_pixels_too():
    raw = read_both_ways(list(zip(TONES, Y, strict=True)))
    assert (raw.kind, raw.x.dtype) == ("image", np.uint8)
    assert raw.notes == ("The inputs are 8-bit numbers of [4, 6] each, taken for pixels from 0 to 255.",)


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Returns the library, which writes below a folder of the test and asks no network."""
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets")


def test_a_hugging_face_data_set_of_images_has_its_classes(datasets: Any):
    features = datasets.Features(
        {"id": datasets.Value("int64"), "image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    columns = {"id": range(5), "image": [Image.fromarray(image) for image in TONES], "label": Y}
    data = datasets.Dataset.from_dict({name: list(values) for name, values in columns.items()}, features=features)
    for given in (data, data.cast_column("image", datasets.Image(decode=False))):
        raw = read_both_ways(given)
        np.testing.assert_array_equal(raw.x, TONES)
        np.testing.assert_array_equal(raw.y, Y)
        assert (raw.kind, raw.classes) == ("image", ("a", "b", "c"))
        assert raw.notes == ("The inputs are the field image and the label label.",)
    unlabelled = datasets.Dataset.from_dict({**data.to_dict(), "label": [-1] * 5}, features=features)
    with pytest.raises(DataError, match="labels run from -1 to -1, but there are 3 classes"):
        Mapped(unlabelled, Reading()).read()


def test_a_damaged_image_of_a_hugging_face_data_set_is_named(datasets: Any):
    rows = {"image": [{"bytes": b"not an image", "path": None}] * 3, "label": [0, 1, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict(rows, features=features)
    for given in (data, data.cast_column("image", datasets.Image(decode=False))):
        with pytest.raises(DataError, match=r"item 0 cannot be read \(UnidentifiedImageError: cannot identify"):
            Mapped(given, Reading()).read()


def test_what_is_none_or_cannot_be_read_is_left_out_and_counted():
    items: list[Any] = list(zip(X, Y, strict=True))
    items[0], items[2] = None, None
    raw = read_both_ways(Source(items))
    np.testing.assert_array_equal(raw.x, X[[1, 3, 4]])
    assert raw.notes == ("2 of 5 items are None and were left out.",)
    items[4] = OSError("disk\non fire.")
    with pytest.raises(DataError, match=r"Source: item 4 cannot be read \(OSError: disk\); mend it, or leave out"):
        Mapped(Source(items), Reading()).read()
    raw = read_both_ways(Source(items), Reading(skip_bad=True))
    assert raw.y.tolist() == [1, 1]
    assert raw.notes[1] == "1 of 5 items cannot be read and were left out, the first is 4 (OSError: disk)."


def items_with(i: int, item: Any) -> list:
    items = list(zip(X, Y, strict=True))
    items[i] = item
    return items


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (items_with(3, (X[3, :2], 1)), r"item 3 has the shape \[2\], but the first \[3\]; all must have the same\."),
        (items_with(2, (Image.new("L", (3, 1)), 1)), "item 2 is of another kind than the first"),
        (items_with(4, (X[4], None)), "item 4 has nothing as its label, but item 0 has a number; all must be alike"),
        (items_with(4, (X[4], [1, 0])), r"item 4 has an array of \[2\] as its label, but item 0 has a number"),
        (items_with(4, (X[4], "a")), "item 4 has a text as its label, but item 0 has a number"),
        ([(x, {1}) for x in X], r"labels hold \{1\} at 0, of the type set"),
        (items_with(1, (1, 2, 3, 4)), r"item 1 is a tuple of 4; give items \(x, y\)"),
        (items_with(1, ([[1], [2, 3]], 0)), "item 1: inputs have rows of different lengths"),
        ([("text", 0)] * 3, "inputs are of the type <U4; give numbers"),
        ([({1, 2}, 0)] * 3, "inputs are of the type object"),
        ([{"x": X[0], "y": 1}, {"y": 1}], "item 1 has no field 'x'; allowed: y"),
        ([{"a": "b", "c": [1], "y": 1}] * 2, "the inputs a, c are put together as numbers, but 'a' is none in item 0"),
        ([], "there are no examples"),
        ([None, None], r"none of its 2 items can be used; give items \(x, y\)"),
        (Source([], -1), "does not say how many items there are"),
        (Source([], 2.5), "does not say how many items there are"),
        (Source([], sys.maxsize), "as one without an end does"),
        (Source([(X[0], 1)], 3), "item 1 cannot be read .IndexError"),
        (Source([KeyError("image")]), "item 0 cannot be read .KeyError: 'image'"),
    ],
)
def test_a_bad_data_set_is_refused_by_the_index_of_its_item(data: Any, sentence: str):
    for reads in (lambda: Mapped(data, Reading()).read(), lambda: list(Mapped(data, Reading()).pieces(1))):
        with pytest.raises(DataError, match=sentence) as caught:
            reads()
        assert "\n" not in str(caught.value)


def test_fields_that_are_not_there_are_refused_with_the_nearest():
    items = [{"image": x, "digit": y} for x, y in zip(X, Y, strict=True)]
    for reading, sentence in (
        (Reading(inputs="imge"), "has no field 'imge'; did you mean 'image'"),
        (Reading(label="digits"), "has no field 'digits'; did you mean 'digit'"),
        (Reading(weight="w"), "has no field 'w'"),
    ):
        with pytest.raises(DataError, match=sentence):
            Mapped(items, reading).read()
    with pytest.raises(DataError, match="label='y' names a column, but a data set whose items are no dicts has none"):
        Mapped(list(zip(X, Y, strict=True)), Reading(label="y")).read()
