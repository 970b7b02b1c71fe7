"""rising_rows(): of a run whose validation loss has risen, the rows that memorising costs most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sightline.diagnosis.row_changes import RowChanges, row_changes
from sightline.errors import DataError
from sightline.runs import Diagnosis, Phase, Run, common_rows

PLACES = "validation_rows"
"""Where the journal's configuration says which row is which: a list of file and line, in the order of the losses."""
SHOWN = 5


@dataclass(frozen=True, eq=False, slots=True)
class RisingRows:
    """The rows that got worse between the best evaluation and the last."""

    from_step: int
    """The best evaluation."""
    to_step: int
    """The last evaluation."""
    changes: RowChanges
    places: Sequence[str]
    """File and line of each row; empty where the run does not say."""

    def place(self, row: int) -> str:
        """Say which row it is."""
        return self.places[row] if row < len(self.places) else f"validation row {row}"

    def worst(self, most: int = SHOWN) -> list[tuple[str, float, float, int]]:
        """Return place, contribution, change per token and tokens of the rows that cost most.

        Parameters
        ----------
        most : int
            How many at most.

        Returns
        -------
        list of (str, float, float, int)
            The one that costs most first. Contributions are in nats per token of the whole set and add up, over all
            rows, to the rise; changes are in nats per token of the row.
        """
        changes, rows = self.changes, self.changes.worsened(most)
        return [
            (
                self.place(int(row)),
                float(changes.contributions[i]),
                float(changes.per_token[i]),
                int(changes.token_counts[i]),
            )
            for i, row in enumerate(rows)
        ]


def rising_rows(run: Run, diagnosis: Diagnosis) -> RisingRows | None:
    """Return the rows that drive the rise of a run that memorises.

    Parameters
    ----------
    run : Run
        Any run.
    diagnosis : Diagnosis
        Of it.

    Returns
    -------
    RisingRows or None
        None where the run is not overfitting, has not risen, or its losses by row are not known.
    """
    best = diagnosis.best
    if diagnosis.phase is not Phase.OVERFITTING or best is None:
        return None
    known = [e for e in run.evaluations if e.losses is not None]
    if not known:
        return None
    before = next((e.losses for e in known if e.step == best.step), None)
    if before is None or known[-1].losses is None or known[-1].step <= best.step:
        return None
    try:
        both = common_rows(before, known[-1].losses)
        changes = row_changes(*(both or (before, known[-1].losses)))
    except DataError:  # the rows were other ones at the best evaluation
        return None
    if not changes.rows.size or math.isnan(changes.total) or changes.total <= 0:
        return None
    return RisingRows(best.step, known[-1].step, changes, _places(run))


def _places(run: Run) -> Sequence[str]:
    """Return what the run says of its rows, if it is what it should be."""
    told: Any = run.config.get(PLACES)
    return told if isinstance(told, list) and all(isinstance(place, str) for place in told) else ()
