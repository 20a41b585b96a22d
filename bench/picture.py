"""Draws what `against.py` measured: each peer's time over backbeat's, a panel a network, a colour a batch size.

python bench/picture.py bench/results/against.jsonl docs/images/against.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.lines
from against import OURS, ratio
from peers import PEERS

from backbeat.report.axes import new_figure, png, write_title
from backbeat.report.style import INK, MUTED, PICTURE, colours


def figure(lines: list[dict[str, Any]], rule: str = "sgd") -> Any:
    """Returns the figure of one rule; what was not measured has no dot."""
    rows = [line for line in lines if line["task"]["optimizer"] == rule and isinstance(line["found"].get(OURS), list)]
    networks = [n for n in dict.fromkeys(row["task"]["network"] for row in rows) if n != "logistic"]
    rows = [row for row in rows if row["task"]["network"] in networks]
    names = [name for name in PEERS if any(isinstance(row["found"].get(name), list) for row in rows) and name != OURS]
    sizes = sorted({row["task"]["batch"] for row in rows})
    colour = dict(zip(sizes, colours(len(sizes)), strict=True))
    with matplotlib.rc_context(PICTURE):
        sheet = new_figure(11, 1.6 + 0.28 * len(names) * -(-len(networks) // 2) + 0.9 * -(-len(networks) // 2))
        top = write_title(
            sheet, 0.02, "How many times as long each peer takes for an update",
            "median of the rounds and the middle half of them; left of the line a peer is faster than backbeat",
        )  # fmt: skip
        grid = sheet.add_gridspec(-(-len(networks) // 2), 2, left=0.15, right=0.98, top=top - 0.03, bottom=0.11,
                                  hspace=0.4, wspace=0.05)  # fmt: skip
        panels: list[Any] = []
        for k, network in enumerate(networks):
            axes = sheet.add_subplot(grid[k // 2, k % 2], sharex=panels[0] if panels else None)
            panels.append(axes)
            of_network = [row for row in rows if row["task"]["network"] == network]
            for j, row in enumerate(of_network):
                ours = row["found"][OURS]
                for i, name in enumerate(names):
                    theirs = row["found"].get(name)
                    if isinstance(theirs, list) and len(theirs) == len(ours):
                        middle, low, high = ratio(theirs, ours)
                        y, c = i + 0.16 * (j - (len(of_network) - 1) / 2), colour[row["task"]["batch"]]
                        axes.plot([low, high], [y, y], color=c, linewidth=1.6)
                        axes.plot(middle, y, "o", color=c, markersize=5)
            axes.axvline(1, color=INK, linewidth=1)
            axes.set_xscale("log")
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_title(network)
            axes.set_yticks(
                range(len(names)), [PEERS[name].title for name in names] if k % 2 == 0 else [""] * len(names)
            )
            axes.tick_params(axis="y", length=0)
        ticks = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]
        panels[0].set_xlim(*_ends(rows, names))
        for axes in panels:
            axes.set_xticks(ticks, [f"{tick:g} ×" for tick in ticks])
            axes.set_xlim(panels[0].get_xlim())
        handles = [matplotlib.lines.Line2D([], [], color=colour[m], marker="o", linewidth=1.6) for m in sizes]
        words = [f"M = {m:,}" for m in sizes]
        sheet.legend(handles, words, loc="lower center", ncols=len(sizes), frameon=False, labelcolor=MUTED)
    return sheet


def _ends(rows: list[dict[str, Any]], names: list[str]) -> tuple[float, float]:
    """Returns the ends of the axis: all that is drawn lies between them."""
    found = [edge for row in rows for name in names if isinstance(row["found"].get(name), list)
             for edge in ratio(row["found"][name], row["found"][OURS])]  # fmt: skip
    return 0.7 * min(found), 1.4 * max(found)


def main() -> None:
    """Reads the results and writes the picture."""
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    Path(sys.argv[2]).write_bytes(png(figure([line for line in lines if "task" in line])))


if __name__ == "__main__":
    main()
