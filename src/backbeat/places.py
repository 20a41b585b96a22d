"""Where things of the user's are kept that are no runs: what can be deleted at any time, and is made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Returns where packed data is kept: $BACKBEAT_CACHE, or a folder of the user's cache."""
    if given := os.environ.get("BACKBEAT_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "backbeat"
