"""Pictures of an evaluation: who is taken for whom, or what was predicted against what was true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backbeat.report.axes import new_figure, write_title
from backbeat.report.style import COLOURS, FAINT, INK, MUTED, PAPER, PICTURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

_MOST_NUMBERS, _MOST_NAMES = 30, 60  # classes whose counts, and whose names, are still legible
_MOST_PANELS = 4


def confusion_figure(matrix: np.ndarray, names: Sequence[str], title: str, context: str) -> Figure:
    """Returns the picture of a confusion matrix: a row for each true class, darker the more of it go to a column.

    Args:
        matrix: `[true, predicted]` counts.
        names: of the classes.
        title: what it says, in a sentence.
        context: of what data and model.

    Example:
        >>> figure = confusion_figure(np.array([[8, 2], [1, 9]]), ["cat", "dog"], "17 of 20 are right", "mlp on pets")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['8', '2', '1', '9']
    """
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    n = len(names)
    side = float(np.clip(2.2 + 0.34 * n, 4.6, 12.0))
    with matplotlib.rc_context(PICTURE):
        figure = new_figure(side + 1.6, side + 1.4)
        top = write_title(figure, 0.05, title, context) - 0.02
        axes = figure.add_axes((0.05, 0.06, 0.9, top - 0.06))
        totals = matrix.sum(axis=1, keepdims=True)
        share = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
        shades = LinearSegmentedColormap.from_list("backbeat", [PAPER, COLOURS[5], COLOURS[7]])
        axes.imshow(share, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        if n <= _MOST_NUMBERS:
            _write_numbers(axes, matrix, share)
        every = max(1, -(-n // _MOST_NAMES))
        shown = range(0, n, every)
        labels = [_shortened(names[i]) for i in shown]
        upright = max(map(len, labels)) > 3
        axes.set_xticks(list(shown), labels, rotation=90 if upright else 0, parse_math=False)
        axes.set_yticks(list(shown), labels, parse_math=False)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.spines[:].set(visible=True, color=FAINT)
        axes.tick_params(length=0)
        _fit(figure, axes, top)
        return figure


def predicted_figure(
    label: np.ndarray, prediction: np.ndarray, names: Sequence[str], title: str, context: str
) -> Figure:
    """Returns the picture of predicted against true values, one panel for each of the first four outputs.

    Args:
        label: `[n, outputs]` true values.
        prediction: `[n, outputs]`.
        names: of the outputs.
        title: what it says, in a sentence.
        context: of what data and model.

    Example:
        >>> figure = predicted_figure(np.eye(3), np.eye(3), ["a", "b", "c"], "all are right", "linear on eyes")
        >>> len(figure.axes)
        3
    """
    import matplotlib

    n = min(label.shape[1], _MOST_PANELS)
    with matplotlib.rc_context(PICTURE):
        figure = new_figure(2.2 + 3.9 * n, 5.6)
        top = write_title(figure, 0.05, title, context) - 0.075
        grid = figure.add_gridspec(1, n, left=0.12 if n == 1 else 0.07, right=0.965, top=top, bottom=0.11, wspace=0.3)
        for i in range(n):
            axes = figure.add_subplot(grid[0, i])
            both = np.concatenate([label[:, i], prediction[:, i]])
            ends = [float(both.min()), float(both.max())]
            axes.plot(ends, ends, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=1)
            dense = len(label) > 2000
            axes.plot(
                label[:, i], prediction[:, i], "o", ms=2.5 if dense else 4.5, mew=0, color=COLOURS[5],
                alpha=0.25 if dense else 0.55, rasterized=dense,
            )  # fmt: skip
            axes.set(xlabel="true value", ylabel="predicted value" if i == 0 else "")
            axes.set_title(_shortened(names[i]) if label.shape[1] > 1 else "", parse_math=False)
        return figure


def _write_numbers(axes: Any, matrix: np.ndarray, share: np.ndarray) -> None:
    size = float(np.clip(150 / len(matrix), 5.5, 11))
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column]:
            axes.text(
                column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=size,
                color=PAPER if share[row, column] > 0.4 else INK,
            )  # fmt: skip


def _fit(figure: Figure, axes: Any, top: float) -> None:
    """Moves the panel so that the names of the classes are inside the sheet, below the title."""
    box = axes.get_tightbbox(figure.canvas.get_renderer()).transformed(figure.transFigure.inverted())  # type: ignore[attr-defined]
    inside = axes.get_position()
    left, bottom = inside.x0 - box.x0 + 0.04, inside.y0 - box.y0 + 0.03
    axes.set_position((left, bottom, 0.97 - left, top - bottom))


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
