"""Pictures of a comparison or a run, for papers, slides and read-me files (PNG or SVG).

A comparison is two rows of three: how the loss falls, and what the target costs, each counted in examples, updates
and seconds. The lower middle one holds the fit S(M) = S_min (1 + B_crit / M) between perfect scaling (slope −1) and
the floor S_min (S. McCandlish et al., An Empirical Model of Large-Batch Training, 2018).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backbeat.errors import SettingsError
from backbeat.folder import write_whole
from backbeat.report.axes import (
    Label,
    make_room,
    new_figure,
    tidy_log_axis,
    write_counts,
    write_ends,
    write_sizes,
    write_title,
)
from backbeat.report.bands import LOSSES, Band, band, loss_measure, score_column
from backbeat.report.noise_picture import draw_noise
from backbeat.report.style import (
    COLOURS,
    INK,
    MUTED,
    PAPER,
    PICTURE,
    cadence_name,
    colours,
    count,
    duration,
    every_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]
CLOCKS = ("examples", "updates", "seconds")
FAINT_LINE = "#b8c0ca"
LEFT = 0.062  # where titles and the first panel begin, as a share of the width


def comparison_figure(record: Record) -> Figure:
    """Returns the picture of a comparison.

    Above, the loss against examples, updates and seconds: the median over seeds, a band from the lowest to the highest
    run, a ring where the target was reached. Below, what reaching it took against the batch size M, with the fit.

    Example:
        >>> figure = comparison_figure({"kind": "comparison", "cadences": [], "fit": None})
        >>> len(figure.axes)
        6
    """
    import matplotlib

    with matplotlib.rc_context(PICTURE):
        figure = new_figure(13.2, 8.4)
        top = _draw_heading(figure, record)
        grid = figure.add_gridspec(2, 3, left=LEFT, right=0.965, top=top, bottom=0.068, wspace=0.24, hspace=0.36)
        above: list[Axes] = []
        for column, clock in enumerate(CLOCKS):
            axes = figure.add_subplot(grid[0, column], sharey=above[0] if above else None)
            above.append(axes)
            below = figure.add_subplot(grid[1, column])
            if record.get("target"):
                _draw_needs(below, record, clock)
            else:
                _draw_equal(below, record, clock)
        ends = [_draw_curves(axes, record, clock) for axes, clock in zip(above, CLOCKS, strict=True)]
        for axes, clock, names in zip(above, CLOCKS, ends, strict=True):  # once the shared scale is final
            tidy_log_axis(axes, "y", count_like=False)
            tidy_log_axis(axes, "x", seconds=clock == "seconds")
            write_ends(axes, names)
        return figure


def run_figure(record: Record) -> Figure:
    """Returns the picture of one run: its losses and held-out score; noise, repeats, range test where there are any.

    Example:
        >>> history = {"updates": [1, 2, 3], "loss_mean": [2.0, 1.0, 0.5]}
        >>> figure = run_figure({"kind": "run", "every": "32", "history": history})
        >>> len(figure.axes)
        1
    """
    import matplotlib

    history = record.get("history") or {}
    score = score_column(history)
    repeats = (record.get("repeats") or {}).get("updates_per_batch")
    found = record.get("rate_range")
    draw = [lambda axes: _draw_losses(axes, history)]
    draw += [lambda axes: _draw_score(axes, history, score)] if score else []
    draw += [lambda axes: draw_noise(axes, record)] if record.get("noise") and history.get("updates") else []
    draw += [lambda axes: _draw_repeats(axes, repeats)] if repeats else []
    draw += [lambda axes: _draw_rates(axes, found)] if found else []
    with matplotlib.rc_context(PICTURE):
        figure = new_figure((7.4, 11.2, 13.6, 17.0, 20.4)[len(draw) - 1], 4.6)
        top = write_title(figure, LEFT, *_run_title(record)) - 0.085
        grid = figure.add_gridspec(1, len(draw), left=LEFT, right=0.965, top=top, bottom=0.125, wspace=0.24)
        for place, panel in enumerate(draw):
            panel(figure.add_subplot(grid[0, place]))
        return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure to `path`, as PNG or SVG by its ending; the file appears whole or not at all.

    The same figure gives the same SVG, byte for byte: no date, and no random names inside.

    Raises:
        SettingsError: the path ends in neither .png nor .svg, or cannot be written.

    Example:
        >>> save_figure(run_figure({"history": {}}), "run.jpeg")
        Traceback (most recent call last):
            ...
        backbeat.errors.SettingsError: 'run.jpeg' does not end in .png or .svg; choose one of these.
    """
    import matplotlib

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise SettingsError(f"{path.name!r} does not end in .png or .svg; choose one of these.")
    metadata = {"Date": None} if kind == "svg" else None

    def write(file: Any) -> None:
        with matplotlib.rc_context(PICTURE):
            figure.savefig(file, format=kind, dpi=150, metadata=metadata)

    write_whole(path, write, mode="wb")
    return path


