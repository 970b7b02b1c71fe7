"""How often and on how many rows a run is evaluated."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sightline.training.evaluation_plan import FEWEST_ROWS, EvaluationPlan, plan_evaluations, refit_interval

PLANNED = EvaluationPlan(interval=2, eval_rows=400, probe_rows=256)


def cost(plan: EvaluationPlan, total_steps: int, eval_s: float, probe_s: float) -> float:
    """Seconds of the plan's evaluations, the base model's among them."""
    each = eval_s * plan.eval_rows / PLANNED.eval_rows + probe_s * plan.probe_rows / PLANNED.probe_rows
    return each * (total_steps // plan.interval + 1)


@given(
    eval_s=st.floats(0.001, 20), probe_s=st.floats(0.001, 20), step_s=st.floats(0.01, 5), steps=st.integers(20, 5000)
)
def test_the_plan_costs_its_share_or_is_a_single_evaluation(eval_s, probe_s, step_s, steps):
    """Base model included, evaluations take a tenth of the time at most, unless even one cannot."""
    plan = plan_evaluations(PLANNED, eval_s=eval_s, probe_s=probe_s, step_s=step_s, total_steps=steps, share=0.1)
    spent = cost(plan, steps, eval_s, probe_s)
    training = step_s * steps
    assert spent <= 0.1 * (spent + training) * (1 + 1e-6) or steps // plan.interval <= 1
    assert 1 <= plan.eval_rows <= PLANNED.eval_rows and 1 <= plan.probe_rows <= PLANNED.probe_rows
    assert plan.interval >= PLANNED.interval


def test_a_cheap_evaluation_is_left_as_planned():
    """Where all of them fit, nothing is spared."""
    assert plan_evaluations(PLANNED, eval_s=0.01, probe_s=0.01, step_s=1, total_steps=200, share=0.1) == PLANNED


def test_evaluations_are_spared_before_rows():
    """At twice the budget of the planned number there are fewer of them, on all rows."""
    plan = plan_evaluations(PLANNED, eval_s=0.2, probe_s=0.1, step_s=1, total_steps=200, share=0.1)
    assert plan.interval > 2 and (plan.eval_rows, plan.probe_rows) == (400, 256)


def test_rows_are_spared_down_to_a_floor():
    """A dear validation set is scored in part, never under the floor."""
    plan = plan_evaluations(PLANNED, eval_s=2, probe_s=1, step_s=1, total_steps=200, share=0.1)
    assert FEWEST_ROWS <= plan.eval_rows < 400


@given(interval=st.integers(1, 50), cost=st.floats(0.001, 20), step_s=st.floats(0.01, 5), steps=st.integers(50, 5000))
def test_a_refitted_interval_keeps_the_share(interval, cost, step_s, steps):
    """Measured times only make evaluations rarer, and their share holds unless even one breaks it."""
    fitted = refit_interval(interval, evaluation_s=cost, step_s=step_s, total_steps=steps, share=0.1)
    assert interval <= fitted <= max(interval, steps)
    spent = cost * (steps // fitted + 1)
    assert spent <= 0.1 * (spent + steps * step_s) * (1 + 1e-6) or steps // fitted <= 1
