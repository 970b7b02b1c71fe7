"""The steps of what the Trainer printed: it prints an epoch and no step.

Four sources, the surest first: an epoch printed in full times the steps of an epoch; the progress bar drawn anew after
the line, where output came in order; the fact that training losses come at even distances, which makes a step of an
epoch rounded to two places; and, where they do not, that epoch itself. How many steps an epoch has is told by the
banner, by the bars' total and the last epoch, or by runtime and rate in the closing summary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from sightline.sources.console.rows import filled, pieces

_ROUND = (1000, 500, 250, 200, 100, 50, 25, 20, 10, 5, 4, 2, 1)
"""Logging intervals people choose, the likeliest first among those that fit."""
_MAX_INTERVALS = 20_000
_WHOLE = 0.02  # how far from a whole number an epoch in full digits may put a step
_MAX_EPOCHS = 500


@dataclass(slots=True)
class Told:
    """What is printed around one Trainer's points, one value a point in the arrays."""

    epochs: NDArray[np.float64]
    trains: NDArray[np.bool_]
    """Which points are training losses."""
    bars: NDArray[np.int64]
    """Count of the progress bar before and after each point and its total, -1 for none, shape (n, 3)."""
    hints: Mapping[str, int]
    """From the banner and the result, by the lower-case words in front of the number."""
    summaries: NDArray[np.bool_]
    """Which points are closing summaries."""
    quoted: bool
    """Whether numbers are rounded to four digits."""
    runtime: float = np.nan
    """Seconds, from the summary."""
    rate: float = np.nan
    """Steps a second, from the summary, three digits after the point."""


@dataclass(frozen=True, slots=True)
class _PerEpoch:
    """Steps an epoch has, and how wrong that may be."""

    steps: float
    relative: float


def trainer_steps(told: Told) -> tuple[NDArray[np.int64] | None, int | None]:
    """Find the steps of one Trainer's points.

    Parameters
    ----------
    told : Told
        What is printed.

    Returns
    -------
    steps : ndarray of int64, shape (n,), or None
        None if nothing tells them.
    max_steps : int or None
        Steps planned.
    """
    bar_total = _bar_total(told)
    total = told.hints.get("total optimization steps") or told.hints.get("total steps") or bar_total
    if not np.isfinite(told.epochs).any():
        return _of_bars(told, bar_total), total
    rounding = _Rounding.of(told.epochs, quoted=told.quoted)
    candidates = list(_per_epoch(told, total, rounding))
    if rounding.exact:
        for per_epoch in candidates:
            steps = filled(told.epochs) * per_epoch.steps
            if float(np.abs(steps - np.rint(steps)).max()) < _WHOLE * max(1.0, per_epoch.relative * steps.max()):
                return np.rint(steps).astype(np.int64), total
    if (by_bars := _of_bars(told, bar_total)) is not None:
        return by_bars, total
    for per_epoch in candidates:
        steps_found = _of_epochs(told, rounding, per_epoch)
        if steps_found is not None:
            estimate, relative = _total_of_summary(told)
            return steps_found, total or (estimate if estimate * relative < 1 else 0) or None
    return None, total


