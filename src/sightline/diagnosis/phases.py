"""From the tests of the validation curve to a phase, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sightline.diagnosis.context import Context, note, percent, plural
from sightline.diagnosis.direction import training_direction
from sightline.diagnosis.forecast import forecast
from sightline.diagnosis.horizon import look_ahead
from sightline.diagnosis.noise import Noise, curve_noise
from sightline.diagnosis.onset import locate_onset
from sightline.diagnosis.paired import ROWS_Z, Difference, equivalent_to_best, rise_over_rows
from sightline.diagnosis.rise import FEWEST_LIVE, RiseTest, rise_height, weigh_rise
from sightline.diagnosis.scores import ScoreCourse, better_score_after, forecast_score
from sightline.diagnosis.series import FEWEST_EVALUATIONS, EvalSeries
from sightline.diagnosis.trend import follow_trend
from sightline.runs import Best, Diagnosis, Finding, Forecast, Phase, Severity, Status

PRIOR_ODDS = 1.0 / 3.0
"""Odds of a rise before anything was seen: one run in four overfits; a guess, and a mild one."""
SURE_ENOUGH = 0.5
"""A phase less likely than this is not named."""


@dataclass(frozen=True, eq=False, slots=True)
class Evidence:
    """What the tests of the validation curve say."""

    noise: Noise
    best: Best
    forecast: Forecast
    rise: RiseTest | None
    established: bool
    """Whether the rise is beyond noise and large enough to matter."""

    @property
    def risen(self) -> float:
        """Probability that the validation loss has risen."""
        return probability_of_rise(self.rise)


def judge_curve(context: Context, false_alarm: float, worthwhile_gain: float) -> Diagnosis:
    """Judge a run whose training did not break by its validation curve."""
    series = context.series
    if (reason := cannot_judge(context)) is not None:
        return Diagnosis(Phase.UNDECIDED, None, (reason,), best=only_best(series))
    evidence = weigh(context, false_alarm, worthwhile_gain)
    base = {"best": evidence.best, "forecast": evidence.forecast, "noise": evidence.noise.sd}
    if evidence.established:
        phase, confidence, findings = _explain_rise(context, evidence, worthwhile_gain)
    else:
        phase, confidence, findings = _without_rise(context, evidence, worthwhile_gain)
    onset = locate_onset(series) if phase is Phase.OVERFITTING else None
    wasted = _wasted(context, evidence.best) if phase is Phase.OVERFITTING else None
    return Diagnosis(phase, confidence, tuple(findings), onset=onset, wasted_fraction=wasted, **base)  # type: ignore[arg-type]


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
    best = find_best(series, noise)
    if training_direction(context.memorising, best.step) == "falls":
        # what rises while the training rows are known ever better does not come back; unstable training does
        still = 1.0 - probability_of_rise(rise)
        ahead = replace(ahead, chance=still * ahead.chance, expected_gain=still * ahead.expected_gain)
    return Evidence(noise, best, ahead, rise, established)


def probability_of_rise(rise: RiseTest | None) -> float:
    """Probability that the validation loss has turned up for good."""
    if rise is None:
        return 0.0
    odds = PRIOR_ODDS * math.exp(min(rise.log_e, 30.0))
    return odds / (1.0 + odds)


def find_best(series: EvalSeries, noise: Noise) -> Best:
    """Return the lowest loss and the evaluations that cannot be told apart from it."""
    at = series.at_best
    same = equivalent_to_best(series)
    if same is None:
        near = series.logs - series.logs[at] <= noise.band
        same = tuple(series.steps[near].tolist())
    return Best(int(series.steps[at]), float(series.losses[at]), same)


def only_best(series: EvalSeries) -> Best | None:
    """Return the lowest loss of a curve too short to tell what equals it; None where it is not a loss."""
    if not len(series) or bool((series.losses < 0.0).any()):
        return None
    step = int(series.steps[series.at_best])
    return Best(step, float(series.losses[series.at_best]), (step,))


def cannot_judge(context: Context) -> Finding | None:
    """Say why the validation curve cannot be judged, and which setting would change that."""
    series, run = context.series, context.run
    reason = context.settings.get("not_a_loss")
    if isinstance(reason, str) and reason:
        return note("not_a_loss", Severity.INFO, f"not judged as a loss: {reason}; judge it by its score or its reward")
    if len(series) and not series.judgeable:
        lowest = float(series.losses.min())
        what = "is zero throughout" if lowest == 0.0 else f"falls to {lowest:.4g}"
        message = (
            f"{run.eval_metric} {what}: that is no loss to be judged by (a reward or margin?); name another metric"
        )
        return note("not_a_loss", Severity.INFO, message, lowest=lowest)
    if len(series) >= FEWEST_EVALUATIONS:
        return None
    if series.non_finite and not len(series):
        message = f"none of {plural(series.non_finite, 'evaluation')} gave a number, so nothing tells how the run went"
        return note("no_evaluations", Severity.WARNING, message, evaluations=0, non_finite=series.non_finite)
    if not len(series):
        message = (
            "there is no validation loss, so learning cannot be told from memorising; hold some rows out and set "
            "eval_strategy='steps' with 10 to 20 evaluations an epoch"
        )
        return note("no_evaluations", Severity.WARNING, message, evaluations=0)
    message = (
        f"{plural(len(series), 'evaluation')} with a finite loss, and {FEWEST_EVALUATIONS} are the least that tell a "
        "trend from noise; set a smaller eval_steps"
    )
    return note("too_few_evaluations", Severity.INFO, message, evaluations=len(series), needed=FEWEST_EVALUATIONS)


def _explain_rise(
    context: Context, evidence: Evidence, worthwhile_gain: float
) -> tuple[Phase, float | None, list[Finding]]:
    """A rise is established: memorising, or what else it is."""
    series, best = context.series, evidence.best
    span = best.step, int(series.steps[-1])
    if evidence.forecast.warming_up:
        message = (
            f"the validation loss has risen since step {best.step} while the learning rate still warms up: judged once "
            "as much is learnt after the warm-up as in it; if it stays, lower the learning rate"
        )
        return Phase.UNDECIDED, None, [note("rise_in_warmup", Severity.INFO, message, span)]
    rows = rise_over_rows(series)
    if rows is not None and rows.z < ROWS_Z:
        return Phase.UNDECIDED, None, [_too_few_rows(rows, span)]
    course = better_score_after(context, best.step)
    if course is not None:
        return Phase.HEALTHY, min(evidence.risen, 0.9), [_score_disagrees(context, course, span, worthwhile_gain)]
    if training_direction(context.memorising, best.step) == "rises":
        message = (
            f"training and validation loss both rise since step {best.step}: that is unstable training, not "
            "memorising; lower the learning rate or lengthen the warm-up"
        )
        return Phase.UNDECIDED, None, [note("both_losses_rise", Severity.WARNING, message, span)]
    return Phase.OVERFITTING, evidence.risen, [_overfitting(context, evidence, rows)]


def _score_disagrees(context: Context, course: ScoreCourse, span: tuple[int, int], worthwhile_gain: float) -> Finding:
    """Say how the score rose while the loss did, and what it can still gain."""
    message = (
        f"the validation loss has risen since step {span[0]}, but {course.name} rose from {course.at_best_loss:.4g} to "
        f"{course.best:.4g} at step {course.best_step}: the score decides; keep step {course.best_step}"
    )
    ahead = forecast_score(context, course.name, worthwhile_gain)
    return note(
        "score_disagrees", Severity.WARNING, message, span,
        score=course.name, at_best_loss=course.at_best_loss,
        best_score=course.best, best_score_step=course.best_step,
        chance=None if ahead is None else ahead.chance,
        expected_gain=None if ahead is None else ahead.expected_gain,
        near_chance=None if ahead is None else ahead.near_chance,
    )  # fmt: skip


def _overfitting(context: Context, evidence: Evidence, rows: Difference | None) -> Finding:
    series, best = context.series, evidence.best
    assert evidence.rise is not None
    last = float(series.losses[-1])
    height = math.expm1(evidence.rise.height)
    noises = evidence.rise.height / evidence.noise.sd if evidence.noise.sd > 0.0 else math.inf
    direction = training_direction(context.memorising, best.step)
    meanwhile = " while the training loss falls on" if direction == "falls" else ""
    by_rows = f" and {rows.z:.1f} times what another choice of rows would explain" if rows is not None else ""
    message = (
        f"validation loss has risen from {best.eval_loss:.4g} at step {best.step} to {last:.4g} at step "
        f"{int(series.steps[-1])}{meanwhile}: the last three evaluations stand {percent(height)} above the lowest three, "
        f"{noises:.1f} times the noise of one evaluation{by_rows}; keep step {best.step}, and next time train fewer "
        "epochs, with a lower learning rate, or on more rows"
    )
    return note(
        "overfitting", Severity.WARNING if height < 0.1 else Severity.CRITICAL, message,
        (best.step, int(series.steps[-1])), strength=evidence.risen, rise=height, noise=evidence.noise.sd,
        log_e=evidence.rise.log_e, training=direction, rows_z=None if rows is None else rows.z,
    )  # fmt: skip


def _too_few_rows(rows: Difference, span: tuple[int, int]) -> Finding:
    needed = math.ceil(rows.rows * (ROWS_Z / max(rows.z, 0.5)) ** 2)
    message = (
        f"the validation loss has risen by {rows.mean:.3g} since step {span[0]}, but another choice of {rows.rows} "
        f"rows could undo that ({rows.z:.1f} standard errors); about {needed} validation rows would tell"
    )
    return note("validation_set_small", Severity.WARNING, message, span, rows=rows.rows, z=rows.z, needed=needed)


def _without_rise(
    context: Context, evidence: Evidence, worthwhile_gain: float
) -> tuple[Phase, float | None, list[Finding]]:
    """No rise that counts: still falling, or settled."""
    falling = evidence.forecast.near_chance
    rise = evidence.rise
    slight = rise is not None and rise.height <= worthwhile_gain
    risen = 0.0 if slight else evidence.risen
    if risen > SURE_ENOUGH and rise is not None:
        message = (
            f"the validation loss may have turned up after step {evidence.best.step} (probability {percent(risen)}), which "
            "is not enough to call it; the next evaluations will tell, and a larger validation set would tell sooner"
        )
        span = evidence.best.step, int(context.series.steps[-1])
        return Phase.UNDECIDED, None, [note("rise_suspected", Severity.INFO, message, span, strength=risen)]
    under, healthy = (1.0 - risen) * falling, (1.0 - risen) * (1.0 - falling)
    if max(under, healthy) < SURE_ENOUGH:
        message = (
            f"{len(context.series)} evaluations with a noise of {percent(evidence.noise.sd, 2)} each do not tell whether the "
            "validation loss still falls; evaluate more often, or on more rows"
        )
        return Phase.UNDECIDED, None, [note("too_noisy", Severity.INFO, message, noise=evidence.noise.sd)]
    if under >= healthy:
        return Phase.UNDERFITTING, under, []
    above = _above_best(context, evidence, worthwhile_gain)
    return (Phase.HEALTHY, healthy, []) if above is None else (Phase.UNDECIDED, None, [above])


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


def _wasted(context: Context, best: Best) -> float | None:
    last = context.run.last_step
    return (last - best.step) / last if last else None
