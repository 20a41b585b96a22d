"""Images in files: folders by class, tables of paths, one image; modes, sizes, damage, and what is said of them."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbeat.data.raw import Raw, Reading
from backbeat.data.readers.images import ImageFile, ImageFolder, ImageTable, recognises
from backbeat.data.readers.pixels import look_at, parse_size, pixels_of, resized
from backbeat.errors import DataError, SettingsError

RNG = np.random.default_rng(0)


def save(path: Path, pixels: Any, **options: Any) -> np.ndarray:
    """Writes an image and returns its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return np.asarray(pixels)


def grey(height: int = 6, width: int = 5) -> np.ndarray:
    return RNG.integers(0, 256, (height, width), dtype=np.uint8)


def colour(height: int = 6, width: int = 5) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def folder_of(root: Path, names: tuple[str, ...] = ("cat", "dog"), n: int = 3) -> list[np.ndarray]:
    """Returns the images of a folder with n for each class, in the order of their paths."""
    return [save(root / name / f"{i}.png", grey()) for name in names for i in range(n)]


def read_both_ways(source: Any) -> Raw:
    """Returns what is read whole, after a look that the pieces hold the same."""
    raw = source.read()
    pieces = list(source.pieces(2 * 4 * raw.x[0].size))
    assert max(len(piece) for piece in pieces) <= 2
    for name in ("x", "y", "held"):
        whole, parts = getattr(raw, name), [getattr(piece, name) for piece in pieces]
        if whole is not None:
            np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert tuple(note for piece in pieces for note in piece.notes) == raw.notes
    return raw


def test_folders_are_classes_and_deeper_ones_belong_to_them(tmp_path: Path):
    images = folder_of(tmp_path)
    deep = save(tmp_path / "cat" / "more" / "deep" / "z.png", grey())
    (tmp_path / ".hidden").mkdir()
    save(tmp_path / "cat" / ".hidden.png", grey(2, 2))
    source = ImageFolder(tmp_path, Reading())
    raw = read_both_ways(source)
    np.testing.assert_array_equal(raw.x, [*images[:3], deep, *images[3:]])
    assert raw.y.tolist() == [0] * 4 + [1] * 3
    assert (raw.kind, raw.classes, raw.held, raw.notes) == ("image", ("cat", "dog"), None, ())
    assert (raw.name, raw.source) == (tmp_path.name, str(tmp_path.resolve()))
    assert source.n_bytes() == 7 * 6 * 5 * 4
    assert recognises(tmp_path)


def test_numbers_as_classes_are_in_their_order(tmp_path: Path):
    folder_of(tmp_path, ("0", "10", "2"), n=1)
    raw = ImageFolder(tmp_path, Reading()).read()
    assert raw.classes == ("0", "2", "10")
    assert raw.y.tolist() == [0, 2, 1]


@pytest.mark.parametrize("held", ["test", "val", "Validation"])
def test_a_part_to_hold_out_has_a_folder_of_its_own(tmp_path: Path, held: str):
    train, test = folder_of(tmp_path / "train"), folder_of(tmp_path / held, n=1)
    raw = read_both_ways(ImageFolder(tmp_path, Reading()))
    np.testing.assert_array_equal(raw.x, train + test)
    assert raw.y.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert raw.held is not None
    assert raw.held.tolist() == [False] * 6 + [True] * 2
    assert raw.notes == (f"{held} is the held-out part, 2 of 8 images.",)


def test_a_test_part_beside_one_for_validation_is_left_for_the_end(tmp_path: Path):
    for part in ("train", "val", "test"):
        folder_of(tmp_path / part, n=2)
    raw = ImageFolder(tmp_path, Reading()).read()
    assert len(raw) == 8
    assert raw.notes[0] == "test was left out: it is there to evaluate the run with at the end."


def test_a_class_may_be_called_train(tmp_path: Path):
    folder_of(tmp_path, ("bus", "train"))
    assert ImageFolder(tmp_path, Reading()).read().classes == ("bus", "train")
    folder_of(tmp_path / "parts" / "train")
    assert ImageFolder(tmp_path / "parts", Reading()).read().classes == ("cat", "dog")


