"""Both losses of a run on one chart, in characters: a pure function from curves to lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from sightline.runs import Curve, Onset
from sightline.terminal.canvas import Canvas
from sightline.terminal.scales import Scale, linear_ticks, tick_labels, value_scale
from sightline.terminal.text import UNICODE, Glyphs, count_text, number_text, plain, plural_unit

TRAIN_STYLE = "color(33)"  # blue and orange: apart for every kind of colour blindness, on light and dark ground
EVAL_STYLE = "color(202)"
AXIS_STYLE = "dim"
MIN_WIDTH = 40
_LABELS_FROM_WIDTH = 64


@dataclass(frozen=True, eq=False, slots=True)
class Series:
    """One curve to draw."""

    name: str
    curve: Curve
    style: str = ""
    thick: bool = False
    """Drawn over thin curves and twice as bold, so that it stands out without colour."""
    letter: str = "."
    """Stands for its points where only ASCII can be shown."""
    end: str | None = None
    """What to write at its right end in place of its last value: for a curve that was brought onto another's scale."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Steps to point at below the chart."""

    best: int | None = None
    onset: Onset | None = None
    extra: Sequence[tuple[int, str]] = field(default_factory=tuple)
    """Further steps, each with a word."""


def losses(
    train: Curve | None, evals: Curve | None, names: tuple[str, str] = ("training", "validation")
) -> list[Series]:
    """Return training and validation loss as the two series of a chart; one that is missing is left out."""
    series = []
    if train is not None and len(train):
        series.append(Series(names[0], train, TRAIN_STYLE, letter="."))
    if evals is not None and len(evals):
        series.append(Series(names[1], evals, EVAL_STYLE, thick=True, letter="o"))
    return series


def draw_chart(
    series: Sequence[Series],
    *,
    width: int = 80,
    height: int = 16,
    marks: Marks | None = None,
    glyphs: Glyphs = UNICODE,
    y_name: str = "loss",
    x_name: str = "step",
) -> list[Text]:
    """Draw curves over a common axis of steps.

    Parameters
    ----------
    series : sequence of Series
        Curves of any length; each column shows the span from the smallest to the largest of its values.
    width : int
        Characters a line may take; less than 40 counts as 40.
    height : int
        Lines of the plot itself; axis, legend and marks come on top.
    marks : Marks, optional
        What to point at below the axis.
    glyphs : Glyphs
        Signs the terminal can show.
    y_name, x_name : str
        What the axes count.

    Returns
    -------
    list of Text
        No line wider than ``width``; a sentence instead of a plot where no curve has a finite value.
    """
    width, height, marks = max(width, MIN_WIDTH), max(height, 3), marks or Marks()
    finite = [s.curve.finite() for s in series]
    if not any(len(curve) for curve in finite):
        return [Text("no finite value to draw", style=AXIS_STYLE)]
    plot = _Plot.of(series, finite, width, height, glyphs)
    lines = [plot.legend(y_name), *plot.rows(marks.best)]
    lines += plot.x_axis(x_name)
    lines += plot.mark_lines(marks, x_name)
    lines += plot.notes(x_name)
    for line in lines:
        line.truncate(width, overflow="crop")
        line.rstrip()
    return lines


