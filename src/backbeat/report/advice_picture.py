"""The picture of advice: what an update costs, how many are needed, the time that makes, and the gradient's noise.

Upper left the hardware curve t(M) = α + β M; upper right the updates to the target with the fit S_min (1 + B_crit / M)
and its three regimes; lower left their product, as predicted and as seen in real runs, with the recommended batch size
marked; lower right the noise scale along a run of that setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backbeat.report.axes import new_figure, tidy_log_axis, write_title
from backbeat.report.style import COLOURS, INK, MUTED, PAPER, PICTURE, count, duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]
_LEFT = 0.075
_SEEN, _FITTED, _REAL = COLOURS[5], INK, COLOURS[0]
_FAINT: dict[str, Any] = {"color": MUTED, "lw": 0.9, "ls": (0, (4, 3)), "zorder": 1}


def advice_figure(record: Record) -> Figure:
    """Returns the picture of advice, four panels over the batch size or the run.

    Example:
        >>> figure = advice_figure({"kind": "advice", "sizes": [], "confirmed": []})
        >>> len(figure.axes)
        4
    """
    import matplotlib

    with matplotlib.rc_context(PICTURE):
        figure = new_figure(11.4, 8.6)
        top = write_title(figure, _LEFT, _title(record), _facts(record)) - 0.05
        grid = figure.add_gridspec(2, 2, left=_LEFT, right=0.97, top=top, bottom=0.065, wspace=0.22, hspace=0.34)
        panels = [figure.add_subplot(grid[k // 2, k % 2]) for k in range(4)]
        for axes, draw in zip(panels, (_hardware, _updates, _time, _noise), strict=True):
            draw(axes, record)
        return figure


def _title(record: Record) -> str:
    best = record.get("finish_first")
    if not best:
        return "No batch size met the target in the time given"
    m, data = best["batch_size"], record.get("data") or {}
    batch = "each example" if m == 1 else f"{count(m)} examples"
    when = "the whole data set" if best["every"] == "dataset" else batch
    return (
        f"{record.get('model', 'A model')} on {data.get('name', 'data')}: update after {when}, learning rate "
        f"{best['learning_rate']:.3g}"
    )


def _facts(record: Record) -> str:
    facts = [f"target: {record['target']}"] if record.get("target") else []
    facts += [str(record["optimizer"])] if record.get("optimizer") else []
    facts += [f"{count(record['n_parameters'])} parameters"] if record.get("n_parameters") else []
    facts += [f"{record['seeds']} seeds a size"] if record.get("seeds") else []
    facts += [f"measured in {duration(record['took_seconds'])}"] if record.get("took_seconds") else []
    return " · ".join(facts)


def _best(record: Record) -> int | None:
    return (record.get("finish_first") or {}).get("batch_size")


def _over_sizes(axes: Axes, record: Record, *, label: str, title: str, seconds: bool) -> None:
    """Names and scales axes over the batch size; marks the recommended one."""
    axes.set(xscale="log", yscale="log", xlabel="examples in a batch, M", ylabel=label)
    axes.set_title(title)
    if not axes.lines and not axes.collections:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)
        axes.set(xscale="linear", yscale="linear", xticks=[], yticks=[])
        return
    if (best := _best(record)) is not None:
        axes.axvline(best, color=_REAL, lw=1.0, alpha=0.55, zorder=0)
    tidy_log_axis(axes, "x")
    tidy_log_axis(axes, "y", seconds=seconds)


def _hardware(axes: Axes, record: Record) -> None:
    """Seconds per update as measured, with the range of the rounds, and the line that fits them."""
    hardware = record.get("hardware") or {}
    points = hardware.get("points") or []
    title = "What an update costs"
    if points:
        sizes = np.array([p["batch_size"] for p in points], float)
        axes.vlines(sizes, [p["low"] for p in points], [p["high"] for p in points], color=_SEEN, lw=3.5, alpha=0.35)
        axes.plot(sizes, [p["median"] for p in points], "o", ms=5, color=_SEEN, mec=PAPER, label="measured")
        alpha, beta = hardware["alpha"]["value"], hardware["beta"]["value"]
        line = np.geomspace(sizes.min(), sizes.max(), 200)
        axes.plot(line, alpha + beta * line, color=_FITTED, lw=1.2, label="α + β M")
        title += f": {duration(alpha)} and {duration(beta)} an example"
        axes.legend(frameon=False, fontsize=9, loc="upper left")
    _over_sizes(axes, record, label="time of an update", title=title, seconds=True)


def _updates(axes: Axes, record: Record) -> None:
    """Updates to the target of every seed, and the fit with its two limits."""
    sizes = [size for size in record.get("sizes") or [] if size["reached"]]
    fit = record.get("critical_batch") or {}
    for size in sizes:
        seen = [u for u in size["updates"] if u is not None]
        axes.plot([size["batch_size"]] * len(seen), seen, "o", ms=3.5, color=_SEEN, alpha=0.5)
        axes.plot(size["batch_size"], size["updates_to_target"], "o", ms=7, mfc="none", mec=_SEEN, mew=1.4)
    title = "How many are needed"
    if fit.get("s_min") and sizes:
        ends = [size["batch_size"] for size in sizes]
        line = np.geomspace(min(ends), max(ends), 200)
        s_min, b_crit = fit["s_min"], fit["b_crit"]
        axes.plot(line, s_min * (1 + b_crit / line), color=_FITTED, lw=1.2)
        low, high = axes.get_ylim()
        axes.plot(line, s_min * b_crit / line, **_FAINT)
        axes.plot(line, np.full_like(line, s_min), **_FAINT)
        axes.set_ylim(max(low, min(s_min, low) / 1.3), high)
        if fit.get("known"):
            axes.axvspan(fit["low"], fit["high"], color=MUTED, alpha=0.12, lw=0, zorder=0)
            value, low, high = (count(round(fit[name])) for name in ("value", "low", "high"))
            title += f": $B_{{crit}}$ = {value} ({low} to {high})"
        else:
            title += ": $B_{crit}$ is not known"
    _over_sizes(axes, record, label="updates to the target", title=title, seconds=False)
    if fit.get("known") and sizes:
        _name_regimes(axes, fit)


def _name_regimes(axes: Axes, fit: Record) -> None:
    """Names what further examples in a batch buy: fewer updates in proportion, some, or none."""
    low, high = axes.get_xlim()
    bounds = [low, fit["b_crit"] / 4, fit["b_crit"] * 4, high]
    for name, start, end in zip(("slope −1", "bend", "flat"), bounds[:-1], bounds[1:], strict=True):
        start, end = np.clip([start, end], low, high)
        if end > 1.8 * start:
            axes.text(np.sqrt(start * end), 0.02, name, transform=axes.get_xaxis_transform(), ha="center",
                      va="bottom", fontsize=8.5, color=MUTED)  # fmt: skip


def _time(axes: Axes, record: Record) -> None:
    """Time to the target as it follows from both, and as real runs took it."""
    sizes = [size for size in record.get("sizes") or [] if size["reached"]]
    if sizes:
        sizes.sort(key=lambda size: size["batch_size"])
        x = [size["batch_size"] for size in sizes]
        axes.plot(x, [s["seconds_to_target"] for s in sizes], "-o", color=_SEEN, lw=1.4, ms=5, label="predicted")
    real = [(one["batch_size"], s) for one in record.get("confirmed") or [] for s in one["seen_seconds"] if s]
    if real:
        axes.plot(*zip(*real, strict=True), "D", ms=5, mfc="none", mec=_REAL, mew=1.4, label="seen in real runs")
    best = record.get("finish_first")
    title = "Time to the target" if not best else f"Time to the target: {duration(best['seconds']['value'])}"
    if sizes or real:
        axes.legend(frameon=False, fontsize=9)
    _over_sizes(axes, record, label="time to the target", title=title, seconds=True)


def _noise(axes: Axes, record: Record) -> None:
    """The noise scale at points along a run, with the interval of each."""
    noise = record.get("noise_scale") or {}
    columns = noise.get("points") or []
    known = [p for p in columns if p.get("scale") and p["scale"] > 0]
    axes.set_title("Noise scale along the run" if known else "Noise scale")
    if not known:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)
        axes.set(xticks=[], yticks=[])
        return
    x = np.array([p["updates"] + 1 for p in known], float)
    axes.plot(x, [p["scale"] for p in known], "-o", color=COLOURS[3], ms=4.5)
    low = [p["low"] if p.get("low") and p["low"] > 0 else p["scale"] for p in known]
    high = [p["high"] if p.get("high") else p["scale"] for p in known]
    axes.fill_between(x, low, high, color=COLOURS[3], alpha=0.16, lw=0)
    axes.set(xscale="log", yscale="log", xlabel="updates + 1", ylabel="noise scale, examples")
    tidy_log_axis(axes, "x")
    tidy_log_axis(axes, "y")
