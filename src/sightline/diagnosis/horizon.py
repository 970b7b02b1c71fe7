"""How much learning is left in a run: steps that are planned, counted in learning rate.

A step moves the weights in proportion to its learning rate, so what is left of a run is the area under the rest of the
schedule, not the number of steps: after half the steps of a linear decay three quarters of the way is gone. But weights
that move less also settle, and a loss often falls fastest while the rate decays; so neither clock is trusted alone.

References
----------
.. [1] J. R. Gott, Nature 363 (1993) 315, the delta t argument.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.diagnosis.series import Floats
from sightline.runs import Curve, Run

MEDIAN_GROWTH = 2.0
"""Where nothing tells the end of a run: now is a random moment of it, so the median of the share done is a half [1]_."""
RECENT = 0.2  # share of the schedule so far that its slope is taken from
STRAIGHT = 0.05  # deviation of the recent slope from that since the peak up to which a schedule is a line

FEW = 4096
"""Points of a schedule that tell all there is to know of it; up to twice as many are looked at."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """The rest of a run."""

    planned_end: int | None
    """Step at which it ends, None where neither the plan nor the schedule tells."""
    growth: float
    """Learning at the end over learning so far, at least 1.0; its median where the end is unknown."""
    step_growth: float
    """Steps at the end over steps so far, at least 1.0; its median where the end is unknown."""
    warming_up: bool
    """Whether the learning rate was, for at least half of what was learnt so far, below the one it rose to.

    Nothing seen during a warm-up tells how the run behaves at its full learning rate.
    """

    def draw(self, count: int) -> Floats:
        """Return growths that the rest of the run may bring, each as likely as the others.

        Parameters
        ----------
        count : int
            How many, even.

        Returns
        -------
        ndarray of float, shape (count,)
            Where the end is known, half of them by learning and half by steps: as the learning rate falls the weights
            move less, but they also settle, and which of the two drives the curve is not known. Where it is not, the
            share that is done is uniform on (0, 1) [1]_.
        """
        if self.planned_end is None:
            return count / (np.arange(count) + 0.5)
        return np.repeat([self.growth, self.step_growth], count // 2)


def look_ahead(run: Run, step: int) -> Horizon:
    """Say how much learning is left after a step.

    Parameters
    ----------
    run : Run
        Its points after ``step`` are not looked at.
    step : int
        ``global_step`` of the last evaluation.

    Returns
    -------
    Horizon
    """
    rates = run.curves.get("learning_rate")
    schedule = None if rates is None else _Schedule.of(rates.until(step))
    planned = run.max_steps if run.max_steps and run.max_steps >= step else None
    if planned is None and schedule is not None:
        planned = schedule.reaches_zero
    if planned is None:
        return Horizon(None, MEDIAN_GROWTH, MEDIAN_GROWTH, schedule is not None and schedule.warming_up)
    by_steps = max(planned / step, 1.0) if step > 0 else MEDIAN_GROWTH
    if schedule is None:
        return Horizon(planned, by_steps, by_steps, False)
    by_learning = schedule.growth_until(planned)
    return Horizon(planned, by_learning, by_steps if by_learning > 1.0 else 1.0, schedule.warming_up)


@dataclass(frozen=True, eq=False, slots=True)
class _Schedule:
    """The learning rate so far, and a line through its recent part."""

    last: float  # step of its last point
    rates: Floats
    learnt: float  # area under the learning rate so far
    learnt_at_peak: float
    slope: float
    straight: bool
    """Whether it falls on a line; otherwise it is taken for a cosine, which ends twice as far away as it points."""

    @classmethod
    def of(cls, rates: Curve) -> _Schedule | None:
        finite = _thinned(rates).finite()
        if len(finite) < 3 or float(finite.values.max()) <= 0.0 or float(finite.values.min()) < 0.0:
            return None
        steps = finite.steps
        learnt = _area(finite)
        if learnt <= 0.0:
            return None
        back = max(2, int(len(finite) * RECENT))
        slope = float((finite.values[-1] - finite.values[-back]) / (steps[-1] - steps[-back]))
        peak = int(np.flatnonzero(finite.values == finite.values.max())[-1])
        since = float(steps[-1] - steps[peak])
        whole = float(finite.values[-1] - finite.values[peak]) / since if since > 0.0 else slope
        at_peak = _area(finite.until(int(steps[int(np.argmax(finite.values))])))
        return cls(float(steps[-1]), finite.values, learnt, at_peak, slope, abs(slope - whole) <= STRAIGHT * abs(slope))

    @property
    def reaches_zero(self) -> int | None:
        """Step at which a falling learning rate reaches zero if it goes on as it did, or has reached it."""
        if self.rates[-1] == 0.0:
            return int(self.last)
        if self.slope >= 0.0:
            return None
        away = float(self.rates[-1] / -self.slope)
        return round(self.last + (away if self.straight else 2.0 * away))

    def growth_until(self, end: int) -> float:
        """Learning at ``end`` over learning so far."""
        left = max(end - self.last, 0.0)
        rate = float(self.rates[-1])
        if self.slope < 0.0:
            slope = self.slope if self.straight else 0.5 * self.slope
            left = min(left, rate / -slope)
            area = rate * left + 0.5 * slope * left * left
        else:
            area = rate * left
        return 1.0 + area / self.learnt

    @property
    def warming_up(self) -> bool:
        """Whether less was learnt since the learning rate peaked than before."""
        peak = int(np.argmax(self.rates))
        risen = self.rates[0] < 0.98 * self.rates[peak]
        return bool(risen and self.learnt < 2.0 * self.learnt_at_peak)


def _thinned(rates: Curve) -> Curve:
    """Keep evenly spread points of a long log, its last among them: a schedule is smooth."""
    apart = max(1, len(rates) // FEW)
    keep = slice((len(rates) - 1) % apart, None, apart)
    return rates if apart == 1 else Curve(rates.steps[keep], rates.values[keep])


def _area(rates: Curve) -> float:
    """Area under a learning rate up to its last point, by trapezia; before the first it is taken to be the same."""
    before = float(rates.values[0]) * max(float(rates.steps[0]), 0.0)
    steps = rates.steps.astype(np.float64)  # of whole numbers the product would take ten times as long
    return before + 0.5 * float((rates.values[1:] + rates.values[:-1]) @ np.diff(steps))
