"""No rise is established: the loss still falls, has settled, or neither can be said."""

from __future__ import annotations

import math

import numpy as np

from sightline.diagnosis.context import Context, note, percent, portion
from sightline.diagnosis.direction import training_direction
from sightline.diagnosis.evidence import Evidence
from sightline.diagnosis.median import median
from sightline.diagnosis.noise import student99
from sightline.diagnosis.plateau import plateau
from sightline.diagnosis.rise import FEWEST_LIVE, rise_height
from sightline.diagnosis.series import EvalSeries
from sightline.runs import Finding, Phase, Severity, Status

SURE_ENOUGH = 0.5
"""A phase less likely than this is not named."""
HOPELESS = 0.5
"""Noise of one evaluation, a share of the loss, under which nothing that matters can have settled."""
FEWEST_AFTER = 4
"""Evaluations after the first that tell how far one more would lie from them."""
NOTHING_LEFT = 1e-3
"""Nats per token: a validation loss that leaves nothing to gain, where it has fallen to it from far above."""
FELL_TO_NOTHING = 500.0
GAP, GAP_SHARE = 3.0, 0.25
"""How many times the largest gap before, and what share of the run, the last gap between evaluations may be."""


def without_rise(
    context: Context, evidence: Evidence, worthwhile_gain: float
) -> tuple[Phase, float | None, list[Finding]]:
    """No rise that counts: still falling, or settled."""
    early = _never_below_the_first(context, evidence, worthwhile_gain) or _solved(context)
    if early is not None:
        return Phase.UNDECIDED, None, [early]
    falling = evidence.forecast.near_chance
    rise = evidence.rise
    slight = rise is not None and rise.height <= worthwhile_gain
    risen = 0.0 if slight else evidence.risen
    if risen > SURE_ENOUGH and rise is not None:
        told = "more evaluations would tell"  # of a log that does not say whether its run goes on
        if context.run.has_ended:
            told = "evaluations in its last part would have told: next time evaluate more often"
        elif context.run.status is Status.RUNNING:
            told = "the next evaluations will tell"
        message = (
            f"the validation loss may have turned up after step {evidence.best.step} (probability {portion(risen)}), which "
            f"is not enough to call it; {told}, and a larger validation set would tell sooner"
        )
        span = evidence.best.step, int(context.series.steps[-1])
        return Phase.UNDECIDED, None, [note("rise_suspected", Severity.INFO, message, span, strength=risen)]
    under, healthy = (1.0 - risen) * falling, (1.0 - risen) * (1.0 - falling)
    if max(under, healthy) < SURE_ENOUGH or (under < healthy and evidence.noise.sd > HOPELESS):
        message = (
            f"{len(context.series)} evaluations with a noise of {percent(evidence.noise.sd, 2)} each do not tell whether the "
            "validation loss still falls; evaluate more often, or on more rows"
        )
        return Phase.UNDECIDED, None, [note("too_noisy", Severity.INFO, message, noise=evidence.noise.sd)]
    if under >= healthy:
        return Phase.UNDERFITTING, under, []
    above = _above_best(context, evidence, worthwhile_gain)
    if above is not None:
        return Phase.UNDECIDED, None, [above]
    alone = _rests_on_one(context)
    if alone is not None:
        return Phase.UNDECIDED, None, [alone]
    still = plateau(context, evidence.forecast, evidence.noise, worthwhile_gain)
    return Phase.HEALTHY, healthy, [] if still is None else [still]


def _never_below_the_first(context: Context, evidence: Evidence, worthwhile_gain: float) -> Finding | None:
    """Find a first evaluation that no later one comes near: what was trained after it has done harm.

    It is compared with what one more draw from the later ones could be (a prediction interval, Student's t, 99 %).
    """
    series = context.series
    later = series.logs[1:]
    if series.at_best or later.size < FEWEST_AFTER or evidence.forecast.warming_up:
        return None
    above = float(later.mean() - series.logs[0])
    spread = max(float(later.std(ddof=1)), series.rounding) * math.sqrt(1.0 + 1.0 / later.size)
    if above <= max(student99(later.size - 1.0) * spread, worthwhile_gain):
        return None
    first, last = int(series.steps[0]), int(series.steps[-1])
    direction = training_direction(context.memorising, first)
    meanwhile = {"rises": ", and the training loss rose too", "falls": ", while the training loss falls"}.get(
        direction or "", ""
    )
    share = math.expm1(min(above, 700.0))
    message = (
        f"no evaluation came near the first ({float(series.losses[0]):.4g} at step {first}): the {later.size} after it stand "
        f"{percent(share)} above it on average{meanwhile}; what was trained since does harm: keep step {first}, and lower the "
        "learning rate or lengthen the warm-up"
    )
    return note("above_best", Severity.WARNING, message, (first, last), rise=share, noise=evidence.noise.sd)


