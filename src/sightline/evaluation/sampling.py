"""How many rows an evaluation needs to see a change, and a sample of that many. No torch.

Two evaluations are compared on the same rows, so what counts is the standard error of their *difference*. With loss
sums s and s', token counts c and d = s' - s over m of n rows drawn at random, the difference of the losses is estimated
by the ratio ``D = sum d / sum c``. Its variance is ``(1 - m/n) S^2 / m`` with ``S^2`` the variance of the residuals
``d_r - D c_r`` over the squared mean token count ([1]_, 6.4); the first factor is there because all n rows are the
truth the sample stands for.

References
----------
.. [1] W. G. Cochran, Sampling Techniques (1977), chapter 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sightline.runs import ExampleLosses

SAMPLE_SEED = 40_127
SMALLEST_CHANGE = 0.01
"""Relative change of the loss that a sample should let one see."""
STANDARD_ERRORS = 1.96
"""A change is seen when it is this many standard errors away from 0 (95 %)."""


@dataclass(frozen=True, eq=False, slots=True)
class RowSample:
    """A fixed random part of a set of rows; a larger sample of the same set contains every smaller one."""

    n: int
    """Rows of the whole set."""
    size: int
    """Rows of the sample."""
    order: NDArray[np.int64] = field(repr=False)
    """The order rows are drawn in, shape (n,)."""

    @classmethod
    def of(cls, n: int, size: int) -> RowSample:
        """Draw ``size`` of ``n`` rows, the same for the same n; all of them where there are no more."""
        order = np.random.Generator(np.random.PCG64(SAMPLE_SEED)).permutation(n)
        return cls(n, min(size, n), order)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the sample, ascending: what ``evaluate(..., only=...)`` takes."""
        return np.sort(self.order[: self.size])


def difference_error(before: ExampleLosses, after: ExampleLosses, n: int, rows: int | None = None) -> float:
    """Return the standard error of the difference between two evaluations of a sample, as an estimate for all rows.

    Parameters
    ----------
    before, after : ExampleLosses
        Of the same rows; those that count no tokens in either are not in the sample.
    n : int
        Rows of the whole set.
    rows : int, optional
        Rows of the sample whose error is wanted; those that both have unless given.

    Returns
    -------
    float
        In nats per token; NaN for fewer than two rows with finite losses, 0 when all rows were scored.
    """
    spread, known = _spread(before, after)
    if known < 2:
        return math.nan
    m = known if rows is None else rows
    return math.sqrt((1.0 - min(m, n) / n) / m) * spread


def rows_needed(before: ExampleLosses, after: ExampleLosses, n: int, change: float = SMALLEST_CHANGE) -> int | None:
    """Return how many of n rows let a relative change of the loss be seen between two such evaluations.

    Parameters
    ----------
    before, after : ExampleLosses
        Of the same rows.
    n : int
        Rows of the whole set.
    change : float
        Relative to the loss of ``before``.

    Returns
    -------
    int or None
        From 2 to n; None for fewer than two rows with finite losses.
    """
    spread, m = _spread(before, after)
    if m < 2:
        return None
    bearable = change * _loss(before, after) / STANDARD_ERRORS
    wanted = spread**2 / (bearable**2 + spread**2 / n) if spread else 2.0
    return min(n, max(2, math.ceil(wanted)))


def _shared(before: ExampleLosses, after: ExampleLosses) -> NDArray[np.bool_]:
    finite = np.isfinite(before.loss_sums) & np.isfinite(after.loss_sums)
    return finite & (before.token_counts > 0) & (after.token_counts > 0)


def _loss(before: ExampleLosses, after: ExampleLosses) -> float:
    both = _shared(before, after)
    return float(before.loss_sums[both].sum() / before.token_counts[both].sum())


def _spread(before: ExampleLosses, after: ExampleLosses) -> tuple[float, int]:
    """Return S, the standard deviation of a row's residual in tokens of a mean row, and the rows it comes from."""
    both = _shared(before, after)
    m = int(both.sum())
    if m < 2:
        return math.nan, m
    change = after.loss_sums[both] - before.loss_sums[both]
    counts = before.token_counts[both]
    residuals = change - change.sum() / counts.sum() * counts
    return float(np.sqrt((residuals**2).sum() / (m - 1)) / counts.mean()), m