def test_other_files_and_links_back_are_counted(tmp_path: Path):
    folder_of(tmp_path)
    for name in ("a.txt", "b.csv", "c.txt", "d.txt"):
        (tmp_path / "cat" / name).write_text("no image")
    (tmp_path / "dog" / "back").symlink_to(tmp_path)
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "dog" / "itself").symlink_to("itself")
    raw = ImageFolder(tmp_path, Reading()).read()
    assert len(raw) == 6
    assert raw.notes == (
        "5 files that are no images were left out (a.txt, b.csv, c.txt, …).",
        "2 links to folders above them were left out (round, back).",
    )


def test_links_in_a_circle_between_two_classes_end(tmp_path: Path):
    folder_of(tmp_path, ("a", "b"), n=1)
    (tmp_path / "a" / "x").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "y").symlink_to(tmp_path / "a")
    raw = ImageFolder(tmp_path, Reading()).read()
    assert len(raw) == 4
    assert raw.notes[0].startswith("2 links to folders above them")


def test_a_folder_of_links_is_seen_to_hold_images(tmp_path: Path):
    folder_of(tmp_path / "elsewhere")
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "linked").symlink_to(tmp_path / "elsewhere" / name)
        (tmp_path / "data" / name / "back").symlink_to(tmp_path / "data")
    assert recognises(tmp_path / "data")
    assert len(ImageFolder(tmp_path / "data", Reading()).read()) == 6
    for path in (tmp_path / "elsewhere").rglob("*.png"):
        path.unlink()
    assert not recognises(tmp_path / "data")


def test_images_of_a_folder_without_classes_have_no_labels(tmp_path: Path):
    images = [save(tmp_path / f"{i}.png", grey()) for i in range(3)]
    source = ImageFolder(tmp_path, Reading())
    raw = read_both_ways(source)
    np.testing.assert_array_equal(raw.x, images)
    assert (raw.y, raw.classes) == (None, None)
    assert "no folder for each class; move them into folders" in source.without_labels


def one_of_each_mode() -> dict[str, Image.Image]:
    tones = Image.fromarray(np.linspace(0, 255, 30).astype(np.uint8).reshape(6, 5))
    palette = tones.copy().convert("P")
    return {
        "1": tones.convert("1"),
        "L": tones,
        "LA": tones.convert("LA"),
        "P": palette,
        "I;16": Image.fromarray(np.asarray(tones).astype(np.uint16) * 257),
        "RGB": Image.fromarray(colour()),
        "RGBA": Image.fromarray(colour()).convert("RGBA"),
        "CMYK": Image.fromarray(colour()).convert("CMYK"),
    }


def test_grey_images_of_all_modes_become_8_bits(tmp_path: Path):
    modes = one_of_each_mode()
    for i, mode in enumerate(("1", "L", "LA", "P", "I;16")):
        save(tmp_path / "a" / f"{i}.png", modes[mode])
    raw = read_both_ways(ImageFolder(tmp_path, Reading()))
    tones = np.asarray(modes["L"])
    assert raw.x.dtype == np.uint8
    for i in (1, 2, 3, 4):
        np.testing.assert_array_equal(raw.x[i], tones)
    np.testing.assert_array_equal(raw.x[0], np.asarray(modes["1"]) * np.uint8(255))
    (note,) = raw.notes
    assert note.endswith("were brought to grey of 8 bits, 1 with transparency laid over white.")
    assert "1 I;16" in note


def test_one_colour_image_makes_all_of_them_colour(tmp_path: Path):
    modes = one_of_each_mode()
    for i, mode in enumerate(("L", "RGB", "RGBA")):
        save(tmp_path / "a" / f"{i}.png", modes[mode])
    save(tmp_path / "a" / "3.tif", modes["CMYK"])
    raw = read_both_ways(ImageFolder(tmp_path, Reading()))
    assert raw.x.shape == (4, 6, 5, 3)
    np.testing.assert_array_equal(raw.x[0], np.asarray(modes["L"])[..., None].repeat(3, -1))
    np.testing.assert_array_equal(raw.x[1], np.asarray(modes["RGB"]))
    np.testing.assert_array_equal(raw.x[2], np.asarray(modes["RGBA"])[..., :3])
    # With no black ink, a CMYK tone is 255 − ink, which is how Pillow made it.
    np.testing.assert_array_equal(raw.x[3], 255 - np.asarray(modes["CMYK"])[..., :3])
    assert raw.notes[0].startswith(
        "Images of the modes 1 L, 1 RGB, 1 RGBA, 1 CMYK were brought to RGB of 8 bits, 1 with"
    )


