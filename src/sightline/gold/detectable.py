"""How large a difference a gold set of n rows can show: before anything runs, and after."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

POWER = 0.8
"""A difference counts as detectable when four of five such comparisons would show it."""
CHANGED = 0.2
"""Share of rows on which base and tuned differ, as long as nobody has looked."""
GRADED_SPREAD = 0.3
"""Standard deviation of a row's difference in a score from 0 to 1, as long as nobody has looked."""


@dataclass(frozen=True, slots=True)
class Detectable:
    """What a gold set of n rows can show."""

    n: int
    least: float
    """Smallest difference of shares that can be shown at all: so many rows gained and none lost. Above 1: none can."""
    likely: float
    """True difference of shares shown in four of five comparisons, if 20 % of the rows change."""
    graded: float
    """The same for a mean of graded scores from 0 to 1, if the differences by row spread by 0.3."""


def detectable(n: int, *, comparisons: int = 1, alpha: float = 0.05) -> Detectable:
    """Say what ``n`` rows can show, before anything has run.

    Parameters
    ----------
    n : int
        Rows of the gold set.
    comparisons : int
        Checkpoints and metrics answered together: Holm's correction asks the first for ``alpha / comparisons``.
    alpha : float
        Largest probability of calling equal models different.

    Returns
    -------
    Detectable
    """
    level = alpha / comparisons
    one_way = math.ceil(1 - math.log2(level))  # m wins and no loss have p = 2 ** (1 - m)
    return Detectable(
        n, one_way / n, detectable_share(n, CHANGED, alpha=level), detectable_mean(GRADED_SPREAD / math.sqrt(n), level)
    )


@lru_cache(maxsize=4096)
def detectable_share(n: int, changed: float, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the true difference of two shares that McNemar's exact test finds with the given power.

    Parameters
    ----------
    n : int
        Rows.
    changed : float
        Share of rows on which the two models differ, 0 to 1.
    alpha, power : float

    Returns
    -------
    float
        0 to 1. Where even all changes in one direction would not do, the difference at which they would; 1.0 where no
        difference would.
    """
    changed = min(max(changed, 0.0), 1.0)
    if changed > 0 and _power(n, changed, changed, alpha) >= power:
        return _least(lambda d: _power(n, changed, d, alpha) >= power, changed)
    return _least(lambda d: _power(n, d, d, alpha) >= power, 1.0)


def detectable_mean(standard_error: float, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the true difference of means found with the given power, by its standard error (normal approximation)."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * standard_error


def _least(is_enough: Callable[[float], bool], high: float) -> float:
    """Return the smallest difference that is enough, by bisection."""
    low = 0.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _power(n: int, changed: float, difference: float, alpha: float) -> float:
    """Return how often McNemar's exact test says different: changed rows are binomial, and so are wins in them."""
    from scipy.special import bdtr, xlog1py, xlogy

    spread = 6 * math.sqrt(n * changed * (1 - changed)) + 1
    m = np.arange(max(1, math.floor(n * changed - spread)), min(n, math.ceil(n * changed + spread)) + 1)
    log_chance = xlogy(m, changed) + xlog1py(n - m, -changed) + _log_choose(n, m)
    critical = _critical(m, alpha, bdtr)
    win = (1 + difference / changed) / 2
    usable = critical >= 0
    few, many = np.where(usable, critical, 0), np.where(usable, m - critical - 1, m)
    rejected = np.where(usable, bdtr(few, m, win) + 1 - bdtr(many, m, win), 0.0)
    return float((np.exp(log_chance) * rejected).sum())


def _critical(m: NDArray[np.int64], alpha: float, bdtr: Any) -> NDArray[np.int64]:
    """Return the largest number of losses among m changed rows that the test calls different, -1 for none."""
    low, high = np.full(m.shape, -1), m // 2
    for _ in range(int(m.max()).bit_length() + 1):
        middle = (low + high + 1) // 2
        is_different = 2 * bdtr(np.maximum(middle, 0), m, 0.5) <= alpha
        rises = is_different & (middle > low)
        low, high = np.where(rises, middle, low), np.where(rises, high, np.maximum(middle - 1, low))
    return np.asarray(low, np.int64)


def _log_choose(n: int, m: NDArray[np.int64]) -> NDArray[np.float64]:
    from scipy.special import gammaln

    return np.asarray(gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1), np.float64)
