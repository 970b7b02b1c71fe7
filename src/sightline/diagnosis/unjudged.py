"""Why a validation curve cannot be judged, and which setting would change that."""

from __future__ import annotations

from sightline.diagnosis.context import Context, note, plural
from sightline.diagnosis.series import FEWEST_EVALUATIONS
from sightline.runs import Finding, Severity


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
