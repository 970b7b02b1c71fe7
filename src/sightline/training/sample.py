"""Sample: the fixed part of a set of rows that is scored at every evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.evaluation import EvalSet, Row, RowSample, difference_error, rows_needed
from sightline.evaluation.sampling import SMALLEST_CHANGE, STANDARD_ERRORS
from sightline.runs import ExampleLosses


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """Rows of a set drawn at random once, the same ones for the same set and size."""

    rows: EvalSet
    index: NDArray[np.int64]
    """Which rows of the whole set, ascending, shape (n,)."""
    of_rows: int
    """Rows of the whole set."""

    @classmethod
    def of(cls, whole: EvalSet, n: int) -> Sample:
        """Draw ``n`` rows of a set; all of them where it has no more."""
        if n >= len(whole):
            return cls(whole, np.arange(len(whole)), len(whole))
        index = RowSample.of(len(whole), n).rows
        rows = [Row(whole.ids[i].tolist(), whole.labels[i].tolist()) for i in index]
        places = [whole.places[i] for i in index] if whole.places else ()
        return cls(EvalSet(rows, name=f"{n} rows of the {whole.name}", places=places), index, len(whole))

    @property
    def is_part(self) -> bool:
        """False when every row is scored."""
        return len(self.index) < self.of_rows

    def blind_to(self, best: ExampleLosses, now: ExampleLosses) -> str | None:
        """Say which change of the loss the sample is too small to show, None where it shows one of 1 %.

        Parameters
        ----------
        best, now : ExampleLosses
            The best evaluation of the sample's rows, and another one.
        """
        error, needed = difference_error(best, now, self.of_rows), rows_needed(best, now, self.of_rows)
        smallest = STANDARD_ERRORS * error / best.loss if best.loss > 0 else 0.0
        if not self.is_part or needed is None or not smallest > SMALLEST_CHANGE:
            return None
        return (
            f"{len(self.index)} of {self.of_rows} validation rows fit into the time for evaluations and cannot tell a "
            f"change of the loss below {smallest:.1%} from chance; {needed} rows would tell {SMALLEST_CHANGE:.0%}: "
            "raise eval_time_budget, or give eval_steps to score every row"
        )
