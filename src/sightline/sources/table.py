"""Rows of named numbers, as they were logged, to the runs they tell: the common end of CSV, JSON and console readers.

A row may carry some metrics and lack others; one of its columns counts steps or epochs, or none does. A count that
goes back to its beginning starts another run, one that goes back part of the way resumes the same.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sightline.runs import Status
from sightline.runs.names import EPOCH_NAMES, STEP_NAMES, is_loss
from sightline.sources.numbers import as_array, as_floats

MAX_METRICS = 10_000
"""Metrics of one log; names beyond are left out and counted."""
FOLDED = "global_step/max_steps"
"""Two counts that ms-swift logs under one name."""
_MAX_NESTING = 4
_MAX_SETTING = 500
_SECRET = re.compile(r"token(?!s|izer)|secret|password|api_?key|credential", re.IGNORECASE)
_GENERIC_NAMES = frozenset(
    {
        *("metrics", "results", "log", "logs", "history", "output", "train", "training"),
        *("training_log", "train_log", "trainer_log", "loss_history"),
    }
)

Column = tuple[NDArray[np.int32], NDArray[np.float64]]
"""Row numbers (n,), ascending, and the values there (n,)."""
Alike = tuple[tuple[str, ...], NDArray[np.int64], list[Any]]
"""Names, which of the rows have just these, shape (n,), and their values, row after row."""
Unit = Literal["step", "epoch", "index"]


class Table:
    """Columns of numbers that grow row by row.

    Parameters
    ----------
    nested : bool
        Whether numbers in nested objects are taken too, named ``outer/inner``.
    """

    def __init__(self, *, nested: bool = True) -> None:
        self._nesting = _MAX_NESTING if nested else 0
        self.rows = 0
        self.left_out = 0
        """Values whose metric came after MAX_METRICS others."""
        self.complete = False
        """Set it when no row will follow: ``columns`` then hands out what it holds instead of a copy."""
        self._columns: dict[str, tuple[array[int], array[float]]] = {}

    def add(self, entries: Sequence[Mapping[str, Any]], prefix: str = "") -> None:
        """Append rows; every name gets the prefix."""
        self.add_alike(alike(entries), len(entries), prefix)

    def add_alike(self, groups: Iterable[Alike], count: int, prefix: str = "") -> None:
        """Append ``count`` rows that ``alike`` has sorted already."""
        for names, places, values in groups:
            rows = places + self.rows
            numbers = as_floats(values)
            for i, name in enumerate(names):
                if numbers is not None:
                    self.add_values(prefix + name, rows, numbers[i :: len(names)])
                else:
                    self._add_column(prefix + name, rows, values[i :: len(names)], self._nesting)
        self.rows += count

    def add_columns(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        """Append ``count`` rows given as columns; a shorter column lacks the last rows."""
        rows = np.arange(self.rows, self.rows + count, dtype=np.int64)
        for name, values in columns.items():
            self._add_column(name, rows[: len(values)], values, self._nesting)
        self.rows += count

    def add_values(self, name: str, rows: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Append numbers to one column at given row numbers; ``rows`` must be set by the caller."""
        column = self._columns.get(name)
        if column is None:
            if len(self._columns) >= MAX_METRICS:
                self.left_out += len(values)
                return
            column = self._columns[name] = (array("i"), array("d"))
        column[0].frombytes(rows.astype(np.int32).tobytes())
        column[1].frombytes(np.ascontiguousarray(values).tobytes())

    def columns(self) -> dict[str, Column]:
        """Return every column, rows ascending."""
        result = {}
        for name, (rows, values) in self._columns.items():
            row_array, value_array = np.frombuffer(rows, dtype=np.int32), np.frombuffer(values, dtype=np.float64)
            if row_array.size > 1 and bool(np.any(row_array[1:] < row_array[:-1])):
                order = np.argsort(row_array, kind="stable")
                row_array, value_array = row_array[order], value_array[order]
            elif not self.complete:
                row_array, value_array = row_array.copy(), value_array.copy()
            result[name] = (row_array, value_array)
        return result

    def _add_column(self, name: str, rows: NDArray[np.int64], values: Sequence[Any], nesting: int) -> None:
        kinds = set(map(type, values))
        if nesting and dict in kinds:
            inner = [(row, value) for row, value in zip(rows.tolist(), values, strict=True) if type(value) is dict]
            keys = dict.fromkeys(key for _, value in inner for key in value)
            for key in list(keys)[: MAX_METRICS + 1]:
                having = [(row, value[key]) for row, value in inner if key in value]
                places = np.array([row for row, _ in having], dtype=np.int64)
                self._add_column(f"{name}/{key}", places, [value for _, value in having], nesting - 1)
            return
        numbers, valid = as_array(values, kinds)
        if valid is None:
            self.add_values(name, rows, numbers)
        elif valid.any():
            self.add_values(name, rows[valid], numbers[valid])


