"""Trials counted over the whole test run: how many times a promise was tried and how many times it was broken.

A test that tries one promise many times asks for the ``trials`` fixture::

    def test_every_damage_is_found(trials):
        tally = trials("C3", "damages found by verify")
        for damage in DAMAGES:
            tally.count(found(damage), what=damage)
        tally.check()

The table is printed at the end of the run, summed over tests and processes of the same id and words;
``--reliability PAGE`` puts it into the page, where rows that were not tried this time keep their date. A test that has
to skip asks for its tally first: the row then says skipped instead of passing for tried.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PROPERTY = "trials"
BEGIN, END = "<!-- trials: begin -->", "<!-- trials: end -->"
NEW_PAGE = f"# Reliability\n\n{BEGIN}\n{END}\n"
SHOWN_FAILURES = 10


class Row(NamedTuple):
    """One promise and how it was kept."""

    id: str
    what: str
    trials: int
    failures: int
    skipped: int
    date: str

    @property
    def key(self) -> tuple[str, str]:
        return self.id, self.what

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as it is shown; what was only skipped has no counts."""
        counts = (str(self.trials), str(self.failures)) if self.trials else ("skipped", "")
        return (self.id, self.what, *counts, self.date)


class Tally:
    """The count of one test; ``counts`` is what travels from the worker process with the test's report."""

    def __init__(self, id: str, what: str) -> None:
        self.counts: dict[str, Any] = {"id": id, "what": what, "trials": 0, "failures": 0}
        self.failed: list[str] = []

    def count(self, kept: bool, what: object = "") -> None:
        """Count one trial; ``what`` names it should it have failed."""
        self.counts["trials"] += 1
        if not kept:
            self.counts["failures"] += 1
            self.failed.append(str(what))

    def check(self) -> None:
        """Fail the test if any trial failed, or if there was none."""
        __tracebackhide__ = True
        tried = self.counts["trials"]
        assert tried, f"{self.counts['id']}: nothing was tried"
        shown = "; ".join(self.failed[:SHOWN_FAILURES])
        assert not self.failed, f"{self.counts['id']}: {len(self.failed)} of {tried} failed: {shown}"


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Callable[[str, str], Tally]:
    """Return a function that opens a tally: ``trials(id, what was tried)``."""

    def opened(id: str, what: str) -> Tally:
        tally = Tally(id, what)
        request.node.user_properties.append((PROPERTY, tally.counts))
        return tally

    return opened


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="PAGE", help="put the table of trials into this page")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = summed(report for reports in terminalreporter.stats.values() for report in reports)
    if not rows:
        return
    terminalreporter.section("trials")
    for line in _aligned([("test", "what was tried", "trials", "failures", "date"), *(row.cells for row in rows)]):
        terminalreporter.write_line(line.rstrip())
    if page := config.getoption("--reliability"):
        update_page(Path(page), rows)


def summed(reports: Iterable[Any], date: str | None = None) -> list[Row]:
    """Sum what the reports of a run counted, by id and words; a test that failed without a failed trial counts one."""
    today = date or datetime.date.today().isoformat()
    rows: dict[tuple[str, str], Row] = {}
    for report in reports:
        when = getattr(report, "when", None)
        if when != "call" and (when != "setup" or report.outcome == "passed"):
            continue
        for name, counts in report.user_properties:
            if name != PROPERTY:
                continue
            trials, failures = counts["trials"], counts["failures"]
            if report.outcome == "failed" and not failures:
                trials, failures = max(trials, 1), 1
            new = Row(counts["id"], counts["what"], trials, failures, int(report.outcome == "skipped"), today)
            old = rows.get(new.key)
            rows[new.key] = new if old is None else _plus(old, new)
    return sorted(rows.values(), key=_order)


def update_page(page: Path, rows: Iterable[Row]) -> None:
    """Put rows into the table of a page, a new one where there is none; rows of other promises stay as they were."""
    text = page.read_text(encoding="utf-8") if page.exists() else NEW_PAGE
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = {row.key: row for row in _rows_of(table)} | {row.key: row for row in rows}
    cells = [row.cells for row in sorted(kept.values(), key=_order)]
    lines = ["| test | what was tried | trials | failures | date |", "| --- | --- | ---: | ---: | --- |"]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    page.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def _rows_of(table: str) -> Iterable[Row]:
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and re.fullmatch(r"[A-Z]\w*", cells[0]):
            counted = cells[2].isdigit()
            yield Row(cells[0], cells[1], *((int(cells[2]), int(cells[3]), 0) if counted else (0, 0, 1)), cells[4])


def _plus(one: Row, other: Row) -> Row:
    return one._replace(
        trials=one.trials + other.trials,
        failures=one.failures + other.failures,
        skipped=one.skipped + other.skipped,
    )


def _order(row: Row) -> tuple[str, int, str]:
    letters, digits = re.fullmatch(r"([A-Za-z]*)(\d*).*", row.id).groups()  # type: ignore[union-attr]
    return letters, int(digits or 0), row.what


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
