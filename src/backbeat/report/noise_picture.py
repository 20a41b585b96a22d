"""How noisy a run's gradients were along the way, and M where the batch followed the noise: both in examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backbeat.report.axes import tidy_log_axis, write_counts
from backbeat.report.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ABOVE, _BELOW = 4.0, 1 / 30  # how far intervals are drawn beyond the greatest and the least scale


def draw_noise(axes: Axes, record: dict[str, Any]) -> None:
    """Draws the noise scale of each stretch with its 95 % interval against the updates, and M as steps.

    An interval without an upper end goes on to the upper edge.
    """
    history = record["history"]
    nothing = [None] * len(history["updates"])
    names = ("updates", "noise_scale", "noise_scale_low", "noise_scale_high", "batch_size")
    # None becomes NaN
    updates, scale, low, high, size = (np.array(history.get(name) or nothing, float) for name in names)
    axes.set(xlabel="updates", ylabel="noise scale, examples", title=_title(record["noise"]))
    scale[~(scale > 0)] = np.nan
    middle = np.where(np.isfinite(scale), scale, np.where(low > 0, low, np.nan))
    seen = np.isfinite(middle)
    if seen.any():
        top, floor = np.nanmax(middle) * _ABOVE, np.nanmin(middle) * _BELOW
        low, high = np.fmax(low, floor), np.where(np.isfinite(high), np.fmin(high, top), top)
        axes.vlines(updates[seen], low[seen], high[seen], color=COLOURS[2], lw=3, alpha=0.3, label="95 % interval")
        axes.plot(updates, scale, color=COLOURS[2], marker="o", ms=3.5, lw=0, label="noise scale")
        axes.set_ylim(np.nanmin(low[seen]) / 1.4, top)
    made = np.flatnonzero(np.isfinite(size))
    if len(made):
        starts = np.where(made > 0, updates[made - 1], 0)
        axes.plot(
            np.column_stack([starts, updates[made]]).ravel(), np.repeat(size[made], 2), color=COLOURS[5], lw=2.0,
            label="examples in a batch, M",
        )  # fmt: skip
        axes.set_ylabel("examples")
    if axes.lines:
        axes.set_yscale("log")
        tidy_log_axis(axes, "y")
        axes.legend(framealpha=0.85, edgecolor="none", fontsize=9)
    write_counts(axes)


def _title(noise: dict[str, Any]) -> str:
    """The noise scale of the whole run in few words."""
    if noise["known"]:
        return f"Noise scale: {noise['scale']:.3g} ({noise['low']:.3g} to {noise['high']:.3g}) examples"
    least = noise["low"]
    return f"Noise scale: at least {least:.3g} examples" if noise["n_updates"] and least else "Noise scale: not known"
