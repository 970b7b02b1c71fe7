"""Properties of the chart: it never fails, keeps its width and puts marks where they belong."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from sightline.runs import Curve, Onset
from sightline.terminal.canvas import Canvas
from sightline.terminal.chart import EVAL_STYLE, TRAIN_STYLE, Marks, Series, draw_chart, losses
from sightline.terminal.scales import Scale, linear_ticks, tick_labels, value_scale
from sightline.terminal.text import ASCII, UNICODE

pytestmark = pytest.mark.filterwarnings("error")

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
STEPS = st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=40, unique=True)


@st.composite
def any_curve(draw):
    steps = draw(STEPS)
    return Curve.of(steps, draw(st.lists(ANY_FLOAT, min_size=len(steps), max_size=len(steps))))


@settings(max_examples=300)
@given(any_curve(), any_curve(), st.integers(1, 160), st.integers(1, 30), st.sampled_from([UNICODE, ASCII]), st.data())
def test_any_curve_is_drawn_within_its_width(train, evals, width, height, glyphs, data):
    """Whatever the numbers, there is a chart, and no line of it is wider than asked."""
    best = data.draw(st.sampled_from(evals.steps.tolist()))
    low, high = sorted(data.draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9))))
    marks = Marks(best, Onset(best, low, high))
    lines = draw_chart(losses(train, evals), width=width, height=height, marks=marks, glyphs=glyphs)
    assert lines and all(cell_len(line.plain) <= max(width, 40) for line in lines)


@settings(max_examples=60)
@given(st.integers(5, 60), st.integers(40, 150), st.integers(3, 24), st.sampled_from([UNICODE, ASCII]))
def test_best_mark_stands_under_the_best_step(n, width, height, glyphs):
    """The sign under the axis stands in the column of the lowest point's dots."""
    steps = np.arange(1, n + 1) * 10
    at = n // 2
    values = 1.0 + np.abs(np.arange(n) - at)
    lines = draw_chart(
        losses(None, Curve.of(steps, values)), width=width, height=height, marks=Marks(int(steps[at])), glyphs=glyphs
    )
    mark = next(line.plain for line in lines if "best" in line.plain)
    lowest = max(
        i for i, line in enumerate(lines) if set(line.plain) & _ink(glyphs) and i > 0 and _is_plot(line, glyphs)
    )
    assert lines[lowest].plain[mark.index(glyphs.best)] in _ink(glyphs)


def _is_plot(line, glyphs) -> bool:
    return glyphs.axis in line.plain or glyphs.tick in line.plain[:14]


def _ink(glyphs) -> set[str]:
    return {chr(0x2800 + i) for i in range(1, 256)} if glyphs.braille else {"o"}


def test_every_value_lies_within_the_span_drawn_in_its_column():
    """Thinning keeps the smallest and the largest value of every column."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.random(5000))
    y = rng.random(5000)
    canvas = Canvas(40, 10, braille=True)
    dots = canvas.polyline(x, y)
    column = np.rint(x * (canvas.dots_wide - 1)).astype(int)
    row = np.rint((1 - y) * (canvas.dots_high - 1)).astype(int)
    assert dots[row, column].all()


def test_a_single_spike_among_a_million_points_is_drawn():
    """One high value in a million is not thinned away."""
    y = np.zeros(1_000_000)
    y[543_210] = 1.0
    dots = Canvas(50, 10, braille=True).polyline(np.linspace(0, 1, y.size), y)
    assert dots[0].sum() == 1 and dots[0].argmax() == round(0.54321 * 99)


def test_a_line_has_no_holes():
    """Neighbouring columns of a polyline touch each other."""
    dots = Canvas(30, 12, braille=True).polyline(np.array([0.0, 0.4, 0.5, 1.0]), np.array([0.0, 1.0, 0.1, 0.9]))
    rows = [set(np.flatnonzero(column)) for column in dots.T]
    assert all(rows)
    assert all(min(abs(a - b) for a in left for b in right) <= 1 for left, right in pairwise(rows))


def test_two_curves_can_be_told_apart_without_colour():
    """Training and validation differ in the signs themselves."""
    curve = Curve.of([0, 100], [1.0, 1.0])
    thin = draw_chart([Series("a", curve)], height=5)
    thick = draw_chart([Series("a", curve, thick=True)], height=5)
    assert [line.plain for line in thin] != [line.plain for line in thick]
    ascii_lines = draw_chart(losses(Curve.of([0, 9], [1, 1]), Curve.of([0, 9], [2, 2])), glyphs=ASCII)
    text = "\n".join(line.plain for line in ascii_lines)
    assert "ooo" in text and "..." in text


def test_non_finite_points_are_marked_and_counted():
    """NaN and infinities have a sign in their columns and a sentence with their steps."""
    lines = draw_chart(losses(Curve.of([0, 10, 20, 30], [1.0, math.nan, math.inf, 2.0]), None), width=80)
    assert lines[1].plain.count("×") == 2
    assert "× training: NaN or infinite at 2 points, steps 10 to 20" in lines[-1].plain


def test_nothing_finite_is_said():
    """A curve of NaN alone gives a sentence, not an axis."""
    assert [line.plain for line in draw_chart(losses(Curve.of([1], [math.nan]), None))] == ["no finite value to draw"]


def test_onset_interval_is_drawn_over_its_steps():
    """The bracket begins and ends under the interval's steps."""
    curve = Curve.of(np.arange(0, 1001, 10), np.linspace(1, 2, 101))
    lines = draw_chart(losses(None, curve), width=100, marks=Marks(None, Onset(500, 400, 700)))
    bracket = next(line.plain for line in lines if "memorising" in line.plain)
    axis = next(line.plain for line in lines if "└" in line.plain)
    left, right = axis.index("└") + 1, len(axis) - 1
    share = [(bracket.index(sign) - left) / (right - left) for sign in "├◆┤"]
    assert share == pytest.approx([0.4, 0.5, 0.7], abs=0.02)