@dataclass(frozen=True, eq=False, slots=True)
class _Plot:
    """The geometry of one chart, worked out once."""

    series: Sequence[Series]
    finite: Sequence[Curve]
    glyphs: Glyphs
    canvas: Canvas
    x: Scale
    y: Scale
    y_labels: dict[int, str]
    margin: int
    end_labels: dict[int, tuple[str, str]]
    width: int

    @classmethod
    def of(cls, series: Sequence[Series], finite: Sequence[Curve], width: int, height: int, glyphs: Glyphs) -> _Plot:
        x = _step_scale([s.curve for s in series])
        y = value_scale([curve.values for curve in finite])
        ticks = y.ticks(max(2, height // 3 + 1))
        ticks = _apart(ticks, y, height)
        labels = tick_labels(ticks, log=y.log)
        margin = max(map(len, labels)) + 2
        ends = [
            (s, f" {s.name} {s.end or number_text(float(c.values[-1]), 3)}")
            for s, c in zip(series, finite, strict=True)
            if len(c)
        ]
        right = max(len(text) for _, text in ends) if width >= _LABELS_FROM_WIDTH else 0
        canvas = Canvas(max(8, width - margin - right), height, braille=glyphs.braille)
        rows = {
            canvas.row_of(share): label for share, label in zip(y.share(np.array(ticks)).tolist(), labels, strict=True)
        }
        end_labels = _place([(canvas.row_of(_at(y, s)), text, s.style) for s, text in ends], height) if right else {}
        return cls(series, finite, glyphs, canvas, x, y, rows, margin, end_labels, width)

    def legend(self, y_name: str) -> Text:
        """Say what is drawn and how."""
        line = Text().append(y_name + (" (log scale)" if self.y.log else ""), style=AXIS_STYLE)
        for s in self.series:
            sample = ("⣤⣤" if s.thick else "⠒⠒") if self.glyphs.braille else s.letter * 2
            line.append("   ").append(sample, style=s.style).append(f" {s.name}")
        return line

    def rows(self, best: int | None) -> list[Text]:
        """Draw the plot line by line."""
        shown: list[tuple[str, list[list[str]]]] = []
        for s, curve in sorted(zip(self.series, self.finite, strict=True), key=lambda pair: pair[0].thick):
            x, y = self.x.share(curve.steps.astype(np.float64)), self.y.share(curve.values)
            shown.append((s.style, self.canvas.cells(self.canvas.polyline(x, y, thick=s.thick), s.letter)))
        guide = None if best is None else self._column(best)
        bad = {self._column(step) for s in self.series for step in _bad_steps(s.curve)}
        lines = []
        for row in range(self.canvas.rows):
            label = self.y_labels.get(row)
            axis = self.glyphs.axis if label is None else self.glyphs.tick
            line = Text().append(f"{label or '':>{self.margin - 2}} {axis}", style=AXIS_STYLE)
            cells = [(" ", "")] * self.canvas.columns
            if guide is not None:
                cells[guide] = (self.glyphs.guide, AXIS_STYLE)
            if row == 0:
                for column in bad:
                    cells[column] = (self.glyphs.non_finite, "bold red")
            for style, drawn in shown:
                cells = [(char, style) if char else cell for char, cell in zip(drawn[row], cells, strict=True)]
            for style, same in groupby(cells, key=itemgetter(1)):
                line.append("".join(char for char, _ in same), style=style)
            if row in self.end_labels:
                line.append(*self.end_labels[row])
            lines.append(line)
        return lines

    def x_axis(self, x_name: str) -> list[Text]:
        """Draw the axis of steps and its labels."""
        columns = self.canvas.columns
        ticks = linear_ticks(self.x.low, self.x.high, max(2, columns // 9), whole=True)
        floor = [self.glyphs.floor] * columns
        labels = [" "] * (self.margin + columns + 1 + len(x_name) + 2)
        free_from = 0
        for tick in ticks:
            column = self._column(tick)
            text = count_text(tick) if self.x.high >= 10_000 else f"{tick:g}"
            start = max(0, min(self.margin + column - len(text) // 2, self.width - len(text)))
            if start < free_from:
                continue
            floor[column] = self.glyphs.floor_tick
            labels[start : start + len(text)] = text
            free_from = start + len(text) + 1
        end = max(free_from, self.margin + columns - len(x_name))
        if end + len(x_name) > self.width:
            end = self.width - len(x_name)
        if end >= free_from:
            labels[end : end + len(x_name)] = x_name
        return [
            Text(" " * (self.margin - 1) + self.glyphs.corner + "".join(floor), style=AXIS_STYLE),
            Text("".join(labels), style=AXIS_STYLE),
        ]

    def mark_lines(self, marks: Marks, x_name: str) -> list[Text]:
        """Point at the best step, the onset with its interval and whatever else was asked."""
        g, lines = self.glyphs, []
        if marks.best is not None:
            lines.append(self._pointer(marks.best, g.best, f"best: {x_name} {marks.best}", "bold green"))
        if marks.onset is not None:
            low, high = self._column(marks.onset.low), self._column(marks.onset.high)
            at = min(max(self._column(marks.onset.step), low), high)
            span = [g.onset_span] * (high - low + 1)
            if high > low:
                span[0], span[-1] = g.onset_low, g.onset_high
            span[at - low] = g.onset
            words = f"memorising since {x_name} {marks.onset.step}"
            between = f"{words} (between {marks.onset.low} and {marks.onset.high})"
            lines.append(self._beside(low, "".join(span), (between, words, "memorising"), "bold red"))
        lines += [self._pointer(step, g.best, word, "bold") for step, word in marks.extra]
        return lines

    def notes(self, x_name: str) -> list[Text]:
        """Name what the plot cannot show: non-finite values and values cut off."""
        lines = []
        for s, curve in zip(self.series, self.finite, strict=True):
            bad = _bad_steps(s.curve)
            if bad.size:
                where = f"{x_name} {bad[0]}"
                if bad.size > 1:
                    where = f"{bad.size} points, {plural_unit(x_name)} {bad[0]} to {bad[-1]}"
                lines.append(Text(f"{self.glyphs.non_finite} {s.name}: NaN or infinite at {where}", style="red"))
            for word, cut in (("above", curve.values > self.y.high), ("below", curve.values < self.y.low)):
                if bool(cut.any()):
                    at = int(np.argmax(np.where(cut, np.abs(curve.values), -1.0)))
                    points = "1 point" if cut.sum() == 1 else f"{cut.sum()} points"
                    furthest = f"up to {number_text(float(curve.values[at]))} at {x_name} {curve.steps[at]}"
                    lines.append(Text(f"{s.name}: {points} {word} the chart, {furthest}", style=AXIS_STYLE))
        return [line if self.glyphs.braille else Text(plain(line.plain), style=line.style) for line in lines]

    def _pointer(self, step: int, sign: str, words: str, style: str) -> Text:
        return self._beside(self._column(step), sign, (words,), style)

    def _beside(self, column: int, sign: str, words: Sequence[str], style: str) -> Text:
        """Put a sign under its column, and the first words that fit to the right of it or to the left."""
        start = self.margin + column
        for choice in words:
            if start + len(sign) + 1 + cell_len(choice) <= self.width:
                return Text(" " * start).append(sign, style=style).append(f" {choice}")
            if cell_len(choice) + 1 <= start:
                return Text(" " * (start - 1 - cell_len(choice)) + choice + " ").append(sign, style=style)
        return Text(" " * start).append(sign, style=style)

    def _column(self, step: float | np.int64) -> int:
        return self.canvas.column_of(float(self.x.share(np.array([step], dtype=np.float64))[0]))


def _step_scale(curves: Sequence[Curve]) -> Scale:
    """Return the axis of steps: from 0 unless the curves begin late."""
    first = min(int(curve.steps[0]) for curve in curves if len(curve))
    last = max(int(curve.steps[-1]) for curve in curves if len(curve))
    low = 0 if 0 <= first <= last / 2 else first
    return Scale(float(low), float(last if last > low else low + 1))


def _apart(ticks: list[float], scale: Scale, height: int) -> list[float]:
    """Leave out ticks that would stand within two lines of the one above."""
    kept: list[float] = []
    free_from = 0.0
    for tick, share in zip(ticks, scale.share(np.array(ticks)).tolist(), strict=True):
        if not kept or share >= free_from:
            kept.append(tick)
            free_from = share + 2.0 / max(1, height - 1)
    return kept


def _at(y: Scale, series: Series) -> float:
    return float(y.share(series.curve.finite().values[-1:])[0])


def _bad_steps(curve: Curve) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return curve.steps[~np.isfinite(curve.values)]


def _place(labels: list[tuple[int, str, str]], height: int) -> dict[int, tuple[str, str]]:
    """Give each label a row of its own, as near to its curve as can be."""
    placed: dict[int, tuple[str, str]] = {}
    for row, text, style in sorted(labels):
        free = [r for r in range(height) if r not in placed]
        if free:
            placed[min(free, key=lambda r: (abs(r - row), r < row))] = (text, style)
    return placed