def _run_title(record: Record) -> tuple[str, str]:
    """What was trained how, and what became of it."""
    every = every_name(str(record.get("every", "batch")))
    often = f"{every} examples" if every.removeprefix("every ").isdigit() else every
    title = f"{record.get('model', 'A model')} on {(record.get('data') or {}).get('name', 'data')}, updated: {often}"
    finished = record.get("finished") or {}
    facts = [finished.get("reason") or ""]
    facts += [f"{count(finished[name])} {name}" for name in ("updates", "examples") if finished.get(name) is not None]
    facts += [duration(finished["seconds"])] if finished.get("seconds") is not None else []
    return title, " · ".join(fact for fact in facts if fact)


def _draw_heading(figure: Figure, record: Record) -> float:
    """The answer, its context and the legend; returns how high the panels may reach."""
    from matplotlib.lines import Line2D

    cadences = record.get("cadences") or []
    answer = (record.get("answer") or ["How often should it be updated?"])[0]
    data, seeds = record.get("data") or {}, record.get("seeds") or []
    facts = [f"{record.get('model', 'model')} on {data.get('name', 'data')}"]
    facts += [f"{count(record['n_parameters'])} parameters"] if record.get("n_parameters") else []
    facts += [f"{count(data['n_train'])} training examples"] if data.get("n_train") else []
    facts += [f"target: {_readable(record['target'])}"] if record.get("target") else []
    facts += [f"median and range of {len(seeds)} seeds"] if seeds else []
    beneath = write_title(figure, LEFT, answer, " · ".join(facts))
    handles: list[Any] = [
        Line2D([], [], color=colour, lw=2.4, label=every_name(cadence["every"]))
        for cadence, colour in zip(cadences, colours(len(cadences)), strict=True)
    ]
    marks: dict[str, Any] = {"color": MUTED, "mfc": PAPER, "lw": 0, "ms": 6}
    if record.get("target"):
        handles.append(Line2D([], [], marker="o", mew=1.6, label="reached the target", **marks))
    if any(cadence.get("diverged_share") for cadence in cadences):
        handles.append(Line2D([], [], marker="x", mew=1.8, label="a run diverged", **marks))
    if record.get("target") and any(not cadence.get("to_target") for cadence in cadences):
        handles.append(Line2D([], [], marker="^", mew=1.4, label="not in every run", **marks))
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(LEFT - 0.006, beneath), ncols=len(handles), frameon=False,
        fontsize=9, handlelength=1.3, columnspacing=1.3, handletextpad=0.5, borderpad=0.2,
    )  # fmt: skip
    return beneath - 0.085


def _readable(target: str) -> str:
    """The target with spaces and a proper sign: "held-out accuracy ≥ 0.95"."""
    for sign, better in ((">=", " ≥ "), ("<=", " ≤ "), (">", " > "), ("<", " < ")):
        if sign in target:
            return target.replace(sign, better, 1)
    return target


