"""Where the validation curve stands and where it is heading, with what is not known of both.

The logarithm of the loss follows a line whose level and slope wander (a local linear trend [1]_) over logarithmic time
tau = log(step + first step), in which learning curves change at an even pace:

    level' = level + slope g + level shock,   slope' = e^-d slope + slope shock,   y = level + noise

with d the time between two evaluations and g = 1 - e^-d: a slope fades unless the data renew it. The variances of the
shocks, in units of the noise variance, are not fitted: a bank of filters runs over a grid of them, and each counts by
how well it predicted what came (Bayesian model averaging). The noise variance is learnt by each filter and forgotten at a
constant rate in tau, because early noise is not late noise [1]_: in some runs it falls a hundredfold, in others it stays
as it is, so the rate is part of the grid. The weights are forgotten too. A point far above its prediction is pulled in:
validation losses spike upwards.

References
----------
.. [1] M. West, J. Harrison, Bayesian Forecasting and Dynamic Models (1997): linear growth, variance discounting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sightline.diagnosis.series import EvalSeries, Floats

FEWEST = 4
_LEVELS = (0.0, 1.0, 10.0, 100.0)  # variance per unit of log time, in noise variances
_SLOPES = (0.0, 1.0, 30.0, 1000.0)
_FORGETTINGS = (1.0, 4.0)  # per unit of log time: what counts is the run so far, or its last quarter
PACES = len(_FORGETTINGS)
LEVEL_SHOCKS, SLOPE_SHOCKS, NOISE_FORGETTING = (  # neighbours differ in forgetting alone
    grid.ravel() for grid in np.meshgrid(_LEVELS, _SLOPES, _FORGETTINGS, indexing="ij")
)
_SHOCKS: Floats = np.stack([LEVEL_SHOCKS, SLOPE_SHOCKS])
FILTERS = LEVEL_SHOCKS.size
FORGETTING = 3.0  # of the weights: what was predicted before 70 % of the steps so far counts for less than a third
FIRST_FREEDOM = 2.0  # what is believed of the noise beforehand is worth so many evaluations
FIRST_SLOPE = 100.0  # standard deviation of the first slope, in noises per unit of log time: not known
UPWARD, DOWNWARD = 3.0, 10.0  # surprises beyond so many standard deviations are pulled in
MOST_BLOCKS = 512  # of more evaluations neighbours are averaged, which costs nothing that matters at such a length


@dataclass(slots=True)
class TrendState:
    """The bank of filters after an evaluation; a column is a filter."""

    mean: Floats  # level and slope per unit of log time, shape (2, FILTERS)
    covariance: Floats  # of level, level with slope, slope; in noise variances, shape (3, FILTERS)
    freedom: Floats  # twice the shape of the noise variance's inverse gamma distribution, shape (FILTERS,)
    squares: Floats  # twice its rate, shape (FILTERS,)
    evidence: Floats  # log likelihood, forgetting, shape (FILTERS,)

    @property
    def weights(self) -> Floats:
        """How much each filter counts; they sum to 1."""
        weights = np.exp(self.evidence - self.evidence.max())
        return np.asarray(weights / weights.sum())

    @property
    def noise_variance(self) -> Floats:
        """Variance of one evaluation, each filter's own, shape (FILTERS,)."""
        return self.squares / self.freedom

    @property
    def noise(self) -> float:
        """Standard deviation of one evaluation."""
        return math.sqrt(float(self.weights @ self.noise_variance))

    def advance(self, gap: float, value: float, least_variance: float) -> None:
        """Predict ``gap`` ahead in log time and learn from the value seen there."""
        fade = math.exp(-gap)
        reach = 1.0 - fade
        mean = np.array([[1.0, reach], [0.0, fade]]) @ self.mean
        moved = [[1.0, 2.0 * reach, reach * reach], [0.0, fade, fade * reach], [0.0, 0.0, fade * fade]]
        shocked = [[gap, gap**3 / 3.0], [0.0, 0.5 * gap * gap], [0.0, gap]]
        before = np.array(moved) @ self.covariance + np.array(shocked) @ _SHOCKS
        kept = np.exp(-gap * NOISE_FORGETTING)
        freedom, squares = self.freedom * kept, self.squares * kept
        spread = before[0] + 1.0
        scale = np.sqrt(np.maximum(squares / freedom, least_variance) * spread)
        surprise = np.minimum(np.maximum(value - mean[0], -DOWNWARD * scale), UPWARD * scale)
        square = surprise * surprise / spread
        half = 0.5 * (freedom + 1.0)
        self.squares = squares + square
        constant = np.array([math.lgamma(f + 0.5) - math.lgamma(f) for f in (half[:PACES] - 0.5).tolist()])
        # Student's t; log(squares) is split so that two logarithms do
        likelihood = (half - 0.5) * np.log(squares) - half * np.log(self.squares) - 0.5 * np.log(spread)
        self.evidence = math.exp(-FORGETTING * gap) * self.evidence + likelihood + np.tile(constant, FILTERS // PACES)
        gain = before[:2] / spread
        self.mean = mean + gain * surprise
        before[2] -= gain[1] * before[1]
        before[:2] *= 1.0 - gain[0]
        self.covariance = before
        self.freedom = freedom + 1.0


@dataclass(frozen=True, eq=False, slots=True)
class Trend:
    """The trend at the last evaluation."""

    state: TrendState
    times: Floats
    """Log time of the evaluations (of their blocks where there are very many), shape (m,)."""
    offset: float
    """Steps added before taking the logarithm."""


_memory: list[tuple[Floats, Floats, float, TrendState]] = []
CURVES_REMEMBERED = 4  # of a run that goes on: its loss and its score, each as it was and as it is


def follow_trend(series: EvalSeries) -> Trend | None:
    """Run the filters over a curve.

    Parameters
    ----------
    series : EvalSeries
        The evaluations so far.

    Returns
    -------
    Trend or None
        None with fewer than four evaluations.

    Notes
    -----
    The filters of the last curves are remembered, so that a curve longer by one evaluation costs one step; the answer
    is the same with and without.
    """
    if len(series) < FEWEST:
        return None
    values, steps = series.learning_logs, series.learning_steps.astype(np.float64)
    steps -= min(float(steps[0]), 0.0)
    offset = float(steps[0]) if steps[0] > 0 else float(steps[1])
    logs, size = _blocks(values)
    times = np.log(_blocks(steps)[0] + offset)
    least = max(series.rounding**2, 1e-24)
    state, done = _remembered(times, logs, least)
    gaps = np.diff(times).tolist()
    full = values.size // size  # the last block may still grow
    for i, value in enumerate(logs[done:].tolist(), start=done):
        if i == full:
            _remember(times[:i], logs[:i], least, state)
        state.advance(gaps[i - 1], value, least)
    if logs.size == full:
        _remember(times, logs, least, state)
    return Trend(state, times, offset)


def _blocks(values: Floats) -> tuple[Floats, int]:
    """Average neighbours, counted from the first, until at most MOST_BLOCKS are left; also return their size."""
    size = -(-values.size // MOST_BLOCKS)
    if size == 1:
        return values, 1
    starts = np.arange(0, values.size, size)
    counts = np.diff(np.append(starts, values.size))
    return np.add.reduceat(values, starts) / counts, size


def _remember(times: Floats, logs: Floats, least: float, state: TrendState) -> None:
    """Keep the filters as they stand after a curve, in place of the oldest kept."""
    _memory.insert(0, (times, logs, least, replace(state)))
    del _memory[CURVES_REMEMBERED:]


def _remembered(times: Floats, logs: Floats, least: float) -> tuple[TrendState, int]:
    """Return the filters as they stood after the evaluations they have seen, and how many those are."""
    for old_times, old_logs, old_least, state in _memory:
        n = old_logs.size
        same = n <= logs.size and least == old_least and np.array_equal(old_logs, logs[:n])
        if same and np.array_equal(old_times, times[:n]):
            return replace(state), n
    first = logs[:FEWEST]
    guess = 0.5 * float(np.diff(first).std()) + 1e-4
    covariance = np.repeat([[1.0], [0.0], [FIRST_SLOPE**2]], FILTERS, axis=1)
    mean = np.repeat([[float(logs[0])], [0.0]], FILTERS, axis=1)
    freedom = np.full(FILTERS, FIRST_FREEDOM)
    return TrendState(mean, covariance, freedom, freedom * guess**2, np.zeros(FILTERS)), 1
