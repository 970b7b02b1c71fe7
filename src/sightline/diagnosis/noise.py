"""What is known of the errors of a curve: their size, how alike neighbours are, where they lie, which of them tell.

Neighbouring errors may be alike (the weights wander, the rows stay the same), so the errors are an AR(1) process, and
its correlation is not guessed but integrated over.

References
----------
.. [1] T. Gasser, L. Sroka, C. Jennen-Steinmetz, Biometrika 73 (1986), residual variance from second differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sightline.diagnosis.median import median
from sightline.diagnosis.series import Floats

MAD_TO_SD = 1.4826  # of a normal distribution
CORRELATIONS: Floats = np.array([0.0, 0.3, 0.6])
PRIOR: Floats = (1.0 - CORRELATIONS) / (1.0 - CORRELATIONS).sum()  # most evaluations are far enough apart
WINDOW = 48  # evaluations looked at: older noise may be other noise
EVEN = 0.05  # of their mean distance: evaluations nearer than this to where even ones lie count as even
ABOVE_BEST = 30.0  # noises: further up the fall is too steep for the shapes that are fitted
Z95 = 1.959964
Z99 = 2.326348  # one-sided


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


def places(steps: Floats) -> Floats | None:
    """Return where evaluations lie, counted in their mean distance.

    Parameters
    ----------
    steps : ndarray of float, shape (n,)
        Their steps, increasing.

    Returns
    -------
    ndarray of float, shape (n,), or None
        From 0 to n - 1; None where they lie as good as evenly.
    """
    index = np.arange(steps.size, dtype=np.float64)
    length = float(steps[-1] - steps[0]) if steps.size else 0.0
    if length <= 0.0:
        return None
    at = (steps - steps[0]) * ((steps.size - 1) / length)
    return None if float(np.abs(at - index).max()) < EVEN else np.asarray(at)


def informative(logs: Floats, least: int, steps: Floats) -> Floats:
    """Return the evaluations that tell of noise and of a turn: not the steep start, not more than WINDOW.

    Parameters
    ----------
    logs : ndarray of float, shape (n,)
        Logarithms of validation losses.
    least : int
        How many are kept in any case.
    steps : ndarray of float, shape (n,)
        Their steps, increasing.

    Returns
    -------
    ndarray of float, shape (m,)
        Without the leading evaluations that lie further above the best than ABOVE_BEST noises.
    """
    if logs.size <= least:
        return logs
    ceiling = float(logs.min()) + ABOVE_BEST * rough_noise(logs, steps) * (1.0 + 1.0 / logs.size)
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


def rough_noise(values: Floats, steps: Floats | None = None) -> float:
    """Estimate the noise robustly from second differences [1]_: quick, and blind to how smooth the curve is.

    Evenly spaced unless ``steps`` say where the values lie; each is compared with the line through its neighbours.
    """
    if values.size < 3:
        return 0.0
    if steps is None:
        return MAD_TO_SD * float(median(np.abs(values[1:-1] - 0.5 * (values[:-2] + values[2:])))) / math.sqrt(1.5)
    right = (steps[1:-1] - steps[:-2]) / np.maximum(steps[2:] - steps[:-2], 1e-12)  # weight of the right neighbour
    bends = values[1:-1] - (1.0 - right) * values[:-2] - right * values[2:]
    return MAD_TO_SD * float(median(np.abs(bends) / np.sqrt(1.0 + right**2 + (1.0 - right) ** 2)))


def student95(freedom: float) -> float:
    """97.5 % quantile of Student's t, by the Cornish-Fisher expansion (within 4 % from 3 degrees of freedom on)."""
    return _student(Z95, max(freedom, 1.0))


def student99(freedom: float) -> float:
    """99 % quantile of Student's t, by one more term of the expansion (within 2 % from 3 degrees of freedom on)."""
    z = Z99
    return _student(z, freedom) + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)


def _student(z: float, v: float) -> float:
    """Widen a quantile of the normal distribution for v degrees of freedom."""
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
