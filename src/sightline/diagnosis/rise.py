"""Has the validation loss turned up? A test that may be looked at after every evaluation.

Two families of shapes explain the logarithms of the losses y_1 ... y_n:

- H0, falling then flat:   y_i = a + b g(min(i, o)) + e_i,  b > 0;
- H1, falling then rising: y_i = a + b g(min(i, o)) + s h(i - o) + e_i,  s > 0, h after o a ramp, a rise
  that settles, or a step; or, where the first evaluation is the best, y_i = a + s h(i) + e_i against y_i = a + e_i.

g is the logarithm of a loss that falls to a floor: log(1 + c l(i)), l an exponential, a power or a line, c how far above
its lowest value the loss began. The errors e are AR(1) with unknown variance and unknown correlation. What is unknown is
averaged over (turning points o, shapes g and h, correlations) or integrated out (a and b by the right Haar prior, s by a
g-prior [3]_, the variance by an inverse gamma distribution worth one evaluation of the usual noise), under both hypotheses
alike. The ratio E of the two averages is an e-value: if the loss never rises, its expectation stays at 1 however long
one looks, so P(E ever reaches 1/alpha) <= alpha (Ville; [1]_, [2]_ for priors of this kind). What the theorem does not
cover (the turning points move with the last evaluation, c is read off the curve, steep starts are left out, other
falls, other errors) is paid for by MARGIN, which simulation fixes (benchmarks/verdict_simulation.py --calibrate): E
must reach exp(MARGIN)/alpha, and a run longer than the window shares alpha among its windows.

References
----------
.. [1] P. Grünwald, R. de Heide, W. Koolen, J. R. Stat. Soc. B 86 (2024), Safe testing.
.. [2] M. F. Perez-Ortiz et al., Ann. Stat. 52 (2024), E-statistics, group invariance and anytime-valid testing.
.. [3] A. Zellner, On assessing prior distributions and Bayesian regression analysis with g-prior distributions (1986).
.. [4] W. H. Press et al., Numerical Recipes, section 6.2 (erfcc).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sightline.diagnosis.noise import PRIOR, WINDOW, informative, places, whiten
from sightline.diagnosis.series import EvalSeries, Floats, block_means
from sightline.diagnosis.shapes import Shapes, bends_of, first_rises, products, shapes_at, turning_points

FEWEST = 4
"""Evaluations below which no rise can be told from noise of unknown size."""
FEWEST_LIVE = 6
"""Evaluations below which a run that goes on is not called: what is believed of the noise decides, and more will come."""
USUAL_NOISE = 0.005
"""Usual noise of one evaluation, a share of the loss: what is believed of it before there is any, as NOISE_FREEDOM of it."""
NOISE_FREEDOM = 1.0
"""Degrees of freedom of that belief, the fewest whole ones: twenty evaluations hardly know of it, five need it."""
MARGIN = 1.3
"""Safety margin of the alarm on the log scale where there is much noise; checked by verdict_simulation.py --calibrate."""
QUIET, NOISY = 0.5, 2.0
"""Noise of one evaluation, as a share of what matters, up to which no margin is needed, and from which on all of it is."""
ONE_LOOK = 2.6
"""Logarithm of the e-value that 5 % of curves that never rise exceed when looked at once, at their end; from there too."""
RENEWED = 40
"""Evaluations after which a moving window is a new test: its oldest ones tell little of a rise."""
G_PRIOR = 20.0  # a rise is thought to be up to about sqrt(20) times its standard error
SHRUNK = G_PRIOR / (1.0 + G_PRIOR)
KEPT_AT_LEAST = 10
LEAST_LOG = -50.0
ERFC = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)
"""Chebyshev coefficients of log erfc, in powers of t [4]_."""


@dataclass(frozen=True, eq=False, slots=True)
class RiseTest:
    """What the test for a rise says at the last evaluation."""

    log_e: float
    """Natural logarithm of the e-value: above 0 speaks for a rise."""
    height: float
    """How far the last evaluations lie above the lowest ones, as a difference of logarithms."""
    evaluations: int
    """Evaluations so far."""

    def alarm(self, false_alarm: float, noisiness: float, *, once: bool = False) -> bool:
        """Whether the rise is established, with at most this chance of a false alarm over the whole run.

        ``noisiness`` is that of ``alarm_level``. Looked at ``once``, after the run, it takes less than looked at after
        every evaluation.
        """
        level = alarm_level(false_alarm, self.evaluations, noisiness)
        if once:
            return self.log_e >= min(level, one_look_level(false_alarm))
        return self.evaluations >= FEWEST_LIVE and self.log_e >= level


class View(NamedTuple):
    """A stretch of a curve that is looked at."""

    values: Floats
    """Logarithms of losses, shape (n,)."""
    at: Floats | None
    """Where they lie (noise.places), shape (n,), None where evenly."""


class Fits(NamedTuple):
    """How well falls and rises explain curves b, for every correlation r, turning point o, fall t and rise s."""

    fell: Floats
    """Log likelihood of falling then flat, (r, b, o, t)."""
    left: Floats
    """Squares it leaves, likewise."""
    turned: Floats
    """Log likelihood of falling then rising, (r, b, o, s, t)."""
    remains: Floats
    """Squares that leaves, likewise."""


def weigh_rise(series: EvalSeries) -> RiseTest | None:
    """Weigh falling-then-rising against falling-then-flat.

    Parameters
    ----------
    series : EvalSeries
        The evaluations so far.

    Returns
    -------
    RiseTest or None
        None with fewer than FEWEST evaluations.
    """
    logs = series.learning_logs
    if logs.size < FEWEST:
        return None
    views = windows(logs, series.learning_steps.astype(np.float64))
    each: list[float] = []
    for i, view in enumerate(views):
        same = i % 2 == 1 and view.values.size == views[i - 1].values.size  # there is no steep start
        each.append(each[-1] if same else float(log_e_value(view.values, series.rounding, view.at)))
    # the mean of e-values is an e-value
    return RiseTest(float(np.logaddexp.reduce(each)) - math.log(len(each)), rise_height(logs), logs.size)


def windows(logs: Floats, steps: Floats) -> list[View]:
    """Return what is looked at: the last evaluations, and the whole run in blocks where it is longer.

    Each comes twice, without its steep start and with it: a start that fits one of the falls tells much of the noise,
    one that fits none would pass for noise itself.
    """
    coarse, size = block_means(logs, WINDOW)
    scales = [(logs, steps)] if size == 1 else [(logs, steps), (coarse, block_means(steps, WINDOW)[0])]
    sizes = [(informative(values, KEPT_AT_LEAST, at).size, min(values.size, WINDOW)) for values, at in scales]
    return [
        View(values[-size:], places(at[-size:]))
        for (values, at), both in zip(scales, sizes, strict=True)
        for size in both
    ]


def alarm_level(false_alarm: float, evaluations: int, noisiness: float) -> float:
    """Return what the logarithm of the e-value must reach.

    A window that moves begins a new test each time RENEWED evaluations have passed, so the error is shared among them.

    Parameters
    ----------
    false_alarm : float
        Chance of a false alarm over the whole run.
    evaluations : int
        So far.
    noisiness : float
        Noise of one evaluation as a share of what a rise must exceed to matter.
    """
    return math.log(1.0 / max(false_alarm, 1e-12)) + margin(noisiness) + math.log(max(1.0, evaluations / RENEWED))


def margin(noisiness: float) -> float:
    """Return what is asked for beyond the theorem: nothing where noise alone hardly reaches a height that matters."""
    share = math.log(max(noisiness, QUIET) / QUIET) / math.log(NOISY / QUIET)
    return MARGIN * min(share, 1.0)


def one_look_level(false_alarm: float) -> float:
    """Return what the logarithm of the e-value must reach in a single look: Markov's slope through ONE_LOOK."""
    return ONE_LOOK + math.log(0.05 / max(false_alarm, 1e-12))


