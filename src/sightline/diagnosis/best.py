"""The best step, and those that equal it."""

from __future__ import annotations

import numpy as np

from sightline.diagnosis.noise import Noise
from sightline.diagnosis.paired import equivalent_to_best
from sightline.diagnosis.rise import FEWEST_LIVE
from sightline.diagnosis.series import EvalSeries
from sightline.runs import Best


def find_best(series: EvalSeries, noise: Noise, band: float) -> Best:
    """Return the lowest loss and the evaluations that cannot be told apart from it.

    Parameters
    ----------
    series : EvalSeries
        At least one evaluation of a loss.
    noise : Noise
        Of one evaluation.
    band : float
        Smallest difference that counts as an improvement, of logarithms: what counts as one is no equality.

    Returns
    -------
    Best
    """
    at = series.at_best
    same = equivalent_to_best(series)
    if same is None:
        near = series.logs - series.logs[at] <= min(noise.band, band)
        same = tuple(series.steps[near].tolist())
    return Best(int(series.steps[at]), float(series.losses[at]), same)


def only_best(series: EvalSeries) -> Best | None:
    """Return the lowest loss of a curve too short to tell what equals it; None where it is not a loss."""
    if not len(series) or bool((series.losses < 0.0).any()):
        return None
    lowest = float(series.losses[series.at_best])
    same = tuple(series.steps[series.losses == lowest].tolist())
    return Best(int(series.steps[series.at_best]), lowest, same)


def before_the_rise(series: EvalSeries, best: Best, noise: Noise, turned_by: int | None) -> Best:
    """Leave out what equals the best only because the noise hides the beginning of a rise.

    Parameters
    ----------
    series : EvalSeries
        Of a loss that has risen, or may have.
    best : Best
        With all that cannot be told apart by itself.
    noise : Noise
        Of one evaluation.
    turned_by : int or None
        Step by which it had turned for sure; None where the turn is not known: then the rise begins where the loss
        first stands above the best by the noise of one evaluation, and the evaluations that were compared are in it.

    Returns
    -------
    Best
    """
    if turned_by is None:
        after = series.logs[series.at_best :]
        left = np.flatnonzero(after - after[0] > noise.sd)
        first = series.at_best + int(left[0]) if left.size else len(series)
        compared = 3 if len(series) >= FEWEST_LIVE else 2  # by the height of a rise
        turned_by = int(series.steps[max(min(first, len(series) - compared) - 1, 0)])
    end = max(turned_by, best.step)
    return Best(best.step, best.eval_loss, tuple(step for step in best.equivalent_steps if step <= end))
