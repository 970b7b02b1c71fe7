"""Jumps of the training loss and of the gradient norm that stand out from what came just before.

The curve is cut into blocks; the median of the block before a point is its level, the median distance from it its
noise. Medians do not mind the spikes themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.diagnosis.context import Context, note, plural
from sightline.diagnosis.median import median
from sightline.diagnosis.noise import MAD_TO_SD
from sightline.diagnosis.series import Floats
from sightline.runs import Curve, Finding, Severity

FEWEST = 16
BLOCKS = 128
SHORTEST = 8  # points in a block
STANDS_OUT = 8.0  # noises above the level
MATTERS = 0.01  # share of its highest level that a training loss has to jump by
LOSS_RATIO = 1.5
NORM_RATIO = 10.0


@dataclass(frozen=True, eq=False, slots=True)
class Levels:
    """A curve in blocks; the points of its first block are left out."""

    steps: NDArray[np.int64]  # (n,)
    values: Floats  # (n,)
    level: Floats  # (n,), median of the block before each point
    noise: Floats  # (n,)
    after: Floats  # (n,), median of the block after each point, of its own where there is none


def levels(curve: Curve) -> Levels | None:
    """Cut a finite curve into blocks; None if it is too short."""
    n = len(curve)
    if n < FEWEST:
        return None
    size = max(SHORTEST, n // BLOCKS)
    count = n // size
    start = n - count * size
    blocks = curve.values[start:].reshape(count, size)
    middle = median(blocks)
    spread = median(np.abs(blocks - middle[:, None])) * MAD_TO_SD
    after = np.append(middle[2:], middle[-1])
    return Levels(
        curve.steps[start + size :],
        curve.values[start + size :],
        np.repeat(middle[:-1], size),
        np.repeat(np.maximum(spread[:-1], median(spread)), size),
        np.repeat(after, size),
    )


def loss_spikes(context: Context) -> Finding | None:
    """Find jumps of the training loss, and whether it came back."""
    seen = levels(context.train)
    if seen is None or float(seen.level.min()) < 0.0:
        return None
    rise = seen.values - seen.level
    high = (rise > STANDS_OUT * seen.noise) & (seen.values > LOSS_RATIO * seen.level)
    at = np.flatnonzero(high & (rise > MATTERS * float(seen.level.max())))
    if not at.size:
        return None
    worst = int(at[np.argmax(seen.values[at] / np.maximum(seen.level[at], 1e-300))])
    back = bool(seen.after[worst] <= seen.level[worst] + STANDS_OUT * seen.noise[worst])
    value, level = float(seen.values[worst]), float(seen.level[worst])
    end = "it came back" if back else "it has not come back since"
    where = f"most at step {int(seen.steps[worst])} from {level:.4g} to {value:.4g}"
    message = f"the training loss jumped {plural(at.size, 'time')}, {where}; {end}"
    message += "" if back else ": look at the rows of that step and lower the learning rate"
    severity = Severity.INFO if back else Severity.WARNING
    span = int(seen.steps[at[0]]), int(seen.steps[at[-1]])
    return note("loss_spike", severity, message, span, spikes=int(at.size), level=level, highest=value)


def gradient_explosions(context: Context) -> Finding | None:
    """Find gradient norms far above what came before, or no numbers."""
    norms = context.run.curves.get("grad_norm")
    if norms is None or len(norms) < FEWEST:
        return None
    broken = np.flatnonzero(~np.isfinite(norms.values))
    if broken.size > 0.02 * len(norms):
        message = (
            f"{broken.size} of {len(norms)} logged gradient norms are no numbers: half precision overflows; use bf16, "
            "or check the rows of those steps"
        )
        span = int(norms.steps[broken[0]]), int(norms.steps[broken[-1]])
        return note("gradient_overflow", Severity.WARNING, message, span, values=int(broken.size), logged=len(norms))
    seen = levels(norms.finite())
    if seen is None:
        return None
    high = (
        (seen.values > NORM_RATIO * seen.level)
        & (seen.values > seen.level + STANDS_OUT * seen.noise)
        & (seen.level > 0.0)
    )
    at = np.flatnonzero(high)
    if not at.size:
        return None
    worst = int(at[np.argmax(seen.values[at] / seen.level[at])])
    value, level = float(seen.values[worst]), float(seen.level[worst])
    message = (
        f"the gradient norm exploded {plural(at.size, 'time')}, most at step {int(seen.steps[worst])} from {level:.3g} "
        f"to {value:.3g}; max_grad_norm=1.0 clips it; if it recurs, lower the learning rate"
    )
    span = int(seen.steps[at[0]]), int(seen.steps[at[-1]])
    return note("gradient_explosion", Severity.WARNING, message, span, times=int(at.size), level=level, highest=value)
