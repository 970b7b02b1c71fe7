"""compare(): base against tuned models on the same rows, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sightline.gold.detectable import detectable_mean, detectable_share
from sightline.gold.statistics import (
    Aggregate,
    Interval,
    Paired,
    bootstrap_intervals,
    holm,
    mcnemar_exact,
    paired_share_interval,
    randomisation_p_values,
)
from sightline.runs.gold import Comparison, GoldAnswer, GoldScore

ALPHA = 0.05
"""Largest probability of calling any of several equal models better or worse."""


@dataclass(frozen=True, eq=False, slots=True)
class Contest:
    """One tuned model against the base by one metric."""

    metric: str
    base: NDArray[np.float64]
    """Counts by row, shape (n, k)."""
    tuned: NDArray[np.float64]
    """Shape (n, k)."""
    aggregate: Aggregate
    """From sums over rows to the score."""
    is_binary: bool = False
    lower_is_better: bool = False
    checkpoint: str = "tuned"
    step: int | None = None
    groups: tuple[str | None, ...] = ()
    """Group of each row, length n; empty where there are none."""

    @property
    def gains(self) -> NDArray[np.float64]:
        """How much better tuned is on each row, shape (n,)."""
        gains = np.nan_to_num(self.aggregate(self.tuned) - self.aggregate(self.base))
        return -gains if self.lower_is_better else gains

    @property
    def wins_and_losses(self) -> tuple[int, int]:
        """Rows on which tuned is better, and worse."""
        gains = self.gains
        return int((gains > 0).sum()), int((gains < 0).sum())

    def of_rows(self, rows: NDArray[np.intp]) -> Contest:
        """Return the contest on some of its rows, without groups."""
        return replace(self, base=self.base[rows], tuned=self.tuned[rows], groups=())


def compare(contests: Sequence[Contest], *, alpha: float = ALPHA) -> tuple[Comparison, ...]:
    """Answer, for all contests together, whether tuned is better than base.

    Parameters
    ----------
    contests : sequence of Contest
        Checkpoints and metrics that are answered together. Those of one metric are about the same rows.
    alpha : float
        Probability of even one "better" or "worse" where all models are equal.

    Returns
    -------
    tuple of Comparison
        In the order given. Right-or-wrong metrics: McNemar's exact test and Tango's interval. Graded ones: the paired
        randomisation test and the BCa bootstrap interval, and the answer needs both to agree. p-values are
        corrected by Holm over all contests; over its groups within each contest.
    """
    comparisons = _compare(contests, alpha)
    return tuple(
        replace(whole, groups=_by_group(contest, alpha)) if contest.groups else whole
        for contest, whole in zip(contests, comparisons, strict=True)
    )


def _compare(contests: Sequence[Contest], alpha: float) -> list[Comparison]:
    evidence = _evidence(contests, 1 - alpha)
    adjusted = holm([p_value for _, p_value in evidence])
    level = alpha / len(contests)
    return [
        _comparison(contest, interval, p_value, float(p_adjusted), alpha, level)
        for contest, (interval, p_value), p_adjusted in zip(contests, evidence, adjusted, strict=True)
    ]


def _evidence(contests: Sequence[Contest], confidence: float) -> list[tuple[Interval, float]]:
    """Return interval and p-value of each contest; graded ones of equally many rows share their resamples."""
    evidence: dict[int, tuple[Interval, float]] = {}
    graded: dict[int, list[int]] = {}
    for i, contest in enumerate(contests):
        n = len(contest.base)
        if contest.is_binary:
            wins, losses = contest.wins_and_losses
            evidence[i] = paired_share_interval(wins, losses, n, confidence), mcnemar_exact(wins, losses)
        else:
            graded.setdefault(n, []).append(i)
    for places in graded.values():
        samples = [Paired(contests[i].base, contests[i].tuned, contests[i].aggregate) for i in places]
        intervals = bootstrap_intervals(samples, confidence=confidence)
        evidence.update(zip(places, zip(intervals, randomisation_p_values(samples), strict=True), strict=True))
    return [evidence[i] for i in range(len(contests))]


def _comparison(
    contest: Contest, interval: Interval, p_value: float, p_adjusted: float, alpha: float, level: float
) -> Comparison:
    n = len(contest.base)
    wins, losses = contest.wins_and_losses
    base, tuned = (float(contest.aggregate(side.sum(axis=0))) for side in (contest.base, contest.tuned))
    if contest.is_binary:
        detectable = detectable_share(n, (wins + losses) / n, alpha=level)
    else:
        detectable = detectable_mean(interval.standard_error, level)
    return Comparison(
        metric=contest.metric,
        answer=_answer(contest, tuned - base, interval, p_adjusted, alpha),
        base=GoldScore(contest.metric, base, n, step=0),
        tuned=GoldScore(contest.metric, tuned, n, contest.checkpoint, contest.step),
        difference=tuned - base,
        low=interval.low,
        high=interval.high,
        confidence=1 - alpha,
        p_value=p_value,
        p_adjusted=p_adjusted,
        test="mcnemar_exact" if contest.is_binary else "paired_randomisation",
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        detectable=detectable,
    )


def _answer(contest: Contest, difference: float, interval: Interval, p_adjusted: float, alpha: float) -> GoldAnswer:
    """Say better or worse only where the test, and for graded scores the interval too, rule out no difference."""
    beyond_zero = contest.is_binary or interval.low > 0 or interval.high < 0
    if not (p_adjusted <= alpha and beyond_zero) or difference == 0 or math.isnan(difference):
        return GoldAnswer.NOT_SHOWN
    is_better = (difference < 0) == contest.lower_is_better
    return GoldAnswer.BETTER if is_better else GoldAnswer.WORSE


def _by_group(contest: Contest, alpha: float) -> tuple[Comparison, ...]:
    names = [name for name in dict.fromkeys(contest.groups) if name is not None]
    rows = [np.array([i for i, group in enumerate(contest.groups) if group == name]) for name in names]
    comparisons = _compare([contest.of_rows(own) for own in rows], alpha) if names else []
    return tuple(replace(c, group=name) for c, name in zip(comparisons, names, strict=True))
