"""A grid of dots in character cells: curves thinned to one span a column, Braille or plain letters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Dots = NDArray[np.bool_]

_BRAILLE = 0x2800
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.int32)  # [row, column] of a cell


class Canvas:
    """Dots of one curve after another on a grid of ``columns`` x ``rows`` character cells."""

    def __init__(self, columns: int, rows: int, *, braille: bool) -> None:
        self.columns, self.rows, self.braille = columns, rows, braille
        self.dots_wide = columns * 2 if braille else columns
        self.dots_high = rows * 4 if braille else rows

    def polyline(self, x: Floats, y: Floats, *, thick: bool = False) -> Dots:
        """Return the dots of a line through points, every one of them within the span drawn in its column.

        Parameters
        ----------
        x : ndarray, shape (n,)
            Ascending, 0 at the left edge and 1 at the right one.
        y : ndarray, shape (n,)
            0 at the bottom and 1 at the top.
        thick : bool
            Two dots high, so that two lines can be told apart without colour.

        Returns
        -------
        ndarray of bool, shape (dots_high, dots_wide)
            True where a dot is set.
        """
        dots = np.zeros((self.dots_high, self.dots_wide), dtype=np.bool_)
        if not x.size:
            return dots
        column = np.rint(x * (self.dots_wide - 1)).astype(np.int64)
        row = np.rint((1.0 - y) * (self.dots_high - 1)).astype(np.int64)
        starts = np.flatnonzero(np.append(True, column[1:] != column[:-1]))
        ends = np.append(starts[1:], column.size) - 1
        top, bottom = np.minimum.reduceat(row, starts), np.maximum.reduceat(row, starts)
        for at, low, high in zip(column[starts].tolist(), top.tolist(), bottom.tolist(), strict=True):
            dots[low : high + 1, at] = True
        _connect(dots, column[starts].tolist(), row[starts].tolist(), row[ends].tolist())
        if thick and self.braille:
            dots[1:] |= dots[:-1].copy()
        return dots

    def cells(self, dots: Dots, letter: str) -> list[list[str]]:
        """Return the character of every cell, empty where no dot is set; ``letter`` stands for dots without Braille."""
        if not self.braille:
            return [[letter if dot else "" for dot in row] for row in dots.tolist()]
        blocks = dots.reshape(self.rows, 4, self.columns, 2)
        codes = np.einsum("rick,ik->rc", blocks.astype(np.int32), _BITS)
        return [[chr(_BRAILLE + code) if code else "" for code in row] for row in codes.tolist()]

    def column_of(self, share: float) -> int:
        """Return the character column of a place between the left edge (0) and the right one (1)."""
        at = int(np.rint(share * (self.dots_wide - 1)))
        return at // 2 if self.braille else at

    def row_of(self, share: float) -> int:
        """Return the character row of a height between the bottom (0) and the top (1)."""
        at = int(np.rint((1.0 - share) * (self.dots_high - 1)))
        return at // 4 if self.braille else at


def _connect(dots: Dots, columns: list[int], first_rows: list[int], last_rows: list[int]) -> None:
    """Join the last point of each occupied column with the first one of the next."""
    for left, right, y_left, y_right in zip(columns, columns[1:], last_rows, first_rows[1:], strict=False):
        slope = (y_right - y_left) / (right - left)
        for at in range(left, right + 1):
            a = y_left + slope * max(0.0, at - 0.5 - left)
            b = y_left + slope * min(right - left, at + 0.5 - left)
            low, high = (a, b) if a <= b else (b, a)
            dots[round(low) : round(high) + 1, at] = True