@pytest.mark.parametrize(
    ("values", "log"),
    [
        (np.linspace(1, 3, 50), False),
        (np.concatenate([[11.0, 6.0, 4.0, 3.0], np.linspace(2.0, 0.9, 80)]), True),
        (np.concatenate([[11.0, 6.0], np.linspace(1.2, 0.9, 80)]), False),
        (np.concatenate([[11.0, 6.0], np.linspace(0.2, -0.1, 80)]), False),
        (np.geomspace(10, 1e-4, 50), True),
    ],
)
def test_log_scale_only_where_it_shows_more(values, log):
    """Logarithmic when a few large values would press the rest into a strip, and never below zero."""
    assert value_scale([values]).log is log


def test_an_outlier_does_not_flatten_the_rest():
    """A point far off is cut and named; the bulk keeps its height."""
    values = np.linspace(1.0, 2.0, 100)
    values[50] = 1e9
    scale = value_scale([values])
    assert scale.high <= 3.0
    lines = draw_chart(losses(Curve.of(np.arange(100), values), None), width=80)
    assert "1 point above the chart, up to 1.000e+09 at step 50" in lines[-1].plain


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12), st.integers(2, 12))
def test_linear_ticks_are_few_round_and_inside(low, span, most):
    """Never more than asked, all on the axis, evenly spaced."""
    high = low + span
    ticks = linear_ticks(low, high, most)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert 1 <= len(ticks) <= most
    assert all(low - slack <= tick <= high + slack for tick in ticks) or len(ticks) == 1


@given(st.floats(1e-300, 1e300), st.floats(1.5, 1e12), st.integers(2, 8))
def test_log_ticks_are_few_and_inside(low, factor, most):
    """Also across hundreds of decades."""
    high = min(low * factor, 1e305)
    ticks = Scale(low, high, log=True).ticks(most)
    assert len(ticks) <= most and all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in ticks)


def test_tick_labels_tell_ticks_apart():
    """Labels are exact, and have as many decimals as each other on a linear axis."""
    assert tick_labels([0.0, 0.5, 1.0]) == ["0.0", "0.5", "1.0"]
    assert tick_labels([0.01, 0.1, 1.0], log=True) == ["0.01", "0.1", "1"]
    assert tick_labels([1.225, 1.23, 1.235]) == ["1.225", "1.230", "1.235"]


@pytest.mark.parametrize("width", [40, 47, 64, 100])
def test_step_labels_are_whole(width):
    """No label of the step axis is cut off, the last one included."""
    lines = draw_chart(losses(None, Curve.of([0, 1500], [1.0, 2.0])), width=width)
    labels = [int(label) for label in lines[-1].plain.split() if label != "step"]
    assert len(labels) >= 2
    assert np.unique(np.diff(labels)).size == 1


def test_curves_have_their_own_colours():
    """The axis is dim, the curves are not: their colours are the series' own."""
    lines = draw_chart(losses(Curve.of([0, 9], [1, 1]), Curve.of([0, 9], [2, 2])), width=60)
    assert not any(line.style for line in lines[: lines.index(next(x for x in lines if "└" in x.plain))])
    drawn = {
        str(span.style)
        for line in lines
        for span in line.spans
        if _ink(UNICODE) & set(line.plain[span.start : span.end])
    }
    assert drawn == {TRAIN_STYLE, EVAL_STYLE}
