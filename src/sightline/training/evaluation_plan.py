"""EvaluationPlan: on how many rows a run is evaluated, so that it can be looked at often enough within its share of time.

Frequent evaluation on fewer rows tells more of a run's shape than rare evaluation on all: evaluations are compared on the
same rows, so what two of them differ by is far less noisy than either. How far the rows can be spared is what the losses
say once there are some: ``needed`` rows show a change of 1 %, and the sample is widened to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sightline.training.spending import FREE_S

WANTED_EVALUATIONS = 20
"""Evaluations a run should have before rows are spared: enough to see a turn and to date it."""
FEWEST_EVALUATIONS = 10
"""Evaluations a run should keep when rows are added: what the rows cannot show, more looks at them do not show either."""
FEWEST_ROWS = 64
"""Validation rows that are never gone below, unless there are fewer."""
FEWEST_PROBE_ROWS = 16
PROBE_SHARE = 1 / 4
"""Share of the time that goes to the train probe when rows are spared: it shows the gap, validation decides."""
WIDENED_BY = 1.5
"""A sample grows by this factor at least: each step of its width is one more link in the chain that losses hang on."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """On how many rows a run is evaluated."""

    eval_rows: int
    """Validation rows scored each time."""
    probe_rows: int
    """Rows of the train probe scored each time."""


def plan_evaluations(
    whole: EvaluationPlan,
    *,
    evaluations: int,
    eval_s: float,
    probe_s: float,
    step_s: float,
    total_steps: int,
    share: float,
) -> EvaluationPlan:
    """Fit evaluations into their share of the run's time.

    Parameters
    ----------
    whole : EvaluationPlan
        All rows.
    evaluations : int
        How many are wanted after the base model's.
    eval_s, probe_s : float
        Seconds of one pass over all validation rows and over the whole probe.
    step_s : float
        Seconds of one optimizer step.
    total_steps : int
        Steps of the whole run.
    share : float
        Largest share of the run's wall time that all evaluations together may take, above 0 and at most 1; the base
        model's evaluation and the check of the best weights are among them.

    Returns
    -------
    EvaluationPlan
        All rows where 20 evaluations of them fit, or as many as are wanted; else fewer rows, down to 64.
    """
    whole_s = eval_s + probe_s
    if share >= 1 or whole_s <= 0:
        return whole
    passes = min(evaluations, WANTED_EVALUATIONS) + 2
    each_s = max(share / (1 - share) * step_s * total_steps, FREE_S) / passes
    if whole_s <= each_s:
        return whole
    return EvaluationPlan(
        _fewer_rows(whole.eval_rows, each_s * (1 - PROBE_SHARE), eval_s, FEWEST_ROWS),
        _fewer_rows(whole.probe_rows, each_s * PROBE_SHARE, probe_s, FEWEST_PROBE_ROWS),
    )


def affordable_rows(left_s: float, *, left: float, row_s: float, probe_s: float) -> int:
    """Return how many validation rows each of the evaluations that a run should still get can have.

    Parameters
    ----------
    left_s : float
        Seconds that evaluations may still take, the check of the best weights among them.
    left : float
        Part of the run's steps that is still to come.
    row_s, probe_s : float
        Seconds of one validation row, and of the train probe.

    Returns
    -------
    int
        At least 0.
    """
    evaluations = max(1, math.ceil(FEWEST_EVALUATIONS * left))
    return max(0, int((left_s - evaluations * probe_s) / (evaluations + 1) / row_s)) if row_s > 0 else 0


def widened(rows: int, needed: int, affordable: int, of_rows: int) -> int:
    """Return how many rows the next evaluation should have.

    Parameters
    ----------
    rows : int
        Rows scored so far.
    needed : int
        Rows that would show a change of 1 %.
    affordable : int
        Rows that the time allows.
    of_rows : int
        Rows there are.

    Returns
    -------
    int
        ``rows`` where they are enough, or where too few can be added to be worth another width.
    """
    if needed <= rows:
        return rows
    least = min(of_rows, math.ceil(WIDENED_BY * rows))
    wider = min(of_rows, affordable, max(needed, least))
    return wider if wider >= least else rows


def _fewer_rows(rows: int, seconds: float, whole_s: float, fewest: int) -> int:
    """Rows that can be scored in the time, between the fewest and all."""
    if whole_s <= 0:
        return rows
    return min(rows, max(fewest, int(rows * seconds / whole_s)))
