"""One JSON object a line: LLaMA-Factory's trainer_log.jsonl, ms-swift's logging.jsonl, and anybody's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sightline.errors import MalformedLog
from sightline.runs import Run, Status
from sightline.runs.names import STEP_NAMES
from sightline.sources.files import as_utf8, chunks, head, is_folder
from sightline.sources.json_text import parse
from sightline.sources.lines import LineSplitter
from sightline.sources.numbers import as_float, as_step
from sightline.sources.table import Origin, Table, tells_a_run, unfolded
from sightline.sources.table_runs import runs_of

NAME = "jsonl"
_LINES_LOOKED_AT = 50
_TOTALS = ("total_steps", "max_steps")


def recognises(path: Path) -> bool:
    """Return whether the first lines are JSON objects, and one holds a loss or a metric with a count of steps."""
    if is_folder(path):
        return False
    start = as_utf8(head(path))
    if start.lstrip()[:1] != b"{":
        return False
    lines = [line for line in start.splitlines() if line.strip()][:_LINES_LOOKED_AT]
    objects = [entry for line in lines if (entry := _object(line)) is not None]
    if not objects or len(objects) < 0.5 * len(lines):
        return False
    names = dict.fromkeys(name for entry in objects for name in _names(entry))
    if len(lines) == 1 and not any(name.lower() in STEP_NAMES for name in names):
        return False  # the results of a run, in one line
    return tells_a_run(names)


class Parser:
    """Reads a growing file piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = LineSplitter()
        self._table = Table()
        self._broken = 0
        self._last: dict[str, Any] = {}

    def feed(self, piece: bytes) -> None:
        """Read what was appended."""
        self._take([line for line in self._lines.feed(piece) if line.strip()])

    def runs(self) -> tuple[Run, ...]:
        """Return the runs as they stand."""
        damage = []
        if self._broken:
            damage.append(f"{self.path}: {self._broken} lines are no JSON objects and were left out")
        if self._lines.skipped:
            damage.append(f"{self.path}: {self._lines.skipped} lines longer than 1 MiB were left out")
        origin = Origin(self.path, NAME, damage=damage)
        origin.max_steps = next((step for key in _TOTALS if (step := as_step(self._last.get(key)))), None)
        if origin.max_steps and as_step(self._last.get("current_steps")) == origin.max_steps:
            origin.status = Status.FINISHED
        return runs_of(self._table, origin)

    def next_file(self, file: Path) -> None:
        """Go on with another file of the same log: a line without its end is dropped."""
        self._lines.begin_anew()

    def end(self) -> None:
        """Take the last line even if no line end follows it."""
        self._table.complete = True
        if self._lines.tail.strip() and _object(self._lines.tail) is not None:
            self._take([self._lines.tail])

    def _take(self, lines: list[bytes]) -> None:
        if not lines:
            return
        try:
            entries = parse(b"[" + b",".join(lines) + b"]")
        except ValueError:
            entries = [_object(line) for line in lines]
        if any(type(entry) is not dict for entry in entries) or len(entries) != len(lines):
            entries = [entry for line in lines if (entry := _object(line)) is not None]
            self._broken += len(lines) - len(entries)
        entries = list(map(unfolded, entries))
        self._table.add(entries)
        if entries:
            self._last = entries[-1]


def read_all(path: Path) -> tuple[Run, ...]:
    """Read every run in a file with one JSON object a line.

    Raises
    ------
    MalformedLog
        If no line holds a metric.
    """
    parser = Parser(path)
    for piece in chunks(path):
        parser.feed(piece)
    parser.end()
    runs = parser.runs()
    if not runs:
        raise MalformedLog(f"{path}: no line with a metric; expected objects such as {{'step': 10, 'loss': 1.5}}")
    return runs


def read(path: Path) -> Run:
    """Read the longest run in a file with one JSON object a line."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse(line)
    except ValueError:
        return None
    return value if type(value) is dict else None


def _names(entry: dict[str, Any]) -> list[str]:
    names = []
    for name, value in entry.items():
        if type(value) is dict:
            names += [f"{name}/{inner}" for inner, number in value.items() if as_float(number) is not None]
        elif as_float(value) is not None:
            names.append(name)
    return names
