"""What a notebook shows of a run, a comparison, advice or a verification: sentences, a table, a picture; no script.

All text is escaped. The picture is part of the text, so that a notebook that is sent on has it.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backbeat.report.axes import png
from backbeat.report.style import count, duration, every_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]


def run_fragment(record: Record, figure: Figure | None = None, notes: Sequence[str] = ()) -> str:
    """Returns what a notebook shows of a run.

    Args:
        record: of it.
        figure: its picture; None for none.
        notes: what has to be said beside it, in sentences.

    Example:
        >>> done = {"reason": "trained for 2 epochs", "updates": 90, "examples": 2874, "seconds": 0.01}
        >>> text = run_fragment({"model": "mlp:8", "every": "32", "data": {"name": "<digits>"}, "finished": done})
        >>> "Trained for 2 epochs" in text, "&lt;digits&gt;" in text
        (True, True)
    """
    done = record.get("finished") or {}
    reason = str(done.get("reason") or "")
    data, rate = (record.get("data") or {}).get("name", "data"), record.get("learning_rate")
    facts = [
        f"{record.get('model')} on {data}", f"updated: {_often(record)}",
        None if rate is None else f"learning rate {rate:g}", record.get("optimizer"),
        f"{count(done.get('updates'))} updates", f"{count(done.get('examples'))} examples",
        f"{duration(done.get('seconds'))}, after {duration(record.get('compile_seconds'))} of compilation",
    ]  # fmt: skip
    rows = _scores(record.get("history") or {})
    table = _table(["", *dict.fromkeys(name for row in rows.values() for name in row)], _score_rows(rows))
    return _shown(f"{reason[:1].upper()}{reason[1:]}.", [" · ".join(filter(None, facts))], table, figure, notes)


def _often(record: Record) -> str:
    name = every_name(str(record.get("every")))
    return f"{name} examples" if name.removeprefix("every ").isdigit() else name


def _scores(history: Record) -> dict[str, dict[str, float]]:
    """Returns the newest scores, by part and name."""
    rows: dict[str, dict[str, float]] = {}
    for column, values in history.items():
        for part, words in (("train", "training part"), ("held_out", "held-out part")):
            known = [value for value in values if value is not None and value == value]
            if column.startswith(f"{part}_") and known:
                rows.setdefault(words, {})[column.removeprefix(f"{part}_").replace("_mean", "")] = known[-1]
    return rows


def _score_rows(rows: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    return [[part, *(f"{row[name]:.4g}" if name in row else "–" for name in names)] for part, row in rows.items()]


def comparison_fragment(record: Record, figure: Figure | None = None) -> str:
    """Returns what a notebook shows of a comparison.

    Args:
        record: of it.
        figure: its picture; None for none.

    Example:
        >>> "<p><strong>No clear winner.</strong></p>" in comparison_fragment({"answer": ["No clear winner."]})
        True
    """
    first, *others = record.get("answer") or [""]
    score = record.get("score")
    heads = ["update after", "learning rate", "an update", "updates", "examples", "seconds", f"final {score}"]
    rows = []
    for cadence in record.get("cadences") or []:
        to = cadence.get("to_target") or {}
        rows.append([
            every_name(cadence["every"]), f"{cadence['learning_rate']:.3g}",
            duration(cadence["seconds_per_update"]["median"]), _median(to.get("updates"), count),
            _median(to.get("examples"), count), _median(to.get("seconds"), duration),
            _median(cadence.get("final_score"), "{:.3f}".format),
        ])  # fmt: skip
    target = record.get("target")
    caption = f"To {target}: median (range over the seeds)" if target else "Median (range over the seeds)"
    return _shown(first, others, _table(heads, rows, caption), figure, record.get("notes") or [])


def _median(spread: Any, form: Any) -> str:
    if not spread:
        return "–"
    median, low, high = (form(spread[name]) for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def advice_fragment(record: Record, figure: Figure | None = None) -> str:
    """Returns what a notebook shows of advice.

    Args:
        record: of it.
        figure: its picture; None for none.

    Example:
        >>> "measure longer" in advice_fragment({"answer": ["Not known."], "next": "measure longer"})
        True
    """
    first, *others = record.get("answer") or [""]
    if record.get("next"):
        others.append(record["next"])
    rows = []
    for name, words in (
        ("finish_first", "finish first"),
        ("fewest_examples", "fewest examples"),
        ("fewest_updates", "fewest updates"),
    ):
        if record.get(name):
            wish = record[name]
            every = wish["every"] if wish["every"] != "dataset" else f"dataset ({count(wish['batch_size'])})"
            spans = [_interval(wish["updates"], count), _interval(wish["seconds"], duration)]
            rows.append([words, every, f"{wish['learning_rate']:.3g}", *spans])
    caption = f"To {record.get('target')}: expected (95 % of runs)"
    table = _table(["wish", "update after", "learning rate", "updates", "seconds"], rows, caption)
    return _shown(first, others, table, figure, record.get("notes") or [])


def _interval(value: Record, form: Any) -> str:
    whole = form if form is not count else lambda number: count(round(number))
    return f"{whole(value['value'])} ({whole(value['low'])} to {whole(value['high'])})"


def verification_fragment(record: Record) -> str:
    """Returns what a notebook shows of a verification.

    Args:
        record: of it, see `backbeat.verify.result.Verification.record`.

    Example:
        >>> text = verification_fragment({"answer": "All is well.", "checks": [
        ...     {"name": "repeatable", "passed": True, "seen": "twice the same"}]})
        >>> "holds" in text
        True
    """
    words = {True: "holds", False: "does not hold", None: "not measured"}
    rows = [[c["name"], words[c["passed"]], c["seen"]] for c in record.get("checks") or []]
    rows += [[c["split"], words[c["passed"]], _worst(c)] for c in record.get("comparisons") or []]
    found = [
        f"{f['cause']}{' at ' + f['layer'] if f['layer'] else ''}: {f['sentence']}"
        for f in record.get("findings") or []
    ]
    also = record.get("also")
    table = _table(["looked at", "", "seen"], rows)
    return _shown(record["answer"], found, table, None, record.get("notes") or []) + (
        verification_fragment(also) if also else ""
    )


def _worst(comparison: Record) -> str:
    shares = [layer["error"] / layer["explained"] for layer in comparison["layers"] if layer["explained"]]
    return comparison["note"] or (f"at most {max(shares):.0%} of what rounding explains" if shares else "")


def _shown(lead: str, more: Sequence[str], table: str, figure: Figure | None, notes: Sequence[str]) -> str:
    parts = [f"<p><strong>{html.escape(lead)}</strong></p>"]
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in more]
    parts += [table]
    parts += [f'<p style="opacity: 0.75">{html.escape(note)}</p>' for note in notes]
    if figure is not None:
        text = base64.b64encode(png(figure)).decode()
        parts.append(f'<img style="max-width: 100%" alt="{html.escape(lead)}" src="data:image/png;base64,{text}">')
    return f'<div class="backbeat">{"".join(parts)}</div>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "".join(
        "<tr>"
        + f'<th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in rows
    )
    said = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
