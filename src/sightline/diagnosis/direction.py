"""What the training loss does after a step: a rise of the validation loss is memorising only while the other falls.

Logarithms are compared, so that a steep start bends the curve little, and their noise is that of second differences,
which a trend does not enter.
"""

from __future__ import annotations

import math

import numpy as np

from sightline.diagnosis.median import median
from sightline.diagnosis.noise import rough_noise
from sightline.runs import Curve

SURE_NOISES, MOVED = 3.0, 0.02
"""A training loss has moved when it has by so many standard errors, and by this share of itself."""


def training_direction(curve: Curve, step: int) -> str | None:
    """Say what a training loss did after a step: ``falls``, ``rises``, ``flat``, or None if too little is known."""
    positive = curve.values[curve.values > 0.0]
    if not positive.size:
        return None
    logs = np.log(np.maximum(curve.values, positive.min()))
    split = int(np.searchsorted(curve.steps, step, side="right"))
    after = logs[split:]
    size = max(1, after.size // 3)
    before = logs[max(split - size, 0) : split]
    if after.size < 2 or not before.size:
        return None
    then, now = float(median(before)), float(median(after[-size:]))
    noise = rough_noise(logs[-1024:])  # of logarithms: a steep start bends them little, and second differences less
    least = max(SURE_NOISES * 1.25 * noise * math.sqrt(1.0 / before.size + 1.0 / size), MOVED)
    return "rises" if now - then > least else "falls" if then - now > least else "flat"
