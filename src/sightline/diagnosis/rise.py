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
from functools import lru_cache

import numpy as np

from sightline.diagnosis.noise import PRIOR, WINDOW, informative, log_root_determinants, whiten
from sightline.diagnosis.series import EvalSeries, Floats, block_means

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
AFTER = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40)  # evaluations after a turning point that is tried
DECAYS = tuple(1.6**k for k in range(8))  # exponential falls, in evaluations: neighbours 60 % apart
POWERS = (0.5, 1.0)  # falls as a power of the number of evaluations
SETTLES = 4.0  # evaluations in which a rise that settles does so by 63 %
RISES = (0.6, 0.2, 0.2)  # how probable: a ramp, a rise that settles, a step (memorising goes on)
BENDS: Floats = np.array([0.05, 0.15, 0.3, 0.6, 1.0, 2.0, 4.0])  # c: starts of a fall, as shares of its lowest loss
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
    each = []
    for flatter, whole in windows(logs):
        log_e = float(log_e_value(whole, series.rounding))
        each += [log_e, log_e if flatter.size == whole.size else float(log_e_value(flatter, series.rounding))]
    # the mean of e-values is an e-value
    return RiseTest(float(np.logaddexp.reduce(each)) - math.log(len(each)), rise_height(logs), logs.size)


