"""The table of trials itself: counts are summed over tests and processes, and a page keeps what was not tried."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.trials import BEGIN, END, Row, Tally, summed, update_page


def report(tally: Tally, outcome: str = "passed", when: str = "call") -> SimpleNamespace:
    return SimpleNamespace(when=when, outcome=outcome, user_properties=[("trials", tally.counts)])


def tally_of(kept: int, failed: int, id: str = "C3", what: str = "damages") -> Tally:
    tally = Tally(id, what)
    for i in range(kept + failed):
        tally.count(i < kept, what=i)
    return tally


def test_counts_of_one_promise_are_summed() -> None:
    rows = summed(
        [report(tally_of(20, 0)), report(tally_of(3, 2), "failed"), report(tally_of(1, 0, "C10"))], "2026-01-02"
    )
    assert rows == [Row("C3", "damages", 25, 2, 0, "2026-01-02"), Row("C10", "damages", 1, 0, 0, "2026-01-02")]


def test_test_that_broke_off_counts_as_a_failure() -> None:
    (row,) = summed([report(tally_of(5, 0), "failed")])
    assert (row.trials, row.failures) == (5, 1)


def test_skipped_promise_does_not_pass_for_tried() -> None:
    for when in ("call", "setup"):
        (row,) = summed([report(tally_of(0, 0), "skipped", when)])
        assert row.cells[2] == "skipped"


def test_phases_of_one_test_are_counted_once() -> None:
    """The report of a passed setup or teardown carries the same counts again."""
    tally = tally_of(5, 0)
    (row,) = summed([report(tally, when="setup"), report(tally), report(tally, when="teardown")])
    assert row.trials == 5


def test_tally_fails_on_a_failed_trial_and_on_none() -> None:
    tally_of(2, 0).check()
    with pytest.raises(AssertionError, match="1 of 3 failed: 2"):
        tally_of(2, 1).check()
    with pytest.raises(AssertionError, match="nothing was tried"):
        tally_of(0, 0).check()


def test_page_that_is_not_there_is_written(tmp_path: Path) -> None:
    """The first table of a page is a page with the table; the next one finds it there."""
    page = tmp_path / "page.md"
    update_page(page, [Row("C3", "damages", 200, 0, 0, "2026-01-01")])
    update_page(page, [Row("C5", "best", 500, 0, 0, "2026-01-02")])
    text = page.read_text()
    assert text.startswith("# ") and text.count(BEGIN) == text.count(END) == 1
    assert "| C3 | damages | 200 | 0 | 2026-01-01 |" in text and "| C5 | best | 500 | 0 | 2026-01-02 |" in text


def test_page_keeps_rows_that_were_not_tried(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{BEGIN}\n{END}\n\nend\n")
    update_page(page, [Row("C3", "damages", 200, 0, 0, "2026-01-01"), Row("C5", "best", 500, 0, 0, "2026-01-01")])
    update_page(page, [Row("C5", "best", 500, 1, 0, "2026-02-02")])
    text = page.read_text()
    assert "| C3 | damages | 200 | 0 | 2026-01-01 |" in text
    assert "| C5 | best | 500 | 1 | 2026-02-02 |" in text
    assert text.startswith("# Page\n") and text.endswith("\n\nend\n")