def test_transparency_is_laid_over_white():
    """Ink on a transparent ground is often black on black once its alpha is dropped."""
    alpha = np.array([[0, 255, 128]], np.uint8)
    ink = Image.fromarray(np.dstack([np.zeros((1, 3, 3), np.uint8), alpha]))
    expected = 255 - alpha.astype(float)  # α·0 + (1 − α)·255
    found = pixels_of(ink, grey=False)
    np.testing.assert_allclose(found, expected[..., None].repeat(3, -1), atol=1)  # Pillow rounds to whole tones
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 0
    assert look_at(palette).grey
    assert pixels_of(palette, grey=True).tolist() == [[255, 9]]


@pytest.mark.parametrize(
    ("form", "lossy"), [("png", 0), ("bmp", 0), ("gif", 0), ("webp", 40), ("tiff", 0), ("jpg", 40)]
)
def test_every_format_gives_the_same_image(tmp_path: Path, form: str, lossy: int):
    smooth = np.add.outer(np.arange(16) * 8, np.arange(16) * 7).astype(np.uint8)
    save(tmp_path / f"a.{form}", smooth, **({"lossless": True} if form == "webp" else {}))
    x = ImageFile(tmp_path / f"a.{form}", Reading()).read().x
    pixels = x[0] if x.ndim == 3 else x[0, ..., 0]
    # JPEG is lossy; WebP stores YUV or RGB: both stay near a smooth ramp. All others hold the numbers themselves.
    np.testing.assert_allclose(pixels.astype(int), smooth, atol=lossy)


def test_the_first_frame_of_a_moving_image_is_taken(tmp_path: Path):
    frames = [Image.fromarray(np.full((4, 4), tone, np.uint8)) for tone in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert ImageFile(tmp_path / "a.gif", Reading()).read().x.max() == 10


@pytest.mark.parametrize(("orientation", "turned"), [(3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1))])
@pytest.mark.parametrize("form", ["png", "tiff"])
def test_a_photograph_stands_as_its_camera_says(tmp_path: Path, orientation: int, turned: Any, form: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = save(tmp_path / f"a.{form}", grey(), exif=exif)
    np.testing.assert_array_equal(ImageFile(tmp_path / f"a.{form}", Reading()).read().x[0], turned(pixels))


def test_mixed_sizes_are_refused_with_both_names_or_resized(tmp_path: Path):
    save(tmp_path / "a" / "1.png", np.full((6, 5), 40, np.uint8))
    save(tmp_path / "b" / "2.png", np.full((12, 7), 90, np.uint8))
    for reads in (lambda s: s.read(), lambda s: list(s.pieces(1))):
        with pytest.raises(DataError, match=r"1\.png is 6x5 but .*2\.png is 12x7 .*resize=\"6x5\""):
            reads(ImageFolder(tmp_path, Reading()))
    raw = ImageFolder(tmp_path, Reading(resize="3x4")).read()
    np.testing.assert_array_equal(raw.x, np.stack([np.full((3, 4), 40), np.full((3, 4), 90)]))
    assert raw.notes == ("Images of 2 sizes were brought to 3x4 (bilinear; their proportions are not kept).",)


def test_resizing_takes_the_mean_where_it_shrinks_a_pattern():
    """Antialiasing: every second column white gives grey, where taking the nearest pixel gives black or white."""
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 64, 32))
    small = resized(stripes, (8, 8))
    assert 120 < small.min() <= small.max() < 135


@pytest.mark.parametrize("text", ["28", "28x", "0x28", "28x28x3", "-2x4", "big", "", 28, (28, 28)])
def test_a_wrong_size_is_refused(text: Any):
    with pytest.raises(SettingsError, match="is not a size; give height and width in pixels"):
        parse_size(text)