def windows(logs: Floats) -> list[tuple[Floats, Floats]]:
    """Return what is looked at: the last evaluations, and the whole run in blocks where it is longer.

    Each comes twice, without its steep start and with it: a start that fits one of the falls tells much of the noise,
    one that fits none would pass for noise itself.
    """
    coarse, size = block_means(logs, WINDOW)
    return [
        (informative(scale, KEPT_AT_LEAST), scale[-WINDOW:]) for scale in ((logs,) if size == 1 else (logs, coarse))
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
        powers = powers * t + coefficient
    tail = np.log(0.5 * t) - z * z + powers
    return np.asarray(np.where(x < 0.0, tail, np.log1p(-np.exp(tail))))


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
    n = values.shape[-1]
    null, turned = log_evidence(values, rounding, turning_points(n))
    later = _log_sum(turned, (-1,)) - math.log(turned.shape[-1]) - null
    at_once = _rose_at_once(values.reshape(-1, n), rounding).reshape(later.shape)
    # any evaluation may be the turning point, the first as well as another
    both = np.logaddexp(later + math.log1p(-1.0 / n), at_once - math.log(n))
    return np.maximum(both, LEAST_LOG)


def turning_points(n: int) -> tuple[int, ...]:
    """Indices of the last evaluation before a rise that are tried for n evaluations."""
    return tuple(n - 1 - after for after in AFTER if n - after >= 2)


def log_evidence(
    values: Floats, rounding: float, turns: tuple[int, ...], *, slow_starts: bool = False
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
    bends = _bends(curves)
    null, either = np.empty(len(curves)), np.empty((len(curves), len(turns)))
    for bend in np.unique(bends):
        rows = bends == bend
        usual = turns == turning_points(n) and not slow_starts
        shapes = _usual_shapes(n, bend) if usual else _shapes(n, turns, bend, slow_starts=slow_starts)
        null[rows], either[rows] = _weigh(curves[rows], rounding, shapes)
    return null.reshape(values.shape[:-1]), either.reshape(*values.shape[:-1], len(turns))


def _bends(curves: Floats) -> Floats:
    """Return c of each curve (b, n), the nearest of BENDS."""
    above = np.expm1(curves[:, 0] - curves.min(axis=1))
    return np.asarray(BENDS[np.abs(np.log1p(above[:, None]) - np.log1p(BENDS)).argmin(axis=1)])


def _weigh(curves: Floats, rounding: float, shapes: _Shapes) -> tuple[Floats, Floats]:
    """Weigh curves (b, n) of one bend: (b,) and (b, o)."""
    n = curves.shape[1]
    white, total = _left_by_level(curves, shapes.level, rounding)
    fall = _products(white, shapes.falls)  # (r, b, o, t)
    rise = _products(white, shapes.rises)  # (r, b, o, s)
    weight = (np.log(PRIOR) - shapes.log_scale)[:, None, None, None]
    freedom = n - 2 + NOISE_FREEDOM
    left = np.maximum(total[..., None, None] - fall**2, 1e-12 * total[..., None, None])  # by a and b
    fell = weight - 0.5 * freedom * np.log(left) + _log_positive(fall, left, freedom)
    null = _log_mean(fell, (0, 2, 3), PRIOR.size)
    across = shapes.overlaps[:, None]  # (r, 1, o, s, t)
    lengths = np.maximum(shapes.lengths[..., None] - shapes.overlaps**2, 1e-9)[:, None]
    product = rise[..., None] - across * fall[:, :, :, None, :]
    size = product / np.sqrt(lengths)  # of the rise, in units of its error
    turned, remains = _add_rise(weight[..., None], size, left[:, :, :, None], freedom)
    turned += _log_positive(fall[:, :, :, None, :] - SHRUNK * across * product / lengths, remains, freedom)
    turned += np.log(shapes.probable)[:, None]
    either = _log_mean(turned, (0, 3, 4), PRIOR.size * shapes.probable.size)
    return null, either


def _rose_at_once(curves: Floats, rounding: float) -> Floats:
    """Logarithm of the e-value of "rises from the first evaluation on" against "flat": where nothing falls, b is out."""
    n = curves.shape[1]
    level, rises, lengths, log_scale = _first_rises(n)
    white, total = _left_by_level(curves, level, rounding)
    left = total[..., None]
    weight = (np.log(PRIOR) - log_scale)[:, None, None]
    freedom = n - 1 + NOISE_FREEDOM
    size = (white @ rises.transpose(0, 2, 1)) / np.sqrt(lengths)[:, None]  # (r, b, s)
    risen, _ = _add_rise(weight, size, left, freedom)
    flat = weight - 0.5 * freedom * np.log(left)
    return _log_mean(risen, (0, 2), PRIOR.size) - _log_sum(flat, (0, 2))


def _left_by_level(curves: Floats, level: Floats, rounding: float) -> tuple[Floats, Floats]:
    """Whitened curves (r, b, n), and the squares that a alone leaves of each (r, b).

    Whatever fits, those of the rounding are left, and those that are believed of the noise.
    """
    n = curves.shape[1]
    white = whiten(curves - curves.mean(axis=1, keepdims=True))
    floor = n * max(rounding, 1e-12) ** 2 + NOISE_FREEDOM * USUAL_NOISE**2
    squares = np.einsum("rbn,rbn->rb", white, white) - (white @ level[:, :, None])[..., 0] ** 2
    return white, np.maximum(squares, 0.0) + floor


def _add_rise(weight: Floats, size: Floats, left: Floats, freedom: float) -> tuple[Floats, Floats]:
    """Log likelihood once a rise of this size, in units of its error, is allowed; and the squares it leaves."""
    remains = np.maximum(left - SHRUNK * size**2, 1e-12 * left)
    # the prior of the height, halved at zero, then the chance that the height is above it
    likely = weight - 0.5 * freedom * np.log(remains) - 0.5 * math.log1p(G_PRIOR) + math.log(2.0)
    return likely + _log_positive(math.sqrt(SHRUNK) * size, remains, freedom), remains


def _level(n: int) -> tuple[Floats, Floats]:
    """Return the whitened constant (r, n), of length 1, and the log scale it brings (r,)."""
    one = whiten(np.ones(n))
    length = np.sqrt(np.einsum("rn,rn->r", one, one))
    return one / length[:, None], log_root_determinants(n) + np.log(length)


@lru_cache(maxsize=WINDOW)
def _first_rises(n: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Level (r, n), rises from the first evaluation on (r, s, n), their squared lengths (r, s), log scale (r,)."""
    after = np.arange(n, dtype=np.float64)
    level, log_scale = _level(n)
    rises = _without_level(whiten(np.stack([after, 1.0 - np.exp(-after / SETTLES)])[None]), level)[:, 0]
    return level, rises, np.einsum("rsn,rsn->rs", rises, rises), log_scale


@dataclass(frozen=True, eq=False, slots=True)
class _Shapes:
    """What n evaluations may look like, whitened for every correlation r, turning point o, fall t and rise s."""

    level: Floats  # (r, n), length 1
    falls: Floats  # (r, o, t, n), orthogonal to level, length 1
    rises: Floats  # (r, o, s, n), orthogonal to level
    overlaps: Floats  # (r, o, s, t), rises with falls
    lengths: Floats  # (r, o, s), squared lengths of the rises
    probable: Floats  # (s,), of the rises
    log_scale: Floats  # (r,)


@lru_cache(maxsize=2 * WINDOW)
def _usual_shapes(n: int, bend: float) -> _Shapes:
    return _shapes(n, turning_points(n), bend)


def _shapes(n: int, turns: tuple[int, ...], bend: float, *, slow_starts: bool = False) -> _Shapes:
    index = np.arange(n, dtype=np.float64)
    turn = np.array(turns, dtype=np.float64)[:, None]
    before = np.minimum(index, turn)  # (o, n): the fall ends at the turning point
    losses = (
        [np.exp(-before / decay) for decay in DECAYS]
        + [(before + 1.0) ** -power for power in POWERS]
        + [1.0 - before / n]
    )
    falls = [np.log1p(bend * loss) for loss in losses]
    after = np.maximum(index - turn, 0.0)
    rises = [after, 1.0 - np.exp(-after / SETTLES), (after > 0.0).astype(np.float64)]
    probable = np.array(RISES)
    if slow_starts:
        rises.append(after**2 / n)
        probable = np.array([0.5 * RISES[0], *RISES[1:], 0.5 * RISES[0]])
    level, log_scale = _level(n)
    white_falls = _without_level(whiten(np.stack(falls, axis=1)), level)
    white_falls /= np.sqrt(np.einsum("rotn,rotn->rot", white_falls, white_falls))[..., None]
    white_rises = _without_level(whiten(np.stack(rises, axis=1)), level)
    return _Shapes(
        level,
        white_falls,
        white_rises,
        np.einsum("rosn,rotn->rost", white_rises, white_falls),
        np.einsum("rosn,rosn->ros", white_rises, white_rises),
        probable,
        log_scale,
    )


def _without_level(shapes: Floats, level: Floats) -> Floats:
    """Take the constant out of whitened shapes (r, o, t, n)."""
    return np.asarray(shapes - np.einsum("rotn,rn->rot", shapes, level)[..., None] * level[:, None, None, :])


def _log_positive(estimate: Floats, left_over: Floats, freedom: float) -> Floats:
    """Logarithm of the probability that a coefficient with this estimate, of unit length, is above zero."""
    return log_normal_cdf(estimate * np.sqrt(freedom / left_over))


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
