"""Sample: the part of a set of rows that is scored at an evaluation, the first rows of one fixed random order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.evaluation import EvalSet, Row, RowSample, difference_error, rows_needed
from sightline.evaluation.sampling import SMALLEST_CHANGE, STANDARD_ERRORS
from sightline.runs import ExampleLosses, common_rows


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """Rows of a set; the order is the same for the same set, so a smaller sample is the beginning of a larger one."""

    rows: EvalSet
    index: NDArray[np.int64]
    """Which rows of the whole set, in the order they are scored and recorded, shape (n,)."""
    whole: EvalSet
    is_drawn: bool
    """Whether the rows stand in random order; False for a set that is scored whole in its own."""

    @classmethod
    def all_of(cls, whole: EvalSet) -> Sample:
        """Take every row, in the order of the set; such a sample never grows."""
        return cls(whole, np.arange(len(whole)), whole, is_drawn=False)

    @classmethod
    def drawn(cls, whole: EvalSet, n: int) -> Sample:
        """Draw ``n`` rows of a set, all of them where it has no more."""
        drawn = RowSample.of(len(whole), n)
        index = drawn.order[: drawn.size]
        rows = [Row(whole.ids[i].tolist(), whole.labels[i].tolist()) for i in index]
        places = [whole.places[i] for i in index] if whole.places else ()
        return cls(EvalSet(rows, name=f"{len(index)} rows of the {whole.name}", places=places), index, whole, True)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def is_part(self) -> bool:
        """False when every row is scored."""
        return len(self) < len(self.whole)

    def of_size(self, n: int) -> Sample:
        """Return the sample of another size of the same rows."""
        return self if n == len(self) or not self.is_drawn else Sample.drawn(self.whole, n)

    def needed(self, best: ExampleLosses, now: ExampleLosses) -> int:
        """Return how many rows would show a change of 1 % between two evaluations; this many where it cannot be told.

        Parameters
        ----------
        best, now : ExampleLosses
            The best evaluation so far, and another one; compared on the rows that both have.
        """
        both = common_rows(best, now)
        wanted = None if both is None else rows_needed(*both, len(self.whole))
        return len(self) if wanted is None else wanted

    def blind_to(self, best: ExampleLosses, now: ExampleLosses) -> str | None:
        """Say which change of the loss the sample is too small to show, None where it shows one of 1 %.

        Parameters
        ----------
        best, now : ExampleLosses
            The best evaluation so far, and another one.
        """
        both, needed = common_rows(best, now), self.needed(best, now)
        if both is None or needed <= len(self) or not both[0].loss > 0:
            return None
        smallest = STANDARD_ERRORS * difference_error(*both, len(self.whole), len(self)) / both[0].loss
        return (
            f"{len(self)} of {len(self.whole)} validation rows fit into the time for evaluations and cannot tell a "
            f"change of the loss below {smallest:.1%} from chance; {needed} rows would tell {SMALLEST_CHANGE:.0%}: "
            "raise eval_time_budget, or give eval_steps to score every row"
        )
