"""diagnose(): from a run to what its losses are doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sightline.diagnosis.cadence import evaluation_cadence, logging_rarer_than_evaluation
from sightline.diagnosis.context import Context
from sightline.diagnosis.divergence import find_divergence, passing_trouble
from sightline.diagnosis.gap import meaningless_gap, multiplied_by_accumulation, validation_below_training
from sightline.diagnosis.learning import memorised, not_learning, plateau, staircase
from sightline.diagnosis.phases import judge_curve, only_best
from sightline.diagnosis.series import EvalSeries
from sightline.diagnosis.setup import learning_rate, resumed, row_weighted_evaluation, rows_added, unsaved_best
from sightline.diagnosis.spikes import gradient_explosions, loss_spikes
from sightline.runs import Diagnosis, Finding, Phase, Run, Severity

TESTS: tuple[Callable[[Context], Finding | None], ...] = (
    loss_spikes,
    gradient_explosions,
    not_learning,
    memorised,
    staircase,
    plateau,
    learning_rate,
    multiplied_by_accumulation,
    validation_below_training,
    meaningless_gap,
    evaluation_cadence,
    logging_rarer_than_evaluation,
    row_weighted_evaluation,
    rows_added,
    unsaved_best,
    resumed,
)
"""What else is looked for, each on its own."""

SEVEREST_FIRST = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}
BROKEN = 0.97
"""Confidence in a divergence: a loss that is no number, exactly zero, or has lost what it gained."""


def diagnose(run: Run, *, false_alarm: float = 0.05, worthwhile_gain: float = 0.01) -> Diagnosis:
    """Say what the losses of a run are doing.

    Parameters
    ----------
    run : Run
        As it stands; nothing is asked of it but what was logged so far.
    false_alarm : float
        Largest probability, over the whole run, of calling a run overfitting whose validation loss does not rise.
    worthwhile_gain : float
        Smallest change of the validation loss that matters, as a share of it.

    Returns
    -------
    Diagnosis
        Never raises for what a log may hold; what cannot be judged is ``undecided`` with the reason as a finding.
    """
    with np.errstate(all="ignore"):  # losses near the ends of a float's range overflow in ratios; no warning to a user
        return _diagnose(run, false_alarm, worthwhile_gain)


def _diagnose(run: Run, false_alarm: float, worthwhile_gain: float) -> Diagnosis:
    """Look for a broken training first, then judge the validation curve, then look for what else there is."""
    context = Context(run, EvalSeries.of(run))
    broken = find_divergence(context)
    if broken is None:
        diagnosis = judge_curve(context, false_alarm, worthwhile_gain)
    else:
        diagnosis = Diagnosis(Phase.DIVERGED, BROKEN, (broken,), best=only_best(context.series))
    context = replace(context, best=diagnosis.best)
    found = list(diagnosis.findings)
    if broken is None or broken.kind != "non_finite_loss":
        found += passing_trouble(context)
    if "not_a_loss" not in {finding.kind for finding in found}:
        found += [finding for test in TESTS if (finding := test(context)) is not None and _adds(finding, found)]
    if diagnosis.phase is Phase.HEALTHY and "not_learning" in {finding.kind for finding in found}:
        diagnosis = replace(diagnosis, phase=Phase.UNDECIDED, confidence=None)  # what is not learnt cannot hold
    return replace(diagnosis, findings=tuple(sorted(found, key=lambda finding: SEVEREST_FIRST[finding.severity])))


def _adds(finding: Finding, found: list[Finding]) -> bool:
    """Return whether a finding says something the verdict has not said already."""
    said = {other.kind for other in found}
    if finding.kind == "plateau":
        return not said & {"overfitting", "rise_suspected", "above_best", "too_noisy"}
    if finding.kind == "loss_spike":
        return not said & {"loss_blown_up", "zero_loss"}
    return True
