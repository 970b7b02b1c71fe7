"""Tables of metrics: Lightning's metrics.csv, Keras' CSVLogger, YOLO's results.csv, exports of trackers, one's own."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sightline.errors import MalformedLog
from sightline.runs import Run
from sightline.sources.files import as_utf8, chunks, head, is_folder
from sightline.sources.lines import LineSplitter
from sightline.sources.numbers import as_float
from sightline.sources.table import MAX_METRICS, Origin, Table, tells_a_run
from sightline.sources.table_runs import runs_of

NAME = "csv"
_DELIMITERS = (",", "\t", ";", "|")
_NO_NAME = re.compile(r"[{}<>]|[:=\s][-+]?[0-9]+(?:[.:]|$)")  # a sentence with its numbers is no header
_PREAMBLE_LINES = 20  # comments and blank lines that may stand before the header


def recognises(path: Path) -> bool:
    """Return whether the file is a table whose header names a loss, or a metric and a count of steps."""
    if is_folder(path):
        return False
    lines = [line.decode("utf-8", "replace") for line in as_utf8(head(path)).splitlines()[: 2 * _PREAMBLE_LINES]]
    found = _header(lines)
    if found is None or not tells_a_run(found[1]):
        return False
    at, _, delimiter = found
    first = next((line for line in lines[at + 1 : at + 5] if line.strip()), None)
    return first is None or any(as_float(cell) is not None for row in _rows([first], delimiter) for cell in row)


class Parser:
    """Reads a growing file piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = LineSplitter()
        self._table = Table()
        self._header: list[str] | None = None
        self._delimiter = ","
        self._before: list[str] = []
        self._at_start = True
        self._broken = 0

    def feed(self, piece: bytes) -> None:
        """Read what was appended."""
        self._take([line.decode("utf-8", "replace") for line in self._lines.feed(piece)])

    def next_file(self, file: Path) -> None:
        """Go on with another file of the same log: a line without its end is dropped."""
        self._lines.begin_anew()
        self._at_start = True

    def end(self) -> None:
        """Take the last line even if no line end follows it, unless it is cut short."""
        self._table.complete = True
        line = self._lines.tail.decode("utf-8", "replace")
        if self._header and line.count(self._delimiter) == len(self._header) - 1:
            self._take([line])

    def runs(self) -> tuple[Run, ...]:
        """Return the runs as they stand."""
        damage = []
        if self._broken:
            damage.append(f"{self.path}: {self._broken} rows do not fit the header and were left out")
        if self._lines.skipped:
            damage.append(f"{self.path}: {self._lines.skipped} lines longer than 1 MiB were left out")
        return runs_of(self._table, Origin(self.path, NAME, damage=damage))

    def _take(self, lines: list[str]) -> None:
        if self._at_start and lines:
            self._at_start = False
            if (found := _header(lines[:1])) is not None and tells_a_run(found[1]):  # another file, maybe other columns
                self._header = None
        if self._header is None:
            self._before += lines
            if (found := _header(self._before)) is None:
                del self._before[:-_PREAMBLE_LINES]
                return
            at, self._header, self._delimiter = found
            lines, self._before = self._before[at + 1 :], []
        rows = []
        for row in _rows(lines, self._delimiter):
            fitted = self._fitted(row)
            if fitted is not None:
                rows.append(fitted)
        if rows:
            columns = dict(zip(self._header, map(list, zip(*rows, strict=True)), strict=False))
            self._table.add_columns(columns, len(rows))

    def _fitted(self, row: list[str]) -> list[str] | None:
        """Return a row as long as the header, None for one that is no data; a missing tail counts as empty cells."""
        assert self._header is not None
        width = len(self._header)
        if not row or [cell.strip() for cell in row] == self._header:  # a logger started again and wrote its header
            return None
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            self._broken += 1
            return None
        return (row + [""] * (width - len(row)))[:width]


def read_all(path: Path) -> tuple[Run, ...]:
    """Read every run in a table of metrics.

    Raises
    ------
    MalformedLog
        If no row holds a number.
    """
    parser = Parser(path)
    for piece in chunks(path):
        parser.feed(piece)
    parser.end()
    runs = parser.runs()
    if not runs:
        raise MalformedLog(f"{path}: a header and no row with a number below it; was the run stopped before it logged?")
    return runs


def read(path: Path) -> Run:
    """Read the longest run in a table of metrics."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))


def _header(lines: Sequence[str]) -> tuple[int, list[str], str] | None:
    """Return the place of the header among the first lines, its names, and the delimiter."""
    for at, line in enumerate(lines[: 2 * _PREAMBLE_LINES]):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        delimiter = max(_DELIMITERS, key=line.count)
        if not line.count(delimiter):
            return None
        names = [name.strip() for name in next(_rows([line], delimiter), [])]
        words = [name for name in names if name]
        if len(words) < 2 or len(names) > MAX_METRICS or any(as_float(name) is not None for name in words):
            return None
        if max(map(len, words)) > 200 or any(_NO_NAME.search(name) for name in words):
            return None
        return at, names, delimiter
    return None


def _rows(lines: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    """Yield the cells of each line; quotes count only where there are any."""
    texts = (line.replace("\0", "") for line in lines)
    if any('"' in line for line in lines):
        return csv.reader(texts, delimiter=delimiter)
    return csv.reader(texts, delimiter=delimiter, quoting=csv.QUOTE_NONE)
