"""Paired statistics: two models on the same rows. Pure NumPy; seeds are fixed, so the same scores give the same answer.

A row is the unit: whatever makes a row hard is hard for both models, and their difference on it is what is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
SEED = 20_077
EXACT_ROWS = 13
"""Up to so many rows that differ, all 2**n sign patterns are tried instead of drawing some."""
_BLOCK_ELEMENTS = 200_000
"""Elements of a block of random numbers: they stay in a processor's cache, whatever the number of rows."""

Floats = NDArray[np.float64]
Aggregate = Callable[[Floats], Floats]
Places = NDArray[np.intp]


@dataclass(frozen=True, eq=False, slots=True)
class Paired:
    """Counts of base and tuned by row, and how sums of them become a score."""

    base: Floats
    """Shape (n, k)."""
    tuned: Floats
    """Shape (n, k)."""
    aggregate: Aggregate
    """From sums over rows, shape (..., k), to scores, shape (...)."""

    @classmethod
    def means(cls, base: ArrayLike, tuned: ArrayLike) -> Paired:
        """Return scores of shape (n,) whose mean counts."""
        return cls(_with_ones(base), _with_ones(tuned), _mean)

    @property
    def difference(self) -> float:
        """Tuned minus base."""
        return float(self.aggregate(self.tuned.sum(axis=0)) - self.aggregate(self.base.sum(axis=0)))


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of the difference."""

    low: float
    high: float
    standard_error: float


def mcnemar_exact(wins: int, losses: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Parameters
    ----------
    wins, losses : int
        Rows that only tuned, and that only base, answered rightly. Rows both or neither did tell nothing.

    Returns
    -------
    float
        Probability, if a changed row were as likely a win as a loss, of a split at least as uneven. 1.0 without any.

    References
    ----------
    .. [1] Q. McNemar, Psychometrika 12 (1947). https://doi.org/10.1007/BF02295996

    Examples
    --------
    >>> mcnemar_exact(6, 0), mcnemar_exact(3, 3)
    (0.03125, 1.0)
    """
    n, fewer = wins + losses, min(wins, losses)
    if n <= 1000:
        tail = sum(math.comb(n, i) for i in range(fewer + 1))
        return min(1.0, float(2 * tail / 2**n))
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(fewer, n, 0.5)))


def paired_share_interval(wins: int, losses: int, n: int, confidence: float = 0.95) -> Interval:
    """Return Tango's score interval of the difference of two shares on the same rows.

    Parameters
    ----------
    wins, losses : int
        Rows that only tuned, and that only base, answered rightly.
    n : int
        All rows.
    confidence : float

    Returns
    -------
    Interval
        Of (wins - losses) / n. It keeps its coverage where few rows changed, and is not empty where none did.

    References
    ----------
    .. [1] T. Tango, Statistics in Medicine 17 (1998), equation 9.
       https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    estimate = (wins - losses) / n
    error = math.sqrt(max(wins + losses - (wins - losses) ** 2 / n, 0.0)) / n

    def z_score(delta: float) -> float:
        b = (2 * n - wins + losses) * delta - wins - losses
        loss_share = (math.sqrt(max(b * b + 8 * n * losses * delta * (1 - delta), 0.0)) - b) / (
            4 * n
        )  # MLE under delta
        variance = n * (2 * loss_share + delta * (1 - delta))
        top = wins - losses - n * delta
        return math.copysign(math.inf, top) if variance <= 0 else top / math.sqrt(variance)

    return Interval(_crossing(z_score, z, -1.0, estimate), _crossing(z_score, -z, estimate, 1.0), error)


def bootstrap_intervals(
    samples: Sequence[Paired], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> list[Interval]:
    """Return the BCa bootstrap interval of the difference of each sample.

    Parameters
    ----------
    samples : sequence of Paired
        All of the same number n of rows; each resample of rows serves them all.
    confidence : float
        Coverage of each interval.
    resamples, seed : int

    Returns
    -------
    list of Interval
        One a sample. Where no resample differs from the estimate the interval is that one value.

    References
    ----------
    .. [1] B. Efron, Better bootstrap confidence intervals, JASA 82 (1987).
       https://doi.org/10.1080/01621459.1987.10478410
    """
    n = len(samples[0].base)
    columns, places = _distinct_columns([part for s in samples for part in (s.base, s.tuned)])
    sums = np.concatenate([weights @ columns for weights in _resampled_weights(n, resamples, seed)])
    total = columns.sum(axis=0)
    left_out = total - columns if n > 1 else columns

    def differences(sample: Paired, at: tuple[Places, Places], of: Floats) -> Floats:
        return sample.aggregate(of[..., at[1]]) - sample.aggregate(of[..., at[0]])

    intervals = []
    for sample, at in zip(samples, zip(places[0::2], places[1::2], strict=True), strict=True):
        estimate = float(differences(sample, at, total))
        jackknife = differences(sample, at, left_out)
        intervals.append(_bca(differences(sample, at, sums), estimate, jackknife, confidence))
    return intervals


def randomisation_p_values(samples: Sequence[Paired], *, resamples: int = RESAMPLES, seed: int = SEED) -> list[float]:
    """Return the two-sided p-value of the paired randomisation test of each sample.

    Parameters
    ----------
    samples : sequence of Paired
        All of the same number n of rows.
    resamples, seed : int

    Returns
    -------
    list of float
        How often swapping the two models' results on random rows makes a difference at least as large: were the models
        equal, swapping would not matter. Exact up to 13 rows that differ, else from ``resamples`` random swaps, the
        observed one counted among them.

    References
    ----------
    .. [1] E. W. Noreen, Computer-intensive methods for testing hypotheses, 1989.
    .. [2] S. Riezler, J. Maxwell, On some pitfalls in automatic evaluation and significance testing for MT, 2005.
       https://aclanthology.org/W05-0908
    """
    steps = [sample.tuned - sample.base for sample in samples]  # what swapping a row moves from one side to the other
    p_values = [_all_swapped(sample, step) for sample, step in zip(samples, steps, strict=True)]
    drawn = [i for i, p in enumerate(p_values) if p is None]
    tails = [_Tail.of(samples[i]) for i in drawn]
    if drawn:
        columns, places = _distinct_columns([steps[i] for i in drawn])
        for swaps in _random_swaps(len(columns), resamples, seed):
            shifts = swaps @ columns
            for tail, at in zip(tails, places, strict=True):
                tail.count(shifts[:, at])
    for i, tail in zip(drawn, tails, strict=True):
        p_values[i] = (tail.as_large + 1) / (resamples + 1)
    return [1.0 if p is None else p for p in p_values]


def holm(p_values: ArrayLike) -> Floats:
    """Return p-values after Holm's correction.

    Parameters
    ----------
    p_values : array_like of float, shape (m,)

    Returns
    -------
    ndarray of float, shape (m,)
        If all below a level are called shown, the probability of even one wrong call stays below that level, whatever
        the dependence of the tests.

    References
    ----------
    .. [1] S. Holm, Scandinavian Journal of Statistics 6 (1979). https://www.jstor.org/stable/4615733

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _with_ones(scores: ArrayLike) -> Floats:
    values = np.asarray(scores, np.float64)
    return np.stack([values, np.ones_like(values)], axis=1)


