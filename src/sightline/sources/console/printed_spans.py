"""The runs among printed lines and bars: what counts their points, where each begins."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sightline.runs.names import is_loss, is_validation
from sightline.sources.console.rows import Rows, filled, last_told
from sightline.sources.console.spans import Span
from sightline.sources.console.vocabulary import EPOCH, EPOCHS_PLANNED, STEP, STEPS_PLANNED
from sightline.sources.table import Column, Unit
from sightline.sources.table_runs import MAX_RUNS, across_epochs, goings_back


def printed_spans(
    columns: Mapping[str, Column], rows: Rows, positions: NDArray[np.int64], trainers: Sequence[Span]
) -> list[Span]:
    """Find the runs among printed lines and bars and fill in their positions.

    Parameters
    ----------
    columns : mapping of str to Column
        By ``tier:metric``.
    rows : Rows
        All points.
    positions : ndarray of int64, shape (rows,)
        Filled in at the rows of printed lines.
    trainers : sequence of Span
        The Trainer's runs: printed lines before, inside and after one are looked at apart.

    Returns
    -------
    list of Span
        In the order they were printed.
    """
    spans: list[Span] = []
    places = np.array(rows.printed, dtype=np.int64)
    losses = {name: column[0] for name, column in columns.items() if name[0] != "0" and is_loss(name)}
    if not places.size or not losses:
        return spans
    steps, epochs = np.array(rows.steps, dtype=np.float64), np.array(rows.epochs, dtype=np.float64)
    for tier in (1, 2):
        for name, target in ((STEP, steps), (EPOCH, epochs)):
            column = columns.get(f"{tier}:{name}")
            if column is not None:
                target[np.searchsorted(places, column[0])] = column[1]
    cuts = np.flatnonzero(_apart(places, trainers)) + 1
    for begin_at, end_at in pairwise([0, *cuts.tolist(), places.size]):
        block = places[begin_at:end_at]
        inside = {
            name: np.searchsorted(block, own)
            for name, column in losses.items()
            if (own := column[slice(*np.searchsorted(column, (block[0], block[-1] + 1)))]).size
        }
        if not inside:
            continue
        unit, counted = _positions(steps[begin_at:end_at], epochs[begin_at:end_at], inside)
        in_epochs = bool(np.isfinite(epochs[begin_at:end_at]).any())
        positions[block] = counted
        trains = [column for name, column in inside.items() if not is_validation(name)]
        clocks = trains or list(inside.values())
        clock = clocks[0] if len(clocks) == 1 else np.unique(np.concatenate(clocks))
        starts, resumes = goings_back(counted, clock)
        del starts[MAX_RUNS:]
        tier = min(int(name[0]) for name in inside)
        for begin, stop in pairwise([0, *starts, block.size]):
            last = int(block[stop]) if stop < block.size else int(block[-1]) + 1
            resumed = [int(block[row]) for row in resumes[bisect_left(resumes, begin) : bisect_left(resumes, stop)]]
            span = Span(int(block[begin]), last, unit, tier, resumed)
            span.max_steps = _planned(columns, span, int(counted[begin:stop].max()), in_epochs=in_epochs)
            spans.append(span)
    return spans


def _planned(columns: Mapping[str, Column], span: Span, reached: int, *, in_epochs: bool) -> int | None:
    """Return up to which step or epoch a run is to go, by its lines' own ``10/5000``; None where they do not say.

    Where epochs are named too, a count of steps may go to the end of each epoch only, so it must have begun anew.
    """
    if span.tier != 1 or span.unit == "index":  # a bar may count anything
        return None
    epochs, steps = (
        last_told(columns.get(f"{span.tier}:{name}"), span.first, span.last) for name in (EPOCHS_PLANNED, STEPS_PLANNED)
    )
    if span.unit == "epoch":
        planned = epochs
    elif not in_epochs:
        planned = steps
    else:
        planned = steps * epochs if steps and epochs and reached > steps else None
    return planned if planned and planned >= reached else None


def _apart(places: NDArray[np.int64], trainers: Sequence[Span]) -> NDArray[np.bool_]:
    """Return between which printed points a Trainer's run lies or ends, shape (n - 1,)."""
    edges = np.array(sorted({edge for span in trainers for edge in (span.first, span.last)}), dtype=np.int64)
    regions = np.searchsorted(edges, places, side="right")
    return np.asarray(np.diff(regions) > 0)


def _positions(
    steps: NDArray[np.float64], epochs: NDArray[np.float64], losses: Mapping[str, NDArray[np.int64]]
) -> tuple[Unit, NDArray[np.int64]]:
    """Return what counts the printed points and their counts; without steps and epochs the commonest loss counts."""
    whole_epochs = np.isfinite(epochs).all() and bool((epochs == np.floor(epochs)).all())
    known = np.isfinite(steps)
    if known.mean() > 0.5 and (steps[known].min() < steps[known].max() or steps.size == 1):
        whole_steps = filled(steps).astype(np.int64)
        return "step", across_epochs(whole_steps, epochs.astype(np.int64) if whole_epochs else None)
    if whole_epochs and not any(_repeats(epochs[column]) for column in losses.values()):
        return "epoch", epochs.astype(np.int64)
    counts = np.zeros(steps.size, dtype=np.int64)
    counts[max(losses.values(), key=len)] = 1
    return "index", np.maximum(np.cumsum(counts), 1)


def _repeats(epochs: NDArray[np.float64]) -> bool:
    return bool(np.count_nonzero(epochs[1:] == epochs[:-1]) > 0.1 * max(1, epochs.size))
