"""From the points of a captured terminal to runs.

What is printed together belongs together: a Trainer's dictionaries from its first epoch to its summary
(``trainer_spans``), printed lines and bars by their own steps or epochs (``printed_spans``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.runs import Run
from sightline.runs.names import is_loss, is_validation
from sightline.sources.console.printed_spans import printed_spans
from sightline.sources.console.rows import Rows
from sightline.sources.console.spans import Span
from sightline.sources.console.trainer_spans import trainer_spans
from sightline.sources.console.vocabulary import EPOCH, EPOCHS_PLANNED, STEP, STEPS_PLANNED
from sightline.sources.table import Column, Origin
from sightline.sources.table_runs import MAX_RUNS, numbered, run_between, without_strays

COUNTS = {STEP, EPOCH, STEPS_PLANNED, EPOCHS_PLANNED, "step", "global_step"}
"""Numbers that say where a run stands, no metrics of it."""


def runs_of_rows(path: Path, rows: Rows, *, quoted: bool, damage: Sequence[str]) -> tuple[Run, ...]:
    """Return the runs in a captured terminal.

    Parameters
    ----------
    path : Path
        Where the text was read.
    rows : Rows
        Its points.
    quoted : bool
        Whether numbers are rounded to four digits, as the Trainer 5 prints them.
    damage : sequence of str
        What could not be read.

    Returns
    -------
    tuple of Run
        In the order they were printed.
    """
    columns = rows.table.columns()
    positions = np.zeros(len(rows.tiers), dtype=np.int64)
    trainers = trainer_spans(columns, rows, positions, quoted=quoted)
    printed = _outside(printed_spans(columns, rows, positions, trainers), trainers)
    spans = sorted([*trainers, *printed], key=lambda span: span.first)
    damage = list(damage)
    if len(spans) > MAX_RUNS:
        damage.append(f"{path}: more than {MAX_RUNS} runs; {len(spans) - MAX_RUNS} were left out")
    runs = []
    for span in spans[:MAX_RUNS]:
        metrics = _metrics(columns, span)
        if span is spans[-1]:
            columns = {}  # nothing else needs them: what a curve is made of may go
        if span.tier == 0:
            _place_foreign(rows, positions, span)
        origin = Origin(path, "console", damage=list(damage), status=span.status, max_steps=span.max_steps)
        origin.significant_digits = 4 if quoted and span.tier == 0 else None
        run = run_between(metrics, positions, span.unit, origin, span.first, span.last, span.resumes)
        if any(is_loss(name) for name in run.curves):
            runs.append(run)
    return tuple(numbered(without_strays(runs)))


def _outside(printed: Sequence[Span], trainers: Sequence[Span]) -> list[Span]:
    """Return the printed runs that stand in no Trainer's: what one tells inside is taken over by the Trainer's."""
    ends = [trainer.last for trainer in trainers]
    following = (bisect_right(ends, span.first) for span in printed)  # the first Trainer's run that ends later
    return [
        span for span, i in zip(printed, following, strict=True) if i == len(trainers) or trainers[i].first >= span.last
    ]


def _metrics(columns: Mapping[str, Column], span: Span) -> dict[str, Column]:
    """Return the metrics of a run by name; of training and validation losses the surest kind of line counts."""
    inside: dict[str, list[tuple[int, str, Column]]] = {}
    for name, (places, values) in columns.items():
        tier, metric = int(name[0]), name[2:]
        begin, end = np.searchsorted(places, (span.first, span.last))
        if end > begin and metric not in COUNTS:
            inside.setdefault(metric, []).append((tier, name, (places[begin:end], values[begin:end])))
    surest: dict[bool, int] = {}
    for metric, kinds in inside.items():
        if is_loss(metric) and metric != "train_loss":
            validates = is_validation(metric)
            surest[validates] = min(surest.get(validates, 9), *(tier for tier, _, _ in kinds), 9)
    metrics = {}
    for metric, kinds in inside.items():
        tier, _, column = min(kinds, key=lambda kind: kind[0])
        if is_loss(metric) and metric != "train_loss" and tier != surest[is_validation(metric)]:
            continue
        metrics[metric] = _changes(column) if tier == 2 and is_validation(metric) else column
    return metrics


def _changes(column: Column) -> Column:
    """Return the points of a bar's validation loss at which it changed: the bar repeats the last one till the next."""
    places, values = column
    changed = np.append(True, values[1:] != values[:-1])
    return places[changed], values[changed]


def _place_foreign(rows: Rows, positions: NDArray[np.int64], span: Span) -> None:
    """Put printed lines inside a Trainer's run at the step of the dictionary before them."""
    own = np.array(rows.tiers[span.first : span.last], dtype=np.int8) == 0
    if not own.all():
        last = np.maximum.accumulate(np.where(own, np.arange(own.size), 0))
        positions[span.first : span.last] = positions[span.first : span.last][last]
