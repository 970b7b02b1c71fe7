"""A stretch of a captured terminal that is one run."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.runs import Status
from sightline.sources.table import Unit

FOREIGN_LINES = 8
"""More printed losses than these between two dictionaries are another program's run."""


@dataclass(slots=True)
class Span:
    """One run among the rows."""

    first: int
    last: int
    """Row after its last."""
    unit: Unit
    tier: int
    resumes: list[int]
    """Rows at which it was resumed."""
    max_steps: int | None = None
    status: Status = Status.UNKNOWN