def rise_height(logs: Floats) -> float:
    """Mean of the last three evaluations above the lowest mean of three in a row; of two where there are few."""
    size = 3 if logs.size >= FEWEST_LIVE else 2
    means = np.convolve(logs, np.full(size, 1.0 / size), "valid")
    return float(means[-1] - means.min()) if means.size else 0.0


def log_normal_cdf(x: Floats) -> Floats:
    """Logarithm of the standard normal distribution function, to 1.2e-7 everywhere [4]_: SciPy's takes 0.2 s to import."""
    z = np.abs(x) / math.sqrt(2.0)
    t = 1.0 / (1.0 + 0.5 * z)
    powers = np.zeros_like(t)
    for coefficient in reversed(ERFC):
        powers *= t
        powers += coefficient
    tail = np.log(0.5 * t) - z * z + powers
    return np.asarray(np.where(x < 0.0, tail, np.log1p(-np.exp(tail))))


def log_e_value(values: Floats, rounding: float = 0.0, at: Floats | None = None) -> Floats:
    """Logarithm of the e-value of falling-then-rising against falling-then-flat.

    Parameters
    ----------
    values : ndarray of float, shape (..., n)
        Logarithms of validation losses, FEWEST <= n <= WINDOW; every row is a curve of its own.
    rounding : float
        Standard deviation of their rounding error.
    at : ndarray of float, shape (n,), optional
        Where they lie (noise.places), where not evenly.

    Returns
    -------
    ndarray of float, shape (...)
    """
    n = values.shape[-1]
    null, turned = log_evidence(values, rounding, turning_points(n), at)
    later = _log_sum(turned, (-1,)) - math.log(turned.shape[-1]) - null
    at_once = _rose_at_once(values.reshape(-1, n), rounding, at).reshape(later.shape)
    # any evaluation may be the turning point, the first as well as another
    both = np.logaddexp(later + math.log1p(-1.0 / n), at_once - math.log(n))
    return np.maximum(both, LEAST_LOG)


