"""The picture of advice: what an update costs, how many are needed, the time that makes, and the gradient's noise.

Upper left the hardware curve t(M) = α + β M; upper right the updates to the target with the fit S_min (1 + B_crit / M)
and its three regimes; lower left their product, as predicted and as seen in real runs, with the recommended batch size
marked; lower right the noise scale along a run of that setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backbeat.report.axes import new_figure, tidy_log_axis, write_counts, write_title
from backbeat.report.style import COLOURS, INK, MUTED, PAPER, PICTURE, count, duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]
_LEFT = 0.075
_SEEN, _FITTED, _REAL, _BEST = COLOURS[6], INK, COLOURS[0], COLOURS[4]
_NOISE = COLOURS[3]
_NEVER = "no batch size met the target"
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
    rate = f", learning rate {best['learning_rate']:.3g}" if record.get("tunable", True) else ""
    return f"{record.get('model', 'A model')} on {data.get('name', 'data')}: update after {when}{rate}"


def _facts(record: Record) -> str:
    target = str(record.get("target") or "").replace(">=", " ≥ ").replace("<=", " ≤ ")
    facts = [f"target: {target}"] if target else []
    facts += [str(record["optimizer"])] if record.get("optimizer") else []
    facts += [f"{count(record['n_parameters'])} parameters"] if record.get("n_parameters") else []
    facts += [f"{record['seeds']} seeds a size"] if record.get("seeds") else []
    facts += [f"measured in {duration(record['took_seconds'])}"] if record.get("took_seconds") else []
    return " · ".join(facts)


def _best(record: Record) -> int | None:
    return (record.get("finish_first") or {}).get("batch_size")


def _over_sizes(axes: Axes, record: Record, title: str, label: str) -> None:
    """Prepares empty axes over the batch size."""
    axes.set(xscale="log", yscale="log", xlabel="examples in a batch, M", ylabel=label)
    axes.set_title(title)
    sizes = [s["batch_size"] for s in [*(record.get("sizes") or []), *_timed(record)]]
    if sizes:
        axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)


def _finish(axes: Axes, record: Record, why: str, *, seconds: bool = False) -> None:
    """Writes the ticks and marks the recommended batch size; axes without anything on them say why."""
    if not axes.lines and not axes.collections:
        _say_nothing(axes, why)
        return
    if (best := _best(record)) is not None:
        left, right = axes.get_xlim()
        flip = best**2 > left * right  # the name stands on the side that has more room
        axes.axvline(best, color=_BEST, lw=1.1, zorder=0)
        axes.annotate(
            "recommended", (best, 1.0), (-4 if flip else 4, -3), xycoords=axes.get_xaxis_transform(),
            textcoords="offset points", ha="right" if flip else "left", va="top", fontsize=8, color=_BEST,
            weight="bold", path_effects=_halo(), zorder=6,
        )  # fmt: skip
    tidy_log_axis(axes, "x")
    tidy_log_axis(axes, "y", seconds=seconds)


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground=PAPER)]


def _say_nothing(axes: Axes, why: str) -> None:
    axes.set(xscale="linear", yscale="linear", xticks=[], yticks=[], xlabel="", ylabel="")
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", color=MUTED)


def _timed(record: Record) -> list[Record]:
    return (record.get("hardware") or {}).get("points") or []


def _reached(record: Record) -> list[Record]:
    return [size for size in record.get("sizes") or [] if size["reached"]]


def _law(record: Record) -> Record | None:
    """The fit of the updates, None where it is not known."""
    fit = record.get("critical_batch") or {}
    return fit if fit.get("known") else None


def _grid(axes: Axes) -> np.ndarray:
    return np.geomspace(*axes.get_xlim(), 200)


def _bars(axes: Axes, sizes: list[float], low: list[float], high: list[float], colour: str) -> None:
    axes.vlines(sizes, low, high, color=colour, lw=4, alpha=0.35, capstyle="round")


def _hardware(axes: Axes, record: Record) -> None:
    """Seconds per update as measured, with the range of the rounds, and the line that fits them."""
    points, title = _timed(record), "What an update costs"
    if not points:
        _over_sizes(axes, record, title, "")
    else:
        alpha, beta = (record["hardware"][name]["value"] for name in ("alpha", "beta"))
        title += f": {duration(alpha)} and {duration(beta)} an example"
        _over_sizes(axes, record, title, "time of an update")
        sizes = [p["batch_size"] for p in points]
        _bars(axes, sizes, [p["low"] for p in points], [p["high"] for p in points], _SEEN)
        axes.plot(sizes, [p["median"] for p in points], "o", ms=5, color=_SEEN, mec=PAPER, label="measured")
        line = _grid(axes)
        axes.plot(line, alpha + beta * line, color=_FITTED, lw=1.2, label="α + β M")
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    _finish(axes, record, "not measured", seconds=True)


def _updates(axes: Axes, record: Record) -> None:
    """Updates to the target with the range of the seeds, and the fit with its two limits."""
    sizes, fit = _reached(record), _law(record)
    title = "How many are needed"
    if fit:
        value, low, high = (_about(fit[name]) for name in ("value", "low", "high"))
        title += f": $B_{{crit}}$ = {value} ({low} to {high})"
    elif sizes:
        title += ": $B_{crit}$ is not known"
    _over_sizes(axes, record, title, "updates to the target")
    rejected = {one["batch_size"] for one in (fit or {}).get("rejected") or []}
    for size in sizes:
        seen, m, left_out = [u for u in size["updates"] if u is not None], size["batch_size"], size["on_edge"]
        _bars(axes, [m], [min(seen)], [max(seen)], _SEEN)
        fill = PAPER if left_out or m in rejected else _SEEN
        axes.plot(m, size["updates_to_target"], "o", ms=5.5, mfc=fill, mec=_SEEN, mew=1.2)
    if fit and sizes:
        _draw_law(axes, fit)
        _name_regimes(axes, fit)
    _finish(axes, record, _NEVER)


def _about(value: float) -> str:
    return count(round(value) if value >= 10 else value)


def _draw_law(axes: Axes, fit: Record) -> None:
    """Draws S_min (1 + B_crit / M), what it nears at both ends, and the interval of B_crit."""
    line, s_min, b_crit = _grid(axes), fit["s_min"], fit["b_crit"]
    low, high = axes.get_ylim()
    axes.plot(line, s_min * (1 + b_crit / line), color=_FITTED, lw=1.2)
    axes.plot(line, s_min * b_crit / line, **_FAINT)
    axes.plot(line, np.full_like(line, s_min), **_FAINT)
    axes.set_ylim(min(low, s_min) / 1.6, high)
    axes.axvspan(fit["low"], fit["high"], color=MUTED, alpha=0.12, lw=0, zorder=0)


def _name_regimes(axes: Axes, fit: Record) -> None:
    """Names what further examples in a batch buy: fewer updates in proportion, some, or none."""
    low, high = axes.get_xlim()
    bounds = [low, *np.clip([fit["b_crit"] / 4, fit["b_crit"] * 4], low, high), high]
    for name, start, end in zip(("slope −1", "bend", "flat"), bounds[:-1], bounds[1:], strict=True):
        if np.log(end / start) > 0.12 * np.log(high / low):
            axes.text(np.sqrt(start * end), 0.02, name, transform=axes.get_xaxis_transform(), ha="center",
                      va="bottom", fontsize=8.5, color=MUTED)  # fmt: skip


def _time(axes: Axes, record: Record) -> None:
    """Time to the target as it follows from both, and as real runs took it."""
    best, model = record.get("finish_first"), record.get("time_model")
    title = f"Time to the target: {_with_range(best['seconds'])}" if best else "Time to the target"
    _over_sizes(axes, record, title, "time to the target")
    if model:
        line = _grid(axes)
        product = model["s_min"] * (1 + model["b_crit"] / line) * (model["alpha"] + model["beta"] * line)
        axes.plot(line, product, color=_FITTED, lw=0.9, label="both fits multiplied")
    confirmed = record.get("confirmed") or []
    told = {one["batch_size"]: one["predicted_seconds"] for one in confirmed}
    sizes = sorted(_reached(record), key=lambda size: size["batch_size"])
    if sizes:
        x = [size["batch_size"] for size in sizes]
        y = [told[m]["value"] if m in told else size["seconds_to_target"] for m, size in zip(x, sizes, strict=True)]
        near = [m for m in x if m in told]
        _bars(axes, near, [told[m]["low"] for m in near], [told[m]["high"] for m in near], _SEEN)
        axes.plot(x, y, "-o", color=_SEEN, lw=1.3, ms=5, mec=PAPER, label="predicted")
    real = [(one["batch_size"], s) for one in confirmed for s in one["seen_seconds"] if s is not None]
    if real:
        axes.plot(*zip(*real, strict=True), "D", ms=4.5, mfc=PAPER, mec=_REAL, mew=1.4, label="real runs")
    if axes.lines:
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    _finish(axes, record, _NEVER, seconds=True)


def _with_range(of: Record) -> str:
    return f"{duration(of['value'])} ({duration(of['low'])} to {duration(of['high'])})"


def _noise(axes: Axes, record: Record) -> None:
    """The noise scale at points along a run, with the interval of each, and of all of them together."""
    noise = record.get("noise_scale") or {}
    points = [p for p in noise.get("points") or [] if p.get("scale") is not None and p["scale"] > 0]
    if not points:
        axes.set_title("Noise scale along a run")
        _say_nothing(axes, "not measured")
        return
    title = "Noise scale along a run"
    if noise.get("known"):
        value, low, high = (_about(noise[name]) for name in ("value", "low", "high"))
        title += f": {value} examples ({low} to {high})"
        axes.axhline(noise["value"], **_FAINT)
    x = [p["updates"] for p in points]
    low = [p["low"] if (p.get("low") or 0) > 0 else p["scale"] for p in points]
    high = [p["high"] if p.get("high") is not None else p["scale"] for p in points]
    axes.plot(x, [p["scale"] for p in points], "-o", color=_NOISE, lw=1.3, ms=5, mec=PAPER)
    axes.fill_between(x, low, high, color=_NOISE, alpha=0.16, lw=0)
    axes.set(yscale="log", xlabel="updates", ylabel="noise scale, examples")
    axes.set_title(title)
    write_counts(axes)
    tidy_log_axis(axes, "y")