def alike(entries: Sequence[Mapping[str, Any]]) -> Iterator[Alike]:
    """Yield entries with the same keys together; those without any are passed over."""
    sizes = np.fromiter(map(len, entries), dtype=np.int64, count=len(entries))
    for size in dict.fromkeys(sizes.tolist()):
        if not size:
            continue
        alone = sizes == size
        places = np.flatnonzero(alone)
        chosen = entries if places.size == len(entries) else list(compress(entries, alone.tolist()))
        names = tuple(chosen[0])
        try:  # as many keys and all of these: the same keys
            yield names, places, _flat(chosen, names)
        except KeyError:
            shapes: dict[tuple[str, ...], list[int]] = {}
            for i in places.tolist():
                shapes.setdefault(tuple(entries[i]), []).append(i)
            for names, own in shapes.items():
                yield names, np.array(own, dtype=np.int64), _flat([entries[i] for i in own], names)


def _flat(entries: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> list[Any]:
    """Return the values of entries one after the other, each entry's in the order of the names."""
    if len(names) == 1:
        return list(map(itemgetter(names[0]), entries))
    return list(chain.from_iterable(map(itemgetter(*names), entries)))


@dataclass(slots=True)
class Origin:
    """What a reader knows of a log beside its numbers."""

    path: Path
    format: str
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    status: Status = Status.UNKNOWN
    max_steps: int | None = None
    significant_digits: int | None = None
    damage: list[str] = field(default_factory=list)
    files: list[tuple[int, Path]] = field(default_factory=list)
    """Where rows come from several files the first row of each; a run that is not all of them bears its file's path."""

    settings: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Where a log holds the settings of several runs: each with the row it stands before."""

    def config_of(self, first: int) -> dict[str, Any]:
        """Return the settings of a run that begins at a row."""
        told = [settings for row, settings in self.settings if row <= first]
        return {**self.config, **(told[-1] if told else {})}

    def path_of(self, first: int, *, whole: bool) -> Path:
        """Return the path of a run that begins at a row."""
        began = [file for row, file in self.files if row <= first]
        return self.path if whole or not began else began[-1]


def unfolded(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with ms-swift's ``"global_step/max_steps": "10/200"`` as the two numbers it is."""
    both = entry.get(FOLDED)
    if type(both) is str and "/" in both:
        step, _, total = both.partition("/")
        rest = {name: value for name, value in entry.items() if name != FOLDED}
        return {**rest, "global_step": step, "total_steps": total}
    return entry


def plain_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers, short texts and flags among some settings; what looks like a secret is left out."""
    return {
        str(name): value
        for name, value in values.items()
        if type(value) in (int, float, bool) or (type(value) is str and len(value) <= _MAX_SETTING)
        if not _SECRET.search(str(name))
    }


def name_of(path: Path) -> str:
    """Return a run's name from its file: the stem, or the folder's name where the stem says nothing."""
    stem = path.stem
    return path.parent.name or stem if stem.lower() in _GENERIC_NAMES else stem


def tells_a_run(names: Iterable[str]) -> bool:
    """Return whether columns of these names are a training history: a loss, or a metric beside a count of steps."""
    names = list(names)
    if any(is_loss(name) for name in names):
        return True
    counted = {name.strip().lower() for name in names} & {*STEP_NAMES, *EPOCH_NAMES}
    metrics = {"accuracy", "acc", "reward", "perplexity", "ppl", "learning_rate", "grad_norm"}
    return bool(counted) and any(name.lower().rsplit("/", 1)[-1].removeprefix("eval_") in metrics for name in names)
