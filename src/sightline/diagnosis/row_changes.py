"""Which rows a change of the loss comes from, by the losses that the journal keeps.

The loss of a set is ``sum_r s_r / sum_r c_r`` over rows of loss sum s and token count c. Between two evaluations of the
same rows the counts are the same, so the change is the sum of the rows' own ``(s'_r - s_r) / sum_r c_r``: each row's
contribution, in nats per token of the whole set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.errors import DataError
from sightline.runs import ExampleLosses


@dataclass(frozen=True, eq=False, slots=True)
class RowChanges:
    """What each row adds to the change of the loss, the largest rise first."""

    rows: NDArray[np.int64]
    """Rows scored both times, shape (n,)."""
    contributions: NDArray[np.float64]
    """What each adds to the change, nats per token of the set, never rising, shape (n,); inf for a row whose loss has
    become NaN or infinite, -inf for one that was, 0 for one that was and is."""
    per_token: NDArray[np.float64]
    """Change of each row's own loss, nats per token of the row, shape (n,)."""
    token_counts: NDArray[np.int64]
    """Labelled tokens of each row, shape (n,)."""

    @property
    def total(self) -> float:
        """Change of the loss over these rows: the sum of the contributions."""
        with np.errstate(invalid="ignore"):  # inf - inf: some rows broke, others healed
            return float(self.contributions.sum())

    @property
    def rise(self) -> float:
        """What the rows that got worse add up to."""
        return float(self.contributions[self.contributions > 0].sum())

    def worsened(self, most: int = 5) -> NDArray[np.int64]:
        """Return the rows that drive the loss up, the one that costs most first."""
        return self.rows[self.contributions > 0][:most]

    def improved(self, most: int = 5) -> NDArray[np.int64]:
        """Return the rows that bring the loss down, the one that gains most first."""
        return self.rows[self.contributions < 0][::-1][:most]

    def drivers(self, share: float = 0.5) -> NDArray[np.int64]:
        """Return the fewest rows that make up a share of the rise, the one that costs most first.

        Parameters
        ----------
        share : float
            Of ``rise``, above 0 and at most 1.
        """
        risen = self.contributions[self.contributions > 0]
        if not risen.size:
            return self.rows[:0]
        if np.isinf(risen[0]):
            return self.rows[: int(np.isinf(risen).sum())]
        reached = np.cumsum(risen) >= share * self.rise * (1 - 1e-12)
        return self.rows[: int(np.argmax(reached)) + 1]


def row_changes(before: ExampleLosses, after: ExampleLosses) -> RowChanges:
    """Split the change of the loss between two evaluations of the same rows among the rows.

    Parameters
    ----------
    before, after : ExampleLosses
        Of the same rows in the same order; rows scored only once are left out.

    Returns
    -------
    RowChanges
        Sorted by contribution, the largest rise first; ties in the order of the rows.

    Raises
    ------
    DataError
        If they are not of the same rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sightline.runs import ExampleLosses
    >>> before = ExampleLosses(np.array([4.0, 6.0]), np.array([2, 2]))
    >>> after = ExampleLosses(np.array([8.0, 5.0]), np.array([2, 2]))
    >>> changes = row_changes(before, after)
    >>> changes.rows, changes.contributions, changes.total
    (array([0, 1]), array([ 1.  , -0.25]), 0.75)
    """
    if len(before.loss_sums) != len(after.loss_sums):
        raise DataError(
            f"losses of {len(before.loss_sums)} and of {len(after.loss_sums)} rows cannot be compared row by row"
        )
    both = (before.token_counts > 0) & (after.token_counts > 0)
    if (before.token_counts != after.token_counts)[both].any():
        raise DataError("the rows have other token counts in the two evaluations: they are not the same rows")
    rows, counts = np.flatnonzero(both), after.token_counts[both]
    was, now = before.loss_sums[both], after.loss_sums[both]
    with np.errstate(invalid="ignore"):
        change = now - was
    broken, healed = ~np.isfinite(now), ~np.isfinite(was)
    change = np.where(broken & healed, 0.0, np.where(broken, np.inf, np.where(healed, -np.inf, change)))
    contributions = change / max(int(counts.sum()), 1)
    order = np.argsort(-contributions, kind="stable")
    return RowChanges(rows[order], contributions[order], (change / counts)[order], counts[order])