def _mean(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1], np.float64)


def _crossing(z_score: Callable[[float], float], level: float, low: float, high: float) -> float:
    """Return where a falling function crosses a level, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        if z_score(middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _resampled_weights(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each of n rows is drawn, blocks of shape (b, n), ``resamples`` rows in all."""
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, _BLOCK_ELEMENTS // n))
    for start in range(0, resamples, block):
        b = min(block, resamples - start)
        drawn = rng.integers(0, n, size=(b, n), dtype=np.int32)
        drawn += np.arange(b)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n).astype(np.float64)


def _bca(replicates: Floats, estimate: float, left_out: Floats, confidence: float) -> Interval:
    """Return the bias-corrected and accelerated interval (equations 2.3 and 6.6 in Efron 1987)."""
    replicates = np.sort(replicates[np.isfinite(replicates)])
    if replicates.size == 0 or not math.isfinite(estimate):
        return Interval(math.nan, math.nan, math.nan)
    error = float(replicates.std(ddof=1)) if replicates.size > 1 else 0.0
    if replicates[0] == replicates[-1]:
        return Interval(estimate, estimate, 0.0)
    below = (np.searchsorted(replicates, estimate, "left") + np.searchsorted(replicates, estimate, "right")) / 2
    share = float(np.clip(below / replicates.size, 0.5 / replicates.size, 1 - 0.5 / replicates.size))
    normal = NormalDist()
    bias = normal.inv_cdf(share)
    spread = left_out.mean() - left_out
    scale = float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / (6 * scale) if scale > 0 else 0.0
    ends = []
    for probability in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + normal.inv_cdf(probability)
        ends.append(normal.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(replicates, ends)
    return Interval(float(low), float(high), error)


def _distinct_columns(parts: Sequence[Floats]) -> tuple[Floats, list[Places]]:
    """Return the columns of all parts, equal ones once, and where each part finds its own."""
    known: dict[bytes, int] = {}
    columns: list[Floats] = []
    places: list[Places] = []
    for part in parts:
        own = []
        for column in part.T:
            at = known.setdefault(column.tobytes(), len(columns))
            if at == len(columns):
                columns.append(column)
            own.append(at)
        places.append(np.array(own))
    return np.stack(columns, axis=1), places


@dataclass(slots=True)
class _Tail:
    """Counts the swaps that make a difference as large as the observed one."""

    sample: Paired
    base: Floats
    tuned: Floats
    enough: float
    as_large: int = 0

    @classmethod
    def of(cls, sample: Paired) -> _Tail:
        enough = abs(sample.difference) * (1 - 1e-9) - 1e-12  # sums in another order differ in their last digits
        return cls(sample, sample.base.sum(axis=0), sample.tuned.sum(axis=0), enough)

    def count(self, shifts: Floats) -> None:
        aggregate = self.sample.aggregate
        difference = np.abs(aggregate(self.tuned - shifts) - aggregate(self.base + shifts))
        self.as_large += int(np.count_nonzero(difference >= self.enough))


def _all_swapped(sample: Paired, step: Floats) -> float | None:
    """Return the exact p-value where few rows differ, None where they are too many."""
    moved = step[(step != 0).any(axis=1)]
    if not len(moved) or not math.isfinite(sample.difference):
        return 1.0
    if len(moved) > EXACT_ROWS:
        return None
    tail = _Tail.of(sample)
    swaps = ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1).astype(np.float64)
    tail.count(swaps @ moved)
    return tail.as_large / len(swaps)


def _random_swaps(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield random zeros and ones of shape (b, n), ``resamples`` rows in all."""
    rng = np.random.default_rng(seed)
    width = -(-n // 8)
    block = max(1, min(resamples, _BLOCK_ELEMENTS // n))
    for start in range(0, resamples, block):
        octets = rng.integers(0, 256, size=(min(block, resamples - start), width), dtype=np.uint8)
        yield np.unpackbits(octets, axis=1, count=n).astype(np.float64)
