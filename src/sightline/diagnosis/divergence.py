"""The training broke: losses that are no numbers, zeros that hide them, and losses that blew up for good.

The Trainer logs a step whose loss is NaN as 0.0 or as the mean of earlier steps unless ``logging_nan_inf_filter`` is
off, so a broken run shows exact zeros and a good-looking average; ``grad_norm`` still says NaN, and so does the next
evaluation.
"""

from __future__ import annotations

import numpy as np

from sightline.diagnosis.context import Context, note, number_word, plural
from sightline.diagnosis.median import median
from sightline.diagnosis.noise import rough_noise
from sightline.runs import Curve, Finding, Severity

ZEROS = 3
"""Exact zeros in a row that are no accident; one is enough where the next evaluation gives no number."""
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
    return _no_number(context, curve) or _hidden_zeros(context, curve) or _no_gradient(context) or _blown_up(context)


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
    if context.series.non_finite and evaluation_lost(context) is None:
        found.append(_broken_evaluations(context))
    return found


def evaluation_lost(context: Context) -> Finding | None:
    """Say that the last evaluation gave no number where those before it did: rows do not lose their labels."""
    curve = context.run.eval_loss
    if curve is None or not len(curve) or not (finite := np.isfinite(curve.values)).any() or finite[-1]:
        return None
    before = np.flatnonzero(finite)
    last, lost = int(before[-1]), curve.steps[int(before[-1]) + 1 :]
    what = f"the evaluation at step {int(lost[0])} gave"
    if lost.size > 1:
        what = f"the {lost.size} evaluations since step {int(lost[0])} gave"
    message = (
        f"{what} {number_word(float(curve.values[last + 1]))}{_rows_word(context)}, where those before gave numbers: the "
        f"weights broke after step {int(curve.steps[last])}, or half precision overflows now; score that checkpoint again in "
        "float32, and go back to the one before it if it stays so"
    )
    span = int(lost[0]), int(lost[-1])
    return note("evaluation_lost", Severity.WARNING, message, span, values=int(lost.size), evaluations=len(curve))


def _broken_evaluations(context: Context) -> Finding:
    """Say how many evaluations gave no number, and which of them."""
    curve = context.run.eval_loss
    assert curve is not None
    bad = curve.steps[~np.isfinite(curve.values)]
    if bad.size == len(curve) and int(bad[0]) == 0:
        message = (
            f"every evaluation gave no number, that of the base model at step 0 too{_rows_word(context)}: the base model is "
            "broken or overflows in half precision, or a row has no labelled token; load it in bf16 or float32 and "
            "check the validation rows"
        )
    else:
        which = "the base model's at step 0" if bad.size == 1 and int(bad[0]) == 0 else f"of {len(curve)}"
        message = (
            f"{plural(bad.size, 'evaluation')} {which} gave no number{_rows_word(context)}; a row without a labelled token "
            "or an overflow in half precision does this: check the validation rows, and evaluate in bf16 or float32"
        )
    span = int(bad[0]), int(bad[-1])
    return note("non_finite_eval_loss", Severity.WARNING, message, span, values=int(bad.size), evaluations=len(curve))


def _rows_word(context: Context) -> str:
    """Say how many rows of the last broken evaluation gave no number, where that is known."""
    known = [e.losses for e in context.run.evaluations if e.losses is not None and e.losses.non_finite]
    if not known:
        return ""
    bad = known[-1].non_finite
    first = int(np.flatnonzero(~np.isfinite(known[-1].loss_sums))[0])
    return f" ({bad} of {plural(len(known[-1].loss_sums), 'row')}, the first is row {first})"


def _no_number(context: Context, curve: Curve) -> Finding | None:
    """The loss is no number at the end."""
    finite = np.isfinite(curve.values)
    if finite[-1]:
        return None
    first = int(np.flatnonzero(finite)[-1]) + 1 if finite.any() else 0
    since = int(curve.steps[first])
    value = number_word(float(curve.values[-1]))
    message = f"the training loss is {value} since step {since}: the weights are lost; {_restart(context, since)}"
    span = since, int(curve.steps[-1])
    return note("non_finite_loss", Severity.CRITICAL, message, span, values=int(curve.steps.size - first))


