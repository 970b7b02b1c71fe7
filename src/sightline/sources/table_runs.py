"""A table of logged rows to the runs it tells: what counts the rows, where a run begins, ends or was resumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sightline.runs import Curve, Run, Segment
from sightline.runs.names import (
    EPOCH_NAMES,
    STEP_NAMES,
    TIME_NAMES,
    canonical,
    is_loss,
    is_validation,
    judged_metrics,
    not_a_loss,
)
from sightline.sources.numbers import MAX_STEP, as_float, as_step
from sightline.sources.table import MAX_METRICS, Column, Origin, Table, Unit, name_of

_MANY_RESUMES = 50
_WHOLE = 1e-3  # how far the steps of an epoch may seem to be from a whole number
MAX_RUNS = 1000


def runs_of(table: Table, origin: Origin, counted: tuple[Unit, NDArray[np.int64]] | None = None) -> tuple[Run, ...]:
    """Return the runs that a table tells, in the order they were logged; none if it holds no metric.

    Parameters
    ----------
    table : Table
        Rows in log order.
    origin : Origin
        What else is known; ``name`` falls back on the file's.
    counted : tuple of str and ndarray of int64, shape (rows,), optional
        Unit and count of every row, where the log's own format has them and no column is to be chosen.

    Returns
    -------
    tuple of Run
        One a restart of the count.
    """
    columns = table.columns()
    if table.left_out:
        origin.damage.append(f"{origin.path}: more than {MAX_METRICS} metrics; {table.left_out} values were left out")
    unit, positions, used = (*counted, frozenset[str]()) if counted else _axis(columns, table.rows)
    metrics = {
        name: column
        for name, column in columns.items()
        if name not in used and name.strip().lower() not in (*TIME_NAMES, *STEP_NAMES)
    }
    if not metrics:
        return ()
    clock = _clock(metrics)
    starts, resumes = goings_back(positions, metrics[clock][0], [rows for rows, _ in metrics.values()])
    if len(starts) > MAX_RUNS:  # no count at all: one run by the order of its rows
        unit, positions, starts, resumes = "index", np.arange(1, table.rows + 1, dtype=np.int64), [], []
    bounds = [0, *starts, table.rows]
    runs = [
        run_between(metrics, positions, unit, origin, first, last, [r for r in resumes if first <= r < last])
        for first, last in pairwise(bounds)
    ]
    return tuple(numbered(without_strays([run for run in runs if run.curves])))


def renamed(names: Sequence[str]) -> dict[str, str]:
    """Return the canonical name of each metric; of two that mean the same the first gets it, the other keeps its."""
    taken: dict[str, str] = {}
    result = {}
    for name in sorted(names, key=lambda name: canonical(name) != name):  # who already has the name keeps it
        # Beside a runtime "train_loss" is the average the Trainer reports at the end, no curve.
        wanted = name if name == "train_loss" and "train_runtime" in names else canonical(name)
        result[name] = wanted if taken.setdefault(wanted, name) == name else name
    return {name: result[name] for name in names}


def _axis(columns: Mapping[str, Column], rows: int) -> tuple[Unit, NDArray[np.int64], frozenset[str]]:
    """Return what counts the rows, the count at each row (rows,), and the columns that are the count."""
    losses = [column[0] for name, column in columns.items() if is_loss(name)] or [c[0] for c in columns.values()]
    wanted = np.unique(np.concatenate([*losses, np.zeros(0)])).astype(np.int64)
    lowered = {name.strip().lower(): name for name in reversed(list(columns))}
    steps = [lowered[name] for name in STEP_NAMES if name in lowered]
    epochs = [lowered[name] for name in EPOCH_NAMES if name in lowered]
    for name in steps:
        if (counted := _count(columns[name], wanted, rows)) is not None:
            epoch = _count(columns[epochs[0]], wanted, rows) if epochs else None
            return "step", across_epochs(counted, epoch), frozenset({name})
    for name in epochs:
        counted = _count(columns[name], wanted, rows)
        if counted is not None and not _repeats(columns, counted):
            return "epoch", counted, frozenset({name})
    index = np.zeros(rows, dtype=np.int64)
    index[wanted] = 1
    return "index", np.maximum(np.cumsum(index), 1), frozenset()


def _count(column: Column, wanted: NDArray[np.int64], rows: int) -> NDArray[np.int64] | None:
    """Return a column as a count at every row, None if it is none: not whole, often missing, or standing still."""
    places, values = column
    whole = np.isfinite(values) & (values >= 0) & (values <= MAX_STEP)
    whole[whole] &= values[whole] == np.floor(values[whole])
    places, values = places[whole], values[whole]
    if (
        (not whole.all() and whole.mean() < 0.99)
        or np.isin(wanted, places).sum() < 0.9 * wanted.size
        or not places.size
    ):
        return None
    if wanted.size > 1 and values.min() == values.max():
        return None
    last = np.searchsorted(places, np.arange(rows), side="right") - 1
    return values[np.maximum(last, 0)].astype(np.int64)


def across_epochs(steps: NDArray[np.int64], epochs: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return steps that count on where they begin anew at every epoch; another run begins where the epochs do."""
    if epochs is None or steps.size < 2:
        return steps
    restarts = np.flatnonzero(epochs[1:] < epochs[:-1]) + 1
    counted = [
        _across_one_runs_epochs(steps[begin:end], epochs[begin:end])
        for begin, end in pairwise([0, *restarts.tolist(), steps.size])
    ]
    return np.concatenate(counted)


