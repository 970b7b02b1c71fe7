"""The best checkpoint there is: the lowest recorded validation loss among the steps that were saved.

The Trainer's ``best_model_checkpoint`` may name a checkpoint that is not the best, or none: it remembers a path, and
the best evaluation may fall between two saves. Here every checkpoint on the disk is ranked by the loss recorded at its
own step, and where a lower loss was seen at a step that was not saved, that is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sightline.diagnosis.curve_noise import curve_noise
from sightline.diagnosis.noise import Z95
from sightline.diagnosis.paired import compare
from sightline.diagnosis.series import FEWEST_EVALUATIONS, EvalSeries
from sightline.runs import Evaluation, Run

_ROUNDED = 5e-4
"""Relative difference up to which a log that rounds tells the same loss as the checkpoint's own state."""


@dataclass(frozen=True, slots=True)
class BestSaved:
    """The best of the saved steps."""

    step: int
    eval_loss: float
    """Recorded at that step, nats per token."""
    equivalent_steps: tuple[int, ...]
    """Saved steps whose loss cannot be told apart from it (95 %), ascending, the best among them."""
    basis: str
    """What "cannot be told apart" rests on: ``rows`` (paired losses of the validation rows), ``curve`` (the noise of
    the validation curve), ``equality`` (too few evaluations: equal losses only)."""
    unsaved_step: int | None = None
    """Step with a lower recorded loss that no checkpoint holds; None when the best was saved."""
    unsaved_loss: float | None = None


def best_saved(losses: Mapping[int, float | None], run: Run | None = None) -> BestSaved | None:
    """Find the best of the saved steps.

    Parameters
    ----------
    losses : mapping of int to float or None
        Validation loss recorded at each saved step; None where the step was not evaluated.
    run : Run, optional
        Whole history, for the evaluations between saves and for the noise.

    Returns
    -------
    BestSaved or None
        None when no saved step has a finite loss. Of equal losses the earliest step.
    """
    finite = {step: loss for step, loss in sorted(losses.items()) if loss is not None and math.isfinite(loss)}
    if not finite:
        return None
    step = min(finite, key=lambda saved: (finite[saved], saved))
    same, basis = _equivalent(step, finite, run)
    unsaved = _lower_elsewhere(finite, run)
    return BestSaved(step, finite[step], same, basis, *(unsaved or (None, None)))


def _equivalent(best: int, losses: Mapping[int, float], run: Run | None) -> tuple[tuple[int, ...], str]:
    """Return the saved steps that cannot be told apart from the best one, and what says so."""
    by_step = {} if run is None else {evaluation.step: evaluation for evaluation in run.evaluations}
    if best in by_step and by_step[best].losses is not None:
        return tuple(step for step in losses if step == best or _same_rows(by_step.get(step), by_step[best])), "rows"
    series = None if run is None else EvalSeries.of(run)
    if series is None or len(series) < FEWEST_EVALUATIONS or not series.judgeable or losses[best] <= 0.0:
        return tuple(step for step in losses if losses[step] == losses[best]), "equality"
    band = curve_noise(series).band
    return tuple(s for s, loss in losses.items() if math.log(loss / losses[best]) <= band), "curve"


def _same_rows(one: Evaluation | None, best: Evaluation) -> bool:
    if one is None or one.losses is None or best.losses is None:
        return False
    difference = compare(one.losses, best.losses)
    return difference is not None and difference.z <= Z95


def _lower_elsewhere(losses: Mapping[int, float], run: Run | None) -> tuple[int, float] | None:
    """Return the step and loss of the lowest evaluation, if it is lower than every saved one."""
    series = None if run is None else EvalSeries.of(run)
    if series is None or not len(series):
        return None
    step, loss = int(series.steps[series.at_best]), float(series.losses[series.at_best])
    if loss >= min(losses.values()) or math.isclose(loss, losses.get(step, math.nan), rel_tol=_ROUNDED):
        return None
    return step, loss  # of the same step too: the checkpoint may be of a part of the run that was rolled back