def _draw_curves(axes: Axes, record: Record, clock: str) -> list[Label]:
    """The loss against one clock, both on logarithmic axes; returns the names that belong to the ends."""
    measure = loss_measure(record)
    cadences = record.get("cadences") or []
    ends: list[Label] = []
    for cadence, colour in zip(cadences, colours(len(cadences)), strict=True):
        drawn = band(cadence, clock, measure)
        positive = (drawn.x > 0) & (drawn.low > 0)
        drawn = Band(*(values[positive] for values in drawn))
        if not len(drawn.x):
            continue
        axes.fill_between(drawn.x, drawn.low, drawn.high, color=colour, alpha=0.16, lw=0)
        axes.plot(drawn.x, drawn.median, color=colour, label=f"every {cadence['every']}")
        ends.append(Label(drawn.x[-1], drawn.median[-1], cadence_name(cadence["every"]), colour))
        _mark_target_and_divergence(axes, cadence, clock, measure, drawn, colour)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=_axis_name(clock),
        title=f"{LOSSES[measure].capitalize()} by {_axis_name(clock)}",
    )
    if clock == CLOCKS[0]:
        axes.set_ylabel(f"{LOSSES[measure]}, mean over examples")
    if ends:
        make_room(axes, len(ends) if clock == CLOCKS[0] else 0)
    return ends


def _mark_target_and_divergence(
    axes: Axes, cadence: Record, clock: str, measure: str, drawn: Band, colour: str
) -> None:
    reached = (cadence.get("to_target") or {}).get(clock)
    if reached and reached["median"] > 0:
        level = np.exp(np.interp(np.log(reached["median"]), np.log(drawn.x), np.log(drawn.median)))
        axes.plot(reached["median"], level, "o", ms=6.5, mfc=PAPER, mec=colour, mew=1.8, zorder=5)
    for run in cadence.get("runs") or []:
        if run.get("diverged_at") is None:
            continue
        points = [(x, y) for x, y in zip(run["curve"][clock], run["curve"][measure], strict=False) if x and y]
        if points:
            axes.plot(*points[-1], "x", ms=7, color=colour, mew=2, zorder=5)


def _draw_needs(axes: Axes, record: Record, clock: str) -> None:
    """What reaching the target took, against the batch size; for updates and examples with the fitted law."""
    cadences = record.get("cadences") or []
    sizes = [cadence["batch_size"] for cadence in cadences]
    needs = [(cadence.get("to_target") or {}).get(clock) for cadence in cadences]
    known = {cadence["every"]: need for need, cadence in zip(needs, cadences, strict=True) if need}
    for size, need, colour in zip(sizes, needs, colours(len(cadences)), strict=True):
        if need:
            axes.plot([size, size], [need["low"], need["high"]], color=colour, lw=4.5, alpha=0.35)
            axes.plot(size, need["median"], "o", color=colour, ms=7.5, mec=PAPER, mew=1.2, zorder=5)
        else:
            axes.plot(size, 0.94, "^", mfc=PAPER, mec=colour, mew=1.5, ms=7, transform=axes.get_xaxis_transform())
    fewest = "Quickest" if clock == "seconds" else f"Fewest {clock}"
    title = f"{fewest}: {_least(known)}" if known else ""
    axes.set(xscale="log", yscale="log", xlabel="examples in a batch, M", ylabel=f"{_axis_name(clock)} to the target")
    axes.set_title(title or "The target was not reached in every run")
    drawn: list[float] = []
    if record.get("fit") and clock != "seconds":
        drawn = _draw_fit(axes, record["fit"], sizes, times_size=clock == "examples")
    drawn += [need[side] for need in needs if need for side in ("low", "high")]
    if drawn and min(drawn) <= 0:  # a run met the target before its first update
        axes.set(yscale="linear", ylim=(0, 1.1 * max(drawn) or 1))
    elif drawn:
        axes.set_ylim(min(drawn) / 1.7, max(drawn) * 1.6)
        tidy_log_axis(axes, "y", seconds=clock == "seconds")
    else:
        axes.set(yscale="linear", yticks=[])
    write_sizes(axes, cadences)