def _across_one_runs_epochs(steps: NDArray[np.int64], epochs: NDArray[np.int64]) -> NDArray[np.int64]:
    back = np.flatnonzero(steps[1:] < steps[:-1]) + 1
    forward = np.flatnonzero(epochs[1:] > epochs[:-1]) + 1
    if not back.size or not np.isin(back, forward).all() or back.size < 0.5 * forward.size:
        return steps
    ends = np.zeros(steps.size, dtype=np.int64)
    ends[back] = steps[back - 1] + (1 if steps.min() == 0 else 0)
    return np.asarray(steps + np.cumsum(ends))


def _repeats(columns: Mapping[str, Column], counted: NDArray[np.int64]) -> bool:
    """Return whether a loss has several values at one count in a row: then it counts too coarsely."""
    for name, (places, _) in columns.items():
        if is_loss(name):
            at = counted[places]
            if np.count_nonzero(at[1:] == at[:-1]) > 0.1 * max(1, at.size):
                return True
    return False


def _clock(metrics: Mapping[str, Column]) -> str:
    """Return the metric whose going back means that the run went back: a training loss, or what has most points."""
    return max(
        metrics,
        key=lambda name: (is_loss(name) and not is_validation(name), is_loss(name), metrics[name][0].size),
    )


def goings_back(
    positions: NDArray[np.int64],
    clock: NDArray[np.int64] | NDArray[np.int32],
    columns: Iterable[NDArray[np.int32]] = (),
) -> tuple[list[int], list[int]]:
    """Return the rows at which another run begins, and those at which the run was resumed from an earlier count.

    Only the rows of the clock count, so that an evaluation logged a little late is neither. Where another run begins,
    rows just before its first clock row that stand no later (an evaluation at step 0) are its own.
    """
    starts: list[int] = []
    resumes: list[int] = []
    counts = positions[clock]
    if counts.size < 2:
        return starts, resumes
    first = int(counts[0])
    for i in (np.flatnonzero(counts[1:] < counts[:-1]) + 1).tolist():
        now, before = int(counts[i]), int(counts[i - 1])
        begins_anew = i + 1 < counts.size and now <= 2 * int(counts[i + 1] - now) < before
        if now <= first or begins_anew:
            starts.append(_first_at_most(positions, int(clock[i - 1]) + 1, int(clock[i]), now))
            first = now
        else:
            resumes.append(int(clock[i]))
    last = int(clock[-1]) + 1
    if last < positions.size and positions[last - 1] > first:
        begins = _first_at_most(positions, last, positions.size, min(first, int(positions[last - 1]) - 1))
        again = any(rows.size and rows[0] < last and (rows[last <= rows] >= begins).any() for rows in columns)
        if begins < positions.size and again:  # else it is another file's metric, that never stood later
            starts.append(begins)
    return starts, resumes


def _first_at_most(positions: NDArray[np.int64], begin: int, end: int, limit: int) -> int:
    """Return the first of some rows that stands at ``limit`` or before, ``end`` if none does."""
    found = np.flatnonzero(positions[begin:end] <= limit)
    return begin + int(found[0]) if found.size else end


