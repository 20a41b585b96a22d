"""What the page asks of a run that goes on: checked, and put into the run's folder, where the run looks for it."""

from __future__ import annotations

import json
from typing import Any

from ..changes import RATE
from ..errors import SettingsError
from ..wishes import Wish, ask
from .live import Followed


def wished(run: Followed, body: bytes) -> tuple[dict[str, Any], int]:
    """Returns (what to answer, status) for a request that asks something of a run; of one that is over, nothing.

    Args:
        run: which, as it is known now.
        body: of the request: JSON, see `Wish`.

    Example:
        >>> from pathlib import Path
        >>> wished(Followed(Path("runs/one")), b'{"what": "pause"}')[1]
        409
    """
    try:
        wish = Wish.of(json.loads(body))
    except SettingsError as error:
        return {"error": str(error)}, 400
    except (ValueError, RecursionError):  # UnicodeDecodeError too
        return {"error": "The request is no JSON."}, 400
    if run.kind != "run" or not run.running:
        why = "is over" if run.kind == "run" else f"is no run ({run.kind})"
        return {"error": f"{run.folder.name} {why}; only a run that goes on can be changed."}, 409
    fixed = run.about.get("rate_fixed")
    if wish.what == RATE and fixed:
        return {"error": str(fixed)}, 409
    try:
        ask(run.folder, wish)
    except SettingsError as error:
        return {"error": str(error)}, 409
    return {"asked": wish.what}, 202
