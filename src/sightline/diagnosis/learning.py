"""Is anything learnt: a training loss that does not move, is at zero, or falls in steps at every epoch."""

from __future__ import annotations

import math

import numpy as np

from sightline.diagnosis.context import Context, note, percent
from sightline.diagnosis.median import median
from sightline.diagnosis.noise import rough_noise
from sightline.diagnosis.series import Floats
from sightline.runs import Curve, Finding, Severity

FEWEST = 12
FEWEST_EXACT = 3  # of a probe, which has no noise of a window
MOVED = 0.02  # share of its level by which a training loss has to fall
MEMORISED = 0.01  # nats per token: every row is known by heart
STEP_HEIGHT = 0.02  # share of the loss by which a stair at an epoch's end matters
STEP_NOISES = 3.0
AT_ONCE_NOISES = 5.0  # what the first log line lies above the next ones by when it is no chance


def not_learning(context: Context) -> Finding | None:
    """Find a training loss that does not fall."""
    curve, evaluated = context.train, context.series
    if len(curve) < FEWEST or float(curve.values.min()) <= 0.0:
        return None
    if len(evaluated) >= 2 and evaluated.judgeable and evaluated.logs[0] - evaluated.logs.min() > 2.0 * MOVED:
        return None  # the validation loss did fall
    size = max(3, len(curve) // 5)
    first, last = float(median(curve.values[:size])), float(median(curve.values[-size:]))
    noise = rough_noise(curve.values)
    error = 1.25 * noise * math.sqrt(2.0 / size)
    rates = context.run.curves.get("learning_rate")
    warming = rates is not None and len(rates) >= 3 and float(rates.values[-1]) < 0.5 * _most(rates)
    if first - last > max(MOVED * first, 2.0 * error) or first < MEMORISED or (warming and len(curve) < 3 * FEWEST):
        return None
    rose = last - first > max(MOVED * first, 2.0 * error)
    moved = f"{'rose' if rose else 'went'} from {first:.4g} to {last:.4g} over {len(curve)} log lines"
    at_once = float(curve.values[0]) > first + max(MOVED * first, AT_ONCE_NOISES * noise)
    if at_once:
        what = f"fell from {float(curve.values[0]):.4g} in its first log lines, then {moved}: nothing more is learnt"
        advice = "lower the learning rate, or look for what the rows do not tell"
    else:
        what = f"{moved}: nothing is learnt"
        advice = "check that labels are not all masked (-100) and that the adapter trains, or raise the learning rate"
    message = f"the training loss {what}; {'lower the learning rate' if rose else advice}"
    span = int(curve.steps[0]), int(curve.steps[-1])
    return note("not_learning", Severity.WARNING, message, span, first=first, last=last)


def memorised(context: Context) -> Finding | None:
    """Find a training loss so low that the rows have nothing left to teach, as it is logged or as the probe scores it."""
    evaluated, probe = context.series, context.run.curves.get("probe_loss")
    if not len(evaluated) or float(evaluated.losses[-1]) < 10.0 * MEMORISED:
        return None
    step = _known_since(context.train, FEWEST)
    what, curve = "the training loss", context.train
    if step is None and probe is not None:  # scored exactly, so that few do
        what, curve = "the loss of the train probe", probe.finite()
        step = _known_since(curve, FEWEST_EXACT)
    if step is None:
        return None
    best, first = context.best, step == int(curve.steps[0])
    last = float(median(curve.values[-3:]))
    if first:
        why = "the training rows were known by heart before, or the loss is not what it seems (the Trainer logs 0 for NaN)"
    elif best is not None and best.step > step:
        why = (
            f"the training rows are known by heart; the validation loss was lowest after that, at step {best.step}, but "
            "more rows would bring it down further than more steps"
        )
    else:
        why = "the training rows are known by heart; more steps on them teach nothing, more rows would"
    since = "since the first log line" if first else f"since about step {step}"
    message = f"{what} is {last:.2g} {since}, with a validation loss of {float(evaluated.losses[-1]):.4g}: {why}"
    return note("memorised", Severity.WARNING, message, (step, int(curve.steps[-1])), loss=last)


def _known_since(curve: Curve, fewest: int) -> int | None:
    """Return the first step at which the rows were known by heart, None if at the end they are not."""
    if len(curve) < fewest or float(curve.values.min()) < 0.0 or float(median(curve.values[-3:])) >= MEMORISED:
        return None
    return int(curve.steps[np.flatnonzero(curve.values < MEMORISED)[0]])


def staircase(context: Context) -> Finding | None:
    """Find stairs of the training loss at the ends of epochs: repetition, its height the measure of memorising."""
    curve, length = context.train, context.steps_per_epoch
    if length is None or length < 4 or len(curve) < FEWEST or float(curve.values.min()) <= 0.0:
        return None
    spacing = float(median(np.diff(curve.steps)))
    if spacing > length / 4.0:
        return None
    logs = np.log(curve.values)
    ends = np.arange(length, float(curve.steps[-1]) - length / 4.0, length)
    heights = [height for end in ends.tolist() if (height := _stair(curve, logs, end, length)) is not None]
    if not heights:
        return None
    height = float(median(heights))
    # a stair is 1.5 (before - after) - 0.5 (earlier - later), each the median of a quarter of an epoch: the variance of five
    error = 1.25 * rough_noise(logs) * math.sqrt(5.0 * 4.0 * spacing / length / len(heights))
    if height < max(STEP_HEIGHT, STEP_NOISES * error):
        return None
    share = -math.expm1(-height)
    grown = _gap_growth(context, ends)
    memorised = share if grown is None else min(share, max(-math.expm1(-grown / len(ends)), 0.0))
    ends_word = "one epoch" if len(heights) == 1 else f"each of {len(heights)} epochs"
    found = f"the training loss drops by {percent(share)} at the end of {ends_word}"
    if memorised < STEP_HEIGHT:
        message = (
            f"{found}, but scored on equal terms the gap between training and validation rows grew by "
            f"{percent(memorised, 1)} an epoch: the stairs come from how the training loss is measured, not memorising"
        )
    else:
        equally = "" if grown is None else f" (on equal terms the gap grew by {percent(memorised)} an epoch)"
        message = (
            f"{found}: rows seen before are recognised{equally}; the drop measures memorising, not learning, so judge "
            "by a validation loss and keep epochs few"
        )
    severity = Severity.WARNING if memorised > 0.2 else Severity.INFO
    span = int(ends[0]), int(ends[-1])
    return note("staircase", severity, message, span, height=share, memorised=memorised, epochs=len(heights))


def _gap_growth(context: Context, ends: Floats) -> float | None:
    """How far the gap on equal terms grew from before the first end of an epoch to after the last, in logarithms."""
    probe, evaluated = context.run.curves.get("probe_loss"), context.series
    if probe is None or not evaluated.judgeable:
        return None
    at = [(step, value) for step, loss in zip(evaluated.steps, evaluated.losses, strict=True)
          if (value := _log_ratio(float(loss), probe.at(int(step)))) is not None]  # fmt: skip
    before = [gap for step, gap in at if step <= ends[0]]
    after = [gap for step, gap in at if step > ends[-1]]
    return float(median(after) - median(before)) if before and after else None


def _log_ratio(loss: float, probed: float | None) -> float | None:
    usable = probed is not None and math.isfinite(probed) and probed > 0.0 and loss > 0.0
    return math.log(loss / probed) if usable and probed is not None else None


def _stair(curve: Curve, logs: Floats, end: float, length: float) -> float | None:
    """Height of the drop at one epoch's end beyond what the slope on both sides explains."""
    quarter = length / 4.0
    before = logs[(curve.steps > end - quarter) & (curve.steps <= end)]
    after = logs[(curve.steps > end) & (curve.steps <= end + quarter)]
    earlier = logs[(curve.steps > end - 2 * quarter) & (curve.steps <= end - quarter)]
    later = logs[(curve.steps > end + quarter) & (curve.steps <= end + 2 * quarter)]
    if min(before.size, after.size, earlier.size, later.size) < 1:
        return None
    drop = float(median(before) - median(after))
    slope = 0.5 * float(median(earlier) - median(before) + median(after) - median(later))
    return drop - max(slope, 0.0)


def _most(curve: Curve) -> float:
    finite = curve.finite()
    return float(finite.values.max()) if len(finite) else 0.0
