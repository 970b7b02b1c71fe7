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


def test_a_sample_keeps_rows_and_places_together():
    """Each row of a part is the one its index and its place say."""
    part = Sample.of(WHOLE, 30)
    assert part.is_part and not Sample.of(WHOLE, 200).is_part and not Sample.of(WHOLE, 500).is_part
    for row, at in enumerate(part.index):
        assert part.rows.ids[row].tolist() == WHOLE.ids[at].tolist()
        assert part.rows.places[row] == f"val.jsonl, line {at + 1}"


@pytest.mark.parametrize(("rows", "spread", "told"), [(30, 2.0, True), (30, 0.01, False), (200, 2.0, False)])
def test_what_it_cannot_see_is_said(rows, spread, told):
    """Few rows that change unlike each other show no change of 1 %; alike ones do, and all rows leave no doubt."""
    counts = np.full(rows, 10)
    before = ExampleLosses(np.full(rows, 20.0), counts)
    after = ExampleLosses(20.0 + np.random.default_rng(0).normal(0.1, spread, rows), counts)
    found = Sample.of(WHOLE, rows).blind_to(before, after)
    assert (found is not None) is told
    if found is not None:
        assert found.startswith("30 of 200 validation rows") and "eval_time_budget" in found
