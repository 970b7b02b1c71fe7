"""The part of the validation rows that a run scores, and what it cannot see."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.evaluation import EvalSet, Row
from sightline.runs import ExampleLosses
from sightline.training.sample import Sample

WHOLE = EvalSet(
    [Row([i + 3] * 5, [i + 3] * 5) for i in range(200)], places=[f"val.jsonl, line {i + 1}" for i in range(200)]
)


def losses(rows: int, spread: float = 0.0) -> ExampleLosses:
    counts = np.full(rows, 10)
    return ExampleLosses(20.0 + np.random.default_rng(0).normal(0.1, spread, rows) * (spread > 0), counts)


def test_a_sample_keeps_rows_and_places_together():
    """Each row of a part is the one its index and its place say."""
    part = Sample.drawn(WHOLE, 30)
    assert part.is_part and not Sample.drawn(WHOLE, 200).is_part and not Sample.drawn(WHOLE, 500).is_part
    for row, at in enumerate(part.index):
        assert part.rows.ids[row].tolist() == WHOLE.ids[at].tolist()
        assert part.rows.places[row] == f"val.jsonl, line {at + 1}"


def test_a_smaller_sample_is_the_beginning_of_a_larger_one():
    """Row by row, up to the whole set; a set scored whole in its own order stays as it is."""
    small, large, whole = Sample.drawn(WHOLE, 30), Sample.drawn(WHOLE, 90), Sample.drawn(WHOLE, 200)
    assert large.index[:30].tolist() == small.index.tolist() and whole.index[:90].tolist() == large.index.tolist()
    assert small.of_size(90).index.tolist() == large.index.tolist()
    assert Sample.all_of(WHOLE).of_size(30).index.tolist() == list(range(200))


@pytest.mark.parametrize(("rows", "spread", "told"), [(30, 2.0, True), (30, 0.01, False), (200, 2.0, False)])
def test_what_it_cannot_see_is_said(rows, spread, told):
    """Few rows that change unlike each other show no change of 1 %; alike ones do, and all rows leave no doubt."""
    before, after, sample = losses(rows), losses(rows, spread), Sample.drawn(WHOLE, rows)
    assert (sample.needed(before, after) > rows) is told
    found = sample.blind_to(before, after)
    assert (found is not None) is told
    if found is not None:
        assert found.startswith("30 of 200 validation rows") and "eval_time_budget" in found


def test_a_best_evaluation_of_fewer_rows_is_compared_on_those():
    """What the rows of both say holds for the sample of now."""
    best, now = losses(30), losses(60, 2.0)
    needed = Sample.drawn(WHOLE, 60).needed(best, now)
    assert needed == Sample.drawn(WHOLE, 30).needed(best, now.first(30)) > 60
    told = Sample.drawn(WHOLE, 60).blind_to(best, now), Sample.drawn(WHOLE, 30).blind_to(best, now)
    smallest = [float(text.partition("below ")[2].partition("%")[0]) for text in told]
    assert smallest[0] < smallest[1]
