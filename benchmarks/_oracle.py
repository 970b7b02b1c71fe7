"""The best that can be asked of an alarm: detectors that know more of the simulated runs than anyone can.

``knows_all`` knows the fall, the turn, the height, the noise and its correlation, and only not whether the loss has
risen: the likelihood ratio, called at 1/0.05 (Ville). No test with the same error can beat it on average.

``log_bayes_factors`` has the information that a test without prior knowledge of this run could have at most. It knows
which falls are simulated, that a rise is a ramp, and which correlations occur; not which of them this is, nor level,
amplitude, turn, height, or (unless told the noises that occur) the noise. All of that is averaged over or, for level
and amplitude, integrated out: the Bayes factor, which no test beats on average over these priors. Falls are the same
with and without a rise, so that it cannot tell a rise by how the fall before it looks. Its threshold is the smallest
that no harmless kind of run exceeds in more than 5 % of runs, other runs than those on which it is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from _simulated import HARMLESS, SHAPES, Floats, simulate, turn_of

HEIGHTS = (0.015, 0.03, 0.06, 0.12, 0.25, 0.4)  # of a rise at the end of the run; those of the simulation among them
FALLS: tuple[Callable[[Floats], Floats], ...] = (
    *(
        lambda x, name=name: np.log(SHAPES[name](x)[0])
        for name in ("healthy", "plateau", "staircase", "second descent")
    ),
    lambda x: np.log(1.4 + 0.9 * np.exp(-10.0 * x)),  # that of the rises
)
FIRST_SEED = 100_000  # of the runs on which a threshold is found
FEWEST = 6
ORACLE_ALARM = 0.05


def knows_all(logs: Floats, name: str, noise: float, correlation: float) -> Floats:
    """Return the log likelihood ratio of the true rise against none, of logarithms of losses (runs, n)."""
    n = logs.shape[1]
    at = np.arange(1, n + 1) / n
    turn = turn_of(n)
    risen = np.log(SHAPES[name](at)[0])
    flat = np.where(np.arange(n) <= turn, risen, risen[turn])
    squares = [_whiten((logs - mean) / noise, correlation) ** 2 for mean in (flat, risen)]
    return np.asarray(np.cumsum(0.5 * (squares[0] - squares[1]), axis=1))


def log_bayes_factors(logs: Floats, correlations: Sequence[float], noises: Sequence[float] | None) -> Floats:
    """Return the log Bayes factor of a rise at every evaluation, (runs, n); ``noises`` None where they are unknown."""
    n = logs.shape[1]
    at = np.arange(1, n + 1) / n
    curves = logs - logs[:, -1:]
    none, risen = np.full(logs.shape, -np.inf), np.full(logs.shape, -np.inf)
    for correlation in correlations:
        for fall in FALLS:
            none = np.logaddexp(none, _likelihood(curves, fall(at), np.zeros(n), correlation, noises))
            for turn in range(2, n - 1):
                fallen = fall(np.minimum(at, at[turn]))
                ramp = np.maximum(at - at[turn], 0.0) / (1.0 - at[turn])
                for height in HEIGHTS:
                    found = _likelihood(curves, fallen, np.log1p(height * ramp), correlation, noises)
                    risen[:, turn + 1 :] = np.logaddexp(risen, found)[:, turn + 1 :]
    factor = risen - none - math.log(n * len(HEIGHTS))  # the turn is as likely at every evaluation of the run
    factor[:, : FEWEST - 1] = -np.inf
    return np.asarray(factor)


def threshold(n: int, correlations: Sequence[float], noises: Sequence[float], known: bool, runs: int) -> float:
    """Return the log Bayes factor that no harmless kind of run of n evaluations reaches in more than 5 % of runs."""
    worst = -math.inf
    for name in HARMLESS:
        if name == "warm-up bump":
            continue  # judged by the learning rate
        for noise in noises:
            for correlation in correlations:
                seeds = range(FIRST_SEED, FIRST_SEED + runs)
                logs = np.log(np.stack([simulate(name, n, noise, correlation, s).curves.eval_loss for s in seeds]))
                highest = log_bayes_factors(logs, correlations, noises if known else None).max(axis=1)
                worst = max(worst, float(np.quantile(highest, 1.0 - ORACLE_ALARM, method="higher")))
    return worst


def _likelihood(
    curves: Floats, fall: Floats, rise: Floats, correlation: float, noises: Sequence[float] | None
) -> Floats:
    """Log likelihood of the first 1 ... n values of curves (runs, n), level and amplitude of the fall integrated out."""
    n = curves.shape[1]
    count = np.arange(1, n + 1)
    one, fall = _whiten(np.ones(n), correlation), _whiten(fall - fall.mean(), correlation)
    white = _whiten(curves - rise, correlation)
    a, b, c = np.cumsum(one * one), np.cumsum(one * fall), np.cumsum(fall * fall)
    determinant = np.maximum(a * c - b * b, 1e-12)
    u, v = np.cumsum(white * one, axis=1), np.cumsum(white * fall, axis=1)
    explained = (c * u * u - 2.0 * b * u * v + a * v * v) / determinant
    left = np.maximum(np.cumsum(white * white, axis=1) - explained, 1e-12)
    scale = -0.5 * np.log(determinant) - 0.5 * (count - 1) * math.log(1.0 - correlation**2)
    free = np.maximum(count - 2, 1)
    if noises is None:
        return np.asarray(scale - 0.5 * free * np.log(left))
    each = [scale - free * math.log(noise) - 0.5 * left / noise**2 for noise in noises]
    return np.asarray(np.logaddexp.reduce(each) - math.log(len(noises)))


def _whiten(values: Floats, correlation: float) -> Floats:
    """Make AR(1) errors along the last axis independent, with the variance one error has."""
    white = values.copy()
    white[..., 1:] = (values[..., 1:] - correlation * values[..., :-1]) / math.sqrt(1.0 - correlation**2)
    return white