def without_strays(runs: list[Run]) -> list[Run]:
    """Return the runs without those that are no more than one evaluation, if others in the log train."""
    stray = [run.train_loss is None and (run.eval_loss is None or len(run.eval_loss) < 2) for run in runs]
    if not any(stray) or all(run.train_loss is None for run in runs):
        return runs
    sentence = f"{runs[0].path}: {sum(stray)} evaluations outside of any training were left out"
    kept = [run for run, left_out in zip(runs, stray, strict=True) if not left_out]
    return [replace(run, damage=(*run.damage, sentence)) for run in kept]


def run_between(
    metrics: Mapping[str, Column],
    positions: NDArray[np.int64],
    unit: Unit,
    origin: Origin,
    first: int,
    last: int,
    resumes: Sequence[int],
) -> Run:
    """Return the run between two rows."""
    curves: dict[str, Curve] = {}
    names = renamed(list(metrics))
    resumed_rows = np.array(resumes, dtype=np.int64)
    # A point is superseded by a later resume at or below its step: the lowest of all resumes that follow it decides.
    undercut = np.append(np.minimum.accumulate(positions[resumed_rows][::-1])[::-1], np.iinfo(np.int64).max)
    for name, (rows, values) in metrics.items():
        inside = slice(*np.searchsorted(rows, (first, last)))
        rows, values = rows[inside], values[inside]
        steps = positions[rows]
        keep = steps < undercut[np.searchsorted(resumed_rows, rows, side="right")]
        if keep.any():
            curves[names[name]] = Curve.of(steps[keep], values[keep])
    add_totals(curves)
    train_metric, eval_metric = judged_metrics({name: len(curve) for name, curve in curves.items()})
    damage = list(origin.damage)
    segments = [
        Segment(0),
        *(Segment(_last_before(positions[first:row], int(positions[row]))) for row in resumes[:100]),
    ]
    if len(resumes) > _MANY_RESUMES:
        damage.append(
            f"{origin.path}: the steps go back {len(resumes)} times; several processes seem to have written into it"
        )
        del segments[1:]
    config = origin.config_of(first)
    if reason := not_a_loss(curves):
        config["not_a_loss"] = reason
    return Run(
        path=origin.path_of(first, whole=first == 0 and last == positions.size),
        format=origin.format,
        name=origin.name or name_of(origin.path),
        curves=curves,
        segments=tuple(segments),
        config=config,
        status=origin.status,
        max_steps=origin.max_steps or planned_steps(config, curves),
        step_unit=unit,
        significant_digits=origin.significant_digits,
        train_metric=train_metric,
        eval_metric=eval_metric,
        damage=tuple(damage),
    )


def _last_before(counts: NDArray[np.int64], count: int) -> int:
    """Return the highest of some counts below one: where a run was resumed that goes on with it."""
    return int(counts[counts < count].max(initial=0))


def planned_steps(config: Mapping[str, object], curves: Mapping[str, Curve]) -> int | None:
    """Return how many steps a Trainer's arguments plan: ``max_steps``, or its epochs by the steps one had so far."""
    if told := as_step(config.get("max_steps")):
        return told
    epochs, counted = as_float(config.get("num_train_epochs")), curves.get("epoch")
    if epochs is None or counted is None or not counted.values[-1] > 0 or not np.isfinite(epochs):
        return None
    per_epoch = float(counted.steps[-1] / counted.values[-1])
    total = round(per_epoch) * epochs
    return int(total) if abs(per_epoch - round(per_epoch)) < _WHOLE * per_epoch and total >= counted.steps[-1] else None


def add_totals(curves: dict[str, Curve]) -> None:
    """Add ``loss`` and ``eval_loss`` where only the weighted parts of a detector's loss were logged (YOLO)."""
    parts = ("box_loss", "cls_loss", "dfl_loss", "obj_loss", "seg_loss", "pose_loss", "kobj_loss")
    for prefix, total in (("", "loss"), ("val/", "eval_loss")):
        having = [curves[prefix + part] for part in parts if prefix + part in curves]
        alike = len(having) > 1 and all(np.array_equal(curve.steps, having[0].steps) for curve in having)
        if alike and total not in curves:
            curves[total] = Curve(having[0].steps, np.sum([curve.values for curve in having], axis=0))


def numbered(runs: list[Run]) -> Iterable[Run]:
    """Give the runs of one log names that differ."""
    if len(runs) < 2:
        return runs
    return [replace(run, name=f"{run.name} #{i}") for i, run in enumerate(runs, 1)]
