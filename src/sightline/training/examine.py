"""examine(): every check on a prepared run, and the refusal to waste one."""

from __future__ import annotations

from sightline.errors import DataError
from sightline.runs import Finding, Severity
from sightline.training.checks import CheckContext, run_checks
from sightline.training.display import Display
from sightline.training.prepare import Prepared


def examine(prepared: Prepared) -> tuple[Finding, ...]:
    """Run every check on a prepared run.

    Parameters
    ----------
    prepared : Prepared
        Rows, tokenizer, plan and hardware.

    Returns
    -------
    tuple of Finding
        Most severe first.
    """
    return run_checks(CheckContext.of(prepared))


def refuse_waste(prepared: Prepared, display: Display) -> None:
    """Tell what the checks found before the first step.

    Raises
    ------
    DataError
        If something critical was found and the recipe does not say ``force``.
    """
    findings = examine(prepared)
    critical = [finding for finding in findings if finding.severity is Severity.CRITICAL]
    for finding in findings:
        if finding.severity is not Severity.INFO and (finding not in critical or prepared.recipe.force):
            display.notice(finding.message, finding.severity)
    for note in prepared.notes:
        display.notice(note, Severity.INFO)
    if critical and not prepared.recipe.force:
        told = "; ".join(finding.message for finding in critical)
        raise DataError(f"not started, training would be wasted: {told} (--force trains all the same)")
