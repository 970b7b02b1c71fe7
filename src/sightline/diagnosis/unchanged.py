"""An evaluation that gives the same number again and again while the training loss falls: it sees other weights.

The usual causes: the evaluated model is a copy (an average, a compiled or unwrapped one, the base model without its
adapter), or the adapter is not active in eval mode. Weights that move change the last digits of a loss at the least.
"""

from __future__ import annotations

import numpy as np

from sightline.diagnosis.context import Context, note, percent
from sightline.diagnosis.median import median
from sightline.runs import Finding, Severity

FEWEST, FEWEST_ROUNDED = 4, 6
"""Equal evaluations in a row that are no chance: of losses logged in full, and of rounded ones."""
FULL = 7
"""Significant digits from which a loss is taken to be logged in full: a float32 has as many."""
FELL, FELL_ROUNDED = 0.05, 0.1
"""Share of its level by which the training loss has to fall meanwhile."""


def evaluation_unchanged(context: Context) -> Finding | None:
    """Find a validation loss that does not move at all while the model learns."""
    series, train = context.series, context.train
    changed = np.flatnonzero(series.losses != series.losses[-1]) if len(series) else np.zeros(0, np.int64)
    first = int(changed[-1]) + 1 if changed.size else 0
    same = len(series) - first
    full = series.significant_digits is None and _digits(float(series.losses[-1])) >= FULL if same else False
    if same < (FEWEST if full else FEWEST_ROUNDED) or (first and not full):
        return None
    span = int(series.steps[first]), int(series.steps[-1])
    between = train.since(span[0]).until(span[1]).values
    size = max(1, between.size // 4)
    if between.size < 4 or float(between.min()) <= 0.0:
        return None
    then, now = float(median(between[:size])), float(median(between[-size:]))
    if now > (1.0 - (FELL if full else FELL_ROUNDED)) * then:
        return None
    message = (
        f"{same} evaluations in a row gave exactly {float(series.losses[-1]):.6g} while the training loss fell by "
        f"{percent(1.0 - now / then)}: the evaluation most likely does not see the weights that are trained; check that it "
        "runs the trained model itself (not a copy or an average of it), with its adapter active"
    )
    return note("evaluation_unchanged", Severity.WARNING, message, span, evaluations=same, fell=1.0 - now / then)


def _digits(value: float) -> int:
    """Return the significant digits a number is written with."""
    return len(f"{value!r}".lower().split("e")[0].replace(".", "").lstrip("-0"))