@dataclass(frozen=True, slots=True)
class _Rounding:
    """How epochs are rounded when they are printed."""

    significant: bool
    """To four significant digits."""
    places: int | None
    """Else to so many places, None for in full."""

    @classmethod
    def of(cls, epochs: NDArray[np.float64], *, quoted: bool) -> _Rounding:
        """Find out from the epochs themselves."""
        known = epochs[np.isfinite(epochs)]
        for places in (2, 3, 4):
            scaled = (known[piece] * 10**places for piece in pieces(known.size))
            if all((np.abs(part - np.rint(part)) < 1e-6).all() for part in scaled):
                return cls(quoted, places)
        return cls(quoted, None)

    @property
    def exact(self) -> bool:
        """Whether epochs are printed in full."""
        return not self.significant and self.places is None

    def half(self, epochs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how much each epoch may be rounded."""
        if self.significant:
            exponents = np.floor(np.log10(np.maximum(np.nan_to_num(epochs), 1e-9)))
            return np.asarray(0.5 * 10.0 ** (exponents - 3))
        return np.full(epochs.size, 1e-9 if self.places is None else 0.5 * 10.0**-self.places)


def _bar_total(told: Told) -> int | None:
    """Return the total of the bar that most points stand beside."""
    totals = told.bars[:, 2][told.bars[:, 2] > 0]
    if totals.size < 0.5 * told.bars[:, 2].size:
        return None
    kinds, counts = np.unique(totals, return_counts=True)
    return int(kinds[np.argmax(counts)])


def _of_bars(told: Told, total: int | None) -> NDArray[np.int64] | None:
    """Return the steps that the bars show; None where output came in blocks and one count stands beside many epochs."""
    ours = told.bars[:, 2] == total
    steps = np.where(ours & (told.bars[:, 1] >= 0), told.bars[:, 1], told.bars[:, 0]).astype(np.float64)
    steps[~ours | (steps < 0)] = np.nan
    known = np.isfinite(steps)
    if total is None or known.mean() < 0.9:
        return None
    times = told.epochs[known]
    later = np.diff(times) > 0
    if later.any() and (np.diff(steps[known])[later] <= 0).mean() > 0.1:
        return None
    if np.unique(steps[known]).size < 0.3 * known.sum():
        return None
    return filled(steps).astype(np.int64)


def _per_epoch(told: Told, total: int | None, rounding: _Rounding) -> Iterator[_PerEpoch]:
    """Yield how many steps an epoch may have, the surest first."""
    batch = told.hints.get("total train batch size") or told.hints.get("total batch size")
    examples, epochs = told.hints.get("num examples"), told.hints.get("num epochs")
    by_rows = ceil(examples / batch) if batch and examples else None
    if total and epochs and (by_rows is None or abs(total / epochs - by_rows) < 0.02 * by_rows + 2):
        yield _PerEpoch(total / epochs, 0.0)
    if by_rows:
        yield _PerEpoch(by_rows, 1.0 / by_rows)
    last = int(np.nanargmax(told.epochs))
    reached, doubt = float(told.epochs[last]), float(rounding.half(told.epochs[last : last + 1])[0])
    if reached <= 0:
        return
    estimate, relative = _total_of_summary(told)
    finished = bool(told.summaries.any())
    end = told.hints.get("global_step") or (total if finished else None)
    if end and (not estimate or abs(end - estimate) <= 2 * relative * estimate + 2):  # else it was stopped early
        yield _whole(end / reached, doubt / reached)
    if estimate:
        yield _whole(estimate / reached, relative + doubt / reached)
    if total and rounding.exact:
        yield from _of_bars_and_epochs(told, total)


def _whole(steps: float, relative: float) -> _PerEpoch:
    """Return the steps of an epoch as the whole number they are, if only one is within the uncertainty."""
    least, most = ceil(steps * (1 - relative)), floor(steps * (1 + relative))
    return _PerEpoch(float(least), 0.0) if least == most else _PerEpoch(steps, relative)


def _of_bars_and_epochs(told: Told, total: int) -> Iterator[_PerEpoch]:
    """Yield the total by the number of epochs that makes whole steps of full epochs and agrees with the bars."""
    counts = np.maximum(told.bars[:, 0], told.bars[:, 1])
    seen = np.isfinite(told.epochs) & (told.bars[:, 2] == total) & (counts >= 0)
    if not seen.any():
        return
    for planned in range(1, _MAX_EPOCHS):
        steps = told.epochs[seen] * (total / planned)
        whole = float(np.abs(steps - np.rint(steps)).max()) < _WHOLE
        if whole and float(np.median(np.abs(steps - counts[seen]))) <= 2:
            yield _PerEpoch(total / planned, 0.0)
            return


def _total_of_summary(told: Told) -> tuple[int, float]:
    """Return the steps that runtime and rate imply, and their relative uncertainty; 0 if they say nothing."""
    steps = told.runtime * told.rate
    if not np.isfinite(steps) or told.rate < 0.02 or steps < 1:
        return 0, 0.0
    return round(steps), 0.0006 / told.rate + 0.5 / steps


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Between which steps each point must stand, by its printed epoch."""

    epochs: NDArray[np.float64]
    per_epoch: _PerEpoch
    rounding: _Rounding
    most: float
    """Steps that the run can have had by its closing summary, infinite where there is none."""

    def of(self, which: slice | NDArray[np.int64] | int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lowest and the highest step of some points."""
        epochs = np.atleast_1d(self.epochs[which])
        half = self.rounding.half(epochs)
        steps, relative = self.per_epoch.steps, self.per_epoch.relative
        # The last step of an epoch may take fewer batches: within it up to one step fewer than it seems.
        lowest = (epochs - half) * steps * (1 - relative) - 0.5 - np.mod(epochs, 1.0)
        return lowest, np.minimum((epochs + half) * steps * (1 + relative) + 0.5, self.most)


def _of_epochs(told: Told, rounding: _Rounding, per_epoch: _PerEpoch) -> NDArray[np.int64] | None:
    """Return steps from printed epochs: training losses at even distances if they can be, else as the epochs say.

    None where the epochs are too coarse to tell the losses apart.
    """
    epochs = filled(told.epochs)
    total, relative = _total_of_summary(told)
    bounds = _Bounds(epochs, per_epoch, rounding, total * (1 + relative) + 0.5 if total else np.inf)
    steps = np.maximum(np.rint(epochs * per_epoch.steps), 0).astype(np.int64)
    ordered = np.flatnonzero(~told.summaries)
    back = np.flatnonzero(np.diff(epochs[ordered]) < 0) + 1
    resumed = [i for i in ordered[back].tolist() if epochs[i - 1] - epochs[i] > 2 * rounding.half(epochs[i : i + 1])[0]]
    for begin, end in pairwise([0, *resumed, steps.size]):
        train = begin + np.flatnonzero(told.trains[begin:end])
        even = _even(bounds, train)
        if even is not None:
            steps[train] = even
        elif np.unique(steps[train]).size < train.size:
            return None
        _place_evaluations(steps, told, bounds, train, range(begin, end))
    return steps


def _place_evaluations(
    steps: NDArray[np.int64], told: Told, bounds: _Bounds, train: NDArray[np.int64], part: range
) -> None:
    """Put evaluations at the training loss before them unless their epochs tell the two apart, in place."""
    if not train.size:
        return
    inside = slice(part.start, part.stop)
    others = part.start + np.flatnonzero(~told.trains[inside] & ~told.summaries[inside])
    previous = np.searchsorted(train, others) - 1
    last = int(steps[inside].max())
    for i, before_at in zip(others[previous >= 0].tolist(), previous[previous >= 0].tolist(), strict=True):
        before = int(steps[train[before_at]])
        after = int(steps[train[before_at + 1]]) if before_at + 1 < train.size else last
        lowest, highest = bounds.of(i)
        close = lowest[0] <= before <= highest[0]
        steps[i] = before if close else min(max(int(steps[i]), before), max(after, before))


def _even(bounds: _Bounds, train: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return steps at even distances for some points, each between its bounds; None if there are none.

    They are multiples of the distance. The first may be step 1 instead (``logging_first_step``).
    """
    steps = _multiples(bounds, train)
    if steps is None and train.size > 1:
        (lowest,), (highest,) = bounds.of(int(train[0]))
        rest = _multiples(bounds, train[1:]) if lowest <= 1 <= highest else None
        steps = None if rest is None else np.append(1, rest)
    return steps


def _multiples(bounds: _Bounds, train: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the multiples of the likeliest interval that lie between the bounds."""
    if not train.size:
        return None
    (first_lowest, last_lowest), (first_highest, last_highest) = bounds.of(train[[0, -1]])
    if train.size == 1:
        shortest, longest = first_lowest, first_highest
    else:
        shortest = (last_lowest - first_highest) / (train.size - 1)
        longest = (last_highest - first_lowest) / (train.size - 1)
    fitting = range(max(1, ceil(shortest)), floor(longest) + 1)[:_MAX_INTERVALS]
    for interval in sorted(fitting, key=lambda k: next(i for i, unit in enumerate(_ROUND) if k % unit == 0)):
        least, most = -np.inf, np.inf
        for piece in pieces(train.size):
            lowest, highest = bounds.of(train[piece])
            places = np.arange(piece.start, piece.stop)
            least = max(least, float(np.ceil(lowest / interval - places).max()))
            most = min(most, float(np.floor(highest / interval - places).min()))
            if least > most or most < 1:
                break
        else:
            first = 1 if least <= 1 else int(least + most) // 2  # a run begins at the first; a resumed one in between
            return np.asarray(interval * np.arange(first, first + train.size), dtype=np.int64)
    return None
