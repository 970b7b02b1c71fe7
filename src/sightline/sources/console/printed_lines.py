"""Lines that say losses in words, as they are met in a captured terminal, and those that say where a run stands."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.sources.console.lines import Plan, Plans, stretches
from sightline.sources.console.printed_dicts import PrintedDicts
from sightline.sources.console.printed_tables import PrintedTable, printed_json
from sightline.sources.console.rows import Rows
from sightline.sources.console.vocabulary import EPOCH

_STEP_LINE = re.compile(rb"\[(?:step|batch)=([0-9]{1,15})(?:/[0-9]{1,15})?\]")
"""A line of OLMo's and Composer's that names the step of the lines that follow it."""
_EPOCH_BAR = re.compile(rb"[Ee]poch[ :#=]{0,4}([0-9]{1,7})[^|]{0,40}\|[^|]{0,400}\| ")
_EPOCH_LINE = re.compile(rb"(?<![a-z_])epoch[ :#=]{0,4}([0-9]{1,7})(?![0-9.])")
_BANNER = re.compile(
    rb"(num examples|num epochs|total steps|total optimization steps|total train batch size"
    rb"|total batch size|max_steps)[^=|]{0,60}= ?([0-9,]{1,20})(?: \||\s{0,4}$)?"
)
_BEGINS = (b"***** Running training *****", b"==((====))==")
_BATCH = 8_000
_MANY = 8


class PrintedLines:
    """Collects lines by their shape and adds their numbers to the rows, many at a time."""

    def __init__(self, rows: Rows, dicts: PrintedDicts) -> None:
        self.sure = False
        """Whether something was met that only a training log has."""
        self._rows = rows
        self._dicts = dicts
        self._plans = Plans()
        self._table = PrintedTable()
        self._epoch: float | None = None
        self._step: float | None = None
        self._planned: dict[Plan, list[tuple[NDArray[np.int64], bytes]]] = {}
        self._waiting = 0
        self._first, self._cells = 0, list[dict[str, float]]()  # of printed tables, from one row on

    @property
    def in_table(self) -> bool:
        """Whether the last line was part of a printed table."""
        return self._table.open

    def take_uniform(self, text: bytes) -> bool:
        """Take lines of one shape that says losses; return False, and take none, if they are none."""
        plan, count = (None, 0) if self._table.open else self._plans.of_all(text)
        if plan is None or count < _MANY:
            return False
        self._dicts.flush()
        lines = text[:-1]
        self._tell_epoch(plan, lines[lines.rfind(b"\n") + 1 :], b"")
        self._add_planned(plan, np.arange(count, dtype=np.int64) + len(self._rows.tiers), lines)
        self._rows.extend(bytes([plan.tier]) * count, self._epoch, self._step)
        return True

    def stretches(self, text: bytes, lines: Sequence[bytes]) -> list[tuple[int, list[Plan]]]:
        """Return the places in a text from which on lines can be taken together, and their plans."""
        if len(lines) < _MANY:
            return []
        found, end = [], 0
        for epoch_named, plans in stretches(self._plans.of_lines(text, lines)):
            if epoch_named is not None and len(plans) >= _MANY:
                found.append((end, [plan for plan in plans if plan is not None]))
            end += len(plans)
        return found

    def take_alike(self, lines: Sequence[bytes], plans: Sequence[Plan], before: bytes) -> None:
        """Take lines that tell losses, each with its plan; all of them name an epoch, or none does."""
        self._dicts.flush()
        self._tell_epoch(plans[-1], lines[-1], before)
        first = len(self._rows.tiers)
        kinds = dict.fromkeys(plans)
        for plan in kinds:
            places = range(len(plans)) if len(kinds) == 1 else [i for i, each in enumerate(plans) if each is plan]
            own = b"\n".join(map(lines.__getitem__, places))
            self._add_planned(plan, np.array(places, dtype=np.int64) + first, own)
        self._rows.extend(bytes([plan.tier for plan in plans]), self._epoch, self._step)

    def take(self, line: bytes, before: bytes) -> None:
        """Take a line that may tell losses; ``before`` is the line before it."""
        plan = self._plans.of(line)
        if plan is None or self._table.open:
            row = self._table.row(line)
            if row is not None:
                self._add(row)
                return
        if plan is None:
            if b'{"' in line and (row := printed_json(line)) is not None:
                self._add(row)
            elif line[-1:] != b"]":
                self.take_context(line)
            return
        self._dicts.flush()
        self._tell_epoch(plan, line, before)
        self._add_planned(plan, np.array([len(self._rows.tiers)], dtype=np.int64), line)
        self._rows.append(plan.tier, self._epoch, self._step)

    def take_context(self, line: bytes) -> None:
        """Keep what a line without losses says of where the run stands."""
        lowered = line.lower()
        if (match := _EPOCH_LINE.search(lowered)) is not None:
            self._epoch = float(match[1])
        if (match := _STEP_LINE.search(line)) is not None:
            self._step = float(match[1])
        if any(mark in line for mark in _BEGINS):
            self._dicts.add_hint("begins", 0)
        elif b"=" in line:
            for name, number in _BANNER.findall(lowered):
                if digits := number.replace(b",", b""):
                    self._dicts.add_hint(name.decode(), int(digits))

    def flush_if_many(self) -> None:
        """Take the numbers out of the lines that wait if they are many."""
        if self._waiting > _BATCH:
            self.flush()

    def flush(self) -> None:
        """Take the numbers out of the lines met since the last time."""
        for plan, pieces in self._planned.items():
            rows = pieces[0][0] if len(pieces) == 1 else np.concatenate([own for own, _ in pieces])
            for name, (keep, values) in plan.columns(b"\n".join([text for _, text in pieces]), rows.size).items():
                own = rows if keep is None else rows[keep]
                self._rows.table.add_values(f"{plan.tier}:{name}", own, values)
        self._flush_cells()
        self._planned, self._waiting = {}, 0

    def _tell_epoch(self, plan: Plan, line: bytes, before: bytes) -> None:
        if plan.has_epoch:
            self._epoch = plan.value(EPOCH, line)
        elif (bar := _EPOCH_BAR.search(before)) is not None:
            self._epoch = float(bar[1])

    def _add_planned(self, plan: Plan, rows: NDArray[np.int64], text: bytes) -> None:
        self._planned.setdefault(plan, []).append((rows, text))
        self._waiting += rows.size
        self.sure = self.sure or (len(plan.names) >= 3 and plan.tier == 1)

    def _add(self, row: dict[str, float]) -> None:
        """Add a row of a printed table."""
        self._dicts.flush()
        if self._first + len(self._cells) != len(self._rows.tiers):
            self._flush_cells()
            self._first = len(self._rows.tiers)
        self._cells.append(row)
        self._waiting += 1
        self._rows.append(1, row.get(EPOCH))
        self.sure = True

    def _flush_cells(self) -> None:
        self._rows.table.rows = self._first
        self._rows.table.add(self._cells, prefix="1:")
        self._first, self._cells = 0, []
