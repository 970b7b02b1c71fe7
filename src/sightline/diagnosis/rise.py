"""Has the validation loss turned up? A test that may be looked at after every evaluation.

Two families of shapes explain the logarithms of the losses y_1 ... y_n:

- H0, falling then flat:   y_i = a + b g(min(i, o)) + e_i,  b >= 0, g falling (exponentials, powers, a line), or b = 0;
- H1, falling then rising: y_i = a + b g(min(i, o)) + s h(i - o) + e_i,  s > 0, h after o a ramp, a rise
  that settles, or a step.

The errors e are AR(1) with unknown variance and unknown correlation. What is unknown is averaged over (turning points
o, shapes g and h, correlations) or integrated out (a and the variance by their invariant priors, s by a g-prior [3]_),
under both hypotheses alike. The ratio E of the two averages is an e-value: if the loss never rises, its expectation
stays at 1 however long one looks, so P(E ever reaches 1/alpha) <= alpha (Ville; [1]_, [2]_ for priors of this kind).
What the shapes and the moving window leave out of that theorem is paid for by MARGIN, which simulation fixes
(benchmarks/verdict_simulation.py --calibrate): E must reach exp(MARGIN)/alpha, and a run longer than the window shares
alpha among its windows.

References
----------
.. [1] P. Grünwald, R. de Heide, W. Koolen, J. R. Stat. Soc. B 86 (2024), Safe testing.
.. [2] M. F. Perez-Ortiz et al., Ann. Stat. 52 (2024), E-statistics, group invariance and anytime-valid testing.
.. [3] A. Zellner, On assessing prior distributions and Bayesian regression analysis with g-prior distributions (1986).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sightline.diagnosis.noise import PRIOR, WINDOW, informative, log_root_determinants, whiten
from sightline.diagnosis.series import EvalSeries, Floats, block_means

FEWEST = 6
"""Evaluations below which no rise can be told from noise of unknown size."""
MARGIN = 0.75
"""Safety margin of the alarm on the log scale; reproduced by benchmarks/verdict_simulation.py --calibrate."""
ONE_LOOK = 1.5
"""Logarithm of the e-value that 5 % of curves that never rise exceed when looked at once, at their end; from there too."""
AFTER = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40)  # evaluations after a turning point that is tried
DECAYS = (1.0, 2.0, 4.0, 8.0, 16.0)  # exponential falls, in evaluations
POWERS = (0.5, 1.0)  # falls as a power of the number of evaluations
SETTLES = 4.0  # evaluations in which a rise that settles does so by 63 %
G_PRIOR = 20.0  # a rise is thought to be up to about sqrt(20) times its standard error
KEPT_AT_LEAST = 10
LEAST_LOG = -50.0


@dataclass(frozen=True, eq=False, slots=True)
class RiseTest:
    """What the test for a rise says at the last evaluation."""

    log_e: float
    """Natural logarithm of the e-value: above 0 speaks for a rise."""
    height: float
    """How far the last evaluations lie above the lowest ones, as a difference of logarithms."""
    evaluations: int
    """Evaluations so far."""

    def alarm(self, false_alarm: float, *, once: bool = False) -> bool:
        """Whether the rise is established, with at most this chance of a false alarm over the whole run.

        Looked at ``once``, after the run, it takes less than looked at after every evaluation.
        """
        level = alarm_level(false_alarm, self.evaluations)
        return self.log_e >= (min(level, one_look_level(false_alarm)) if once else level)


def weigh_rise(series: EvalSeries) -> RiseTest | None:
    """Weigh falling-then-rising against falling-then-flat.

    Parameters
    ----------
    series : EvalSeries
        The evaluations so far.

    Returns
    -------
    RiseTest or None
        None with fewer than six evaluations.
    """
    logs = series.learning_logs
    if logs.size < FEWEST:
        return None
    fine = float(log_e_value(informative(logs, KEPT_AT_LEAST), series.rounding))
    coarse_logs, _ = block_means(logs, WINDOW)
    if coarse_logs.size < logs.size:
        coarse = float(log_e_value(informative(coarse_logs, KEPT_AT_LEAST), series.rounding))
        log_e = float(np.logaddexp(fine, coarse)) - math.log(2.0)  # the mean of two e-values is an e-value
    else:
        log_e = fine
    return RiseTest(log_e, rise_height(logs), logs.size)


def alarm_level(false_alarm: float, evaluations: int) -> float:
    """Return what the logarithm of the e-value must reach.

    A window that moves begins a new test each time its length has passed, so the error is shared among the windows.
    """
    return math.log(1.0 / max(false_alarm, 1e-12)) + MARGIN + math.log(max(1.0, evaluations / WINDOW))


def one_look_level(false_alarm: float) -> float:
    """Return what the logarithm of the e-value must reach in a single look: Markov's slope through ONE_LOOK."""
    return ONE_LOOK + math.log(0.05 / max(false_alarm, 1e-12))


