"""diagnose(): from a run to what its losses are doing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from sightline.diagnosis.best import only_best
from sightline.diagnosis.cadence import evaluation_cadence, logging_rarer_than_evaluation
from sightline.diagnosis.context import Context, in_units_of
from sightline.diagnosis.divergence import find_divergence, passing_trouble
from sightline.diagnosis.gap import meaningless_gap, multiplied_by_accumulation, validation_below_training
from sightline.diagnosis.learning import memorised, not_learning, staircase
from sightline.diagnosis.phases import judge_curve
from sightline.diagnosis.repeated import evaluation_repeated
from sightline.diagnosis.series import EvalSeries
from sightline.diagnosis.setup import (
    few_rows,
    learning_rate,
    resumed,
    row_weighted_evaluation,
    rows_added,
    unsaved_best,
)
from sightline.diagnosis.spikes import gradient_explosions, loss_spikes
from sightline.runs import Diagnosis, Finding, Phase, Run, Severity

TESTS: tuple[Callable[[Context], Finding | None], ...] = (
    loss_spikes,
    gradient_explosions,
    not_learning,
    memorised,
    staircase,
    learning_rate,
    multiplied_by_accumulation,
    validation_below_training,
    meaningless_gap,
    evaluation_cadence,
    logging_rarer_than_evaluation,
    row_weighted_evaluation,
    few_rows,
    rows_added,
    unsaved_best,
    resumed,
    evaluation_repeated,
)
"""What else is looked for, each on its own."""

NOTHING: frozenset[str] = frozenset()
SILENCED_BY: Mapping[str, frozenset[str]] = {
    # what follows from a broken training is no finding of its own
    "memorised": frozenset({"broken"}),
    "gradient_overflow": frozenset({"broken"}),
    "gradient_explosion": frozenset({"broken"}),
    "not_learning": frozenset({"broken"}),
    "loss_spike": frozenset({"broken"}),
    "validation_below_training": frozenset({"broken", "loss_times_accumulation"}),
    "small_gap": frozenset({"broken", "not_learning", "evaluation_unchanged"}),
    "staircase": frozenset({"broken"}),
    "few_validation_rows": frozenset({"validation_set_small"}),
    # nothing has stood still that was never moved
    "plateau": frozenset({"not_learning", "learning_rate_zero"}),
}
"""Findings that another one makes pointless or takes back; ``broken`` is a training that broke for good."""

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
    if broken is None or broken.kind == "loss_blown_up":
        found += passing_trouble(context)
    if "not_a_loss" not in {finding.kind for finding in found}:
        found += [finding for test in TESTS if (finding := test(context)) is not None]
    kinds = {finding.kind for finding in found if finding is not broken} | (set() if broken is None else {"broken"})
    found = [finding for finding in found if finding is broken or not SILENCED_BY.get(finding.kind, NOTHING) & kinds]
    idle = any(f.kind == "learning_rate_zero" and f.severity is Severity.CRITICAL for f in found)
    if diagnosis.phase is Phase.HEALTHY and (idle or "not_learning" in kinds):
        diagnosis = replace(diagnosis, phase=Phase.UNDECIDED, confidence=None)  # what is not learnt cannot hold
    found = [replace(finding, message=in_units_of(run, finding.message)) for finding in found]
    return replace(diagnosis, findings=tuple(sorted(found, key=lambda finding: SEVEREST_FIRST[finding.severity])))
