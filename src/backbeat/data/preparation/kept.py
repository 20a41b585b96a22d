"""Fitted transformers as bytes and back, without pickle: skops for scikit-learn's objects, JSON for the rest.

What is read is data: a type that is neither scikit-learn's nor a NumPy function of numbers is refused, not run.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np

from ...errors import DataError
from ..readers.columns import listed

_ABOUT, _TRANSFORMERS, _NAMES = "preparation.json", "transformers.skops", "transformers"


def as_bytes(about: dict[str, Any], transformers: dict[str, Any]) -> bytes:
    """Returns what `of_bytes` takes apart again.

    Args:
        about: what JSON can hold.
        transformers: scikit-learn's objects by name; left out where one of them cannot be kept.
    """
    data = io.BytesIO()
    kept = stored(transformers) if transformers else None
    about = {**about, _NAMES: [type(each).__name__ for each in transformers.values()]}
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(_ABOUT), json.dumps(about, ensure_ascii=False))
        if kept is not None:
            archive.writestr(zipfile.ZipInfo(_TRANSFORMERS), kept)
    return data.getvalue()


def of_bytes(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what `as_bytes` was given.

    Raises:
        DataError: damaged bytes, a transformer that was left out, or one of a type that is not trusted.

    Example:
        >>> of_bytes(as_bytes({"mode": "auto"}, {}))
        ({'mode': 'auto'}, {})
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            about = json.loads(archive.read(_ABOUT))
            kept = archive.read(_TRANSFORMERS) if _TRANSFORMERS in archive.namelist() else None
        names = about.pop(_NAMES)
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, AttributeError, EOFError) as error:
        raise damaged(error) from None
    if names and kept is None:
        raise DataError(
            f"the run's preparation by {listed(names)} could not be kept without pickle, so that new data cannot be "
            "prepared; prepare it yourself, and train on the result."
        )
    return about, {} if kept is None else _restored(kept)


def damaged(error: Exception) -> DataError:
    """Returns what is said of bytes that cannot be taken apart."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"the preparation is damaged ({said}); train the run anew.")


def stored(transformers: dict[str, Any]) -> bytes | None:
    """Returns transformers as skops writes them; None where it cannot, or where it would not trust them again."""
    import skops.io

    try:
        data = skops.io.dumps(transformers)
        return data if not _distrusted(data) else None
    except Exception:  # whatever a user's own object raises when it is looked into
        return None


def _distrusted(data: bytes) -> list[str]:
    """Returns the types that are neither scikit-learn's, nor NumPy's functions of numbers."""
    import skops.io

    def trusted(name: str) -> bool:
        return name == "numpy.dtype" or isinstance(getattr(np, name.removeprefix("numpy."), None), np.ufunc)

    return [name for name in skops.io.get_untrusted_types(data=data) if not trusted(name)]


def _restored(data: bytes) -> dict[str, Any]:
    import skops.io

    try:
        if distrusted := _distrusted(data):
            raise DataError(f"the preparation holds {listed(distrusted)}, which is not trusted; train the run anew.")
        return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise damaged(error) from None