def _least(spreads: dict[str, Record]) -> str:
    """Who has the least median, and how many others cannot be told from it because the ranges overlap."""
    best = min(spreads, key=lambda every: spreads[every]["median"])
    tied = sum(spread["low"] <= spreads[best]["high"] for spread in spreads.values()) - 1
    others = "" if not tied else " or 1 other" if tied == 1 else f" or {tied} others"
    return every_name(best) + others


def _draw_equal(axes: Axes, record: Record, clock: str) -> None:
    """Without a target: the training loss against the batch size, once all cadences have spent the same."""
    cadences = record.get("cadences") or []
    budget = (record.get("equal") or {}).get(clock) or {"at": None, "rows": []}
    losses = {str(row["every"]): row["train_loss_mean"] for row in budget["rows"] if row.get("train_loss_mean")}
    for cadence, colour in zip(cadences, colours(len(cadences)), strict=True):
        loss = losses.get(str(cadence["every"]))
        if loss:
            axes.plot([cadence["batch_size"]] * 2, [loss["low"], loss["high"]], color=colour, lw=4.5, alpha=0.35)
            axes.plot(cadence["batch_size"], loss["median"], "o", color=colour, ms=7.5, mec=PAPER, mew=1.2, zorder=5)
    axes.set(xscale="log", xlabel="examples in a batch, M", ylabel="training loss, mean over examples")
    if not losses:
        axes.set(title="No budget that all have spent", yticks=[])
        return
    spent = duration(budget["at"]) if clock == "seconds" else f"{count(budget['at'])} {clock}"
    axes.set_title(f"Lowest after {spent}: {_least(losses)}")
    low, high = min(loss["low"] for loss in losses.values()), max(loss["high"] for loss in losses.values())
    if low > 0:
        axes.set(yscale="log", ylim=(low / 1.3, high * 1.3))
        tidy_log_axis(axes, "y", count_like=False)
    write_sizes(axes, cadences)


def _draw_fit(axes: Axes, fit: Record, sizes: list[int], *, times_size: bool) -> list[float]:
    """S_min (1 + B_crit / M) and its two limits, in examples all of them times M; returns the range of the curve."""
    s_min, b_crit = fit["s_min"], fit["b_crit"]
    size = np.geomspace(min(sizes) / 1.4, max(sizes) * 1.4, 200)
    scale = size if times_size else np.ones_like(size)
    curve = s_min * (1 + b_crit / size) * scale
    axes.plot(size, curve, color=INK, lw=1.3, zorder=2)
    axes.plot(size, s_min * b_crit / size * scale, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=1)
    axes.plot(size, s_min * scale, color=MUTED, lw=0.9, ls=(0, (1, 2)), zorder=1)
    if fit.get("b_crit_low") and fit.get("b_crit_high"):
        axes.axvspan(fit["b_crit_low"], fit["b_crit_high"], color=MUTED, alpha=0.12, lw=0, zorder=0)
    ends = [float(curve.min()), float(curve.max())]
    axes.annotate("$B_{crit}$", (b_crit, 0.02), xycoords=axes.get_xaxis_transform(), ha="center", fontsize=8.5)
    if times_size:
        return ends
    axes.annotate(
        f"$S_{{min}}$ (1 + $B_{{crit}}$ / M)\n$S_{{min}}$ = {count(round(s_min))} updates\n"
        f"$B_{{crit}}$ = {count(round(b_crit))} examples{_interval(fit)}",
        (0.97, 0.88), xycoords="axes fraction", ha="right", va="top", fontsize=9, color=INK, linespacing=1.55,
    )  # fmt: skip
    thin: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": MUTED}
    axes.annotate("floor $S_{min}$", (size[-1], s_min), (-3, -3), ha="right", va="top", **thin)
    near = np.clip(b_crit / 2, 4 * min(sizes), max(4 * min(sizes), max(sizes) / 2))  # on the line of slope −1
    axes.annotate("perfect scaling\n(slope −1)", (near, s_min * b_crit / near), (-7, -2), ha="right", va="top", **thin)
    return ends


