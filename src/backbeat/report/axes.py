"""Parts of every picture: the sheet and its title, logarithmic axes that people can read, names at line ends."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backbeat.report.style import MUTED, PAPER, PICTURE, cadence_name, count, duration, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

_DPI = 100  # in a notebook
LEAST_APART = 0.2  # of the decimal logarithm, between two batch sizes that are both written under the axis


class Label(NamedTuple):
    """A word beside the end of a line."""

    x: float
    y: float
    text: str
    colour: str


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty sheet of so many inches, which knows how to draw itself without a screen, and in a notebook."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Sheet(Figure):
        def _repr_png_(self) -> bytes:  # a notebook shows figures by itself only where pyplot is used
            return png(self)

    figure = Sheet(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Returns a figure as PNG, as a notebook shows it."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context(PICTURE):
        figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def write_title(figure: Figure, left: float, title: str, context: str) -> float:
    """Writes the title in at most three lines and its context beneath; returns how high the rest may reach."""
    height = figure.get_figheight()
    lines = textwrap.wrap(title, width=int(figure.get_figwidth() * 8.2), max_lines=3, placeholder=" …")
    figure.text(
        left,
        1 - 0.22 / height,
        "\n".join(lines),
        fontsize=14,
        weight="bold",
        va="top",
        linespacing=1.3,
        parse_math=False,
    )
    beneath = 1 - (0.33 + 0.27 * max(len(lines), 1)) / height
    figure.text(left, beneath, context, fontsize=9.5, color=MUTED, va="top", parse_math=False)
    return beneath - 0.3 / height


def tidy_log_axis(axes: Axes, which: str, *, seconds: bool = False, count_like: bool = True) -> None:
    """Few ticks, written as people write numbers; 2 and 5 are written too where the axis spans few decades."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    if not (0 < low < high):
        return
    decades = np.log10(high / low)
    leading = (
        (1, 1.5, 2, 3, 4, 6, 8)
        if decades < 0.8
        else (1, 2, 5)
        if decades < 2
        else (1, 3)
        if decades < 3 and not count_like
        else (1,)
    )
    every = 1 if decades < 5.2 else 2
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [lead * 10.0**power for power in powers if power % every == 0 for lead in leading]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    write = duration if seconds else short if count_like else lambda value: f"{value:g}"
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(float(f"{value:.6g}"))))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def write_sizes(axes: Axes, cadences: list[dict[str, Any]]) -> None:
    """The batch sizes that were compared are the ticks; one that would touch its neighbour is left out."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    written: list[tuple[float, str]] = []
    for cadence in sorted(cadences, key=lambda cadence: (cadence["every"] != "dataset", cadence["batch_size"])):
        size = cadence["batch_size"]  # the whole data set first: it is always written
        if all(abs(np.log10(size / other)) > LEAST_APART for other, _ in written):
            written.append((size, cadence_name(cadence["every"])))
    sizes = [cadence["batch_size"] for cadence in cadences]
    if not written:
        return
    axes.xaxis.set_major_locator(FixedLocator([size for size, _ in written]))
    axes.xaxis.set_major_formatter(FixedFormatter([name for _, name in written]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)


def make_room(axes: Axes, n_names: int) -> None:
    """Widens logarithmic axes at the right and below, for the names at the ends of the lines."""
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.06)
    if not n_names:
        return
    floor, ceiling = axes.get_ylim()
    axes.set_ylim(floor / (ceiling / floor) ** (0.06 + 0.012 * n_names))


def write_ends(axes: Axes, ends: list[Label]) -> None:
    """Writes each name by the end of its line, where it covers neither another name nor, if possible, a line.

    A name that had to move away is joined to its line by a thin stroke.
    """
    from matplotlib.patheffects import withStroke

    if not ends:
        return
    lines = np.concatenate([_points_on(axes, *line.get_data()) for line in axes.lines])
    names: list[np.ndarray] = []
    stroke: dict[str, Any] = {"arrowstyle": "-", "lw": 0.7, "shrinkA": 6, "shrinkB": 1}
    for end in sorted(ends, key=lambda end: end.x):
        at = _points_on(axes, [end.x], [end.y])[0]
        half = np.array([3.2 * len(end.text) + 1, 5.5])
        shift = _nearest_free(axes, at, half, lines, names)
        names.append(np.concatenate([at + shift, half]))
        moved = float(np.hypot(*shift)) > half[0] + 12
        axes.annotate(
            end.text, (end.x, end.y), shift, textcoords="offset points", fontsize=9, weight="bold", color=end.colour,
            ha="center", va="center", path_effects=[withStroke(linewidth=2.5, foreground=PAPER)], zorder=6,
            arrowprops=stroke | {"color": end.colour} if moved else None,
        )  # fmt: skip


def _points_on(axes: Axes, x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Where a line runs on the sheet, as points of 1/72 inch no farther apart than about 3 of them."""
    corners = axes.transData.transform(np.column_stack([x, y]).astype(float)) * 72 / axes.figure.dpi
    lengths = np.hypot(*np.diff(corners, axis=0).T) if len(corners) > 1 else np.zeros(0)
    travelled = np.concatenate([[0.0], np.cumsum(lengths)])
    stops = np.linspace(0, travelled[-1], int(travelled[-1] / 3) + 1)
    return np.column_stack([np.interp(stops, travelled, corners[:, i]) for i in (0, 1)])


def _nearest_free(
    axes: Axes, at: np.ndarray, half: np.ndarray, lines: np.ndarray, names: list[np.ndarray]
) -> tuple[float, float]:
    """How far to move a name of size 2 × `half` from `at`: little, and to where it covers little."""
    edge = axes.transAxes.transform([(0, 0), (1, 1)]) * 72 / axes.figure.dpi
    beside = half[0] + 5.0
    best, least = (beside, 0.0), np.inf
    for dx in (beside, *np.arange(-36.0, 43.0, 6.0)):
        for dy in np.arange(-60.0, 40.0, 4.0):
            centre = at + np.array([dx, dy])
            if (centre < edge[0] + half).any() or (centre > edge[1] + np.array([14.0, 0.0]) - half).any():
                continue
            if any((abs(centre - name[:2]) < half + name[2:] + 0.5).all() for name in names):
                continue
            covered = int((abs(lines - centre) < half + 1.5).all(axis=1).sum())
            away = min(float(np.hypot(dx - beside, dy)), float(np.hypot(dx, dy + 11)) + 1)  # beside, or else beneath
            if away + 12 * covered < least:
                best, least = (float(dx), float(dy)), away + 12 * covered
    return best


def write_counts(axes: Axes) -> None:
    """Writes the counts under a linear axis with their thousands apart."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
