"""Which rows a change of the loss comes from."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.errors import DataError
from sightline.evaluation import row_changes
from sightline.runs import ExampleLosses


def losses(sums: list[float], counts: list[int]) -> ExampleLosses:
    return ExampleLosses(np.array(sums, dtype=np.float64), np.array(counts, dtype=np.int64))


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.integers(0, 9)), min_size=1, max_size=30))
def test_contributions_add_up_to_the_change(rows: list[tuple[float, float, int]]) -> None:
    """Whatever the rows, their contributions sum to the change of the loss, and come sorted."""
    was, now, counts = (list(column) for column in zip(*rows, strict=True))
    was, now = ([s if c else 0.0 for s, c in zip(sums, counts, strict=True)] for sums in (was, now))
    changes = row_changes(losses(was, counts), losses(now, counts))
    if sum(counts):
        assert changes.total == pytest.approx(losses(now, counts).loss - losses(was, counts).loss, abs=1e-9)
    assert (np.diff(changes.contributions) <= 0).all()
    assert sorted(changes.rows) == [i for i, c in enumerate(counts) if c]
    np.testing.assert_allclose(changes.per_token * changes.token_counts / max(sum(counts), 1), changes.contributions)


def test_the_rows_that_drive_a_rise_are_named() -> None:
    """One row that is memorised away outweighs many that gain a little."""
    changes = row_changes(losses([10, 10, 10, 10], [5, 5, 5, 5]), losses([9, 30, 14, 8], [5, 5, 5, 5]))
    assert changes.worsened().tolist() == [1, 2]
    assert changes.improved().tolist() == [3, 0]
    assert changes.improved(most=1).tolist() == [3]
    assert changes.drivers(0.5).tolist() == [1]
    assert changes.drivers(1.0).tolist() == [1, 2]
    assert changes.rise == pytest.approx(24 / 20)
    assert changes.total == pytest.approx(21 / 20)


def test_rows_that_broke_come_first() -> None:
    """A loss that has become NaN outweighs everything; one that was and is NaN says nothing."""
    nan, inf = float("nan"), float("inf")
    changes = row_changes(losses([1, 1, nan, nan, 2], [1] * 5), losses([nan, 2, nan, 1, inf], [1] * 5))
    assert changes.rows.tolist() == [0, 4, 1, 2, 3]
    assert changes.contributions.tolist() == [inf, inf, 0.2, 0.0, -inf]
    assert changes.drivers().tolist() == [0, 4]
    assert np.isnan(changes.total)


def test_nothing_rose() -> None:
    """Where every row got better nothing drives a rise."""
    changes = row_changes(losses([3, 4], [1, 1]), losses([2, 3], [1, 1]))
    assert changes.worsened().size == changes.drivers().size == 0
    assert changes.rise == 0.0


@pytest.mark.parametrize(("counts", "message"), [([1], "of 2 and of 1 rows"), ([1, 2], "not the same rows")])
def test_other_rows_are_refused(counts: list[int], message: str) -> None:
    """Losses of other rows cannot be compared row by row."""
    with pytest.raises(DataError, match=message):
        row_changes(losses([1, 2], [1, 1]), losses([1.0] * len(counts), counts))


def test_reading_losses_needs_no_torch() -> None:
    """What the reader of a journal uses does not import torch."""
    code = (
        "import sys; from sightline.evaluation import row_changes, RowSample, train_probe, EvalSet; "
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