def _interval(fit: Record) -> str:
    low, high = fit.get("b_crit_low"), fit.get("b_crit_high")
    return "" if low is None or high is None else f" ({count(round(low))} to {count(round(high))})"


def _axis_name(clock: str) -> str:
    return "time" if clock == "seconds" else clock


def _draw_losses(axes: Axes, history: Record) -> None:
    """The loss of the batches thin, and the losses over whole data sets, where they were evaluated, thick."""
    drawn = {"loss_mean": "loss of the batches", **LOSSES}
    for (name, text), colour in zip(drawn.items(), (FAINT_LINE, COLOURS[5], COLOURS[0]), strict=True):
        x, y = _known(history, name)
        if len(x) and (y > 0).any():
            thin = name == "loss_mean"
            axes.plot(x, np.where(y > 0, y, np.nan), color=colour, lw=0.9 if thin else 2.0, label=text)
    axes.set(xlabel="updates", ylabel="loss, mean over examples", title="Loss")
    if axes.lines:
        axes.set_yscale("log")
        tidy_log_axis(axes, "y", count_like=False)
        axes.legend(frameon=False, fontsize=9)
    write_counts(axes)


def _draw_score(axes: Axes, history: Record, score: str) -> None:
    x, y = _known(history, score)
    name = score.removeprefix("held_out_").replace("r2", "R²")
    axes.plot(x, y, color=COLOURS[4], lw=2.0, marker="o" if len(x) < 40 else None, ms=4)
    axes.set(xlabel="updates", ylabel=f"held-out {name}", title=f"Held-out {name}: {y[-1]:.3f} at the end")
    write_counts(axes)


def _draw_repeats(axes: Axes, repeats: dict[str, int]) -> None:
    """A bar for each number of updates that a batch got before it was left."""
    numbers = sorted((int(number), times) for number, times in repeats.items())
    total = sum(times for _, times in numbers)
    axes.bar([number for number, _ in numbers], [100 * times / total for _, times in numbers], color=COLOURS[3])
    mean = sum(number * times for number, times in numbers) / total
    axes.set(
        xlabel="updates on one batch", ylabel="share of the batches, %", title=f"{mean:.2g} updates a batch on average"
    )
    axes.grid(visible=False, axis="x")


def _draw_rates(axes: Axes, found: Record) -> None:
    """The loss after a few updates with each rate of a range test, from the least to the greatest of its repeats."""
    columns = [np.array([np.nan if v is None else v for v in found[name]], float) for name in ("loss", "low", "high")]
    rates, top = np.array(found["rates"]), 2 * found["first_loss"] - min(v for v in found["loss"] if v is not None)
    middle, low, high = (np.where(np.isfinite(column), np.minimum(column, top), top) for column in columns)
    axes.fill_between(rates, low, high, color=COLOURS[2], alpha=0.16, lw=0)
    axes.plot(rates, middle, color=COLOURS[2], marker="o", ms=3.5)
    axes.axhline(found["first_loss"], color=MUTED, lw=0.9, ls=(0, (1, 2)))
    axes.axvline(found["learning_rate"], color=INK, lw=1.2)
    axes.annotate(
        "before", (rates[0], found["first_loss"]), (2, 3), textcoords="offset points", fontsize=8, color=MUTED
    )
    axes.set(
        xscale="log", xlabel="learning rate", ylabel=f"loss after {found['updates_each']} updates",
        title=f"Range test: {found['learning_rate']:g} chosen",
    )  # fmt: skip
    tidy_log_axis(axes, "x", count_like=False)


def _known(history: Record, name: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = zip(history.get("updates") or [], history.get(name) or [], strict=False)
    known = np.array([(x, y) for x, y in pairs if y is not None], dtype=float).reshape(-1, 2)
    return known[:, 0], known[:, 1]
