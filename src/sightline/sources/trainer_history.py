"""A Trainer's ``log_history``, column by column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.runs import Curve
from sightline.sources.numbers import MAX_STEP
from sightline.sources.table import MAX_METRICS, Column, Table

_BLOCK = 2048  # entries whose columns are taken at once: as many as stay in the processor's cache
_SUMMARY = "train_runtime"


@dataclass(frozen=True)
class History:
    """Entries in the order they were logged."""

    steps: NDArray[np.int64]
    """Step of each entry, shape (n,); an entry without one belongs to the step before it."""
    columns: dict[str, Column]
    """By metric the entries that have it and their values there."""
    damage: tuple[str, ...] = ()
    """What could not be taken."""

    @classmethod
    def of(cls, blocks: Iterable[list[Any]]) -> History:
        """Take entries that come block by block; what is no object among them is left out and counted."""
        table = Table(nested=False)
        table.complete = True
        others = 0
        for block in blocks:
            if not set(map(type, block)) <= {dict}:
                others += len(block)
                block = [entry for entry in block if type(entry) is dict]
                others -= len(block)
            for begin in range(0, len(block), _BLOCK):
                table.add(block[begin : begin + _BLOCK])
        columns = table.columns()
        steps = _steps(columns.pop("step", None), table.rows)
        damage = []
        if others:
            damage.append(f"{others} entries of log_history are no objects and were left out")
        if table.left_out:
            damage.append(f"more than {MAX_METRICS} metrics; {table.left_out} values were left out")
        return cls(steps, columns, tuple(damage))

    def __len__(self) -> int:
        return int(self.steps.size)

    @cached_property
    def closes(self) -> bool:
        """Whether it ends with the summary that the Trainer logs when it leaves its loop in order."""
        summaries = self.columns.get(_SUMMARY)
        return summaries is not None and int(summaries[0][-1]) >= len(self) - 5

    @property
    def begins_late(self) -> bool:
        """Whether it begins later than its own logging interval explains: older entries were lost."""
        if len(self) < 2:
            return False
        first, last = int(self.steps[0]), int(self.steps[-1])
        return first > 2 * max(1, (last - first) / (len(self) - 1)) + 1

    def is_prefix_of(self, longer: History) -> bool:
        """Return whether this is the beginning of another history (its closing summary aside)."""
        count = len(self)
        if _SUMMARY in self.columns and int(self.columns[_SUMMARY][0][-1]) == count - 1:
            count -= 1
        mine, theirs = self._first(count), longer._first(count)
        return mine.steps.size == theirs.steps.size and _same(mine, theirs)

    def where(self, keep: NDArray[np.bool_]) -> History:
        """Return some of the entries, ``keep`` of shape (n,)."""
        numbers = (np.cumsum(keep) - 1).astype(np.int32)
        columns = {}
        for name, (rows, values) in self.columns.items():
            kept = keep[rows]
            if kept.any():
                columns[name] = (numbers[rows[kept]], values[kept])
        return History(self.steps[keep], columns, self.damage)

    def after(self, earlier: History) -> History:
        """Return the entries of an earlier history that stand before this one's first step, and then these."""
        lacking = earlier.where(earlier.steps < self.steps[0])
        columns = {}
        for name in {**lacking.columns, **self.columns}:
            first, second = lacking.columns.get(name, _NONE), self.columns.get(name, _NONE)
            rows = np.concatenate([first[0], second[0] + np.int32(len(lacking))])
            columns[name] = (rows, np.concatenate([first[1], second[1]]))
        return History(np.concatenate([lacking.steps, self.steps]), columns, self.damage)

    def curves(self) -> dict[str, Curve]:
        """Return every metric as a curve."""
        return {name: Curve.of(self.steps[rows], values) for name, (rows, values) in self.columns.items()}

    def _first(self, count: int) -> History:
        return self.where(np.arange(len(self)) < count)


_NONE: Column = (np.zeros(0, dtype=np.int32), np.zeros(0))


def _steps(column: Column | None, count: int) -> NDArray[np.int64]:
    """Return the step of every entry, 0 before the first that has one, shape (count,)."""
    if column is None:
        return np.zeros(count, dtype=np.int64)
    rows, values = column
    whole = (values >= 0) & (values <= MAX_STEP) & (np.floor(values) == values)
    if rows.size == count and whole.all():
        return values.astype(np.int64)
    known = np.zeros(count, dtype=np.int64)
    known[rows[whole]] = np.arange(1, np.count_nonzero(whole) + 1)
    return np.append(0, values[whole]).astype(np.int64)[np.maximum.accumulate(known)]


def _same(one: History, other: History) -> bool:
    """Return whether two histories tell the same."""
    return (
        np.array_equal(one.steps, other.steps)
        and one.columns.keys() == other.columns.keys()
        and all(
            np.array_equal(rows, other.columns[name][0])
            and np.array_equal(values, other.columns[name][1], equal_nan=True)
            for name, (rows, values) in one.columns.items()
        )
    )
