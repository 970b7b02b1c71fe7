"""Evaluation: what one pass over the validation rows said, and ExampleLosses: its share by row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def perplexity(loss: float) -> float:
    """Return exp(loss) for a loss in nats per token; ``inf`` past overflow, NaN for NaN."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, eq=False, slots=True)
class ExampleLosses:
    """The exact loss of every row of a fixed set of rows, in the order of that set."""

    loss_sums: NDArray[np.float64]
    """Sum of the token losses of each row in nats, shape (n,); NaN or inf where the model gave none."""
    token_counts: NDArray[np.int64]
    """Labelled tokens of each row, shape (n,)."""

    @property
    def tokens(self) -> int:
        """Labelled tokens of all rows."""
        return int(self.token_counts.sum())

    @property
    def non_finite(self) -> int:
        """Rows whose loss is NaN or infinite."""
        return int((~np.isfinite(self.loss_sums)).sum())

    @property
    def loss(self) -> float:
        """Token-weighted mean loss in nats per token: the sum over all rows by the count of all tokens."""
        return float(self.loss_sums.sum() / self.tokens) if self.tokens else math.nan

    def first(self, n: int) -> ExampleLosses:
        """Return the losses of the first n rows."""
        return self if n >= len(self.loss_sums) else ExampleLosses(self.loss_sums[:n], self.token_counts[:n])


def common_rows(one: ExampleLosses, other: ExampleLosses) -> tuple[ExampleLosses, ExampleLosses] | None:
    """Return two evaluations cut to the rows that both have: a smaller sample is the beginning of a larger one.

    Returns
    -------
    tuple of ExampleLosses or None
        None where they are of different rows, told by their token counts.
    """
    n = min(len(one.loss_sums), len(other.loss_sums))
    one, other = one.first(n), other.first(n)
    return (one, other) if np.array_equal(one.token_counts, other.token_counts) else None


@dataclass(frozen=True, eq=False, slots=True)
class Evaluation:
    """One evaluation of the model at one optimizer step."""

    step: int
    """``global_step`` of the weights that were evaluated; 0 is the base model."""
    eval_loss: float
    """Validation loss the run is judged by: the exact token mean in nats where it is known, else as logged. Where the
    sample of rows was widened in the middle of the run it goes on from the rows before: see ``measured_loss``."""
    losses: ExampleLosses | None = None
    """Loss of each validation row, None where only the mean is known."""
    probe: ExampleLosses | None = None
    """Loss of each row of the train probe, scored the same way."""
    reported_loss: float | None = None
    """The Trainer's own ``eval_loss`` (a mean of batch means) when it was computed beside the exact one."""
    runtime_s: float | None = None
    """Wall time of the pass in seconds."""
    measured_loss: float | None = None
    """Token mean of the rows that were scored, where they are more than at earlier evaluations and ``eval_loss`` is
    therefore another number; None where both are the same."""

    @property
    def loss_of_rows(self) -> float:
        """Token mean of the rows that were scored."""
        return self.eval_loss if self.measured_loss is None else self.measured_loss

    @property
    def probe_loss(self) -> float | None:
        """Token-weighted mean loss of the train probe."""
        return None if self.probe is None else self.probe.loss