def log_evidence(
    values: Floats, rounding: float, turns: tuple[int, ...], at: Floats | None, *, slow_starts: bool = False
) -> tuple[Floats, Floats]:
    """Marginal likelihoods of "never rises" and of "rises after o" for each turning point o.

    Parameters
    ----------
    values : ndarray of float, shape (..., n)
        Logarithms of validation losses; every row is a curve of its own.
    rounding : float
        Standard deviation of their rounding error, added to what is left over.
    turns : tuple of int, length k
        Turning points o: index of the last evaluation that has not risen.
    at : ndarray of float, shape (n,), or None
        Where they lie (noise.places), None where evenly.
    slow_starts : bool
        Whether rises that accelerate (squares) are tried too.

    Returns
    -------
    null : ndarray of float, shape (...)
        Logarithms, up to a constant both share.
    turned : ndarray of float, shape (..., k)
    """
    n = values.shape[-1]
    curves = values.reshape(-1, n)
    bends = bends_of(curves)
    null, either = np.empty(len(curves)), np.empty((len(curves), len(turns)))
    for bend in np.unique(bends):
        rows = bends == bend
        shapes = shapes_at(n, at, turns, bend, slow_starts=slow_starts)
        null[rows], either[rows] = _weigh(curves[rows], rounding, shapes)
    return null.reshape(values.shape[:-1]), either.reshape(*values.shape[:-1], len(turns))


def _weigh(curves: Floats, rounding: float, shapes: Shapes) -> tuple[Floats, Floats]:
    """Weigh curves (b, n) of one bend: (b,) and (b, o)."""
    fits = fit(curves, shapes, curves.shape[1] * rounding**2 + NOISE_FREEDOM * USUAL_NOISE**2, NOISE_FREEDOM)
    null = _log_mean(fits.fell, (0, 2, 3), PRIOR.size)
    return null, _log_mean(fits.turned, (0, 3, 4), PRIOR.size * shapes.probable.size)


