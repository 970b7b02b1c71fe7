"""On how many rows a run is evaluated."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sightline.training.evaluation_plan import (
    FEWEST_EVALUATIONS,
    FEWEST_ROWS,
    WANTED_EVALUATIONS,
    WIDENED_BY,
    EvaluationPlan,
    affordable_rows,
    plan_evaluations,
    widened,
)
from sightline.training.spending import FREE_S

WHOLE = EvaluationPlan(eval_rows=400, probe_rows=256)
RUN = {"step_s": 1.0, "total_steps": 200, "share": 0.1}


@given(
    eval_s=st.floats(0.001, 20), probe_s=st.floats(0.001, 20), step_s=st.floats(0.01, 5), steps=st.integers(20, 5000),
    evaluations=st.integers(1, 200),
)  # fmt: skip
def test_the_wanted_evaluations_fit_or_no_more_rows_can_be_spared(eval_s, probe_s, step_s, steps, evaluations):
    """Twenty evaluations and what comes before and after them take their share, unless the rows are at their fewest."""
    plan = plan_evaluations(
        WHOLE, evaluations=evaluations, eval_s=eval_s, probe_s=probe_s, step_s=step_s, total_steps=steps, share=0.1
    )
    each_s = eval_s * plan.eval_rows / 400 + probe_s * plan.probe_rows / 256
    spent = each_s * (min(evaluations, WANTED_EVALUATIONS) + 2)
    at_their_fewest = plan.eval_rows == FEWEST_ROWS or plan.probe_rows == 16
    assert spent <= max(0.1 * (spent + step_s * steps), FREE_S) * (1 + 1e-6) or at_their_fewest
    assert FEWEST_ROWS <= plan.eval_rows <= 400 and 16 <= plan.probe_rows <= 256


def test_rows_are_spared_only_below_twenty_evaluations():
    """Two hundred evaluations of all rows do not fit, and twenty do: none is spared."""
    assert plan_evaluations(WHOLE, evaluations=200, eval_s=0.5, probe_s=0.25, **RUN) == WHOLE
    plan = plan_evaluations(WHOLE, evaluations=200, eval_s=2, probe_s=1, **RUN)
    assert FEWEST_ROWS <= plan.eval_rows < 400


def test_a_budget_of_all_the_time_spares_nothing():
    """eval_time_budget 1 asks for no bound."""
    assert plan_evaluations(WHOLE, evaluations=9, eval_s=90, probe_s=90, step_s=1, total_steps=9, share=1.0) == WHOLE


@given(left_s=st.floats(0, 1000), left=st.floats(0, 1), row_s=st.floats(1e-4, 1), probe_s=st.floats(0, 10))
def test_affordable_rows_leave_time_for_the_evaluations_a_run_should_have(left_s, left, row_s, probe_s):
    """Ten a run, in proportion to what is left of it, and the check of the best weights."""
    rows = affordable_rows(left_s, left=left, row_s=row_s, probe_s=probe_s)
    evaluations = max(1, FEWEST_EVALUATIONS * left)
    assert rows == 0 or evaluations * (rows * row_s + probe_s) + rows * row_s <= left_s * (1 + 1e-9)


@given(rows=st.integers(2, 300), needed=st.integers(2, 1000), affordable=st.integers(0, 2000), more=st.integers(0, 700))
def test_a_sample_grows_to_what_is_needed_within_what_there_is(rows, needed, affordable, more):
    """It never shrinks, never goes beyond the time or the rows, and every step is a large one."""
    of_rows = rows + more
    wider = widened(rows, needed, affordable, of_rows)
    assert rows <= wider <= of_rows
    if wider > rows:
        assert needed > rows and wider <= affordable and wider >= min(of_rows, WIDENED_BY * rows)
    elif needed > rows and of_rows > rows:
        assert affordable < WIDENED_BY * rows + 1
