"""One self-contained HTML document for a record: the style, the scripts and the record itself are inside the file.

The front end lies in `web/static`, as plain files that the live page serves as they are. Here they are put into one
document, which opens from a disk or an e-mail, and which may load and send nothing: its Content-Security-Policy names
the hashes of its own scripts and styles, and forbids all else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from backbeat.errors import DataError
from backbeat.folder import plain, write_whole

Record = dict[str, Any]
STYLES = ("vendor/uplot/uPlot.min.css", "backbeat.css")
SCRIPTS = (
    "vendor/uplot/uPlot.iife.min.js",
    "words.js",
    "charts.js",
    "measured.js",
    "curves.js",
    "comparison.js",
    "advice_charts.js",
    "advice.js",
    "noise.js",
    "along.js",
    "mistakes.js",
    "run.js",
    "backbeat.js",
)
KINDS = ("comparison", "advice", "run")
MOST_ROWS = 4000  # of a run's history; more could not be told apart on a screen and would make a file of megabytes


def page(record: Mapping[str, Any]) -> str:
    """Returns one self-contained HTML document that shows `record`, of a comparison, of advice or of a run.

    A history of more than 4,000 rows is thinned; the page says so.

    Args:
        record: what `compare`, `advise` or a run wrote down. Numbers that are not finite become null.

    Raises:
        DataError: `record["kind"]` is not "comparison", "advice" or "run".

    Example:
        >>> document = page({"kind": "run", "data": {"name": "digits"}, "model": "mlp:32", "history": {}})
        >>> document.startswith("<!doctype html>"), "</html>" in document
        (True, True)
    """
    kind = record.get("kind")
    if kind not in KINDS:
        raise DataError(f"A page is made of a record of kind {', '.join(KINDS[:-1])} or {KINDS[-1]}, not of {kind!r}.")
    shown = plain(thinned(record))
    styles = [_static(name) for name in STYLES]
    scripts = [_static(name) for name in SCRIPTS]
    parts = {
        "title": html.escape(_title(shown)),
        "policy": _policy(styles, scripts),
        "styles": "\n".join(f"<style>{text}</style>" for text in styles),
        "scripts": "\n".join(f"<script>{text}</script>" for text in scripts),
        "plain": "".join(f"<p>{html.escape(str(sentence))}</p>" for sentence in _sentences(shown)),
        "record": _embedded(shown),
    }
    return _filled(_static("report.html"), parts)


def write_page(record: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes `page(record)` to `path`; the file appears whole or not at all.

    Returns:
        The path that was written.

    Raises:
        DataError: the record is of another kind.
        SettingsError: the path cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_page({"kind": "run", "history": {}}, Path(folder) / "report.html")
        ...     path.name
        'report.html'
    """
    document, path = page(record).encode(), Path(path)
    write_whole(path, lambda file: file.write(document), mode="wb")
    return path


def _static(name: str) -> str:
    return resources.files("backbeat").joinpath("web", "static", *name.split("/")).read_text(encoding="utf-8")


def _filled(skeleton: str, parts: Mapping[str, str]) -> str:
    """The skeleton with each `{{name}}` replaced once, so that a value may itself hold braces."""
    pieces = skeleton.split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        out += [parts[name], rest]
    return "".join(out)


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    def hashes(texts: Sequence[str]) -> str:
        digests = (hashlib.sha256(text.encode()).digest() for text in texts)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes(styles)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _embedded(record: Record) -> str:
    """JSON that can stand inside a script element: no character of it can end the element or open a comment."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _title(record: Record) -> str:
    data = (record.get("data") or {}).get("name") or "data"
    kind = record["kind"]
    heading = {"comparison": "Cadences compared", "advice": "How often to update"}
    what = heading.get(kind) or f"Every {record.get('every', '?')}"
    return f"{what}: {record.get('model', 'model')} on {data} · backbeat"


def _sentences(record: Record) -> list[str]:
    """What a reader without scripts is told."""
    if record["kind"] == "comparison":
        return list(record.get("answer") or [])
    if record["kind"] == "advice":
        following = record.get("next")
        return [*(record.get("answer") or []), *([following] if following else [])]
    reason = (record.get("finished") or {}).get("reason")
    return [f"The training {reason}."] if reason else []


def thinned(record: Mapping[str, Any], most: int = MOST_ROWS) -> Record:
    """Returns the record with at most about `most` history rows, and `thinned` saying how many there were.

    Example:
        >>> columns = thinned({"history": {"updates": list(range(1000)), "loss_mean": [1.0] * 1000}}, 100)["history"]
        >>> len(columns["updates"]) <= 100
        True

    Kept are the first and the last row, of each stretch the rows with the lowest and the highest batch loss, and rows
    that carry an evaluation or another batch size than the one before.
    """
    history = record.get("history") or {}
    updates = history.get("updates")
    n_rows = 0 if updates is None else len(updates)
    if n_rows <= most:
        return dict(record)
    chosen = rows_kept(history, most)
    columns = {name: [values[i] for i in chosen] for name, values in history.items()}
    return {**record, "history": columns, "thinned": {"rows": n_rows, "shown": len(chosen)}}


def rows_kept(history: Mapping[str, Any], most: int) -> list[int]:
    """Returns which rows of a history are kept where at most about `most` of more are, see `thinned`.

    Example:
        >>> rows_kept({"updates": list(range(9)), "loss_mean": [3, 2, 4, 1, 1, 1, 1, 1, 1]}, 4)
        [0, 2, 3, 8]
    """
    n_rows = len(history["updates"])
    losses = plain(history.get("loss_mean")) or [None] * n_rows
    evaluations = [plain(values) for name, values in history.items() if name.startswith(("train_", "held_out_"))]
    evaluated = [i for i in range(n_rows) if any(values[i] is not None for values in evaluations)]
    keep = {0, n_rows - 1, *evaluated[:: -(-len(evaluated) // (most // 4)) or 1]}
    sizes = [(i, size) for i, size in enumerate(plain(history.get("batch_size")) or []) if size is not None]
    keep.update(i for (i, size), (_, after) in pairwise(sizes) if size != after)
    keep.update(i for (_, before), (i, size) in pairwise(sizes) if size != before)
    width = n_rows / (most // 4)
    for stretch in range(most // 4):
        rows = range(int(stretch * width), int((stretch + 1) * width))
        known = [(losses[i], i) for i in rows if losses[i] is not None]
        keep.update((min(known)[1], max(known)[1]) if known else (rows[0],))
    return sorted(keep)
