"""A comparison or advice while it is measured: what is known of its record so far, made from the lines of its journal.

The page draws it as it draws the whole; what is not known yet is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..clock import parse_seconds
from ..errors import BackbeatError

Line = Mapping[str, Any]


def record_so_far(kind: str, about: Mapping[str, Any], lines: Iterable[Line]) -> dict[str, Any]:
    """Returns the record of a comparison or of advice as far as it is known.

    Args:
        kind: "comparison" or "advice".
        about: the line that it starts with.
        lines: the lines since then; those of an event that is not known here count for nothing.

    Example:
        >>> lines = [{"event": "timed", "every": "8", "seconds_per_update": {"median": 1e-5}},
        ...          {"event": "tuned", "every": "8", "learning_rate": 0.5}]
        >>> record_so_far("comparison", {}, lines)["cadences"]
        [{'every': '8', 'seconds_per_update': {'median': 1e-05}, 'learning_rate': 0.5}]
    """
    record: dict[str, Any] = {name: value for name, value in about.items() if name not in ("event", "kind", "time")}
    target = (about.get("settings") or {}).get("target")
    record["target"] = None if target in ("auto", "none") else target
    found = [(line["event"], {n: v for n, v in line.items() if n not in ("event", "wall_seconds")}) for line in lines]
    record |= next((of for event, of in reversed(found) if event == "target"), {})
    return record | (_comparison(found) if kind == "comparison" else _advice(found))


def _comparison(found: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    cadences: dict[str, dict[str, Any]] = {}
    for event, of in found:
        if event in ("timed", "tuned", "measured"):
            cadences.setdefault(of["every"], {}).update(of)
    return {"cadences": list(cadences.values())}


def _advice(found: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    newest = {"timed": "hardware", "noise": "noise_scale"}
    record: dict[str, Any] = {newest[event]: of for event, of in found if event in newest}
    sizes = {of["batch_size"]: of for event, of in found if event in ("tuned", "not_measured")}
    confirmed = {of["batch_size"]: of for event, of in found if event == "confirmed"}
    return record | {"sizes": [sizes[m] for m in sorted(sizes)], "confirmed": list(confirmed.values())}


def time_given(about: Mapping[str, Any]) -> float | None:
    """Returns the seconds that a comparison or advice was given; None where its start does not say.

    Example:
        >>> time_given({"settings": {"budget": "60 s"}}), time_given({})
        (60.0, None)
    """
    settings = about.get("settings") or {}
    try:
        return parse_seconds(str(settings.get("budget") or settings.get("within")), "budget")
    except BackbeatError:
        return None
