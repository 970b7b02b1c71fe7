"""Two evaluations of the same rows: whether the one is better, or it is the choice of rows.

Every row is seen by both models, so what counts is the difference on each row. The loss is a ratio (nats by tokens),
its standard error that of a ratio estimator with the row as the unit [1]_: rows are drawn, their tokens come with them.
Where rows were added in the middle of a run, two evaluations are compared by way of the one that added them.

References
----------
.. [1] W. G. Cochran, Sampling Techniques (1977), section 6: ratio estimators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sightline.diagnosis.noise import Z95
from sightline.diagnosis.series import EvalSeries, Floats, Steps
from sightline.runs import Evaluation, ExampleLosses, common_rows

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
        Rows in the same order; of a sample that was widened in between the rows that both have are compared.

    Returns
    -------
    Difference or None
        ``first`` less ``second``; None if the rows are not the same or fewer than two have a finite loss in both.
    """
    both = common_rows(first, second)
    if both is None:
        return None
    leg = _leg(both[0].loss_sums - both[1].loss_sums, both[1].token_counts)
    return None if leg is None else leg.difference


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
    known = _known(series)
    links, same = _links(known), []
    for evaluation in known:
        if evaluation is not best:
            later = evaluation.step > best.step
            pair = (best, evaluation) if later else (evaluation, best)
            change = _along(pair[0], pair[1], links)
            if change is None or (1.0 if later else -1.0) * change.difference.z > Z95:
                continue
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
    known = _known(series)
    links, now = _links(known), [e for e in known if e.step > best.step][-RECENT:]
    changes = [_along(best, evaluation, links) for evaluation in now]
    if not changes or any(change is None for change in changes):
        return None
    influence = np.zeros(max(c.influence.size for c in changes if c is not None))
    for change in changes:
        assert change is not None
        influence[: change.influence.size] += change.influence / len(changes)
    return _Change(float(np.mean([c.mean for c in changes if c is not None])), influence).difference


@dataclass(frozen=True, eq=False, slots=True)
class _Change:
    """How far a loss has moved, and what each row has to do with it."""

    mean: float
    influence: Floats
    """Residual of each row over the tokens, shape (n,): what the change would be moved by if the row counted twice; NaN
    for rows that are not known."""

    @property
    def difference(self) -> Difference:
        left_over = self.influence[np.isfinite(self.influence)]
        rows = left_over.size
        variance = rows / (rows - 1) * float(left_over @ left_over)
        return Difference(self.mean, math.sqrt(variance), rows)


def _known(series: EvalSeries) -> list[Evaluation]:
    """Evaluations whose losses by row are known."""
    return [e for e in series.evaluations if e is not None and e.losses is not None]


def _links(known: list[Evaluation]) -> list[Evaluation]:
    """Evaluations that were the first to score more rows than those before."""
    return [now for before, now in pairwise(known) if _width(now) > _width(before)]


def _along(first: Evaluation, last: Evaluation, links: list[Evaluation]) -> _Change | None:
    """Change from one evaluation to a later one, over those between at which rows were added.

    From each to the next the rows are those of the former, so the changes add up to that of the linked ``eval_loss``,
    and a row's influence on the sum is the sum of its influences: the ratio estimator of each leg, linearised.
    """
    path = [first, *(link for link in links if first.step < link.step < last.step), last]
    influence, mean = np.zeros(0), 0.0
    for before, now in pairwise(path):
        assert before.losses is not None and now.losses is not None
        both = common_rows(now.losses, before.losses)
        leg = None if both is None else _leg(both[0].loss_sums - both[1].loss_sums, both[1].token_counts)
        if leg is None:
            return None
        mean += leg.mean
        influence = np.pad(influence, (0, max(0, leg.influence.size - influence.size)))
        influence[: leg.influence.size] += leg.influence
    return _Change(mean, influence)


def _width(evaluation: Evaluation) -> int:
    return 0 if evaluation.losses is None else len(evaluation.losses.loss_sums)


def _leg(sums: Floats, counts: Steps) -> _Change | None:
    """Ratio of summed differences to summed tokens, over the rows that are finite and have tokens."""
    known = np.isfinite(sums) & (counts > 0)
    if int(known.sum()) < 2:
        return None
    tokens = counts[known].astype(np.float64)
    mean = float(sums[known].sum() / tokens.sum())
    influence = np.full(sums.size, np.nan)
    influence[known] = (sums[known] - mean * tokens) / tokens.sum()
    return _Change(mean, influence)
