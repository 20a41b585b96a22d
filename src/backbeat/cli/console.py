"""What a person sees in the terminal: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text


class _Results(Console):
    """A console that leaves a reader who has gone, as in `backbeat compare | head`, to the command line: no failure."""

    def on_broken_pipe(self) -> None:
        """Lets the error through, where Rich would end the process with exit code 1."""
        raise


def results() -> Console:
    """Returns the console for results: as wide as the terminal, 120 columns where there is none.

    Texts are printed as they are: a name with brackets or colons in it is no markup.
    """
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 120
    return _Results(width=width, highlight=False, markup=False, emoji=False)


def tell(text: str, style: str | None = None, *, label: str = "", whole: bool = False) -> None:
    """Prints a sentence; it is wrapped at the terminal's width, and is one line where there is no terminal.

    Args:
        text: the sentence.
        style: of the text, in Rich's words.
        label: printed before it, dim.
        whole: whether it is one line on a terminal too, such as a path to copy.
    """
    line = Text.assemble((f"{label} " if label else "", "dim"), (text, style or ""))
    results().print(line, soft_wrap=whole or not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    from ..folder import plain

    print(json.dumps(plain(value), ensure_ascii=False))


class Bar:
    """A progress bar with a text before it and one behind it."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task: TaskID | None = None if progress is None else progress.add_task("compiling", total=1.0, note="")

    def show(self, text: str, share: float, note: str = "") -> None:
        """Shows how far the work is; `share` is from 0 to 1."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=text, completed=min(share, 1.0), note=note)


@contextmanager
def bar(quiet: bool) -> Iterator[Bar]:
    """Gives a progress bar on standard error, which is not drawn where that is not a terminal or quiet is asked for."""
    console = Console(stderr=True)
    if quiet or _silent or not console.is_terminal:
        yield Bar(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=8) as progress:
        yield Bar(progress)


_silent: list[bool] = []  # not empty in a process that has no say


def silence() -> None:
    """Lets this process say nothing from now on: of several that train together, one speaks for all."""
    _silent.append(True)


def say(sentence: str) -> None:
    """Prints a sentence on standard error."""
    if not _silent:
        print(f"backbeat: {sentence}", file=sys.stderr)
