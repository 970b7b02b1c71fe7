"""What was said of runs at every evaluation, against what came: of the forecast and of each phase's confidence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sightline.runs import Phase

if TYPE_CHECKING:
    from verdict_real import Judged

EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 1.0001)
SURE = 1e-4
"""Nothing is taken for surer than this by the log loss."""
REDRAWN = 2000
"""Times the repositories are drawn again for an interval."""
Floats = NDArray[np.float64]
Bin = tuple[float, float, float, float, float]
"""Mean of what was said, share that came true, weight in runs, and the 90 % interval of that share."""


def sums_by(values: Floats, owners: Sequence[str]) -> Floats:
    """Add up rows of the same repository: (n, k) to (repositories, k)."""
    names, at = np.unique(np.array(owners), return_inverse=True)
    sums = np.zeros((names.size, values.shape[1]))
    np.add.at(sums, at, values)
    return sums


@dataclass(frozen=True, slots=True)
class Said:
    """One probability that was said of a run, and whether it came true."""

    chance: float
    came: bool
    weight: float
    """One over the evaluations of the run: every run weighs the same."""
    repository: str


def forecast_calibration(judged: Sequence[Judged], *, warming_up: bool = False) -> list[Bin]:
    """Compare the forecast chance of a better checkpoint with what came, in bins.

    Parameters
    ----------
    judged : sequence of Judged
        Runs.
    warming_up : bool
        Only the moments at which the learning rate still warms up, else only the others. No decision uses the forecast
        during a warm-up, because nothing seen then tells how the run behaves at its full learning rate.
    """
    return _binned(said_of_better(judged, warming_up=warming_up))


def said_of_better(judged: Sequence[Judged], *, warming_up: bool = False) -> list[Said]:
    """Return every chance of a better checkpoint that was said, and whether one came."""
    said: list[Said] = []
    for one in judged:
        logs = np.log(one.real.evaluated.values)
        smooth = np.convolve(logs, np.full(3, 1 / 3), "valid")
        for i, diagnosis in enumerate(one.diagnoses[:-1]):
            ahead = diagnosis.forecast
            if ahead is None or i < 3 or ahead.warming_up is not warming_up:
                continue
            rest = smooth[i - 1 :].min() if i - 1 < smooth.size else logs[i:].min()
            best = min(float(smooth[: i - 1].min()), float(logs[i - 1 : i + 1].mean()))
            said.append(Said(ahead.chance, bool(best - rest > ahead.band), 1.0 / logs.size, one.real.repository))
    return said


def proper_scores(said: Sequence[Said]) -> tuple[float, float, float]:
    """Score probabilities that were said by what came: lower is better, and lowest for who says what he believes.

    Parameters
    ----------
    said : sequence of Said
        Probabilities, every run weighing the same.

    Returns
    -------
    log_loss : float
        Mean of -log of the probability given to what came, nats.
    brier : float
        Mean square of the difference (G. W. Brier, Monthly Weather Review 78, 1950).
    ignorant : float
        Log loss of saying at every moment the share that came of all.
    """
    chance, came, weight = np.array([(s.chance, s.came, s.weight) for s in said]).T
    weight = weight / weight.sum()
    chance = np.clip(chance, SURE, 1.0 - SURE)
    share = float(weight @ came)
    log_loss = -float(weight @ np.log(np.where(came > 0.0, chance, 1.0 - chance)))
    brier = float(weight @ (chance - came) ** 2)
    return (
        log_loss,
        brier,
        -(share * math.log(share) + (1.0 - share) * math.log1p(-share)) if 0.0 < share < 1.0 else 0.0,
    )


def confidence_calibration(judged: Sequence[Judged], *, whole: bool = True) -> dict[str, list[Bin]]:
    """Compare the confidence of each phase with the later course of the run.

    Overfitting was right if no later evaluations are better than the best so far by more than the band; underfitting if
    within a quarter more steps some are; healthy if within a quarter more steps none are, and none of those steps is
    overfitting.

    Parameters
    ----------
    judged : sequence of Judged
        Runs.
    whole : bool
        Judge underfitting and healthy only where the log goes on for those quarter more steps, so that the later
        course is known; else only where it breaks off before, so that what would have come is not.
    """
    said: dict[str, list[Said]] = {phase.value: [] for phase in Phase}
    for one in judged:
        steps, logs = one.real.evaluated.steps, np.log(one.real.evaluated.values)
        for i, diagnosis in enumerate(one.diagnoses[:-1]):
            if diagnosis.confidence is None or diagnosis.forecast is None:
                continue
            near = steps <= 1.25 * steps[i]
            after = np.arange(steps.size) > i
            known = diagnosis.phase is Phase.OVERFITTING or bool(steps[-1] >= 1.25 * steps[i]) is whole
            if not known or not (near & after).any():
                continue
            better = logs[: i + 1].min() - logs > diagnosis.forecast.band
            later = [d.phase for d, n, a in zip(one.diagnoses, near, after, strict=True) if n and a]
            right = {
                Phase.OVERFITTING: not (better & after).any(),
                Phase.UNDERFITTING: bool((better & after & near).any()),
                Phase.HEALTHY: not (better & after & near).any() and Phase.OVERFITTING not in later,
            }.get(diagnosis.phase)
            if right is not None:
                said[diagnosis.phase.value].append(
                    Said(diagnosis.confidence, bool(right), 1.0 / steps.size, one.real.repository)
                )
    return {phase: _binned(found) for phase, found in said.items() if found}


def _binned(said: Sequence[Said]) -> list[Bin]:
    """Average what was said and what came true in bins, with an interval of the latter."""
    bins = []
    for low, high in itertools.pairwise(EDGES):
        inside = [one for one in said if low <= one.chance < high]
        if not inside:
            continue
        values = np.array([(s.weight * s.chance, s.weight * s.came, s.weight) for s in inside])
        sums = sums_by(values, [s.repository for s in inside])
        total = sums.sum(axis=0)
        drawn = sums[np.random.default_rng(0).integers(0, len(sums), (REDRAWN, len(sums)))].sum(axis=1)
        between = np.quantile(drawn[:, 1] / drawn[:, 2], (0.05, 0.95))
        share = float(total[1] / total[2])
        bins.append((float(total[0] / total[2]), share, float(total[2]), float(between[0]), float(between[1])))
    return bins