def test_a_size_may_be_written_in_several_ways():
    assert {parse_size(text) for text in ("28x32", " 28 X 32 ", "28×32")} == {(28, 32)}


def png_of(width: int, height: int) -> bytes:
    """Returns a PNG whose header claims a size and which has next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def bytes_of(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


PNG, JPEG = bytes_of(RNG.integers(0, 256, (40, 40), dtype=np.uint8), "PNG"), bytes_of(grey(40, 40), "JPEG")
FLOATS = io.BytesIO()
Image.fromarray(np.zeros((4, 4), np.float32)).save(FLOATS, "TIFF")
DEEP = io.BytesIO()
Image.fromarray(np.full((4, 4), 70000, np.int32)).save(DEEP, "TIFF")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its content is no image of a known format"),
        (b"not an image", "its content is no image of a known format"),
        (PNG[:60], "cut|truncated|broken|not read"),
        (PNG[: len(PNG) // 2], "truncated|broken"),
        (PNG[:200] + b"damaged" * 9 + PNG[263:], "unrecognized data stream"),
        (JPEG[: len(JPEG) // 2], "image file is truncated"),
        (png_of(12_000, 12_000), "exceeds limit of .* could be decompression bomb"),
        (png_of(30_000, 30_000), "exceeds limit of .* could be decompression bomb"),
        (FLOATS.getvalue(), "its pixels are floats"),
        (DEEP.getvalue(), "its pixels run from 70000 to 70000"),
        (None, "no such file"),
    ],
)
def test_a_bad_image_is_refused_with_its_path_or_left_out(tmp_path: Path, content: bytes | None, reason: str):
    images = folder_of(tmp_path)
    bad = tmp_path / "cat" / "1.png"
    bad.unlink()
    if content is None:
        bad.symlink_to(tmp_path / "nowhere.png")
    else:
        bad.write_bytes(content)
    for reads in (lambda s: s.read(), lambda s: list(s.pieces(1))):
        with pytest.raises(DataError, match=rf"cat.1\.png cannot be read as an image \(.*({reason})") as caught:
            reads(ImageFolder(tmp_path, Reading()))
        assert str(caught.value).endswith("replace it, or leave out such files with skip_bad (--skip-bad).")
        assert "\n" not in str(caught.value)
    raw = read_both_ways(ImageFolder(tmp_path, Reading(skip_bad=True)))
    np.testing.assert_array_equal(raw.x, [images[0], *images[2:]])
    assert raw.y.tolist() == [0, 0, 1, 1, 1]
    assert raw.notes[-1].startswith("1 of 6 images cannot be read and were left out, the first is 1.png (")


def test_a_folder_of_bad_images_alone_is_refused(tmp_path: Path):
    for name, content in (("a", b""), ("b", JPEG[: len(JPEG) // 2])):
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}.jpg").write_bytes(content)
    with pytest.raises(DataError, match="none of the 4 images can be read"):
        ImageFolder(tmp_path, Reading(skip_bad=True)).read()


def build(root: Path, what: str) -> None:
    folder_of(root)
    if what == "an empty class":
        (root / "eel").mkdir()
    elif what == "a class of other files":
        (root / "eel").mkdir()
        (root / "eel" / "a.txt").write_text("no image")
    elif what == "an image beside the classes":
        save(root / "stray.png", grey())
    elif what == "an image beside the parts":
        (root / "cat").rename(root / "train")
        (root / "train" / "inner").mkdir()
        (root / "dog").rename(root / "test")
        (root / "test" / "inner").mkdir()
        save(root / "stray.png", grey())
    elif what == "an unknown class":
        for name in ("cat", "dog"):
            (root / name).rename(root / f"moved{name}")
        folder_of(root / "train")
        folder_of(root / "test", ("cat", "eel"))
        for name in ("cat", "dog"):
            for file in (root / f"moved{name}").iterdir():
                file.unlink()
            (root / f"moved{name}").rmdir()
    elif what == "nothing":
        for file in list(root.rglob("*.png")):
            file.rename(file.with_suffix(".txt"))
        (root / "cat").rename(root / ".cat")
        (root / "dog").rename(root / ".dog")


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("an empty class", "eel is the folder of a class but holds no images; add some, or remove it"),
        ("a class of other files", "holds no images, only 1 other file; add some"),
        (
            "an image beside the classes",
            r"stray\.png lies in no class's folder, but other images do; move it into cat or dog",
        ),
        ("an image beside the parts", "holds images beside its folder train"),
        ("an unknown class", "test has the class 'eel', which .*train has not"),
        ("nothing", "holds no images; give a folder with a folder of images for each class"),
    ],
)
def test_a_folder_that_cannot_be_understood_is_refused(tmp_path: Path, what: str, sentence: str):
    build(tmp_path, what)
    with pytest.raises(DataError, match=sentence) as caught:
        ImageFolder(tmp_path, Reading()).read()
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Simulated: who runs the tests as root may read everything."""
    folder_of(tmp_path)
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"dog cannot be read \(permission denied\)"):
        ImageFolder(tmp_path, Reading())


