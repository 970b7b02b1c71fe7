"""How often is evaluated and logged, and whether that suits what has to be told."""

from __future__ import annotations

import math

import numpy as np

from sightline.diagnosis.context import Context, note, plural
from sightline.diagnosis.median import median
from sightline.runs import Finding, Severity

RARE, COMMON_HIGH, FREQUENT = 2.0, 20, 60.0
"""Evaluations an epoch: below RARE a turn is seen late, 10 to 20 are common practice, beyond FREQUENT it only costs."""
FEW_IN_ALL, MOST_IN_ALL = 8, 60
"""Evaluations of a whole run: three epochs of 20. Forty tell a rise of a few percent; many epochs need no more of them."""


def evaluation_cadence(context: Context) -> Finding | None:
    """Find evaluations too rare to see a turn in time, or so frequent that they only cost."""
    series, length = context.series, context.steps_per_epoch
    if len(series) < 2 or length is None or context.run.step_unit != "step":
        return None
    spacing = float(median(np.diff(series.steps)))
    each = length / spacing
    total = max(context.run.max_steps or 0, context.run.last_step or 0)
    wanted = max(1, round(length / 15.0), math.ceil(total / MOST_IN_ALL))
    gives = f"eval_steps={wanted} gives {plural(max(1, total // wanted), 'evaluation')} over the run"
    if each < RARE and len(series) < FEW_IN_ALL and wanted < spacing:
        message = (
            f"{len(series)} evaluations, {each:.1f} an epoch: a turn is seen late and noise cannot be told from change; "
            f"{gives}"
        )
        return note("evaluation_rare", Severity.INFO, message, per_epoch=each, eval_steps=wanted)
    if each > FREQUENT and len(series) > 3 * FEW_IN_ALL and wanted > spacing:
        message = f"{each:.0f} evaluations an epoch tell no more than {COMMON_HIGH} would and cost time; {gives}"
        return note("evaluation_frequent", Severity.INFO, message, per_epoch=each, eval_steps=wanted)
    return None


def logging_rarer_than_evaluation(context: Context) -> Finding | None:
    """Find training losses logged so rarely that nothing stands beside an evaluation."""
    series, train = context.series, context.train
    if len(series) < 4 or not 2 <= len(train) < 0.5 * len(series) or context.run.step_unit != "step":
        return None
    spacing = float(median(np.diff(series.steps)))
    message = (
        f"{len(train)} training losses beside {len(series)} evaluations: what the training loss does between them is "
        f"not seen; set logging_steps to {max(1, round(spacing / 5))} or less"
    )
    return note("logging_rare", Severity.INFO, message, train=len(train), evaluations=len(series))
