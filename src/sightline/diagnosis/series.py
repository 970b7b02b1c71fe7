"""EvalSeries: the numbers the tests look at, taken out of a Run once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sightline.runs import Curve, Evaluation, Run

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]

FEWEST_EVALUATIONS = 4
"""Below this nothing is said of a curve: two of its numbers are its level and its slope."""
FEWEST_WITHOUT_BASE = 6
"""With more evaluations than this the base model's is left out of noise and rise."""


@dataclass(frozen=True, eq=False)
class EvalSeries:
    """The finite validation losses of a run, in order."""

    steps: Steps
    """Optimizer steps, shape (n,)."""
    losses: Floats
    """Validation losses as logged, shape (n,)."""
    non_finite: int
    """Evaluations left out because their loss is NaN or infinite."""
    evaluations: tuple[Evaluation | None, ...]
    """The exact evaluation behind each point, None where only the curve is known."""
    significant_digits: int | None
    """Digits to which the log rounds its values."""

    def __len__(self) -> int:
        return int(self.losses.size)

    @classmethod
    def of(cls, run: Run) -> EvalSeries:
        """Take the validation losses of a run."""
        curve = run.eval_loss or Curve.of([], [])
        finite = curve.finite()
        by_step = {evaluation.step: evaluation for evaluation in run.evaluations}
        exact = tuple(by_step.get(step) for step in finite.steps.tolist()) if by_step else (None,) * len(finite)
        return cls(finite.steps, finite.values, len(curve) - len(finite), exact, run.significant_digits)

    @property
    def judgeable(self) -> bool:
        """Whether these are numbers of a loss: none negative, and not all zero."""
        return bool((self.losses >= 0.0).all() and (self.losses > 0.0).any())

    @cached_property
    def logs(self) -> Floats:
        """Natural logarithms of the losses, shape (n,): equal differences are equal relative changes.

        Zeros count as the smallest loss above zero.
        """
        positive = self.losses[self.losses > 0.0]
        return np.asarray(np.log(np.maximum(self.losses, positive.min())))

    @cached_property
    def learning_logs(self) -> Floats:
        """The logs without the base model's, where enough are left and the base model is not the best.

        Step 0 is a model that has learnt nothing yet: how far it lies above the rest says nothing of a turn, and makes
        every estimate of noise far too large in a run of few evaluations.
        """
        base_first = len(self) > FEWEST_WITHOUT_BASE and int(self.steps[0]) == 0 and self.at_best > 0
        return self.logs[1:] if base_first else self.logs

    @property
    def learning_steps(self) -> Steps:
        """Steps of ``learning_logs``."""
        return self.steps[len(self) - self.learning_logs.size :]

    @cached_property
    def at_best(self) -> int:
        """Index of the lowest loss, the first of equals."""
        return int(np.argmin(self.losses))

    @property
    def rounding(self) -> float:
        """Standard deviation of the rounding error of the logs; 0.0 where the log has full precision."""
        if self.significant_digits is None or not self.judgeable:
            return 0.0
        smallest = float(self.losses[self.losses > 0.0].min())
        quantum = 10.0 ** (math.floor(math.log10(smallest)) - self.significant_digits + 1)
        return quantum / smallest / math.sqrt(12.0)  # a uniform error


def block_means(values: Floats, most: int) -> tuple[Floats, int]:
    """Average neighbours until at most ``most`` values are left.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
        Values in order.
    most : int
        How many may be left.

    Returns
    -------
    means : ndarray of float, shape (m,)
        m <= most; the blocks end at the last value, so that it is never in a shorter block than the others. The
        first values are left out where they fill no block.
    size : int
        Values in a block, 1 where nothing had to be averaged.
    """
    size = -(-values.size // most)
    if size <= 1:
        return values, 1
    count = values.size // size
    return values[values.size - count * size :].reshape(count, size).mean(axis=1), size
