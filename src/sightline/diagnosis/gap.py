"""The difference of validation and training loss, and why it is not always what it seems.

The logged training loss is a mean over the steps of a window, in train mode (dropout on), of other rows, weighted by
batch; the validation loss is of the model as it is now. On equal terms (a train probe, exact losses) the difference is
the generalisation gap.
"""

from __future__ import annotations

from sightline.diagnosis.context import Context, note, percent
from sightline.diagnosis.median import median
from sightline.diagnosis.series import Floats
from sightline.runs import Finding, Severity

BELOW = 0.90  # validation over training loss under which the question comes up
SMALL = 0.05
"""Nats per token: what weighting, lag, dropout and the noise of a window add up to (measured on a frozen model)."""

FACTORS = (4, 8, 16, 32, 64, 128)
"""Usual numbers of accumulated batches; twice alone is told by too many other reasons."""
NEAR = 0.75, 1.2
"""What a summed training loss is of so many validation losses: late in a run it is the lower one."""
TWICE = 1.7, 2.3
STEADY = 1.25
"""The largest of the ratios over the smallest, where one factor explains them all."""
MOST_MEAN = 15.0
"""Nats per token: a uniform guess among three million tokens."""
DIVIDE = "divide it, and upgrade transformers (fixed in 4.46 and later for models that take num_items_in_batch)"


def validation_below_training(context: Context) -> Finding | None:
    """Find a validation loss below the training loss, and name what explains it."""
    pair = context.later_levels
    if pair is None:
        return None
    train, evaluated = pair
    ratio = float(median(evaluated / train))
    if ratio >= BELOW:
        return None
    reasons = [
        "the training loss is measured with dropout on",
        "it is an average over the past logging window",
        "rows or batches of unequal length are weighed differently in the two",
    ]
    if context.number("neftune_noise_alpha"):
        reasons.insert(0, "NEFTune noise is in the training loss")
    if ratio < 0.6:
        reasons.insert(0, "validation rows easier than, or contained in, the training rows")
    if TWICE[0] * ratio <= 1.0 <= TWICE[1] * ratio and _steady(train / evaluated) and _accumulates(context):
        reasons.insert(0, "the loss summed over 2 accumulated batches")
    message = (
        f"validation loss is {percent(1.0 - ratio)} below training loss in the later half of the evaluations; usual "
        f"reasons: {', '.join(reasons)}; a train probe compares on equal terms"
    )
    return note("validation_below_training", Severity.WARNING if ratio < 0.6 else Severity.INFO, message, ratio=ratio)


def multiplied_by_accumulation(context: Context) -> Finding | None:
    """Find a training loss that is the sum over accumulated batches instead of their mean."""
    accumulated = context.number("gradient_accumulation_steps")
    pair = context.later_levels
    if pair is None or not _accumulates(context):
        return None
    ratios = pair[0] / pair[1]
    ratio = float(median(ratios))
    if accumulated is None:
        return _summed_by_its_ratio(context, ratios, ratio)
    if not 0.75 * accumulated <= ratio <= 1.35 * accumulated or ratio < 1.6:
        return None
    message = (
        f"the training loss is {ratio:.1f} times the validation loss, about "
        f"gradient_accumulation_steps={accumulated:.0f}: it is summed over accumulated batches, not averaged; {DIVIDE}"
    )
    return note("loss_times_accumulation", Severity.WARNING, message, ratio=ratio, accumulation=accumulated)


def _summed_by_its_ratio(context: Context, ratios: Floats, ratio: float) -> Finding | None:
    """Tell a summed loss where the log does not hold the setting: a steady factor near one of the usual ones."""
    near = [factor for factor in FACTORS if NEAR[0] * factor <= ratio <= NEAR[1] * factor]
    if not near or not _steady(ratios):
        return None
    first = float(context.train.values[0])
    sure = f"; its first value, {first:.4g}, is more than a mean over tokens can be" if first > MOST_MEAN else ""
    message = (
        f"the training loss is {ratio:.1f} times the validation loss, at all later evaluations alike{sure}: most likely it "
        f"is summed over about {near[0]} accumulated batches (gradient_accumulation_steps is not in the log) and not "
        f"averaged; {DIVIDE}; if nothing is accumulated, look for validation rows that are among the training rows"
    )
    return note("loss_times_accumulation", Severity.WARNING, message, ratio=ratio, accumulation=None)


def _accumulates(context: Context) -> bool:
    """Whether the run accumulates gradients, or does not say."""
    accumulated = context.number("gradient_accumulation_steps")
    return accumulated is None or accumulated >= 2


def _steady(ratios: Floats) -> bool:
    return float(ratios.max()) <= STEADY * float(ratios.min())


def meaningless_gap(context: Context) -> Finding | None:
    """Say that a gap from unlike measurements is within their differences."""
    if context.run.curves.get("probe_loss") is not None:
        return None
    pair = context.later_levels
    if pair is None:
        return None
    gap = float(median(pair[1] - pair[0]))
    if not 0.0 <= gap < SMALL or float(median(pair[1])) < 5 * SMALL:
        return None
    message = (
        f"the gap between validation and training loss is {gap:.3f} (median over the later half of the evaluations), within "
        f"what dropout, lag and weighting do to it (about {SMALL}); it is no evidence either way"
    )
    return note("small_gap", Severity.INFO, message, gap=gap)
