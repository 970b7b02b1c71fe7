"""Axes of a chart: where a value stands, and which values get a tick."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEW = 8
"""A curve of fewer values has no outliers: all of them count as its bulk."""
ROOMY = 0.2
"""Share of the height that the middle half of the values should fill before another scale or a cut is tried."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear or logarithmic axis between two values."""

    low: float
    high: float
    log: bool = False

    def share(self, values: Floats) -> Floats:
        """Return where values stand on the axis, 0 at ``low`` and 1 at ``high``; outside it they are clipped."""
        clipped = np.clip(values, self.low, self.high)
        if self.log:
            span = math.log(self.high / self.low)
            return np.asarray(np.log(clipped / self.low) / span)
        half = self.high / 2.0 - self.low / 2.0  # halves: the span of huge values may overflow
        return np.asarray((clipped / 2.0 - self.low / 2.0) / half) if half > 0 else np.zeros_like(clipped)

    def ticks(self, most: int) -> list[float]:
        """Return at most ``most`` round values on the axis, ascending; two at least where round ones exist."""
        most = max(2, most)
        if self.log:
            for digits in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
                ticks = self._log_ticks(digits)
                if 2 <= len(ticks) <= most:
                    return ticks
            if len(decades := self._log_ticks((1,))) > most:
                return decades[:: math.ceil(len(decades) / most)]
        return linear_ticks(self.low, self.high, most)

    def _log_ticks(self, digits: tuple[int, ...]) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        values = (digit * 10.0**power for power in range(first, last + 1) for digit in digits)
        return [value for value in values if self.low <= value <= self.high]


def linear_ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return at most ``most`` multiples of 1, 2 or 5 times a power of ten; only ``whole`` numbers if asked."""
    rough = (high / most) - (low / most)
    if not (math.isfinite(rough) and rough > 0):
        return [low]
    power = math.floor(math.log10(rough))
    for exponent in (power, power + 1) if not whole or power >= 0 else (0,):
        for digit in (1, 2, 5):
            step = digit * 10.0**exponent
            if step <= 0 or (whole and step < 1):
                continue
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first + 1 <= most:
                return [index * step for index in range(first, last + 1)]
    return [low]


def tick_labels(ticks: list[float], *, log: bool = False) -> list[str]:
    """Return the ticks of one axis as text: exact, and with one number of decimals all along a linear axis."""
    labels: list[str] = []
    for digits in range(1, 16):
        labels = [_tick_label(tick, digits) for tick in ticks]
        if all(math.isclose(float(label), tick, rel_tol=1e-6) for label, tick in zip(labels, ticks, strict=True)):
            break
    if log or any("e" in label for label in labels):
        return labels
    decimals = max((len(label.partition(".")[2]) for label in labels), default=0)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def value_scale(series: list[Floats]) -> Scale:
    """Return the axis on which the bulk of some curves can be told apart.

    Linear where that will do, also when two values in a thousand have to be cut off for it. Logarithmic where a few
    large values would press the rest into a strip and all are positive. Where outliers would still do so, cut off at
    twice the size of the bulk, which is the middle half of the values.

    Parameters
    ----------
    series : list of ndarray
        Finite values of each curve.
    """
    known = [values for values in series if values.size]
    if not known:
        return Scale(0.0, 1.0)
    low, high = _range(known, 0.0)
    if low == high:
        return _around(low)
    bulk = _range(known, 0.25)
    linear, trimmed = Scale(low, high), Scale(*_range(known, 0.002))
    for scale in (linear, trimmed):
        if scale.low < scale.high and _bulk_share(scale, *bulk) >= ROOMY:
            return _padded(scale)
    if low > 0:
        log = Scale(low, high, log=True)
        gained = _bulk_share(log, *bulk)
        if gained >= ROOMY / 2 and gained > 1.5 * _bulk_share(linear, *bulk):
            return log
    return _cut(linear, *bulk)


def _range(series: list[Floats], trim: float) -> tuple[float, float]:
    """Return the range of all values, a share of each long curve's smallest and largest left out."""
    trims = [trim if values.size >= FEW else 0.0 for values in series]
    lows = [_quantile(values, share) for values, share in zip(series, trims, strict=True)]
    highs = [_quantile(values, 1.0 - share) for values, share in zip(series, trims, strict=True)]
    return min(lows), max(highs)


def _quantile(values: Floats, share: float) -> float:
    """Return the value below which a share of the values lies, never one between two of them: that may overflow."""
    at = round(share * (values.size - 1))
    return float(np.partition(values, at)[at])


def _bulk_share(scale: Scale, low: float, high: float) -> float:
    at = scale.share(np.array([low, high]))
    return float(at[1] - at[0])


def _cut(scale: Scale, bulk_low: float, bulk_high: float) -> Scale:
    """Cut the axis off two bulks' size beyond the bulk, if the bulk would be a thin strip otherwise."""
    if _bulk_share(scale, bulk_low, bulk_high) >= ROOMY or bulk_low == bulk_high:
        return _padded(scale)
    size = 2.0 * (bulk_high - bulk_low)
    return _padded(Scale(max(scale.low, bulk_low - size), min(scale.high, bulk_high + size)))


def _padded(scale: Scale) -> Scale:
    """Begin a linear axis of positive values at zero where that costs little height."""
    if not scale.log and 0 < scale.low <= 0.25 * scale.high:
        return Scale(0.0, scale.high)
    return scale


def _around(value: float) -> Scale:
    """Return an axis around a single value."""
    margin = abs(value) * 0.1 or 1.0
    return Scale(value - margin, value + margin)


def _tick_label(tick: float, digits: int) -> str:
    text = f"{tick:.{digits}g}"
    if tick == 0 or abs(tick) < 1e-300:
        return "0"
    if "e" in text and 1e-4 <= abs(tick) < 1e6:
        return f"{float(text):f}".rstrip("0").rstrip(".")
    return text
