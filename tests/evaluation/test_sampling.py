"""Samples of rows and probes: what they can see, checked by drawing them again and again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.evaluation import EvalSet, Row, RowSample, difference_error, rows_needed, train_probe
from sightline.runs import ExampleLosses


def two_evaluations(n: int, seed: int = 0) -> tuple[ExampleLosses, ExampleLosses]:
    """Return the losses of n rows of unequal length, before and after a little training."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(3, 120, n)
    means = rng.gamma(4.0, 0.5, n)
    after = means * (0.99 + rng.normal(0, 0.05, n)) + rng.normal(0, 0.3, n) / np.sqrt(counts)
    return ExampleLosses(means * counts, counts), ExampleLosses(after * counts, counts)


def only(losses: ExampleLosses, rows: np.ndarray) -> ExampleLosses:
    """Return what an evaluation of these rows only would have given."""
    chosen = np.isin(np.arange(len(losses.loss_sums)), rows)
    return ExampleLosses(np.where(chosen, losses.loss_sums, 0.0), np.where(chosen, losses.token_counts, 0))


@pytest.mark.parametrize("m", [40, 150, 400])
def test_error_is_that_of_samples_drawn_again(m: int) -> None:
    """The standard error equals the spread of the difference over samples, and 95 % of intervals hold the truth."""
    n = 500
    before, after = two_evaluations(n)
    truth, rng = after.loss - before.loss, np.random.default_rng(1)
    found, errors = [], []
    for _ in range(400):
        rows = rng.choice(n, m, replace=False)
        part = only(before, rows), only(after, rows)
        found.append(part[1].loss - part[0].loss)
        errors.append(difference_error(*part, n))
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.12)
    inside = np.abs(np.array(found) - truth) <= 1.96 * np.array(errors)
    assert 0.91 <= inside.mean() <= 0.98


def test_the_rows_asked_for_are_enough() -> None:
    """A sample of the size asked for sees the change: its error is as small as wanted, one row less and it is not."""
    n = 3000
    before, after = two_evaluations(n)
    needed = rows_needed(before, after, n, change=0.01)
    assert needed is not None
    assert 50 < needed < n
    rng, errors = np.random.default_rng(2), []
    for _ in range(60):
        rows = rng.choice(n, needed, replace=False)
        errors.append(difference_error(only(before, rows), only(after, rows), n))
    assert np.mean(errors) == pytest.approx(0.01 * before.loss / 1.96, rel=0.03)


@given(n=st.integers(1, 200), size=st.integers(1, 300), more=st.integers(0, 100))
def test_samples_are_nested_and_fixed(n: int, size: int, more: int) -> None:
    """The same set gives the same sample, and a larger one contains it."""
    sample = RowSample.of(n, size)
    np.testing.assert_array_equal(sample.rows, RowSample.of(n, size).rows)
    assert len(np.unique(sample.rows)) == sample.size == min(n, size)
    assert np.isin(sample.rows, RowSample.of(n, size + more).rows).all()


def test_all_rows_leave_no_doubt() -> None:
    """With every row scored the difference is the truth; with one row nothing is known of it."""
    before, after = two_evaluations(50)
    assert difference_error(before, after, 50) == 0.0
    assert np.isnan(difference_error(only(before, np.array([3])), only(after, np.array([3])), 50))
    assert rows_needed(only(before, np.array([3])), only(after, np.array([3])), 50) is None


def _rows(n: int, tokens: int, masked: int = 0) -> list[Row]:
    return [Row([i % 7] * (tokens + 1), [-100] * (1 + masked) + [i % 7] * (tokens - masked)) for i in range(n)]


def test_probe_has_as_many_tokens_as_the_validation_rows() -> None:
    """Training rows of another length: as many labelled tokens, to within a row."""
    probe = train_probe(_rows(500, 10), _rows(40, 25, masked=5))
    assert EvalSet(probe).tokens == 800
    assert len(train_probe(_rows(500, 10), _rows(400, 25))) == 256
    assert len(train_probe(_rows(30, 10), _rows(400, 25))) == 30


def test_probe_is_fixed_spread_and_in_order() -> None:
    """The same rows give the same probe, from all over the training rows, in their order."""
    train = [Row([i, i], [-100, i if i % 2 else -100]) for i in range(1000)]
    probe = train_probe(train, _rows(100, 1))
    firsts = [row.input_ids[0] for row in probe]
    assert firsts == [row.input_ids[0] for row in train_probe(train, _rows(100, 1))] == sorted(firsts)
    assert len(firsts) == 100
    assert all(i % 2 for i in firsts)
    assert 350 < np.mean(firsts) < 650
    assert EvalSet(probe).tokens == 100
