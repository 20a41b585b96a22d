"""How pictures look: one colour for each cadence from the smallest batch to the largest, and numbers as people write.

The colours run from warm and light (small batches) to cold and dark (large ones), so that they keep their order in
grey and with any colour vision; the same eight stand in `web/static/backbeat.css`, and a test compares them.
"""

from __future__ import annotations

import re
from typing import Any

COLOURS = ("#d87400", "#dd5a3b", "#d84f98", "#a81f9c", "#574be6", "#3056c3", "#005672", "#0a2f3c")
INK, MUTED, FAINT, PAPER = "#1b1f24", "#5b6470", "#d9dde3", "#ffffff"

PICTURE: dict[Any, Any] = {  # matplotlib's settings while a picture is made
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.hashsalt": "backbeat",
}


def colours(n: int) -> list[str]:
    """Returns `n` colours in order, spread over the eight; more than eight begin again.

    Example:
        >>> colours(3)
        ['#d87400', '#574be6', '#0a2f3c']
    """
    most = len(COLOURS)
    if n > most:
        return [COLOURS[i % most] for i in range(n)]
    return [COLOURS[(i * (most - 1) * 2 + max(n - 1, 1)) // (2 * max(n - 1, 1))] for i in range(n)]


def count(value: float | int | None) -> str:
    """Returns a count with its thousands apart.

    Example:
        >>> count(12345), count(2.5e7), count(1.25), count(None)
        ('12,345', '25 million', '1.25', '–')
    """
    if value is None:
        return "–"
    if abs(value) >= 1e7:
        return f"{value / 1e6:,.3g} million" if abs(value) < 1e9 else f"{value / 1e9:,.4g} billion"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def short(value: float | int) -> str:
    """Returns a count for the narrow place under an axis.

    Example:
        >>> short(1000), short(100000), short(2e6)
        ('1,000', '100,000', '2 M')
    """
    return f"{value / 1e6:,.4g} M" if abs(value) >= 1e6 else count(value)


def duration(seconds: float | int | None) -> str:
    """Returns a time in the unit that suits it.

    Example:
        >>> duration(1.3e-6), duration(0.0042), duration(48.2), duration(200), duration(7500), duration(0)
        ('1.3 µs', '4.2 ms', '48.2 s', '3 min 20 s', '2 h 5 min', '0 s')
    """
    if seconds is None:
        return "–"
    for least, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (0.0, "ns")):
        if (abs(seconds) >= 0.9995 * least and seconds) or unit == "ns":
            break
    if abs(seconds) >= 119.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    if not seconds:
        return "0 s"
    return f"{seconds / (least or 1e-9):.3g} {unit}"


def every_name(every: str) -> str:
    """Returns a cadence in words.

    Example:
        >>> every_name("1"), every_name("32"), every_name("dataset"), every_name("10%")
        ('every example', 'every 32', 'whole data set', 'every 10%')
        >>> every_name("1 repeat until loss<0.1 at most 10")
        'every example, repeated until loss<0.1, at most 10 times'
        >>> every_name("32 then 128 after 10 epochs")
        'every 32, then 128 after 10 epochs'
        >>> every_name("noise 8 to 512")
        'as the noise asks, 8 to 512'
    """
    first, _, rest = every.partition(" ")
    name = {"1": "every example", "dataset": "whole data set", "noise": "as the noise asks"}.get(
        first, f"every {first}"
    )
    rest = re.sub(r" at most (\d+)", r", at most \1 times", rest.replace("repeat ", "repeated "))
    return f"{name}, {rest}" if rest else name


def cadence_name(every: str) -> str:
    """Returns what stands at the end of a line: the batch size, or "all" for the whole data set.

    Example:
        >>> cadence_name("dataset"), cadence_name("32"), cadence_name("1 repeat until correct at most 5")
        ('all', '32', '1 …')
    """
    first, _, rest = every.partition(" ")
    return ("all" if first == "dataset" else first) + (" …" if rest else "")
