"""How much of the validation curve is noise.

What is left of the curve near its end once a smooth course has been taken out of it. Two kinds of courses are tried, over
the steps: those a loss usually has, the falls and the rises after them of the test for a rise (shapes.py), each counting
by its likelihood; and a low polynomial, by restricted likelihood [1]_, for what is neither. Between the two the Bayesian
information criterion [2]_ decides: a polynomial of few evaluations is no fall, and a fall is no second descent.

References
----------
.. [1] H. D. Patterson, R. Thompson, Biometrika 58 (1971), recovery of inter-block information (REML).
.. [2] G. Schwarz, Ann. Stat. 6 (1978), estimating the dimension of a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sightline.diagnosis.noise import (
    CORRELATIONS,
    PRIOR,
    Noise,
    informative,
    log_root_determinants,
    places,
    whiten,
)
from sightline.diagnosis.rise import fit
from sightline.diagnosis.series import EvalSeries, Floats
from sightline.diagnosis.shapes import DECAYS, FINE_DECAYS, bends_of, shapes_at, turning_points

FEWEST = 4
FEW = 16  # evaluations up to which a fall between two that are tried would pass for noise
COURSE = 4  # what a fall takes: level, amplitude, speed, turning point
LEAST_NOISE = 0.0005
"""A curve that is fitted without rest is still thought to be off by as much at one evaluation."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """What one kind of course leaves over."""

    variance: float
    correlation: float
    freedom: float
    criterion: float
    """Bayesian information criterion: less is better."""


@lru_cache(maxsize=4)
def curve_noise(series: EvalSeries) -> Noise:
    """Estimate the noise of one evaluation from the curve itself.

    Parameters
    ----------
    series : EvalSeries
        At least one positive loss.

    Returns
    -------
    Noise
        With fewer than four evaluations nothing but the rounding of the log is known.
    """
    steps = series.learning_steps.astype(np.float64)
    tail = informative(series.learning_logs, 6, steps)
    if tail.size < FEWEST:
        return Noise(series.rounding, 0.0, 1.0)
    at = places(steps[-tail.size :])
    course, polynomial = _course_rest(tail, at), _polynomial_rest(tail, at)
    apart = 0.5 * (polynomial.criterion - course.criterion)
    share = 1.0 / (1.0 + math.exp(min(max(apart, -50.0), 50.0)))  # of the polynomial
    variance, correlation, freedom = (
        share * getattr(polynomial, name) + (1.0 - share) * getattr(course, name)
        for name in ("variance", "correlation", "freedom")
    )
    return Noise(math.sqrt(max(variance, series.rounding**2)), correlation, freedom)


def _course_rest(values: Floats, at: Floats | None) -> _Rest:
    """What falls, and rises after them, leave over."""
    n = values.size
    turns = (*turning_points(n), n - 1)  # the last: it still falls
    decays = FINE_DECAYS if n < FEW else DECAYS
    shapes = shapes_at(n, at, turns, float(bends_of(values[None])[0]), decays=decays)
    fits = fit(values[None], shapes, LEAST_NOISE**2, 1.0)
    turned, remains = fits.turned[:, :, :-1], fits.remains[:, :, :-1]
    logs = np.concatenate([
        (fits.fell - math.log(fits.fell[0].size)).ravel(),
        (turned - math.log(turned[0, :, :, 0].size)).ravel(),
    ])  # fmt: skip
    left = np.concatenate([fits.left.ravel(), remains.ravel()])
    correlation = np.concatenate([np.repeat(CORRELATIONS, fits.fell[0].size), np.repeat(CORRELATIONS, turned[0].size)])
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    freedom = max(n - COURSE + 1.0, 1.0)
    criterion = n * float(weights @ np.log(left / n)) + COURSE * math.log(n)
    return _Rest(float(weights @ left) / freedom, float(weights @ correlation), freedom, criterion)


def _polynomial_rest(values: Floats, at: Floats | None) -> _Rest:
    """What a low polynomial leaves over."""
    n = values.size
    projections, log_determinants, freedom = _even_restricted(n) if at is None else _restricted(at)
    left_over = projections @ (values - values.mean())
    squares = np.einsum("gi,gi->g", left_over, left_over) + LEAST_NOISE**2
    log_likelihood = np.log(PRIOR) - log_determinants - 0.5 * (freedom + 1) * np.log(squares)
    weights = np.exp(log_likelihood - log_likelihood.max())
    weights /= weights.sum()
    variance = float(weights @ squares) / (freedom + 1)
    criterion = n * float(weights @ np.log(squares / n)) + (n - freedom) * math.log(n)
    return _Rest(variance, float(weights @ CORRELATIONS), freedom, criterion)


@lru_cache(maxsize=128)
def _even_restricted(n: int) -> tuple[Floats, Floats, int]:
    return _restricted(np.arange(n, dtype=np.float64))


def _restricted(at: Floats) -> tuple[Floats, Floats, int]:
    """Residual operators in whitened coordinates and their log determinants, for every correlation."""
    n = at.size
    coefficients = min(6, 2 + n // 5)
    basis = _legendre(2.0 * at / at[-1] - 1.0, coefficients)
    white_basis = np.moveaxis(whiten(basis.T), 1, 2)  # (g, n, coefficients)
    white_identity = np.moveaxis(whiten(np.eye(n)), 1, 2)
    projections, log_determinants = [], []
    for columns, identity in zip(white_basis, white_identity, strict=True):
        q, r = np.linalg.qr(columns)
        projections.append(identity - q @ (q.T @ identity))
        log_determinants.append(float(np.log(np.abs(np.diag(r))).sum()))
    return np.stack(projections), log_root_determinants(n) + np.array(log_determinants), n - coefficients


def _legendre(x: Floats, count: int) -> Floats:
    """Return the first Legendre polynomials at some points, shape (n, count), by Bonnet's recursion."""
    columns = [np.ones_like(x), x]
    for i in range(2, count):
        columns.append((columns[-1] * x * (2 * i - 1) - columns[-2] * (i - 1)) / i)
    return np.stack(columns[:count], axis=1)
