"""The training broke: losses that are no numbers, zeros that hide them, and losses that blew up for good.

The Trainer logs a step whose loss is NaN as 0.0 or as the mean of earlier steps unless ``logging_nan_inf_filter`` is
off, so a broken run shows exact zeros and a good-looking average; ``grad_norm`` still says NaN.
"""

from __future__ import annotations

import numpy as np

from sightline.diagnosis.context import Context, note, plural
from sightline.diagnosis.median import median
from sightline.diagnosis.noise import rough_noise
from sightline.runs import Curve, Finding, Severity

ZEROS = 3
"""Exact zeros in a row that are no accident."""
NOT_MEMORISED = 1e-3
"""A loss above this does not become exactly zero by learning from one log line to the next."""
LOST = 0.5
"""Share of what the training had gained that is lost for good in a divergence."""
LAST = 3

RESTART = "go back to the last checkpoint before it, lower the learning rate or clip gradients (max_grad_norm)"


def find_divergence(context: Context) -> Finding | None:
    """Say whether the training broke and stayed broken."""
    curve = context.run.train_loss
    if curve is None or not len(curve):
        return None
    return _no_number(curve) or _hidden_zeros(context, curve) or _blown_up(context)


def passing_trouble(context: Context) -> list[Finding]:
    """Find values that are no numbers in a run that went on."""
    found = []
    curve = context.run.train_loss
    if curve is not None and len(curve) and (bad := np.flatnonzero(~np.isfinite(curve.values))).size:
        steps = int(curve.steps[bad[0]]), int(curve.steps[bad[-1]])
        message = (
            f"{bad.size} training losses between step {steps[0]} and {steps[1]} are no numbers, and the training went "
            "on; look at the rows of those steps"
        )
        if bad.size == 1:
            message = f"the training loss at step {steps[0]} is no number, and the training went on; look at its rows"
        found.append(note("non_finite_loss", Severity.WARNING, message, steps, values=int(bad.size)))
    if context.series.non_finite:
        found.append(_broken_evaluations(context))
    return found


def _broken_evaluations(context: Context) -> Finding:
    curve = context.run.eval_loss
    assert curve is not None
    bad = curve.steps[~np.isfinite(curve.values)]
    message = (
        f"{plural(bad.size, 'evaluation')} of {len(curve)} gave no number; a row without a labelled token or an "
        "overflow in half precision does this: check the validation rows, and evaluate in bf16 or float32"
    )
    span = int(bad[0]), int(bad[-1])
    return note("non_finite_eval_loss", Severity.WARNING, message, span, values=int(bad.size), evaluations=len(curve))


def _no_number(curve: Curve) -> Finding | None:
    """The loss is no number at the end."""
    finite = np.isfinite(curve.values)
    if finite[-1]:
        return None
    first = int(np.flatnonzero(finite)[-1]) + 1 if finite.any() else 0
    value = str(float(curve.values[-1]))
    message = f"the training loss is {value} since step {int(curve.steps[first])}: the weights are lost; {RESTART}"
    span = int(curve.steps[first]), int(curve.steps[-1])
    return note("non_finite_loss", Severity.CRITICAL, message, span, values=int(curve.steps.size - first))


def _hidden_zeros(context: Context, curve: Curve) -> Finding | None:
    """The loss is exactly zero at the end after it was far from it, as filtered NaN shows."""
    nonzero = np.flatnonzero(curve.values != 0.0)
    first = int(nonzero[-1]) + 1 if nonzero.size else 0
    zeros = len(curve) - first
    if zeros < ZEROS or first == 0:
        return None
    before = abs(float(curve.values[first - 1]))
    norms = context.run.curves.get("grad_norm")
    broken = norms is not None and bool((~np.isfinite(norms.since(int(curve.steps[first])).values)).any())
    alive = bool(
        len(context.series) and context.series.steps[-1] > curve.steps[first] and context.series.losses[-1] > 0.0
    )
    came_back = bool((curve.values[:first] == 0.0).any())  # NaN weights never do
    if not broken and (before < NOT_MEMORISED or alive or came_back):
        return None
    message = (
        f"the training loss is exactly 0 since step {int(curve.steps[first])} after {before:.4g}: that is how the "
        f"Trainer logs NaN (logging_nan_inf_filter){', and grad_norm is NaN' if broken else ''}; {RESTART}"
    )
    span = int(curve.steps[first]), int(curve.steps[-1])
    return note("zero_loss", Severity.CRITICAL, message, span, zeros=zeros, before=before)


def _blown_up(context: Context) -> Finding | None:
    """The loss ends far above its best and has lost most of what it had gained."""
    curve = context.train
    if len(curve) < 4 * LAST or float(curve.values.min()) < 0.0:
        return None
    size = max(LAST, len(curve) // 50)
    blocks = curve.values[len(curve) % size :].reshape(-1, size)
    levels = median(blocks)
    best, last = float(levels.min()), float(levels[-1])
    gained = max(float(levels[0]) - best, 0.5 * best)
    ceiling = best + max(LOST * gained, 6.0 * rough_noise(curve.values))
    ended = curve.values[-max(2 * LAST, len(curve) // 10) :]
    if gained <= 0.0 or float(ended.min()) < ceiling:
        return None
    last_below = int(np.flatnonzero(curve.values < ceiling)[-1])
    first = int(curve.steps[last_below + 1])
    message = (
        f"the training loss rose from {best:.4g} to {last:.4g} about step {first} and did not come back; {RESTART}"
    )
    span = first, int(curve.steps[-1])
    return note("loss_blown_up", Severity.CRITICAL, message, span, strength=0.95, best=best, last=last)
