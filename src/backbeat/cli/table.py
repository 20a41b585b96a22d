"""Tables that fit the terminal: cells are wrapped between words, the widest column first, and nothing is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.table import Table as RichTable
from rich.text import Text

_NO_BREAK, _GAP, _NARROWEST = "\u00a0", 2, 4


def unbroken(text: str) -> str:
    """Returns a text that is not wrapped at its spaces, such as a number and its unit."""
    return text.replace(" ", _NO_BREAK)


class Table:
    """Heads and rows of text.

    Attributes:
        title: above it.
        n_texts: how many of the columns, from the left, are texts; the others are numbers, aligned to the right.
    """

    def __init__(self, *heads: str, title: str | None = None, n_texts: int = 1) -> None:
        self.title, self.n_texts, self._rows = title, n_texts, [heads]

    def add_row(self, *cells: str) -> None:
        """Adds a row, one cell for each head."""
        assert len(cells) == len(self._rows[0])
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """Yields the table at the width of the console."""
        if self.title:
            yield Text(self.title, style="bold")
        widths = fitted(self._rows, options.max_width)
        made = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
        heads, *rows = [[wrapped(cell, width) for cell, width in zip(row, widths, strict=True)] for row in self._rows]
        for number, (head, width) in enumerate(zip(heads, widths, strict=True)):
            right = number >= self.n_texts
            made.add_column(Text(head), justify="right" if right else "left", vertical="top", no_wrap=True, width=width)
        for row in rows:
            made.add_row(*(Text(cell) for cell in row))
        yield made


def fitted(rows: list[tuple[str, ...]], most: int) -> list[int]:
    """Returns the width of each column: as its cells, then the widest narrowed to its words, then less than those.

    Example:
        >>> fitted([("update after", "time"), ("dataset (1,438)", "12 ms")], 22)
        [15, 5]
        >>> fitted([("update after", "time"), ("dataset (1,438)", "12 ms")], 14)
        [7, 5]
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    words = [max(len(word) for cell in column for word in cell.split(" ")) for column in columns]
    for least in (words, [_NARROWEST] * len(columns)):
        while sum(widths) + _GAP * (len(widths) - 1) > most:
            room = [width if width > low else 0 for width, low in zip(widths, least, strict=True)]
            if not any(room):
                break
            widths[room.index(max(room))] -= 1
    return widths


def wrapped(cell: str, width: int) -> str:
    r"""Returns a cell as lines of at most this width, broken between words, or in a word that is longer than a line.

    Example:
        >>> wrapped("349 (276–589)", 9)
        '349\n(276–589)'
        >>> wrapped("amber-robin", 8)
        'amber-\nrobin'
    """
    lines: list[str] = []
    for word in cell.split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
            continue
        while len(word) > width:
            cut = max(word.rfind(sign, 0, width) for sign in "-–") + 1 or width
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return "\n".join(lines).replace(_NO_BREAK, " ")
