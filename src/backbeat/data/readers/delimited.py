"""CSV and TSV files, as they are or compressed by gzip: checked byte by byte, then parsed by Polars as texts.

The check is what names a mistake: which line is ragged, which byte is no UTF-8, whether a compressed file is cut off.
A record ends at a line's end outside quotes, so its length is the number of separators outside quotes before that.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError
from .columns import refuse_twice

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_CHUNK_BYTES = 1 << 25  # 32 MiB of a file are checked and parsed at once
_HEAD_BYTES = 1 << 20
_LONGEST_RECORD = 1 << 28
_NEWLINE, _QUOTE = b"\n"[0], b'"'[0]


class Rows(NamedTuple):
    """Some rows of a table.

    Attributes:
        frame: a Polars frame.
        numbers: `[n]`, what the rows are called in errors: lines of a file, else counted from 1.
        n_bad: how many rows beside these could not be read and were left out.
    """

    frame: Any
    numbers: np.ndarray
    n_bad: int = 0


class Delimited:
    """A text file of columns.

    Attributes:
        names: of the columns.
        name: of the file.
        source: its full path.
        unnamed: of the names, those that the header leaves out; such a column is called by its place.
        separator: what stands between columns.
        row_word: what a row is called in errors.
        notes: sentences on what was recognised.
        files: that it is read from.
    """

    row_word = "line"

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        self.path, self.name = path, path.name
        self.source: str | None = str(path.resolve())
        self.files = [path]
        self._skip_bad, self._gz = skip_bad, path.suffix == ".gz"
        head = self._read_head().removeprefix(b"\xef\xbb\xbf")
        if not head.strip():
            raise DataError(f"{path} is empty; give a file with a line of column names and a line for each example.")
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path} is UTF-16; save it as UTF-8, for example as “CSV UTF-8” in a spreadsheet.")
        if b"\n" not in head and b"\r" in head.strip(b"\r"):
            raise DataError(f"{path} ends its lines with carriage returns alone; save it with line feeds.")
        self._check_text(head[: head.rfind(b"\n") + 1] or head, 0, 1)
        line = head.splitlines(keepends=False)[0].decode("utf-8", "replace")
        self.separator = _separator(line, path)
        given = _header(head, self.separator)
        self.names, self.unnamed = _column_names(given, path)
        self.notes = []
        if self.unnamed:
            self.notes.append(f"The header leaves names out; called {', '.join(self.unnamed)} here.")
        usual = "\t" if ".tsv" in path.suffixes else ","
        if self.separator != usual:
            self.notes.append(f"Columns are separated by {SEPARATORS[self.separator]}.")
        self._head = head

    def n_bytes(self, n_columns: int) -> int:
        """Returns about how many bytes so many of the columns take as float32."""
        size = self.path.stat().st_size
        if self._gz:  # its last four bytes are the size modulo 2³²
            with self.path.open("rb") as file:
                file.seek(max(0, size - 4))
                told = int.from_bytes(file.read(4), "little")
            size = told if told > size else 4 * size
        per_row = max(1.0, len(self._head) / max(1, self._head.count(b"\n")))
        return int(size / per_row) * n_columns * 4

    def rows(self, columns: list[str], n_bytes: int | None = None) -> Iterator[Rows]:
        """Yields the rows in pieces, with all cells as texts.

        Args:
            columns: which ones.
            n_bytes: about how much a piece takes in memory; None for what is quick.
        """
        size = _CHUNK_BYTES if n_bytes is None else max(1 << 16, n_bytes // 4)
        first, n = True, 0
        for block, offset, line in self._records(size):
            self._check_text(block, offset, line)
            rows = self._parsed(block, line, columns, skip_header=first)
            first, n = False, n + len(rows.frame)
            yield rows
        if not n:
            raise DataError(f"{self.path} has column names but no examples; give at least one line for one.")

    def _read_head(self) -> bytes:
        """Returns the beginning of the file, at least the whole first line."""
        head = b""
        for block in self._blocks(_HEAD_BYTES):
            head += block
            if b"\n" in block or len(head) > _LONGEST_RECORD:
                break
        return head

    def _blocks(self, size: int) -> Iterator[bytes]:
        """Yields the bytes of the file, decompressed, in blocks."""
        try:
            with gzip.open(self.path) if self._gz else self.path.open("rb") as file:
                while block := file.read(size):
                    yield block
        except EOFError:
            raise DataError(
                f"{self.path} is cut off: the compressed data ends too early; copy or download it again."
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{self.path} cannot be decompressed ({error}); if it is not compressed, name it without .gz."
            ) from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror or error}); check the file.") from None

    def _records(self, size: int) -> Iterator[tuple[bytes, int, int]]:
        """Yields whole records with the offset of their first byte and the number of their first line."""
        rest, offset, line = b"", 0, 1
        for block in self._blocks(size):
            rest += block
            end = _end_of_records(rest)
            if not end and len(rest) > _LONGEST_RECORD:
                raise DataError(f"{self.path}: the record that begins in line {line} does not end; check its quotes.")
            if end:
                yield rest[:end], offset, line
                offset, line, rest = offset + end, line + rest.count(b"\n", 0, end), rest[end:]
        if rest.strip():
            yield rest, offset, line

    def _check_text(self, block: bytes, offset: int, line: int) -> None:
        zero = block.find(b"\0")
        if zero >= 0:
            where = line + block.count(b"\n", 0, zero)
            raise DataError(f"{self.path} holds a NUL byte in line {where} (byte {offset + zero}); it is no text file.")
        if block.isascii():
            return
        try:
            block.decode("utf-8")
        except UnicodeDecodeError as error:
            where = line + block.count(b"\n", 0, error.start)
            raise DataError(
                f"{self.path} is not UTF-8: byte {offset + error.start} in line {where} is "
                f"0x{block[error.start]:02x}; save it as UTF-8, or convert it with iconv."
            ) from None

    def _parsed(self, block: bytes, line: int, columns: list[str], *, skip_header: bool) -> Rows:
        import polars as pl

        starts, ends, n_fields = _measured(block, self.separator)
        lines = line + np.searchsorted(np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE), starts)
        keep = np.ones(len(starts), bool)
        for i in np.flatnonzero(ends - starts <= 1):  # empty lines are no records
            keep[i] = bool(block[starts[i] : ends[i]].strip())
        if skip_header:
            keep[: int(np.argmax(keep)) + 1] = False
        bad = keep & (n_fields != len(self.names))
        if bad.any():
            if not self._skip_bad:
                self._refuse_ragged(block, starts, ends, n_fields, lines, bad)
            keep &= ~bad
        if not keep.all():
            block = _kept(block, starts, ends, keep)
        if not block:
            frame = pl.DataFrame(schema=dict.fromkeys(self.names, pl.String))
        else:
            try:
                frame = pl.read_csv(
                    io.BytesIO(block), has_header=False, new_columns=self.names, separator=self.separator,
                    infer_schema=False,
                )  # fmt: skip
            except pl.exceptions.PolarsError as error:
                raise DataError(f"{self.path} cannot be read ({_first_line(error)}); check its quotes.") from None
        if len(frame) != int(keep.sum()):
            raise DataError(
                f"{self.path} cannot be read: from line {lines[0]} on, quotes open that nothing closes; double those "
                "inside a text."
            )
        return Rows(frame.select(columns), lines[keep], int(bad.sum()))

    def _refuse_ragged(
        self, block: bytes, starts: np.ndarray, ends: np.ndarray, n_fields: np.ndarray, lines: np.ndarray, bad: Any
    ) -> None:
        where = int(np.argmax(bad))
        n_bad, wanted = int(bad.sum()), len(self.names)
        quotes = block[starts[where] : ends[where]].count(b'"')
        hint = " (a quote in it may lack its pair)" if quotes else ""
        others = "1 more line around it is" if n_bad == 2 else f"{n_bad - 1} more lines around it are"
        more = f"; {others} like that" if n_bad > 1 else ""
        raise DataError(
            f"{self.path}: line {lines[where]} has {n_fields[where]} cells{hint}, but the header names {wanted} "
            f"columns{more}; mend it, or leave such lines out with skip_bad."
        )


def _end_of_records(block: bytes) -> int:
    """Returns where the last whole record ends: after the last line feed outside quotes."""
    if b'"' not in block:
        return block.rfind(b"\n") + 1
    view = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero((view == _NEWLINE) & ~np.logical_xor.accumulate(view == _QUOTE))
    return int(ends[-1]) + 1 if len(ends) else 0


def _measured(block: bytes, separator: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns where each record starts, where it ends (its line feed not counted), and how many cells it has."""
    view = np.frombuffer(block, np.uint8)
    between, ends = view == ord(separator), view == _NEWLINE
    if _QUOTE in block:
        outside = ~np.logical_xor.accumulate(view == _QUOTE)
        between, ends = between & outside, ends & outside
    ends = np.flatnonzero(ends)
    if not len(ends) or ends[-1] != len(block) - 1:
        ends = np.append(ends, len(block))
    n_before = np.searchsorted(np.flatnonzero(between), ends)
    return np.append(0, ends[:-1] + 1), ends, np.diff(n_before, prepend=0) + 1


