"""Two evaluations of the same rows: whether the one is better, or it is the choice of rows.

Every row is seen by both models, so what counts is the difference on each row. The loss is a ratio (nats by tokens),
its standard error that of a ratio estimator with the row as the unit [1]_: rows are drawn, their tokens come with them.

References
----------
.. [1] W. G. Cochran, Sampling Techniques (1977), section 6: ratio estimators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sightline.diagnosis.noise import Z95
from sightline.diagnosis.series import EvalSeries, Floats, Steps
from sightline.runs import ExampleLosses

ROWS_Z = 2.3263
"""A rise of fewer standard errors may be the choice of rows (1 %, one-sided); the rows are the same at every look."""
RECENT = 3  # evaluations whose mean stands for "now"


@dataclass(frozen=True, slots=True)
class Difference:
    """Loss of one model less that of another on the same rows."""

    mean: float
    """Token-weighted mean difference, nats per token."""
    standard_error: float
    """Of ``mean``, as if the rows were drawn again."""
    rows: int

    @property
    def z(self) -> float:
        """Difference in standard errors."""
        if self.standard_error > 0.0:
            return self.mean / self.standard_error
        return math.copysign(math.inf, self.mean) if self.mean else 0.0


def compare(first: ExampleLosses, second: ExampleLosses) -> Difference | None:
    """Compare two evaluations of the same rows.

    Parameters
    ----------
    first, second : ExampleLosses
        Rows in the same order.

    Returns
    -------
    Difference or None
        ``first`` less ``second``; None if the rows are not the same or fewer than two have a finite loss in both.
    """
    if not np.array_equal(first.token_counts, second.token_counts):
        return None
    return _difference(first.loss_sums - second.loss_sums, second.token_counts)


def equivalent_to_best(series: EvalSeries) -> tuple[int, ...] | None:
    """Steps whose loss cannot be told apart from the lowest by the rows (95 %).

    Returns
    -------
    tuple of int or None
        Ascending, the best among them; None where the losses of the rows are not known.
    """
    best = series.evaluations[series.at_best]
    if best is None or best.losses is None:
        return None
    same = []
    for evaluation in series.evaluations:
        if evaluation is None or evaluation.losses is None:
            continue
        difference = compare(evaluation.losses, best.losses)
        if evaluation is best or (difference is not None and difference.z <= Z95):
            same.append(evaluation.step)
    return tuple(same)


def rise_over_rows(series: EvalSeries) -> Difference | None:
    """Compare the mean of the last evaluations with the best one, row by row.

    Returns
    -------
    Difference or None
        None where the losses of the rows are not known.
    """
    best = series.evaluations[series.at_best]
    if best is None or best.losses is None:
        return None
    now = [
        e.losses for e in series.evaluations[series.at_best + 1 :][-RECENT:] if e is not None and e.losses is not None
    ]
    counts = best.losses.token_counts
    if not now or any(not np.array_equal(losses.token_counts, counts) for losses in now):
        return None
    mean = np.mean([losses.loss_sums for losses in now], axis=0)
    return _difference(mean - best.losses.loss_sums, counts)


def _difference(sums: Floats, counts: Steps) -> Difference | None:
    """Ratio of summed differences to summed tokens, over the rows that are finite and have tokens."""
    known = np.isfinite(sums) & (counts > 0)
    rows = int(known.sum())
    if rows < 2:
        return None
    sums, tokens = sums[known], counts[known].astype(np.float64)
    mean = float(sums.sum() / tokens.sum())
    left_over = sums - mean * tokens
    variance = rows / (rows - 1) * float(left_over @ left_over)
    return Difference(mean, math.sqrt(variance) / float(tokens.sum()), rows)