def fit(curves: Floats, shapes: Shapes, believed: float, believed_freedom: float) -> Fits:
    """Fit every fall, and every rise after it, to curves (b, n) of one bend.

    ``believed`` are squares that are left whatever fits, and that many degrees of freedom are behind them.
    """
    n = curves.shape[1]
    white, total = _left_by_level(curves, shapes.level, believed)
    fall = products(white, shapes.falls)  # (r, b, o, t)
    rise = products(white, shapes.rises)  # (r, b, o, s)
    weight = (np.log(PRIOR) - shapes.log_scale)[:, None, None, None]
    freedom = n - 2 + believed_freedom
    left = np.maximum(total[..., None, None] - fall**2, 1e-12 * total[..., None, None])  # by a and b
    fell = weight - 0.5 * freedom * np.log(left) + _log_positive(fall, left, freedom)
    across = shapes.overlaps[:, None]  # (r, 1, o, s, t)
    lengths = np.maximum(shapes.lengths[..., None] - shapes.overlaps**2, 1e-9)[:, None]
    product = rise[..., None] - across * fall[:, :, :, None, :]
    size = product / np.sqrt(lengths)  # of the rise, in units of its error
    turned, remains = _add_rise(weight[..., None], size, left[:, :, :, None], freedom)
    turned += _log_positive(fall[:, :, :, None, :] - SHRUNK * across * product / lengths, remains, freedom)
    turned += np.log(shapes.probable)[:, None]
    return Fits(fell, left, turned, remains)


def _rose_at_once(curves: Floats, rounding: float, at: Floats | None) -> Floats:
    """Logarithm of the e-value of "rises from the first evaluation on" against "flat": where nothing falls, b is out."""
    n = curves.shape[1]
    level, rises, lengths, log_scale = first_rises(n, at)
    white, total = _left_by_level(curves, level, n * rounding**2 + NOISE_FREEDOM * USUAL_NOISE**2)
    left = total[..., None]
    weight = (np.log(PRIOR) - log_scale)[:, None, None]
    freedom = n - 1 + NOISE_FREEDOM
    size = (white @ rises.transpose(0, 2, 1)) / np.sqrt(lengths)[:, None]  # (r, b, s)
    risen, _ = _add_rise(weight, size, left, freedom)
    flat = weight - 0.5 * freedom * np.log(left)
    return _log_mean(risen, (0, 2), PRIOR.size) - _log_sum(flat, (0, 2))


def _left_by_level(curves: Floats, level: Floats, believed: float) -> tuple[Floats, Floats]:
    """Whitened curves (r, b, n), and the squares that a alone leaves of each (r, b), with those believed beforehand."""
    white = whiten(curves - curves.mean(axis=1, keepdims=True))
    squares = np.einsum("rbn,rbn->rb", white, white) - (white @ level[:, :, None])[..., 0] ** 2
    return white, np.maximum(squares, 0.0) + believed


def _add_rise(weight: Floats, size: Floats, left: Floats, freedom: float) -> tuple[Floats, Floats]:
    """Log likelihood once a rise of this size, in units of its error, is allowed; and the squares it leaves."""
    remains = np.maximum(left - SHRUNK * size**2, 1e-12 * left)
    # the prior of the height, halved at zero, then the chance that the height is above it
    likely = weight - 0.5 * freedom * np.log(remains) - 0.5 * math.log1p(G_PRIOR) + math.log(2.0)
    return likely + _log_positive(math.sqrt(SHRUNK) * size, remains, freedom), remains


def _log_positive(estimate: Floats, left_over: Floats, freedom: float) -> Floats:
    """Logarithm of the probability that a coefficient with this estimate, of unit length, is above zero."""
    return log_normal_cdf(estimate * np.sqrt(freedom / left_over))


def _log_mean(logs: Floats, axes: tuple[int, ...], summed: int) -> Floats:
    """Logarithm of the mean of exponentials over some axes, of which ``summed`` terms carry weights of their own."""
    terms = math.prod(logs.shape[axis] for axis in axes)
    return _log_sum(logs, axes) - math.log(terms / summed)


def _log_sum(logs: Floats, axes: tuple[int, ...]) -> Floats:
    """Logarithm of the sum of exponentials over some axes."""
    top = logs.max(axis=axes, keepdims=True)
    return np.asarray(np.log(np.exp(logs - top).sum(axis=axes)) + np.squeeze(top, axis=axes))
