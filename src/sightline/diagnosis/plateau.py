"""Since when the validation loss has stood still: a test that it has, not a failure to see that it has not.

That a fall is lost in the noise is no plateau. So the turned question is asked [1]_: through the evaluations since a
step a line is laid over the steps, and what it may still have fallen or risen by, at the unfavourable end of its
interval, has to be less than what matters to the user. Few evaluations or noisy ones leave that open, and nothing is
said. A curve bends, and a line hides the bend; so the first third must not lie above a later one either.

References
----------
.. [1] D. J. Schuirmann, J. Pharmacokin. Biopharm. 15 (1987) 657: equivalence by two one-sided tests.
"""

from __future__ import annotations

import math

import numpy as np

from sightline.diagnosis.context import Context, note, percent
from sightline.diagnosis.noise import Noise, student95
from sightline.diagnosis.paired import compare
from sightline.diagnosis.series import EvalSeries, Floats, block_means
from sightline.runs import Finding, Forecast, Severity

FEWEST = 6
LEAST_SHARE = 1.0 / 3.0
"""Of the evaluations and of the steps: what has stood still for less may only rest."""
HOPE = 0.2
"""Chance of a better checkpoint above which nobody is told that steps change nothing."""
MOST_STARTS = 96  # of more evaluations neighbours are averaged


def plateau(context: Context, ahead: Forecast, noise: Noise, worthwhile_gain: float) -> Finding | None:
    """Say since when the validation loss has stood still, where that is long and sure.

    Parameters
    ----------
    context : Context
        A run whose validation loss has not risen.
    ahead : Forecast
        Where it sees hope, there is none.
    noise : Noise
        Of one evaluation: the plateau starts no further above the lowest loss; how alike neighbouring errors are makes the
        interval wider.
    worthwhile_gain : float
        What matters to the user, a share of the loss.

    Returns
    -------
    Finding or None
    """
    if max(ahead.chance, ahead.near_chance) > HOPE:
        return None
    series = context.series
    logs, size = block_means(series.learning_logs, MOST_STARTS)
    steps = series.learning_steps[len(series.learning_steps) - logs.size * size :: size]
    if logs.size < FEWEST:
        return None
    least = max(FEWEST, math.ceil(LEAST_SHARE * logs.size))
    fallen, error = _lines(logs, steps.astype(np.float64), noise.correlation, series.rounding)
    long = (np.arange(logs.size) <= logs.size - least) & (steps <= (1.0 - LEAST_SHARE) * int(series.steps[-1]))
    for start in np.flatnonzero(long & (np.abs(fallen) + error <= worthwhile_gain)).tolist():
        since = int(steps[start])
        above = float(series.logs[np.searchsorted(series.steps, since)] - series.logs.min())
        if above > noise.band or _bends(logs[start:]) > worthwhile_gain:
            continue
        most = float(fallen[start]) + math.hypot(float(error[start]), _rows_error(series, since))
        if most <= worthwhile_gain:
            return _finding(context, since, float(fallen[start]), most, noise, worthwhile_gain)
    return None


def _finding(context: Context, since: int, fallen: float, most: float, noise: Noise, worthwhile_gain: float) -> Finding:
    series = context.series
    last = int(series.steps[-1])
    count = int((series.steps >= since).sum())
    bought = max(most, 0.0)
    advice = "end about there next time, or change the data"
    if not context.run.has_ended:  # whether to go on is decided by what may still come, and said there
        advice = "whether the rest of the run can bring more is weighed in the decision"
    message = (
        f"the validation loss has stood still since step {since}: over {count} evaluations it fell by at most "
        f"{percent(bought, 1)} (95 %), less than the {percent(worthwhile_gain)} that matters; {advice}"
    )
    return note(
        "plateau",
        Severity.INFO,
        message,
        (since, last),
        evaluations=count,
        noise=noise.sd,
        fallen=fallen,
        at_most=bought,
    )


def _lines(logs: Floats, steps: Floats, correlation: float, rounding: float) -> tuple[Floats, Floats]:
    """Lay a line over the steps through the last evaluations, from each on.

    Returns
    -------
    fallen : ndarray of float, shape (n,)
        How far the line falls from the first of them to the last, as a difference of logarithms.
    error : ndarray of float, shape (n,)
        What it may be off by (95 %), for errors of which neighbours correlate; infinite where nothing tells.
    """
    y = logs - logs[-1]
    x = (steps - steps[-1]) / (steps[-1] - steps[0])
    count = np.arange(logs.size, 0, -1, dtype=np.float64)
    sx, sy, sxx, sxy, syy = (np.cumsum(values[::-1])[::-1] for values in (x, y, x * x, x * y, y * y))
    across = np.maximum(sxx - sx * sx / count, 1e-300)
    slope = (sxy - sx * sy / count) / across
    left = np.maximum(syy - sy * sy / count - slope * slope * across, count * rounding**2)
    freedom = count - 2.0
    alike = math.sqrt((1.0 + correlation) / (1.0 - correlation))  # an AR(1) process tells less than it has values
    known = freedom >= 1.0
    wide = np.array([student95(each) for each in freedom.tolist()])
    error = np.where(known, wide * alike * np.sqrt(left / np.maximum(freedom, 1.0) / across) * -x, np.inf)
    return slope * x, error


def _bends(logs: Floats) -> float:
    """How far the first third lies above the lower one of the other two."""
    third = logs.size // 3
    return float(logs[:third].mean() - min(logs[third:-third].mean(), logs[-third:].mean()))


def _rows_error(series: EvalSeries, since: int) -> float:
    """What another choice of rows would move the change since a step by (95 %), a share of the loss; 0.0 if unknown."""
    first, last = series.evaluations[int(np.searchsorted(series.steps, since))], series.evaluations[-1]
    if first is None or last is None or first.losses is None or last.losses is None or last.eval_loss <= 0.0:
        return 0.0
    change = compare(last.losses, first.losses)
    return 0.0 if change is None else student95(change.rows - 1.0) * change.standard_error / last.eval_loss
