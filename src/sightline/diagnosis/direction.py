"""What the training loss does after a step: a rise of the validation loss is memorising only while the other falls.

Logarithms are compared, so that a steep start bends the curve little, and their noise is that of second differences,
which a trend does not enter.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from sightline.diagnosis.median import median
from sightline.diagnosis.noise import rough_noise
from sightline.runs import Curve

SURE_NOISES, MOVED = 3.0, 0.02
"""A training loss has moved when it has by so many standard errors, and by this share of itself."""
RECENT = 1024
"""Log lines at the end that its noise is estimated from."""


@lru_cache(maxsize=1)  # one verdict asks several times
def training_direction(curve: Curve, step: int) -> str | None:
    """Say what a training loss did after a step: ``falls``, ``rises``, ``flat``, or None if too little is known."""
    lowest = np.min(curve.values, initial=np.inf, where=curve.values > 0.0)
    if lowest == np.inf:
        return None
    split = int(np.searchsorted(curve.steps, step, side="right"))
    size = max(1, (len(curve) - split) // 3)
    start = max(split - size, 0)
    if len(curve) - split < 2 or split == start:
        return None
    before, after, recent = (
        np.log(np.maximum(part, lowest))  # of what is looked at, not of a whole long log
        for part in (curve.values[start:split], curve.values[-size:], curve.values[-RECENT:])
    )
    then, now = float(median(before)), float(median(after))
    noise = rough_noise(recent)  # of logarithms: a steep start bends them little, and second differences less
    least = max(SURE_NOISES * 1.25 * noise * math.sqrt(1.0 / (split - start) + 1.0 / size), MOVED)
    return "rises" if now - then > least else "falls" if then - now > least else "flat"
