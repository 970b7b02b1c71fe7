"""The points of a captured terminal in the order they were printed, and what stands around them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sightline.sources.numbers import MAX_STEP
from sightline.sources.table import Column, Table

NO_BAR = (-1, -1, -1)


@dataclass(frozen=True, slots=True)
class Hint:
    """Something a line without points says of the run."""

    row: int
    """Number of points before it."""
    name: str
    value: int


@dataclass(slots=True)
class Rows:
    """Points, a row each."""

    table: Table = field(default_factory=Table)
    """Columns are named ``tier:metric``; tier 0 are dictionaries, 1 printed lines, 2 bars drawn over and over."""
    tiers: array[int] = field(default_factory=lambda: array("b"))
    printed: array[int] = field(default_factory=lambda: array("q"))
    """Rows of tier 1 and 2."""
    epochs: array[float] = field(default_factory=lambda: array("d"))
    """Epoch that the lines before each printed line speak of, NaN for none."""
    steps: array[float] = field(default_factory=lambda: array("d"))
    """Step that a line before each printed line names for what follows it, NaN for none."""
    barred: array[int] = field(default_factory=lambda: array("q"))
    """Dictionaries that stand beside a progress bar."""
    bars: array[int] = field(default_factory=lambda: array("q"))
    """Of each of those the bar's count before and after it and its total, -1 for none."""
    hints: list[Hint] = field(default_factory=list)

    def append(self, tier: int, epoch: float | None, step: float | None = None) -> None:
        """Add the place of a printed line."""
        self.printed.append(len(self.tiers))
        self.epochs.append(np.nan if epoch is None else epoch)
        self.steps.append(np.nan if step is None else step)
        self.tiers.append(tier)

    def extend(self, tiers: bytes, epoch: float | None, step: float | None) -> None:
        """Add the places of several printed lines, a byte each."""
        count, first = len(tiers), len(self.tiers)
        self.printed.frombytes(np.arange(first, first + count, dtype=np.int64).tobytes())
        self.epochs.frombytes(np.full(count, np.nan if epoch is None else epoch).tobytes())
        self.steps.frombytes(np.full(count, np.nan if step is None else step).tobytes())
        self.tiers.frombytes(tiers)

    def append_dicts(self, count: int, bars: Sequence[tuple[int, int, int]] | None) -> None:
        """Add the places of dictionaries and their bars, None if no bar stands beside any."""
        if bars is not None:
            having = [i for i, bar in enumerate(bars) if bar is not NO_BAR]
            self.barred.frombytes((np.array(having, dtype=np.int64) + len(self.tiers)).tobytes())
            self.bars.extend(chain.from_iterable(map(bars.__getitem__, having)))
        self.tiers.frombytes(bytes(count))


def bars_at(barred: NDArray[np.int64], bars: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bars beside some rows, shape (n, 3), NO_BAR where none is.

    Parameters
    ----------
    barred : ndarray of int64, shape (m,)
        Rows that stand beside a bar, ascending.
    bars : ndarray of int64, shape (m, 3)
    places : ndarray of int64, shape (n,)
        The rows asked for.
    """
    if not barred.size:
        return np.broadcast_to(np.array(NO_BAR, dtype=np.int64), (places.size, 3))
    at = np.minimum(np.searchsorted(barred, places), barred.size - 1)
    return np.where((barred[at] == places)[:, None], bars[at], -1)


def local(column: Column | None, first: int, last: int) -> NDArray[np.float64]:
    """Return a column's values at the rows from ``first`` to ``last``, NaN where it has none, shape (last - first,)."""
    values = np.full(last - first, np.nan)
    if column is not None:
        begin, end = np.searchsorted(column[0], (first, last))
        values[column[0][begin:end] - first] = column[1][begin:end]
    return values


def last_told(column: Column | None, first: int, last: int) -> int | None:
    """Return the last number of a column at the rows from ``first`` to ``last`` that may be a count of steps, else None."""
    told = local(column, first, last)
    told = told[np.isfinite(told)]
    return int(told[-1]) if told.size and 0 < told[-1] <= MAX_STEP else None


def filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values with gaps filled by the one before, those at the beginning by the first; 0 if all are missing."""
    finite = np.isfinite(values)
    if finite.all():
        return values
    known = np.flatnonzero(finite)
    if not known.size:
        return np.zeros_like(values)
    last = np.searchsorted(known, np.arange(values.size), side="right") - 1
    return np.asarray(values[known[np.maximum(last, 0)]])


def pieces(size: int, length: int = 1 << 20) -> Iterator[slice]:
    """Yield slices that cover ``size`` items."""
    for begin in range(0, size, length):
        yield slice(begin, min(begin + length, size))
