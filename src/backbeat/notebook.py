"""How far a run, a comparison or advice is, shown in a notebook while it goes on; elsewhere nothing is shown.

A cell's output is changed in place, a few times a second, between compiled stretches; what is over before half a
second shows nothing. IPython is there where a notebook is; nothing is imported for it.
"""

from __future__ import annotations

import html
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from .clock import Durations
from .events import Diverged, Evaluated, Event, Finished, Noted, Started, StretchDone
from .report.style import duration

Show = Callable[[str], None]
_FIRST_SECONDS, _EVERY_SECONDS = 0.5, 0.25
_POINTS, _WIDTH, _HEIGHT = 120, 240, 40  # of the small curve


def in_place() -> Show | None:
    """Returns what shows HTML in the output of the cell that runs, each in the place of the one before.

    None where there is no notebook.

    Example:
        >>> in_place() is None
        True
    """
    python = sys.modules.get("IPython")
    shell = None if python is None else python.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):  # a terminal's IPython has none
        return None
    from IPython.display import HTML, display

    handle: list[Any] = []

    def show(text: str) -> None:
        if handle:
            handle[0].update(HTML(text))
        else:
            handle.append(display(HTML(text), display_id=True))

    return show


class Paced:
    """Passes texts on, not before half a second has passed, and then at most four a second; the last one always.

    Args:
        show: what they are passed on to.
        clock: returns seconds; `time.monotonic` by default.

    Example:
        >>> seconds, seen = iter([0.0, 0.1, 0.6, 0.7, 1.0]), []
        >>> paced = Paced(seen.append, lambda: next(seconds))
        >>> for text in "abcd":
        ...     paced(lambda text=text: text)
        >>> seen
        ['b', 'd']
    """

    def __init__(self, show: Show, clock: Callable[[], float] | None = None) -> None:
        self._show, self._clock = show, clock or time.monotonic
        self._shown = False
        self.begin()

    def begin(self) -> None:
        """Counts the half second from now on."""
        self._next = self._clock() + _FIRST_SECONDS

    def __call__(self, text: Callable[[], str]) -> None:
        """Shows what `text` returns, if it is time to."""
        now = self._clock()
        if now >= self._next:
            self._next, self._shown = now + _EVERY_SECONDS, True
            self._show(text())

    def last(self, text: str) -> None:
        """Shows the end, where anything was shown before."""
        if self._shown:
            self._show(text)


class RunShown:
    """A consumer of the events of a run: how far it is, its newest scores, the curve of its loss.

    Args:
        durations: of the run.
        show: see `in_place`.

    Example:
        >>> from backbeat.clock import Clock
        >>> seen = []
        >>> shown = RunShown(Durations.parse("20 epochs"), seen.append)
        >>> shown(Evaluated(Clock(90, 2874, 2.0, 0.1), {}, {"accuracy": 0.5}, 0.0))
        >>> seen  # too early
        []
    """

    def __init__(self, durations: Durations, show: Show) -> None:
        self._durations, self._paced = durations, Paced(show)
        self._losses: list[float] = []
        self._scores = self._what = ""
        self._share, self._seconds, self._left = 0.0, 0.0, math.nan
        self._begun = (0.0, 0.0)  # share and seconds where this process began

    def __call__(self, event: Event) -> None:
        """Counts an event in, and shows where the run is."""
        if isinstance(event, Started):
            self._what = f"{event.about.get('model')} on {(event.about.get('data') or {}).get('name')}"
            self._paced.begin()
            return
        share = max(getattr(event.clock, d.unit) / d.amount for d in self._durations.each)
        if not self._losses and not self._share:
            self._begun = share, event.clock.seconds
        self._share, self._seconds = min(share, 1.0), event.clock.seconds
        gone = self._share - self._begun[0]
        self._left = (self._seconds - self._begun[1]) * (1 - self._share) / gone if gone > 0 else math.nan
        if isinstance(event, StretchDone) and math.isfinite(event.loss_mean):
            self._losses.append(event.loss_mean)
        elif isinstance(event, Evaluated):
            part = event.held_out or event.train
            self._scores = ", ".join(f"{name} {value:.4g}" for name, value in part.items())
        if isinstance(event, (Finished, Diverged)):
            done = f"{event.clock.updates:,} updates, {event.clock.examples:,} examples in {duration(self._seconds)}"
            self._paced.last(shown(f"{self._what}: {event.reason}", None, [done, self._scores], self._losses))
        elif not isinstance(event, Noted):
            updates = f"{event.clock.updates:,} updates"
            self._paced(lambda: shown(self._what, self._share, [updates, self._scores, self._time()], self._losses))

    def _time(self) -> str:
        return f"about {duration(self._left)} left" if math.isfinite(self._left) else ""


class StagesShown:
    """Told how far a comparison or advice is: shows the stage, and how much of the whole is done.

    Args:
        what: "comparison" or "advice".
        show: see `in_place`.
    """

    def __init__(self, what: str, show: Show) -> None:
        self._what, self._paced = what, Paced(show)
        self._began = time.monotonic()

    def __call__(self, at: Any) -> None:
        """Shows a `compare.Progress`."""
        self._paced(lambda: shown(f"{self._what}: {at.stage}", at.overall, [f"every {at.every}" if at.every else ""]))

    def over(self) -> None:
        """Shows that it is over."""
        self._paced.last(shown(f"{self._what}: finished in {duration(time.monotonic() - self._began)}", None, []))


def shown(what: str, share: float | None, more: list[str], losses: list[float] | None = None) -> str:
    """Returns one line of HTML: what goes on, how much of it is done, and the curve of a loss.

    Args:
        what: in words.
        share: from 0 to 1; None for what is over.
        more: further texts; empty ones are left out.
        losses: in their order; a curve is drawn of two or more.

    Example:
        >>> shown("a <model>", 0.5, ["10 updates", ""])
        '<div><span>a &lt;model&gt;</span> <progress max="1" value="0.5000" aria-label="a &lt;model&gt;"></progress> \
<span>50 % · 10 updates</span></div>'
    """
    name = html.escape(what)
    bar = "" if share is None else f' <progress max="1" value="{share:.4f}" aria-label="{name}"></progress>'
    said = " · ".join(filter(None, ["" if share is None else f"{share:.0%}".replace("%", " %"), *more]))
    return f"<div><span>{name}</span>{bar} <span>{html.escape(said)}</span>{_curve(losses or [])}</div>"


def _curve(losses: list[float]) -> str:
    """Returns a small drawing of the loss, its height logarithmic; thinned to the mean of each part."""
    if len(losses) < 2:
        return ""
    size = max(1, math.ceil(len(losses) / _POINTS))
    means = [sum(part) / len(part) for part in (losses[i : i + size] for i in range(0, len(losses), size))]
    heights = [math.log(max(mean, 1e-12)) for mean in means]
    low, high = min(heights), max(heights)
    points = " ".join(
        f"{_WIDTH * k / max(1, len(heights) - 1):.1f},{2 + (_HEIGHT - 4) * (high - y) / ((high - low) or 1):.1f}"
        for k, y in enumerate(heights)
    )
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
    said = f"loss of the batches, from {losses[0]:.3g} to {losses[-1]:.3g}"
    picture = f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{said}">{line}</svg>'
    return f"<br>{picture} <small>loss {losses[-1]:.3g}</small>"
