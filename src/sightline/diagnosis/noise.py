"""How much of the validation curve is noise, and how alike neighbouring errors are.

The curve near its end is fitted with a low polynomial; what is left over is noise. Neighbouring errors may be alike
(the weights wander, the rows stay the same), so the errors are an AR(1) process, and its correlation is not guessed but
integrated over: for each of a few correlations the restricted likelihood [1]_ says how well it explains the leftovers.
Restricted means that the fit's own appetite for noise is paid back, which is what keeps short curves honest.

References
----------
.. [1] H. D. Patterson, R. Thompson, Biometrika 58 (1971), recovery of inter-block information (REML).
.. [2] T. Gasser, L. Sroka, C. Jennen-Steinmetz, Biometrika 73 (1986), residual variance from second differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sightline.diagnosis.median import median
from sightline.diagnosis.series import EvalSeries, Floats

MAD_TO_SD = 1.4826  # of a normal distribution
CORRELATIONS: Floats = np.array([0.0, 0.3, 0.6])
PRIOR: Floats = (1.0 - CORRELATIONS) / (1.0 - CORRELATIONS).sum()  # most evaluations are far enough apart
WINDOW = 48  # evaluations looked at: older noise may be other noise
ABOVE_BEST = 30.0  # noises: further up the fall is too steep for the shapes that are fitted
Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise of one evaluation, as a share of the loss (a difference of logarithms)."""

    sd: float
    """Standard deviation of one evaluation around the smooth curve."""
    correlation: float
    """Correlation of neighbouring errors, 0 to 0.6."""
    freedom: float
    """Degrees of freedom behind ``sd``: few make every statement wider."""

    @property
    def band(self) -> float:
        """Smallest difference of two evaluations that is no coin flip (95 %, Student's t): t sqrt(2) sd."""
        return student95(self.freedom) * math.sqrt(2.0) * self.sd


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
    tail = informative(series.learning_logs, 6)
    if tail.size < 4:
        return Noise(series.rounding, 0.0, 1.0)
    weights, variances, freedom = residual_variances(tail)
    variance = max(float(weights @ variances), series.rounding**2)
    return Noise(math.sqrt(variance), float(weights @ CORRELATIONS), freedom)


def residual_variances(values: Floats) -> tuple[Floats, Floats, int]:
    """Variance of the errors around a low polynomial, for each correlation.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
        n >= 4.

    Returns
    -------
    weights : ndarray of float, shape (len(CORRELATIONS),)
        How well each correlation explains the errors; they sum to 1.
    variances : ndarray of float, shape (len(CORRELATIONS),)
        Variance of one value, given each correlation.
    freedom : int
        n less the coefficients of the polynomial.
    """
    projections, log_determinants, freedom = _restricted(values.size)
    left_over = projections @ (values - values.mean())
    squares = np.einsum("gi,gi->g", left_over, left_over) + 1e-300
    log_likelihood = np.log(PRIOR) - log_determinants - 0.5 * freedom * np.log(squares)
    weights = np.exp(log_likelihood - log_likelihood.max())
    return weights / weights.sum(), squares / freedom, freedom


def informative(logs: Floats, least: int) -> Floats:
    """Return the evaluations that tell of noise and of a turn: not the steep start, not more than WINDOW.

    Parameters
    ----------
    logs : ndarray of float, shape (n,)
        Logarithms of validation losses.
    least : int
        How many are kept in any case.

    Returns
    -------
    ndarray of float, shape (m,)
        Without the leading evaluations that lie further above the best than ABOVE_BEST noises.
    """
    if logs.size <= least:
        return logs
    ceiling = float(logs.min()) + ABOVE_BEST * rough_noise(logs) * (1.0 + 1.0 / logs.size)
    start = int(np.argmax(logs <= ceiling))
    return logs[max(min(start, logs.size - least), logs.size - WINDOW, 0) :]


def whiten(values: Floats) -> Floats:
    """Make AR(1) errors of every correlation independent, with the variance one error has.

    Parameters
    ----------
    values : ndarray of float, shape (..., n)
        Series along the last axis.

    Returns
    -------
    ndarray of float, shape (len(CORRELATIONS), ..., n)
    """
    white = np.empty((CORRELATIONS.size, *values.shape))
    for i, rho in enumerate(CORRELATIONS):
        white[i, ..., 0] = values[..., 0]
        white[i, ..., 1:] = (values[..., 1:] - rho * values[..., :-1]) / math.sqrt(1.0 - rho * rho)
    return white


def log_root_determinants(n: int) -> Floats:
    """Half the logarithm of the determinant of the AR(1) correlation matrix of n values, for every correlation."""
    return 0.5 * (n - 1) * np.log(1.0 - CORRELATIONS**2)


def rough_noise(values: Floats) -> float:
    """Estimate the noise robustly from second differences [2]_: quick, and blind to how smooth the curve is."""
    if values.size < 3:
        return 0.0
    bends = values[1:-1] - 0.5 * (values[:-2] + values[2:])
    return MAD_TO_SD * float(median(np.abs(bends))) / math.sqrt(1.5)


def student95(freedom: float) -> float:
    """97.5 % quantile of Student's t, by the Cornish-Fisher expansion (within 4 % from 3 degrees of freedom on)."""
    z, v = Z95, max(freedom, 1.0)
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)


@lru_cache(maxsize=128)
def _restricted(n: int) -> tuple[Floats, Floats, int]:
    """Residual operators in whitened coordinates and their log determinants, for every correlation."""
    coefficients = min(6, 2 + n // 5)
    basis = _legendre(np.linspace(-1.0, 1.0, n), coefficients)
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