def _kept(block: bytes, starts: np.ndarray, ends: np.ndarray, keep: np.ndarray) -> bytes:
    """Returns the bytes of the records that are kept, by runs of neighbours."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], keep, [False]]).astype(np.int8)))
    pieces = [block[starts[a] : ends[b - 1] + 1] for a, b in edges.reshape(-1, 2)]
    return b"".join(pieces)


def _separator(line: str, path: Path) -> str:
    """Returns what separates the columns: of the known ones that which is most frequent in the header."""
    usual = "\t" if ".tsv" in path.suffixes else ","
    outside = "".join(line.split('"')[::2])
    counts = {separator: outside.count(separator) for separator in SEPARATORS}
    best = max(counts, key=lambda separator: (counts[separator], separator == usual))
    return best if counts[best] else usual


def _header(head: bytes, separator: str) -> list[str]:
    text = head.decode("utf-8", "replace")
    return next(row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row)


def _column_names(given: list[str], path: Path) -> tuple[list[str], list[str]]:
    """Returns names for all columns, and those that had none; refuses a first line that holds no names."""
    names = [name.strip() for name in given]
    numeric = [name for name in names if name.replace(".", "", 1).lstrip("+-").isdigit()]
    if len(numeric) > 0.5 * len(names) and [n for n in numeric if n in map(str, range(len(names) + 1))] != numeric:
        raise DataError(
            f"{path}: the first line holds numbers ({', '.join(names[:3])}, ...), not names; add a line with the names "
            "of the columns."
        )
    unnamed = [i for i, name in enumerate(names) if not name]
    for i in unnamed:
        names[i] = f"column_{i + 1}"
    refuse_twice(names, str(path))
    return names, [names[i] for i in unnamed]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
