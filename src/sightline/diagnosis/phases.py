"""From the tests of the validation curve to a phase, and how sure it is."""

from __future__ import annotations

from dataclasses import replace

from sightline.diagnosis.best import before_the_rise, find_best, only_best
from sightline.diagnosis.context import Context
from sightline.diagnosis.curve_noise import curve_noise
from sightline.diagnosis.direction import training_direction
from sightline.diagnosis.divergence import evaluation_lost
from sightline.diagnosis.evidence import Evidence, probability_of_rise
from sightline.diagnosis.forecast import forecast
from sightline.diagnosis.horizon import look_ahead
from sightline.diagnosis.onset import locate_onset
from sightline.diagnosis.rise import weigh_rise
from sightline.diagnosis.risen import explain_rise
from sightline.diagnosis.settled import without_rise
from sightline.diagnosis.trend import follow_trend
from sightline.diagnosis.unchanged import evaluation_unchanged
from sightline.diagnosis.unjudged import cannot_judge
from sightline.runs import Best, Diagnosis, Finding, Phase, Status

RISES = {"rise_suspected", "rise_in_warmup", "both_losses_rise", "score_disagrees", "above_best"}
"""Findings of a loss that has turned up, or may have; where too few rows leave that open, so do they what is equal."""


def judge_curve(context: Context, false_alarm: float, worthwhile_gain: float) -> Diagnosis:
    """Judge a run whose training did not break by its validation curve."""
    reason = cannot_judge(context) or evaluation_unchanged(context)
    if reason is not None:
        best = only_best(context.series)
        if reason.kind == "evaluation_unchanged" and best is not None and best.step >= (reason.from_step or 0):
            best = None  # it is the first of evaluations that do not see the model
        return Diagnosis(Phase.UNDECIDED, None, (reason,), best=best)
    evidence = weigh(context, false_alarm, worthwhile_gain)
    phase, confidence, findings = (explain_rise if evidence.established else without_rise)(
        context, evidence, worthwhile_gain
    )
    lost = evaluation_lost(context)
    if lost is not None and phase in (Phase.UNDERFITTING, Phase.HEALTHY):  # it is not as it was when last seen
        phase, confidence, findings = Phase.UNDECIDED, None, [lost]
    onset = locate_onset(context.series) if phase is Phase.OVERFITTING else None
    best = evidence.best
    if onset is not None or {finding.kind for finding in findings} & RISES:
        best = before_the_rise(context.series, best, evidence.noise, None if onset is None else onset.high)
    wasted = _wasted(context, best) if phase is Phase.OVERFITTING else None
    found: tuple[Finding, ...] = tuple(findings)
    return Diagnosis(phase, confidence, found, onset, best, wasted, evidence.forecast, evidence.noise.sd)


def weigh(context: Context, false_alarm: float, worthwhile_gain: float) -> Evidence:
    """Run the tests of a validation curve of at least four evaluations."""
    series = context.series
    noise = curve_noise(series)
    trend = follow_trend(series)
    assert trend is not None
    ahead = forecast(series, trend, look_ahead(context.run, int(series.steps[-1])), worthwhile_gain)
    rise = weigh_rise(series)
    once = context.run.status is not Status.RUNNING
    noisiness = noise.sd / max(worthwhile_gain, 1e-12)
    established = rise is not None and rise.alarm(false_alarm, noisiness, once=once) and rise.height > worthwhile_gain
    best = find_best(series, noise, ahead.band)
    if training_direction(context.memorising, best.step) == "falls":
        # what rises while the training rows are known ever better does not come back; unstable training does
        still = 1.0 - probability_of_rise(rise)
        ahead = replace(ahead, chance=still * ahead.chance, expected_gain=still * ahead.expected_gain)
    return Evidence(noise, best, ahead, rise, established)


def _wasted(context: Context, best: Best) -> float | None:
    last = context.run.last_step
    return (last - best.step) / last if last else None