def test_a_folder_has_no_columns(tmp_path: Path):
    folder_of(tmp_path)
    with pytest.raises(DataError, match="label='cat' names a column, but a folder of images has none"):
        ImageFolder(tmp_path, Reading(label="cat"))


def test_a_table_of_paths_keeps_its_rows_together(tmp_path: Path):
    images = [save(tmp_path / "letters" / f"{i}.png", grey()) for i in range(4)]
    (tmp_path / "letters" / "2.png").write_bytes(b"")
    paths = ["letters/0.png", str(tmp_path / "letters" / "1.png"), "letters/2.png", "letters/3.png"]
    about = Raw(
        "table", (), np.array(["a", "b", "c", "d"]), np.arange(4.0), np.arange(4) > 2, "t.csv", notes=("read.",)
    )
    raw = read_both_ways(ImageTable(paths, tmp_path, Reading(skip_bad=True), about))
    np.testing.assert_array_equal(raw.x, [images[0], images[1], images[3]])
    assert raw.weight is not None
    assert raw.held is not None
    assert (raw.y.tolist(), raw.weight.tolist(), raw.held.tolist()) == (
        ["a", "b", "d"],
        [0, 1, 3],
        [False, False, True],
    )
    assert (raw.kind, raw.name, raw.notes[0]) == ("image", "t.csv", "read.")
    with pytest.raises(DataError, match=r"letters.2\.png cannot be read as an image"):
        ImageTable(paths, tmp_path, Reading(), about).read()
    with pytest.raises(DataError, match=r"t\.csv: row 2 has no path of an image; fill it in"):
        ImageTable(["letters/0.png", None], tmp_path, Reading(), about)


def test_the_files_are_those_that_decide_what_is_read(tmp_path: Path):
    folder_of(tmp_path / "data")
    source = ImageFolder(tmp_path / "data", Reading())
    assert sorted(source.files()) == sorted((tmp_path / "data").rglob("*.png"))
    (tmp_path / "t.csv").write_text("")
    about = Raw("table", (), np.array([0, 1]), name="t.csv", source=str(tmp_path / "t.csv"))
    paths = ["data/cat/0.png", "data/dog/none.png"]
    table = ImageTable(paths, tmp_path, Reading(), about)
    assert table.files() == [tmp_path / "t.csv", tmp_path / "data" / "cat" / "0.png"]
    (tmp_path / "data" / "eel").symlink_to(tmp_path / "else")
    folder_of(tmp_path, ("else",))
    assert ImageFolder(tmp_path / "data", Reading()).files() == []


def test_one_image_has_no_label(tmp_path: Path):
    pixels = save(tmp_path / "a.png", colour())
    source = ImageFile(tmp_path / "a.png", Reading())
    raw = read_both_ways(source)
    np.testing.assert_array_equal(raw.x, pixels[None])
    assert raw.y is None
    assert "is one image without a label" in source.without_labels
    with pytest.raises(DataError, match="is not there"):
        ImageFile(tmp_path / "b.png", Reading())
