"""Losses printed as a table, as notebooks show the Trainer's progress, or as a JSON object behind a logger's prefix."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sightline.runs.names import EPOCH_NAMES, STEP_NAMES, canonical, is_loss
from sightline.sources.console.numbers import NUMBER, to_float
from sightline.sources.console.vocabulary import EPOCH, STEP, name_of
from sightline.sources.json_text import parse
from sightline.sources.numbers import as_float, as_step

_DIGIT = re.compile(rb"[0-9]")
_SPLIT = re.compile(r"^(?:train|valid|test)_")


def printed_json(line: bytes) -> dict[str, float] | None:
    """Return the metrics of a JSON object in a line (fairseq's and many people's own loggers'), None if it has no loss.

    What counts it is named STEP and EPOCH; ``valid_num_updates`` counts as ``num_updates`` does.
    """
    try:
        entry = parse(line[line.index(b'{"') : line.rindex(b"}") + 1])
    except ValueError:
        return None
    if type(entry) is not dict:
        return None
    numbers = {name: number for name, value in entry.items() if (number := as_float(value)) is not None}
    plain = {name: _SPLIT.sub("", name.lower(), count=1) for name in numbers}
    counts = {plain[name]: number for name, number in numbers.items()}
    row: dict[str, float] = {}
    for known, names in ((STEP, STEP_NAMES), (EPOCH, EPOCH_NAMES)):
        counted = next((step for name in names if (step := as_step(counts.get(name))) is not None), None)
        if counted is not None:
            row[known] = counted
    for name, number in numbers.items():
        if plain[name] not in (*STEP_NAMES, *EPOCH_NAMES):
            row.setdefault(canonical(name), number)
    return row if any(map(is_loss, row)) else None


class PrintedTable:
    """A table printed as text, as notebooks show the Trainer's progress: a header, then rows of numbers."""

    def __init__(self) -> None:
        self._names: list[str] | None = None

    @property
    def open(self) -> bool:
        """Whether the last line was part of a table."""
        return self._names is not None

    def row(self, line: bytes) -> dict[str, float] | None:
        """Take a line: a header begins a table, a row of as many numbers continues it, anything else ends it."""
        if self._names is None and (b"oss" not in line or _DIGIT.search(line)):
            return None
        cells = _cells(line)
        if self._names is None:
            self._names = _column_names(cells)
            return None
        if not cells:
            return None
        values = [_cell(cell) for cell in cells]
        if len(cells) != len(self._names) or values[0] is None or sum(value is not None for value in values) < 2:
            if not set(line) <= set(b"-+|=: \t"):  # a rule under the header
                self._names = _column_names(cells) if b"oss" in line else None
            return None
        return {name: value for name, value in zip(self._names, values, strict=True) if name and value is not None}


def _cells(line: bytes) -> list[str]:
    text = line.decode("utf-8", "replace").strip().strip("|")
    if "\t" in text:
        return [cell.strip() for cell in text.split("\t")]
    if "|" in text:
        return [cell.strip() for cell in text.split("|")]
    return [cell for cell in re.split(r"\s{2,}", text) if cell] if "  " in text else text.split()


def _column_names(cells: Sequence[str]) -> list[str] | None:
    """Return the metrics of a header's columns, "" for one that is none; None if it is no header."""
    names = []
    for cell in cells:
        name = name_of(cell.lower(), "")
        names.append(name or "")
    if len(names) < 2 or names[0] not in (STEP, EPOCH) or not any(name.endswith("loss") for name in names):
        return None
    return [name if name not in names[:i] else "" for i, name in enumerate(names)]


def _cell(cell: str) -> float | None:
    match = NUMBER.fullmatch(cell.encode())
    return to_float(match[0]) if match else None