def _solved(context: Context) -> Finding | None:
    """Find a validation loss of which nothing is left: the task is solved, or its rows have leaked into the training."""
    series, train = context.series, context.train
    last = float(series.losses[-1])
    first = max(float(series.losses[0]), float(train.values[0]) if len(train) else 0.0)
    if last >= NOTHING_LEFT or first < FELL_TO_NOTHING * last:
        return None
    since = int(series.steps[np.flatnonzero(series.losses < NOTHING_LEFT)[0]])
    message = (
        f"the validation loss is {last:.2g}, and the losses began at {first:.4g}: next to nothing is left to learn; either the "
        "task is solved, and more steps are not worth their time, or validation rows are among the training rows, or their "
        "labels are not what they should be: check that before you trust it (sightline check)"
    )
    return note("solved_or_leaked", Severity.WARNING, message, (since, int(series.steps[-1])), last=last)


def _rests_on_one(context: Context) -> Finding | None:
    """Find one evaluation after a gap far larger than all before: it may be luck, or lie beyond a turn."""
    series = context.series
    gaps = np.diff(series.learning_steps)
    last = int(series.steps[-1])
    if gaps.size < 2 or gaps[-1] <= GAP * gaps[:-1].max() or gaps[-1] <= GAP_SHARE * last:
        return None
    before, usual = int(series.steps[-2]), max(1, int(median(gaps[:-1])))
    advice = "score the checkpoints between, or evaluate" if context.run.has_ended else "evaluate"
    message = (
        f"the last {percent(float(gaps[-1]) / last)} of the steps rest on one evaluation (step {last}, the one before at step "
        f"{before}), and one does not tell a settled loss from a lucky or a turned one; {advice} every {usual} steps to the end"
    )
    return note("evaluation_gap", Severity.WARNING, message, (before, last), gap=int(gaps[-1]), usual=usual)


def _above_best(context: Context, evidence: Evidence, worthwhile_gain: float) -> Finding | None:
    """Find a validation loss that stands above its best, so that it neither falls nor has settled.

    Beyond the noise it does; within a noise as large as all that was learnt nothing tells.
    """
    series, best, band = context.series, evidence.best, evidence.forecast.band
    fallen = float(series.learning_logs[0] - series.logs.min())
    height = rise_height(series.logs) if len(series) >= FEWEST_LIVE else _stands_above(series)
    if height <= worthwhile_gain or (height <= band and fallen > band):
        return None
    span = best.step, int(series.steps[-1])
    share = math.expm1(min(height, 700.0))  # of losses at the ends of a float's range
    stands = (
        f"the last evaluations stand {percent(share)} above the lowest"
        if share < 10.0
        else f"the last evaluations are {share + 1.0:.3g} times the lowest"
    )
    if height <= band:
        message = (
            f"{stands}, and the loss has never fallen by more than its noise ({percent(evidence.noise.sd, 2)} an "
            "evaluation), so nothing tells whether it learns; evaluate more often, or on more rows"
        )
        return note("too_noisy", Severity.INFO, message, span, noise=evidence.noise.sd, rise=share)
    unstable = training_direction(context.memorising, best.step) != "falls"
    advice = (
        "lower the learning rate" if unstable else "evaluate more often, or on more rows, to tell it from memorising"
    )
    message = (
        f"{stands}, more than the noise of one evaluation explains, in a course too uneven or too short to be called "
        f"overfitting; keep step {best.step}; {advice}"
    )
    return note("above_best", Severity.WARNING, message, span, rise=share, noise=evidence.noise.sd)


def _stands_above(series: EvalSeries) -> float:
    """How far the evaluations after the best lie above it on average, in logarithms; 0.0 where there is only one."""
    after = series.logs[series.at_best + 1 :]
    return float(after.mean() - series.logs.min()) if after.size > 1 else 0.0
