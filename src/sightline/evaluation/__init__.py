"""Exact evaluation: the loss of every token of every validation row, at a fraction of the Trainer's cost.

``evaluate(model, EvalSet(rows))`` scores; ``train_probe`` draws training rows for a gap on equal terms; ``LossHook``
takes exact sums from a Trainer's own pass; ``row_changes`` says which rows a change comes from; ``RowSample`` spares
rows. torch is imported with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline.diagnosis.row_changes import RowChanges, row_changes
    from sightline.evaluation.batches import EvalSet, Row
    from sightline.evaluation.hook import HookedLosses, LossHook
    from sightline.evaluation.probe import train_probe
    from sightline.evaluation.sampling import RowSample, difference_error, rows_needed
    from sightline.evaluation.scoring import evaluate

__all__ = [
    "EvalSet",
    "HookedLosses",
    "LossHook",
    "Row",
    "RowChanges",
    "RowSample",
    "difference_error",
    "evaluate",
    "row_changes",
    "rows_needed",
    "train_probe",
]

_HOME = {
    "EvalSet": "sightline.evaluation.batches",
    "Row": "sightline.evaluation.batches",
    "RowChanges": "sightline.diagnosis.row_changes",
    "row_changes": "sightline.diagnosis.row_changes",
    "HookedLosses": "sightline.evaluation.hook",
    "LossHook": "sightline.evaluation.hook",
    "train_probe": "sightline.evaluation.probe",
    "RowSample": "sightline.evaluation.sampling",
    "difference_error": "sightline.evaluation.sampling",
    "rows_needed": "sightline.evaluation.sampling",
    "evaluate": "sightline.evaluation.scoring",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = found
    return found
