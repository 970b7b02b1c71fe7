"""What the rest of a run can still gain: the chance of a better checkpoint, and how much better on average.

From where the trend stands (trend.py) paths of its level are drawn to the end of the run: 256 from each filter that
counts, each with a noise variance drawn from what is known of it and an end of its own, over the learning that is left
(horizon.py). Their shocks have heavy tails: a learning curve changes its course seldom and then by much. A path gains
what its lowest point lies below the best level so far, that of its own start included. A gain counts as a better
checkpoint when it is larger than the noise and larger than what the user calls worthwhile. The random numbers are the
same at every call, so that equal curves get equal answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sightline.diagnosis.horizon import Horizon
from sightline.diagnosis.noise import Z95
from sightline.diagnosis.series import EvalSeries, Floats
from sightline.diagnosis.trend import FIRST_FREEDOM, LEVEL_SHOCKS, PACES, SLOPE_SHOCKS, Trend, TrendState
from sightline.runs import Forecast

PATHS = 256
PATH_TYPE = np.float32
"""Of the paths: seven digits of what is drawn at random are plenty, and they are drawn out in half the time."""
STRIDES = 12  # points at which a path is looked at
TAIL_FREEDOM = 3.0
"""Degrees of freedom of the shocks (Student's t of variance one): the fewest whole ones of finite variance."""
NEAR = 1.25
"""The near future, which tells underfitting: a quarter more steps than so far."""
NEGLIGIBLE = 1e-3  # weight of a filter that is left out


def forecast(series: EvalSeries, trend: Trend, horizon: Horizon, worthwhile_gain: float) -> Forecast:
    """Say what the rest of a run can still gain.

    Parameters
    ----------
    series : EvalSeries
        At least four evaluations.
    trend : Trend
        Where the curve stands.
    horizon : Horizon
        How much learning is left.
    worthwhile_gain : float
        Smallest improvement worth having, as a share of the loss.

    Returns
    -------
    Forecast
    """
    state = trend.state
    noise = max(state.noise, series.rounding)
    band = max(math.sqrt(2.0) * Z95 * noise, worthwhile_gain)
    best = best_level(series.logs)
    most = float(series.logs.max() - series.logs.min())  # no path is believed to gain more than the run has moved
    step = float(series.steps[-1] - min(series.steps[0], 0))

    def away(growth: Floats) -> Floats:
        """Distance in log time to the step at which so many times as much is learnt."""
        return np.asarray(np.log((growth * step + trend.offset) / (step + trend.offset)))

    growth = horizon.draw(PATHS)
    start = _Start.of(state, best)
    weights, gain, near = start.weights, start.gains(away(growth)), start.gains(away(np.full(PATHS, NEAR)))
    return Forecast(
        chance=_share(gain, weights, band) if growth.max() > 1.0 else 0.0,
        expected_gain=float(weights @ -np.expm1(-np.clip(gain, 0.0, most)).mean(axis=0)),
        near_chance=_share(near, weights, band),
        band=band,
        planned_end=horizon.planned_end,
        warming_up=horizon.warming_up,
    )


def _share(gain: Floats, weights: Floats, band: float) -> float:
    """Share of the paths that gain more than the band: of so many draws neither none nor all makes it certain."""
    hits = (gain > band).sum(axis=0)
    return float(weights @ ((hits + 0.5) / (PATHS + 1.0)))  # the mean of Jeffreys' posterior


def best_level(logs: Floats) -> float:
    """Lowest mean of three evaluations in a row (two at the end): the best level, not the luckiest point."""
    if logs.size < 3:
        return float(logs.min())
    return min(float(np.convolve(logs, np.full(3, 1.0 / 3.0), "valid").min()), float(logs[-2:].mean()))


@dataclass(frozen=True, eq=False, slots=True)
class _Start:
    """Where the paths of each filter that counts begin, a column a filter."""

    weights: Floats
    counts: NDArray[np.intp]
    shocks: NDArray[np.float32]
    """Of level and slope at every stride, shape (STRIDES, 2, PATHS, n)."""
    sd: NDArray[np.float32]
    height: NDArray[np.float32]
    """Level now above the best so far, a difference of logarithms, shape (PATHS, n)."""
    slope: NDArray[np.float32]

    @classmethod
    def of(cls, state: TrendState, best: float) -> _Start:
        """Draw noise, level and slope now."""
        weights = state.weights
        counts = np.flatnonzero(weights > NEGLIGIBLE)
        weights = weights[counts] / weights[counts].sum()
        shocks = np.take(_shocks(), counts, axis=3)
        now = shocks[0].astype(np.float64)
        freedom = np.maximum(state.freedom[:PACES], FIRST_FREEDOM)
        shares = _chi_square_shares(tuple(freedom.round(6).tolist()))
        sd = np.sqrt(state.noise_variance[counts] / shares[:, counts % PACES])
        p11, p12, p22 = state.covariance[:, counts]
        root = np.sqrt(np.maximum(p11, 1e-12))
        height = state.mean[0, counts] - best + sd * root * now[0]
        rest = np.sqrt(np.maximum(p22 - (p12 / root) ** 2, 0.0))
        slope = state.mean[1, counts] + sd * (p12 / root * now[0] + rest * now[1])
        return cls(weights, counts, shocks[1:], *(each.astype(PATH_TYPE) for each in (sd, height, slope)))

    def gains(self, distance: Floats) -> Floats:
        """Return how far each path dips below the best level within a distance in log time."""
        stride = (distance[:, None] / STRIDES).astype(PATH_TYPE)
        fade = np.exp(-stride)
        reach, half = 1.0 - fade, 0.5 * stride
        levels, slopes = (each[self.counts].astype(PATH_TYPE) for each in (LEVEL_SHOCKS, SLOPE_SHOCKS))
        slope_shock = self.sd * np.sqrt(slopes * stride)
        level_shock = self.sd * np.sqrt(levels * stride + slopes * stride**3 / 12.0)
        height, slope = self.height.copy(), self.slope.copy()
        lowest = np.full_like(height, np.inf)
        shock, term = np.empty_like(height), np.empty_like(height)
        for of_level, of_slope in self.shocks:
            np.multiply(slope_shock, of_slope, out=shock)
            height += np.multiply(reach, slope, out=term)
            height += np.multiply(half, shock, out=term)
            height += np.multiply(level_shock, of_level, out=term)
            slope *= fade
            slope += shock
            np.minimum(lowest, height, out=lowest)
        # what has just been reached is not still to come
        return np.asarray(np.minimum(self.height, 0.0) - lowest, dtype=np.float64)


@lru_cache(maxsize=1)
def _shocks() -> NDArray[np.float32]:
    """Draw the shocks, shape (STRIDES + 1, 2, PATHS, FILTERS); the first are of the level and slope now, normal."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((STRIDES + 1, 2, PATHS, LEVEL_SHOCKS.size))
    drawn[1:] *= np.sqrt((TAIL_FREEDOM - 2.0) / rng.chisquare(TAIL_FREEDOM, drawn[1:].shape))
    return drawn.astype(PATH_TYPE)


@lru_cache(maxsize=16)
def _chi_square_shares(freedom: tuple[float, ...]) -> Floats:
    """Draw chi-square over its degrees of freedom, shape (PATHS, n), the same for the same freedom."""
    return np.stack([np.random.default_rng(1).chisquare(one, PATHS) / one for one in freedom], axis=1)
