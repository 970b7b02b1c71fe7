"""The runs among the Trainer's dictionaries: where each begins, and the steps of its points."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.runs import Status
from sightline.runs.names import is_loss, is_validation
from sightline.sources.console.rows import Hint, Rows, bars_at, filled, last_told, local
from sightline.sources.console.spans import FOREIGN_LINES, Span
from sightline.sources.console.steps import Told, trainer_steps
from sightline.sources.table import Column
from sightline.sources.table_runs import MAX_RUNS

_NONE = np.zeros(0, dtype=np.int64)


def trainer_spans(
    columns: Mapping[str, Column], rows: Rows, positions: NDArray[np.int64], *, quoted: bool
) -> list[Span]:
    """Find the runs among the Trainer's dictionaries and fill in their positions.

    Parameters
    ----------
    columns : mapping of str to Column
        By ``tier:metric``.
    rows : Rows
        All points.
    positions : ndarray of int64, shape (rows,)
        Filled in at the rows of the dictionaries.
    quoted : bool
        Whether numbers are rounded to four digits.

    Returns
    -------
    list of Span
        In the order they were printed.
    """
    tiers = np.array(rows.tiers, dtype=np.int8)
    places = np.flatnonzero(tiers == 0)
    if not places.size:
        return []
    epochs = local(columns.get("0:epoch"), 0, tiers.size)
    summaries = _once(columns)
    begins = np.array([hint.row for hint in rows.hints if hint.name == "begins"], dtype=np.int64)
    trains = columns["0:loss"][0].astype(np.int64) if "0:loss" in columns else _NONE
    starts = _trainer_starts(epochs, places, trains, summaries, begins)[:MAX_RUNS]
    barred, bars = np.array(rows.barred, dtype=np.int64), np.array(rows.bars, dtype=np.int64).reshape(-1, 3)
    spans = []
    for i, first in enumerate(starts):
        last = starts[i + 1] if i + 1 < len(starts) else int(tiers.size)
        own = places[slice(*np.searchsorted(places, (first, last)))]
        if last - int(own[-1]) > FOREIGN_LINES:
            last = int(own[-1]) + 1
        ended = summaries[slice(*np.searchsorted(summaries, (first, last)))]
        training = own[~np.isin(own, ended) & np.isfinite(epochs[own])]
        resumes = training[np.flatnonzero(np.diff(epochs[training]) < 0) + 1].tolist()
        span = Span(first, last, "step", 0, resumes)
        told = Told(
            epochs=local(columns.get("0:epoch"), first, last)[own - first],
            trains=np.isfinite(local(columns.get("0:loss"), first, last)[own - first]),
            bars=bars_at(barred, bars, own),
            hints=_hints_of(rows.hints, first, last),
            summaries=np.isin(own, ended),
            quoted=quoted,
        )
        _place(columns, own, span, told, positions, ended)
        spans.append(span)
    return spans


def _once(columns: Mapping[str, Column]) -> NDArray[np.int64]:
    """Return the rows of the closing summaries; the same one printed again is no other."""
    if "0:train_runtime" not in columns:
        return _NONE
    places = columns["0:train_runtime"][0]
    names = ("0:train_runtime", "0:train_steps_per_second", "0:train_loss", "0:epoch")
    told = np.zeros((len(names), places.size))
    for i, name in enumerate(names):
        if name in columns:
            at = np.searchsorted(columns[name][0], places)
            found = at < columns[name][0].size
            told[i, found] = np.nan_to_num(columns[name][1][at[found]])
    return np.asarray(places[np.append(True, (told[:, 1:] != told[:, :-1]).any(axis=0))])


def _trainer_starts(
    epochs: NDArray[np.float64],
    places: NDArray[np.int64],
    trains: NDArray[np.int64],
    summaries: NDArray[np.int64],
    begins: NDArray[np.int64],
) -> list[int]:
    """Return the rows at which a Trainer begins.

    There the epoch goes back to where a run starts, or a training loss or another summary follows a summary, or many
    printed lines of something else stand between two dictionaries.
    """
    known = places[np.isfinite(epochs[places]) & ~np.isin(places, summaries)]
    starts = [int(places[0])]
    for i in (np.flatnonzero(np.diff(epochs[known]) < 0) + 1).tolist():
        row, before = int(known[i]), int(known[i - 1])
        closed = summaries[slice(*np.searchsorted(summaries, (starts[-1] + 1, row)))]
        announced = np.searchsorted(begins, row, side="right") > np.searchsorted(begins, before, side="right")
        distance = epochs[known[i + 1]] - epochs[row] if i + 1 < known.size else 0.0
        if closed.size or announced or epochs[row] <= max(2 * distance, epochs[known[0]] * 1.001):
            after = max(before, int(closed[-1])) if closed.size else before
            starts.append(int(places[np.searchsorted(places, after, side="right")]))
    for i, summary in enumerate(summaries.tolist()):
        end = int(summaries[i + 1]) if i + 1 < summaries.size else int(places[-1]) + 1
        following = int(np.searchsorted(trains, summary, side="right"))
        begin = int(trains[following]) if following < trains.size and trains[following] < end else end
        if begin <= places[-1] and bisect_right(starts, summary) == bisect_right(starts, begin):
            insort(starts, begin)
    apart = np.flatnonzero(np.diff(places) > FOREIGN_LINES)
    return sorted({*starts, *places[apart + 1].tolist()})


def _hints_of(hints: Sequence[Hint], first: int, last: int) -> dict[str, int]:
    """Return what the lines around a run say of it: of a banner the first word (evaluations have their own later)."""
    told: dict[str, int] = {}
    for i in range(bisect_left(hints, first, key=lambda hint: hint.row), len(hints)):
        hint = hints[i]
        if hint.row > last:
            break
        follows = hint.name == "global_step"  # results come after the points, banners before
        if hint.value and (hint.row > first if follows else hint.row < last):
            told.setdefault(hint.name, hint.value)
    return told


def _place(
    columns: Mapping[str, Column],
    own: NDArray[np.int64],
    span: Span,
    told: Told,
    positions: NDArray[np.int64],
    summaries: NDArray[np.int64],
) -> None:
    """Fill in the steps of one Trainer's points, or their order where no step can be known."""
    if summaries.size:
        span.status = Status.FINISHED
        at = int(summaries[-1])
        for name in ("runtime", "steps_per_second"):
            value = local(columns.get(f"0:train_{name}"), at, at + 1)[0]
            told.runtime, told.rate = (value, told.rate) if name == "runtime" else (told.runtime, value)
    steps = _explicit_steps(columns, own, span.first, span.last)
    total: int | None = told.hints.get("max_steps") or last_told(columns.get("0:total_steps"), span.first, span.last)
    if steps is None:
        steps, total = trainer_steps(told)
    if steps is None:
        span.unit = "index"
        positions[own] = _order(columns, own, told.trains)
        return
    positions[own] = steps
    span.max_steps = total
    if total and summaries.size and int(steps.max()) < 0.995 * total:
        span.status = Status.STOPPED


def _explicit_steps(
    columns: Mapping[str, Column], own: NDArray[np.int64], first: int, last: int
) -> NDArray[np.int64] | None:
    """Return steps that the dictionaries themselves name."""
    for name in ("0:step", "0:global_step", "0:current_steps"):
        if name not in columns:
            continue
        steps = local(columns[name], first, last)[own - first]
        known = np.isfinite(steps)
        if known.mean() > 0.9 and (steps[known] == np.floor(steps[known])).all():
            return filled(steps).astype(np.int64)
    return None


def _order(columns: Mapping[str, Column], own: NDArray[np.int64], trains: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the order of the points: a training loss counts on, and so does a second evaluation before the next."""
    evaluates = np.zeros(own.size, dtype=np.bool_)
    for name, (places, _) in columns.items():
        if name.startswith("0:") and is_loss(name) and is_validation(name):
            evaluates |= np.isin(own, places[slice(*np.searchsorted(places, (own[0], own[-1] + 1)))])
    events = np.flatnonzero(trains | evaluates)
    counts = trains[events] | np.append(True, evaluates[events][:-1])
    order = np.zeros(own.size, dtype=np.int64)
    order[events] = counts
    return np.maximum(np.cumsum(order), 1)
