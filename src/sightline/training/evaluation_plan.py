"""EvaluationPlan: how often a run is evaluated, and on how many rows, so that it costs its share and no more.

What one pass and one step cost is measured in the run itself. Frequent evaluation on fewer rows tells more of a run's
shape than rare evaluation on all: evaluations are compared on the same rows, so what two of them differ by is far less
noisy than either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WANTED_EVALUATIONS = 20
"""Evaluations a run should have before rows are spared: enough to see a turn and to date it."""
FEWEST_ROWS = 64
"""Validation rows that are never gone below, unless there are fewer."""
FEWEST_PROBE_ROWS = 16
PROBE_SHARE = 1 / 4
"""Share of the time that goes to the train probe when rows are spared: it shows the gap, validation decides."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """How often and on how many rows a run is evaluated."""

    interval: int
    """Optimizer steps between evaluations."""
    eval_rows: int
    """Validation rows scored each time."""
    probe_rows: int
    """Rows of the train probe scored each time."""


def plan_evaluations(
    planned: EvaluationPlan, *, eval_s: float, probe_s: float, step_s: float, total_steps: int, share: float
) -> EvaluationPlan:
    """Fit a plan into its share of the run's time.

    Parameters
    ----------
    planned : EvaluationPlan
        What is wanted: the interval that ``evals_per_epoch`` gives, and all rows.
    eval_s, probe_s : float
        Seconds of one pass over all validation rows and over the whole probe.
    step_s : float
        Seconds of one optimizer step.
    total_steps : int
        Steps of the whole run.
    share : float
        Largest share of the run's wall time that all evaluations together may take, above 0 and below 1; the base
        model's evaluation is one of them.

    Returns
    -------
    EvaluationPlan
        The plan itself where it fits. Else fewer evaluations, down to 20; then fewer rows, down to 64; then fewer
        evaluations again.
    """
    budget_s = share / (1 - share) * step_s * total_steps
    whole_s = eval_s + probe_s
    evaluations = max(1, total_steps // planned.interval)
    if (evaluations + 1) * whole_s <= budget_s or whole_s <= 0:
        return planned
    fewer = min(evaluations, max(WANTED_EVALUATIONS, int(budget_s / whole_s) - 1))
    if (fewer + 1) * whole_s <= budget_s:
        return EvaluationPlan(_interval(total_steps, fewer), planned.eval_rows, planned.probe_rows)
    each_s = budget_s / (fewer + 1)
    eval_rows = _fewer_rows(planned.eval_rows, each_s * (1 - PROBE_SHARE), eval_s, FEWEST_ROWS)
    probe_rows = _fewer_rows(planned.probe_rows, each_s * PROBE_SHARE, probe_s, FEWEST_PROBE_ROWS)
    cost_s = _cost(eval_rows, planned.eval_rows, eval_s) + _cost(probe_rows, planned.probe_rows, probe_s)
    affordable = max(1, min(fewer, int(budget_s / cost_s) - 1))
    return EvaluationPlan(_interval(total_steps, affordable), eval_rows, probe_rows)


def refit_interval(interval: int, *, evaluation_s: float, step_s: float, total_steps: int, share: float) -> int:
    """Return the interval that measured times allow; never shorter than the one that is wanted.

    Parameters
    ----------
    interval : int
        Wanted optimizer steps between evaluations.
    evaluation_s, step_s : float
        Measured seconds of one evaluation, probe included, and of one optimizer step.
    total_steps : int
        Steps of the whole run.
    share : float
        As for ``plan_evaluations``.

    Returns
    -------
    int
        At most ``total_steps``.
    """
    if evaluation_s <= 0 or share >= 1:
        return interval
    affordable = int(share / (1 - share) * step_s * total_steps / evaluation_s) - 1
    return max(interval, _interval(total_steps, max(1, affordable)))


def _interval(total_steps: int, evaluations: int) -> int:
    return max(1, math.ceil(total_steps / evaluations))


def _fewer_rows(rows: int, seconds: float, whole_s: float, fewest: int) -> int:
    """Rows that can be scored in the time, between the fewest and all."""
    if whole_s <= 0:
        return rows
    return min(rows, max(fewest, int(rows * seconds / whole_s)))


def _cost(rows: int, of: int, whole_s: float) -> float:
    return whole_s * rows / of if of else 0.0
