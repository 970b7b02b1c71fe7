"""Evaluations of one step that the log tells twice, and differently: one of them counts, and that is to be said.

Two validation sets under one name do this, and a log that a repeated run or a second evaluation of a checkpoint was
appended to. Points that a resume supersedes are no such case: they lie after its step and have left the curve.
"""

from __future__ import annotations

import numpy as np

from sightline.diagnosis.context import Context, note, number_word, plural
from sightline.diagnosis.series import Floats
from sightline.runs import Finding, Severity

SAME = 1e-4
"""Relative difference that batch order and number formats make: no other evaluation."""
MATTERS = 0.01
"""Relative difference that may change a verdict."""


def evaluation_repeated(context: Context) -> Finding | None:
    """Find steps with several evaluations that differ, and say which counts."""
    curve, digits = context.run.eval_loss, context.run.significant_digits
    if curve is None or curve.replaced is None:
        return None
    before = curve.replaced
    after = curve.values[np.searchsorted(curve.steps, before.steps)]
    apart = _apart(before.values, after)
    differ = apart > (SAME if digits is None else max(SAME, 10.0 ** (1 - digits)))
    if not bool(differ.any()):
        return None
    count, most = int(differ.sum()), int(np.argmax(apart))
    step, was, now = int(before.steps[most]), float(before.values[most]), float(after[most])
    values = f"{number_word(was)}, then {number_word(now)}"
    twice = (
        f"the log tells the evaluation of step {step} twice, and differently ({values})"
        if count == 1
        else f"of {plural(len(curve), 'evaluation')} the log tells {count} twice, and differently (at step {step} "
        f"{values})"
    )
    message = (
        f"{twice}: the value logged last counts; if they are of different validation sets, log each under a name of its "
        "own, and choose with --eval-metric"
    )
    severity = Severity.WARNING if float(apart.max()) > MATTERS else Severity.INFO
    span = int(before.steps[differ][0]), int(before.steps[differ][-1])
    return note("evaluation_repeated", severity, message, span, evaluations=count, replaced=was, counts=now)


def _apart(before: Floats, after: Floats) -> Floats:
    """Return relative differences; infinite where only one is a number, 0.0 where neither is."""
    apart = np.abs(before - after) / np.maximum(np.abs(after), 1e-300)
    one, both = np.isfinite(before) ^ np.isfinite(after), np.isfinite(before) & np.isfinite(after)
    return np.where(both, apart, np.where(one, np.inf, 0.0))