def _hidden_zeros(context: Context, curve: Curve) -> Finding | None:
    """The loss is exactly zero at the end after it was far from it, as filtered NaN shows."""
    nonzero = np.flatnonzero(curve.values != 0.0)
    first = int(nonzero[-1]) + 1 if nonzero.size else 0
    zeros = len(curve) - first
    if not zeros:
        return None
    since = int(curve.steps[first])
    norms, evaluated = context.run.curves.get("grad_norm"), context.run.eval_loss
    broken = norms is not None and bool((~np.isfinite(norms.since(since).values)).any())
    ended = None if evaluated is None else evaluated.since(since)
    lost = ended is not None and len(ended) > 0 and not np.isfinite(ended.values[-1])
    sure = zeros >= ZEROS or (
        lost and len(context.series) > 0
    )  # fp16 skips a step with a NaN now and then, and goes on
    if not sure or (first == 0 and not (broken and lost)):
        return None
    before = abs(float(curve.values[first - 1])) if first else None
    alive = bool(len(context.series) and context.series.steps[-1] > since and context.series.losses[-1] > 0.0)
    came_back = bool((curve.values[:first] == 0.0).any())  # NaN weights never do
    if not broken and ((before or 0.0) < NOT_MEMORISED or alive or came_back):
        return None
    after = "" if before is None else f" after {before:.4g}"
    told = [word for seen, word in ((broken, "grad_norm"), (lost, "the evaluation")) if seen]
    too = f", and {' and '.join(told)} {'is' if len(told) == 1 else 'are'} NaN too" if told else ""
    message = (
        f"the training loss is exactly 0 since step {since}{after}: that is how the Trainer logs NaN "
        f"(logging_nan_inf_filter){too}; {_restart(context, since)}"
    )
    return note("zero_loss", Severity.CRITICAL, message, (since, int(curve.steps[-1])), zeros=zeros, before=before)


def _no_gradient(context: Context) -> Finding | None:
    """Evaluation and gradient norm are no numbers at the end, though the logged training loss still looks well."""
    norms, lost = context.run.curves.get("grad_norm"), evaluation_lost(context)
    if lost is None or norms is None or lost.from_step is None:
        return None
    since = norms.since(lost.from_step)
    if not len(since) or bool(np.isfinite(since.values).any()):
        return None
    message = (
        f"the evaluation gives no number since step {lost.from_step}, and neither does grad_norm: the weights are lost, and "
        f"the logged training loss hides it (logging_nan_inf_filter); {RESTART}"
    )
    return note("non_finite_loss", Severity.CRITICAL, message, (lost.from_step, lost.to_step), values=len(since))


def _restart(context: Context, since: int) -> str:
    """Say what to do about weights that are lost since a step: there may be nothing before it to go back to."""
    evaluated, train = context.run.eval_loss, context.run.train_loss
    if (
        evaluated is not None
        and len(evaluated)
        and int(evaluated.steps[0]) == 0
        and not np.isfinite(evaluated.values[0])
    ):
        return "the base model gave no number at step 0 either: it is broken or overflows; load it in bf16 or float32"
    if train is not None and int(train.steps[0]) >= since and not len(context.series):
        return (
            "nothing was a number before: check the base model and the rows (a row without a labelled token), and train "
            "in bf16 or float32"
        )
    return RESTART


def _blown_up(context: Context) -> Finding | None:
    """The loss ends far above its best and has lost most of what it had gained."""
    curve = context.train
    if len(curve) < 4 * LAST or float(curve.values.min()) < 0.0:
        return None
    size = max(LAST, len(curve) // 50)
    blocks = curve.values[len(curve) % size :].reshape(-1, size)
    levels = median(blocks)
    best, last = float(levels.min()), float(levels[-1])
    began = max(float(levels[0]), float(curve.values[:LAST].max()))  # a steep start is over within a block
    gained = max(began - best, 0.5 * best)
    ended = float(curve.values[-max(2 * LAST, len(curve) // 10) :].min())
    if gained <= 0.0 or ended < best + LOST * gained:
        return None
    ceiling = best + max(LOST * gained, 6.0 * rough_noise(curve.values))
    if ended < ceiling:
        return None
    last_below = int(np.flatnonzero(curve.values < ceiling)[-1])
    first = int(curve.steps[last_below + 1])
    message = (
        f"the training loss rose from {best:.4g} to {last:.4g} about step {first} and did not come back; {RESTART}"
    )
    span = first, int(curve.steps[-1])
    return note("loss_blown_up", Severity.CRITICAL, message, span, strength=0.95, best=best, last=last)
