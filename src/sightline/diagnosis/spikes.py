"""Jumps of the training loss and of the gradient norm that stand out from what came just before.

The curve is cut into blocks; the median of the block before a point is its level, the median distance from it its
noise. Medians do not mind the spikes themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.diagnosis.context import Context, note, times
from sightline.diagnosis.median import median
from sightline.diagnosis.noise import MAD_TO_SD
from sightline.diagnosis.series import Floats
from sightline.runs import Curve, Finding, Severity

FEWEST = 16
BLOCKS = 128
SHORTEST = 8  # points in a block
SAMPLED = 256  # points of a block, evenly spread, that tell its median closely enough
STANDS_OUT = 8.0  # noises above the level
MATTERS = 0.01  # share of its highest level that a training loss has to jump by
LOSS_RATIO = 1.5
NORM_RATIO = 10.0


@dataclass(frozen=True, eq=False, slots=True)
class Levels:
    """A curve in blocks; the points of its first block are left out."""

    steps: NDArray[np.int64]  # (blocks, size)
    values: Floats  # (blocks, size)
    level: Floats  # (blocks,), median of the block before
    noise: Floats  # (blocks,)
    after: Floats  # (blocks,), lowest median of the blocks after, of its own where there is none

    def above(self, ceiling: Floats) -> list[Jump]:
        """Return the points above a ceiling that every block has, shape (blocks,); only blocks that reach it are read."""
        found = []
        for block in np.flatnonzero(self.values.max(axis=1) > ceiling).tolist():
            for i in np.flatnonzero(self.values[block] > ceiling[block]).tolist():
                found.append(Jump(int(self.steps[block, i]), float(self.values[block, i]), block))
        return found


class Jump(NamedTuple):
    """A point that stands out."""

    step: int
    value: float
    block: int


def levels(curve: Curve) -> Levels | None:
    """Cut a finite curve into blocks; None if it is too short."""
    n = len(curve)
    if n < FEWEST:
        return None
    size = max(SHORTEST, n // BLOCKS)
    count = n // size
    start = n - count * size
    blocks = curve.values[start:].reshape(count, size)
    sample = blocks[:, :: -(-size // SAMPLED)]
    middle = median(sample)
    spread = median(np.abs(sample - middle[:, None])) * MAD_TO_SD
    lowest = np.minimum.accumulate(middle[::-1])[::-1]
    return Levels(
        curve.steps[start + size :].reshape(count - 1, size),
        blocks[1:],
        middle[:-1],
        np.maximum(spread[:-1], median(spread)),
        np.append(lowest[2:], middle[-1]),
    )


def loss_spikes(context: Context) -> Finding | None:
    """Find jumps of the training loss, and whether it came back."""
    seen = levels(context.train)
    if seen is None or float(seen.level.min()) < 0.0:
        return None
    rise = np.maximum(STANDS_OUT * seen.noise, MATTERS * float(seen.level.max()))
    jumps = seen.above(np.maximum(seen.level + rise, LOSS_RATIO * seen.level))
    if not jumps:
        return None
    worst = max(jumps, key=lambda jump: jump.value / max(float(seen.level[jump.block]), 1e-300))
    level, value = float(seen.level[worst.block]), worst.value
    back = bool(seen.after[worst.block] <= level + STANDS_OUT * seen.noise[worst.block])
    end = "it came back" if back else "it has not come back since"
    where = f"{'' if len(jumps) == 1 else 'most '}at step {worst.step} from {level:.4g} to {value:.4g}"
    message = f"the training loss jumped {times(len(jumps))}, {where}; {end}"
    message += "" if back else ": look at the rows of that step and lower the learning rate"
    severity = Severity.INFO if back else Severity.WARNING
    span = jumps[0].step, jumps[-1].step
    return note("loss_spike", severity, message, span, spikes=len(jumps), level=level, highest=value)


def gradient_explosions(context: Context) -> Finding | None:
    """Find gradient norms far above what came before, or no numbers."""
    norms = context.run.curves.get("grad_norm")
    if norms is None or len(norms) < FEWEST:
        return None
    finite = norms.finite()
    if len(norms) - len(finite) > 0.02 * len(norms):
        broken = np.flatnonzero(~np.isfinite(norms.values))
        message = (
            f"{broken.size} of {len(norms)} logged gradient norms are no numbers: half precision overflows; use bf16, "
            "or check the rows of those steps"
        )
        span = int(norms.steps[broken[0]]), int(norms.steps[broken[-1]])
        return note("gradient_overflow", Severity.WARNING, message, span, values=int(broken.size), logged=len(norms))
    seen = levels(finite)
    if seen is None:
        return None
    ceiling = np.maximum(NORM_RATIO * seen.level, seen.level + STANDS_OUT * seen.noise)
    jumps = seen.above(np.where(seen.level > 0.0, ceiling, np.inf))
    if not jumps:
        return None
    worst = max(jumps, key=lambda jump: jump.value / float(seen.level[jump.block]))
    level = float(seen.level[worst.block])
    where = f"{'' if len(jumps) == 1 else 'most '}at step {worst.step} from {level:.3g} to {worst.value:.3g}"
    message = (
        f"the gradient norm exploded {times(len(jumps))}, {where}; max_grad_norm=1.0 clips it; if it recurs, lower the "
        "learning rate"
    )
    span = jumps[0].step, jumps[-1].step
    return note(
        "gradient_explosion", Severity.WARNING, message, span, times=len(jumps), level=level, highest=worst.value
    )
