"""A rise is established: memorising, or what else it is."""

from __future__ import annotations

import math

from sightline.diagnosis.context import Context, note, percent
from sightline.diagnosis.direction import training_direction
from sightline.diagnosis.evidence import Evidence
from sightline.diagnosis.paired import ROWS_Z, Difference, rise_over_rows
from sightline.diagnosis.scores import ScoreCourse, better_score_after, forecast_score
from sightline.runs import Finding, Phase, Severity


def explain_rise(
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
