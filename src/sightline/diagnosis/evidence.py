"""Evidence: what the tests of the validation curve say, from which the phase follows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sightline.diagnosis.noise import Noise
from sightline.diagnosis.rise import RiseTest
from sightline.runs import Best, Forecast

PRIOR_ODDS = 1.0 / 3.0
"""Odds of a rise before anything was seen: one run in four overfits; a guess, and a mild one."""


@dataclass(frozen=True, eq=False, slots=True)
class Evidence:
    """What the tests of the validation curve say."""

    noise: Noise
    best: Best
    forecast: Forecast
    rise: RiseTest | None
    established: bool
    """Whether the rise is beyond noise and large enough to matter."""

    @property
    def risen(self) -> float:
        """Probability that the validation loss has risen."""
        return probability_of_rise(self.rise)


def probability_of_rise(rise: RiseTest | None) -> float:
    """Probability that the validation loss has turned up for good."""
    if rise is None:
        return 0.0
    odds = PRIOR_ODDS * math.exp(min(rise.log_e, 30.0))
    return odds / (1.0 + odds)