def rise_height(logs: Floats) -> float:
    """Mean of the last three evaluations above the lowest mean of three in a row."""
    means = np.convolve(logs, np.full(3, 1.0 / 3.0), "valid")
    return float(means[-1] - means.min()) if means.size else 0.0


def log_e_value(values: Floats, rounding: float = 0.0) -> Floats:
    """Logarithm of the e-value of falling-then-rising against falling-then-flat.

    Parameters
    ----------
    values : ndarray of float, shape (..., n)
        Logarithms of validation losses, FEWEST <= n <= WINDOW; every row is a curve of its own.
    rounding : float
        Standard deviation of their rounding error.

    Returns
    -------
    ndarray of float, shape (...)
    """
    null, turned = log_evidence(values, rounding, turning_points(values.shape[-1]))
    return np.maximum(_log_sum(turned, (-1,)) - math.log(turned.shape[-1]) - null, LEAST_LOG)


def turning_points(n: int) -> tuple[int, ...]:
    """Indices of the last evaluation before a rise that are tried for n evaluations."""
    return tuple(n - 1 - after for after in AFTER if n - after >= 2)


def log_evidence(values: Floats, rounding: float, turns: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Marginal likelihoods of "never rises" and of "rises after o" for each turning point o.

    Parameters
    ----------
    values : ndarray of float, shape (..., n)
        Logarithms of validation losses; every row is a curve of its own.
    rounding : float
        Standard deviation of their rounding error, added to what is left over.
    turns : tuple of int, length k
        Turning points o: index of the last evaluation that has not risen.

    Returns
    -------
    null : ndarray of float, shape (...)
        Logarithms, up to a constant both share.
    turned : ndarray of float, shape (..., k)
    """
    n = values.shape[-1]
    curves = values.reshape(-1, n)
    shapes = _usual_shapes(n) if turns == turning_points(n) else _shapes(n, turns)
    white = whiten(curves - curves.mean(axis=1, keepdims=True))  # (r, b, n), b the curve
    floor = n * max(rounding, 1e-12) ** 2
    level = white @ shapes.level[:, :, None]
    total = np.maximum(np.einsum("rbn,rbn->rb", white, white) - level[..., 0] ** 2, 0.0) + floor  # left by a alone
    fall = np.maximum(_products(white, shapes.falls), 0.0)  # (r, b, o, t), b >= 0
    rise = _products(white, shapes.rises)  # (r, b, o, s)
    power = 0.5 * (n - 1)
    weight = (np.log(PRIOR) - shapes.log_scale)[:, None]
    without = total[:, :, None, None] - fall**2 * (1.0 - 1e-12)
    price = 0.5 * math.log1p(n)  # of one more coefficient (b), as in BIC
    flat = _log_sum(weight - power * np.log(total), (0,))
    fallen = _log_mean(weight[..., None, None] - power * np.log(without) - price, (0, 2, 3), PRIOR.size)
    null = np.logaddexp(flat, fallen) - math.log(2.0)
    lengths = shapes.lengths[:, None]  # (r, 1, o, s)
    ramp = _add_rise(rise, lengths, total[:, :, None, None], power) + weight[..., None, None]
    across = np.where(fall[:, :, :, None, :] > 0.0, shapes.overlaps[:, None], 0.0)  # (r, b, o, s, t)
    left = np.maximum(lengths[..., None] - across**2, 1e-9)
    turned = _add_rise(rise[..., None] - across * fall[:, :, :, None, :], left, without[:, :, :, None, :], power)
    turned += weight[..., None, None, None] - price
    either = np.logaddexp(_log_mean(ramp, (0, 3), PRIOR.size), _log_mean(turned, (0, 3, 4), PRIOR.size)) - math.log(2.0)
    return null.reshape(values.shape[:-1]), either.reshape(*values.shape[:-1], len(turns))


@dataclass(frozen=True, eq=False, slots=True)
class _Shapes:
    """What n evaluations may look like, whitened for every correlation r, turning point o, fall t and rise s."""

    level: Floats  # (r, n), length 1
    falls: Floats  # (r, o, t, n), orthogonal to level, length 1
    rises: Floats  # (r, o, s, n), orthogonal to level
    overlaps: Floats  # (r, o, s, t), rises with falls
    lengths: Floats  # (r, o, s), squared lengths of the rises
    log_scale: Floats  # (r,)


@lru_cache(maxsize=WINDOW)
def _usual_shapes(n: int) -> _Shapes:
    return _shapes(n, turning_points(n))


def _shapes(n: int, turns: tuple[int, ...]) -> _Shapes:
    index = np.arange(n, dtype=np.float64)
    turn = np.array(turns, dtype=np.float64)[:, None]
    before = np.minimum(index, turn)  # (o, n): the fall ends at the turning point
    falls = (
        [np.exp(-before / decay) for decay in DECAYS] + [(before + 1.0) ** -power for power in POWERS] + [-before / n]
    )
    after = np.maximum(index - turn, 0.0)
    rises = [after, 1.0 - np.exp(-after / SETTLES), (after > 0.0).astype(np.float64)]
    one = whiten(np.ones(n))
    length = np.sqrt(np.einsum("rn,rn->r", one, one))
    level = one / length[:, None]
    white_falls = _without_level(whiten(np.stack(falls, axis=1)), level)
    white_falls /= np.sqrt(np.einsum("rotn,rotn->rot", white_falls, white_falls))[..., None]
    white_rises = _without_level(whiten(np.stack(rises, axis=1)), level)
    return _Shapes(
        level,
        white_falls,
        white_rises,
        np.einsum("rosn,rotn->rost", white_rises, white_falls),
        np.einsum("rosn,rosn->ros", white_rises, white_rises),
        log_root_determinants(n) + np.log(length),
    )


def _without_level(shapes: Floats, level: Floats) -> Floats:
    """Take the constant out of whitened shapes (r, o, t, n)."""
    return np.asarray(shapes - np.einsum("rotn,rn->rot", shapes, level)[..., None] * level[:, None, None, :])


def _add_rise(product: Floats, length: Floats, left_over: Floats, power: float) -> Floats:
    """Log likelihood once a rise of unknown size s > 0 is allowed: a g-prior halved at zero."""
    explained = np.where(product > 0.0, product**2 / length, 0.0) * (G_PRIOR / (1.0 + G_PRIOR))
    likelihood = -power * np.log(np.maximum(left_over - explained, left_over * 1e-12)) - 0.5 * math.log1p(G_PRIOR)
    return np.asarray(likelihood + np.where(product > 0.0, math.log(2.0), -2.0))


def _products(white: Floats, shapes: Floats) -> Floats:
    """Inner products of whitened curves (r, b, n) with shapes (r, o, t, n): (r, b, o, t)."""
    r, o, t, n = shapes.shape
    return np.asarray((white @ shapes.reshape(r, o * t, n).transpose(0, 2, 1)).reshape(r, -1, o, t))


def _log_mean(logs: Floats, axes: tuple[int, ...], summed: int) -> Floats:
    """Logarithm of the mean of exponentials over some axes, of which ``summed`` terms carry weights of their own."""
    terms = math.prod(logs.shape[axis] for axis in axes)
    return _log_sum(logs, axes) - math.log(terms / summed)


def _log_sum(logs: Floats, axes: tuple[int, ...]) -> Floats:
    """Logarithm of the sum of exponentials over some axes."""
    top = logs.max(axis=axes, keepdims=True)
    return np.asarray(np.log(np.exp(logs - top).sum(axis=axes)) + np.squeeze(top, axis=axes))
