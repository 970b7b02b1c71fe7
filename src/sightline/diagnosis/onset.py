"""Since when: the turning point of a validation loss that has risen, with an interval.

Every evaluation is tried as the turning point of the falling-then-rising shapes of rise.py; the likelihood of each,
averaged over everything else that is unknown, is its posterior probability (all turning points equally likely before).
Beside the alarm's rises it tries one that accelerates: a rise that starts slowly is noticed long after its turn.
The interval is the shortest set of evaluations that holds 95 % of it, stretched to be without gaps and to hold the best
evaluation; it is never a single one, because a turn lies between two.
"""

from __future__ import annotations

import numpy as np

from sightline.diagnosis.noise import WINDOW, informative, places
from sightline.diagnosis.rise import KEPT_AT_LEAST, log_evidence
from sightline.diagnosis.series import EvalSeries, Floats, block_means
from sightline.runs import Onset

COVERED = 0.95
"""Probability an interval is to hold, so that it holds the turn in 90 % of the runs that are called: a call comes where noise
has helped the rise along, which the probability does not know (benchmarks/verdict_simulation.py counts both)."""


def locate_onset(series: EvalSeries) -> Onset:
    """Find where the validation loss turned.

    Parameters
    ----------
    series : EvalSeries
        At least four evaluations, of which the test for a rise said that they have risen.

    Returns
    -------
    Onset
        Steps of evaluations.
    """
    logs, steps = series.learning_logs, series.learning_steps
    at_steps = steps.astype(np.float64)
    size = 1
    if logs.size > WINDOW and int(logs.argmin()) < logs.size - WINDOW // 2:
        logs, size = block_means(logs, WINDOW)
        at_steps, _ = block_means(at_steps, WINDOW)
    values = informative(logs, KEPT_AT_LEAST, at_steps)
    turns = tuple(range(1, values.size - 2))
    where = places(at_steps[-values.size :])
    _, evidence = log_evidence(values, series.rounding, turns, where, slow_starts=True)
    likely = np.exp(evidence - evidence.max())
    low, high = _shortest(likely / likely.sum())
    first = len(steps) - values.size * size  # index of the first evaluation in the window

    def at(turn: int, within: int) -> int:
        return int(steps[min(max(first + turn * size + within, 0), len(steps) - 1)])

    middle = turns[int(np.searchsorted(np.cumsum(likely) / likely.sum(), 0.5))]
    earliest, latest = at(turns[low], -(size // 2)), at(turns[high], size - 1 + size // 2)
    if low == 0 and first == 0 and not logs.argmin():  # the run may have turned before the first point that is tried
        best = int(steps[0])
        return Onset(best if middle == turns[0] else at(middle, size // 2), best, latest)
    return _no_narrower(Onset(at(middle, size // 2), earliest, latest), series)


def _no_narrower(onset: Onset, series: EvalSeries) -> Onset:
    """Have the interval hold the best evaluation, and the neighbours of a single one: a turn lies between two of them."""
    steps = series.learning_steps
    best = int(series.steps[series.at_best])
    low, high = min(onset.low, best), max(onset.high, best)
    if low == high:
        at = int(np.searchsorted(steps, low))
        low, high = int(steps[max(at - 1, 0)]), int(steps[min(at + 1, len(steps) - 1)])
    return Onset(onset.step, low, high)


def _shortest(likely: Floats) -> tuple[int, int]:
    """Return the first and last index of the most likely points that hold COVERED together."""
    order = np.argsort(-likely, kind="stable")
    taken = order[: int(np.searchsorted(np.cumsum(likely[order]), COVERED)) + 1]
    return int(taken.min()), int(taken.max())
