"""Escaping, wrapping, numbers and strict JSON."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from sightline.terminal.layout import columns, fit, for_terminal, wrap
from sightline.terminal.strict_json import strict_json
from sightline.terminal.text import ASCII, UNICODE, glyphs_for, number_text, plain, printable

ANY_TEXT = st.text(st.characters(), max_size=80)  # surrogates and control characters too
FORBIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(ANY_TEXT, st.one_of(st.none(), st.integers(0, 30)))
def test_printable_text_has_no_character_that_steers(text, limit):
    """Control, format and surrogate characters become escapes, and the limit holds."""
    shown = printable(text, limit)
    assert not {c for c in shown if unicodedata.category(c) in FORBIDDEN}
    assert limit is None or len(shown) <= limit


def test_plain_words_stay_as_they_are():
    """Letters of any script are no danger."""
    assert printable("Änderung 学習 [bold] 50 %") == "Änderung 学習 [bold] 50 %"


@given(ANY_TEXT.map(printable), st.integers(10, 60), st.sampled_from(["", "→ ", "    • "]))
def test_wrapped_lines_keep_the_width_and_every_word(text, width, first):
    """Nothing is wider than asked, nothing is lost, wide characters count twice."""
    lines = wrap(text, width, first=first)
    assert all(cell_len(line.plain) <= max(width, cell_len(first) + 8) for line in lines)
    kept = "".join(line.plain[len(first) :] for line in lines)
    assert kept.replace(" ", "") == "".join(text.split())


@given(ANY_TEXT.map(printable), st.integers(1, 40))
def test_fit_keeps_the_width(text, width):
    """Also for characters that take two cells."""
    assert cell_len(fit(text, width)) <= width


def test_columns_give_way_only_where_they_may():
    """Numbers are shown whole, the flexible column is shortened."""
    lines = columns([[("a" * 50, ""), ("123.4", "")], [("b", ""), ("5", "")]], "lr", flexible=0, width=30)
    assert [cell_len(line.plain) for line in lines] == [30, 30]
    assert lines[0].plain.endswith("123.4") and lines[1].plain.endswith("    5")
    assert columns([], "lr") == []


def test_ascii_keeps_the_styles():
    """Writing a line out in ASCII moves its styles along."""
    line = Text("→ ").append("…x", style="bold").append(" Ä")
    (shown,) = for_terminal([line], ASCII)
    assert shown.plain == "-> ...x \\xc4"
    assert [(shown.plain[s.start : s.end], s.style) for s in shown.spans] == [("...x", "bold")]


@pytest.mark.parametrize(
    ("encoding", "glyphs"),
    [("utf-8", UNICODE), ("UTF8", UNICODE), ("latin-1", ASCII), ("ascii", ASCII), (None, ASCII), ("no such", ASCII)],
)
def test_glyphs_follow_the_encoding(encoding, glyphs):
    """Braille only where it can be written."""
    assert glyphs_for(encoding) is glyphs


def test_every_sign_has_an_ascii_form():
    """No sign of the pages is left when written out."""
    signs = "".join(v for v in (getattr(UNICODE, n) for n in UNICODE.__slots__) if isinstance(v, str))
    said = "–—−…×·→≤≥±≈’‘“”"
    assert plain(said).isascii()
    assert all(v.isascii() for v in (getattr(ASCII, n) for n in ASCII.__slots__) if isinstance(v, str))
    assert not signs.isascii()


@given(st.floats())
def test_numbers_read_back(value):
    """Four significant digits of any float, NaN and infinities included."""
    text = number_text(value)
    assert len(text) <= 12
    assert np.isclose(float(text), value, rtol=1e-3, equal_nan=True) or abs(value) > 1e307


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.floats().map(np.float64)
    | st.just(np.int64(3)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES, st.sampled_from(["utf-8", "ascii", None]))
def test_json_is_strict(value, encoding):
    """Every value gives JSON that a strict parser takes and the encoding carries."""
    text = strict_json(value, encoding=encoding)
    text.encode("utf-8" if encoding == "utf-8" else "ascii")
    json.loads(text, parse_constant=_refuse)


def test_json_says_what_is_not_finite():
    """As strings, for JSON has no words for them."""
    values = {"a": float("nan"), "b": [np.float32("inf")], "c": float("-inf"), "d": np.int64(3), "e": True}
    assert json.loads(strict_json(values)) == {"a": "NaN", "b": ["Infinity"], "c": "-Infinity", "d": 3, "e": True}


def _refuse(word):
    raise AssertionError(f"bare {word} in the JSON")
