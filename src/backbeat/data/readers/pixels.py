"""From image files to pixels: 8-bit numbers `[height, width]` for grey, `[height, width, 3]` for colour, by Pillow."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, SettingsError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
LEAVE_OUT = "replace it, or leave out such files with skip_bad (--skip-bad)."
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_TOGETHER = 64  # images that a thread decodes before it takes the next ones


class Look(NamedTuple):
    """What the header of an image says: its mode as Pillow calls it, whether it is grey, whether it is transparent."""

    mode: str
    grey: bool
    transparent: bool


def is_image(name: str) -> bool:
    """Whether a file is an image, by its name.

    Example:
        >>> is_image("a.PNG"), is_image("a.csv")
        (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def parse_size(text: Any) -> tuple[int, int]:
    """Returns the height and the width of a text such as "28x28".

    Raises:
        SettingsError: anything else.

    Example:
        >>> parse_size("28x32")
        (28, 32)
    """
    found = re.fullmatch(r"\s*(\d{1,5})\s*[x×X*]\s*(\d{1,5})\s*", str(text))
    if not found or not int(found[1]) or not int(found[2]):
        raise SettingsError(f'resize={text!r} is not a size; give height and width in pixels, such as "28x28".')
    return int(found[1]), int(found[2])


def look_at(image: Any) -> Look:
    """Returns what an open image of Pillow is, without decoding it; floats, which are no tones, are a ValueError."""
    if image.mode.startswith("F"):
        raise ValueError("its pixels are floats; save it with 8 bits, or give arrays")
    grey = image.mode in _GREY_MODES
    if image.mode == "P":
        palette = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
        grey = bool((palette == palette[:, :1]).all())
    return Look(image.mode, grey, image.has_transparency_data)


def pixels_of(image: Any, *, grey: bool, size: tuple[int, int] | None = None) -> np.ndarray:
    """Returns the pixels of an image of Pillow, turned as its EXIF data says and laid over white where transparent.

    Args:
        image: of any mode that `look_at` takes.
        grey: whether `[height, width]` is due; else `[height, width, 3]`.
        size: height and width to resize to, bilinear with antialiasing; None to leave them.

    Raises:
        ValueError: numbers of more than 16 bits.

    Example:
        >>> from PIL import Image
        >>> pixels_of(Image.new("CMYK", (3, 2)), grey=False).shape
        (2, 3, 3)
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.size and (deep.min() < 0 or deep.max() > 65535):
            raise ValueError(f"its pixels run from {deep.min()} to {deep.max()}; save it with 8 bits, or give arrays")
        image = Image.fromarray((deep.astype(np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    wanted = "L" if grey else "RGB"
    if image.mode != wanted:
        image = image.convert(wanted)
    if size is not None and image.size != size[::-1]:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns images `[n, height, width]` or `[n, height, width, 3]` of 8 bits in another size.

    Example:
        >>> resized(np.full((2, 4, 4), 7, np.uint8), (2, 2)).tolist()[0]
        [[7, 7], [7, 7]]
    """
    from PIL import Image

    if x.shape[1:3] == size:
        return x
    out = np.empty((len(x), *size, *x.shape[3:]), np.uint8)
    for i, image in enumerate(x):
        out[i] = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return out


def brought_together(looks: Iterable[Look], *, grey: bool) -> tuple[str, ...]:
    """Returns the note on what was done to images of several modes; none where all are L or all RGB."""
    looks = list(looks)
    counts = Counter(look.mode for look in looks)
    wanted = "L" if grey else "RGB"
    transparent = sum(look.transparent for look in looks)
    if counts.keys() <= {wanted} and not transparent:
        return ()
    modes = ", ".join(f"{n} {mode}" for mode, n in counts.most_common())
    over = f", {transparent} with transparency laid over white" if transparent else ""
    return (f"Images of the modes {modes} were brought to {'grey' if grey else 'RGB'} of 8 bits{over}.",)


def why_unreadable(error: BaseException) -> str:
    """Returns the reason in Pillow's words, without the path, as part of a sentence."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "its content is no image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings, but for images so large that they may be an attack: those are errors."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def with_files(work: Callable[[Any, int], None], paths: list[Path], chosen: Iterable[int]) -> dict[int, str]:
    """Opens image files in threads and does a piece of work with each; returns why it failed, by index.

    Args:
        work: takes an open image of Pillow and its index; a `DataError` from it ends everything.
        paths: of the files.
        chosen: the indices of those to open.
    """
    from PIL import Image

    failed: dict[int, str] = {}

    def several(indices: list[int]) -> None:
        for i in indices:
            try:
                # Not by its path: Pillow 13 then maps an uncompressed TIFF by its turned size, which garbles it.
                with paths[i].open("rb") as file, Image.open(file) as image:
                    work(image, i)
            except DataError:
                raise
            except Exception as error:  # Pillow's decoders raise whatever they meet
                failed[i] = why_unreadable(error)

    chosen = list(chosen)
    parts = [chosen[start : start + _TOGETHER] for start in range(0, len(chosen), _TOGETHER)]
    with quiet_pillow(), ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        try:
            for _ in pool.map(several, parts):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    return failed
