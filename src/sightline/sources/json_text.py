"""JSON as training programs write it: bare NaN and Infinity, numbers past float64, a mark at the start, odd bytes."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from sightline.errors import MalformedLog
from sightline.sources.files import as_utf8

NAN, INFINITY = 1.7976931348623e308, 1.7976931348622e308
"""What stands for NaN and infinity in parsed values: no strict parser reads the bare words that Python writes."""
_WORDS = {
    b"NaN": repr(NAN).encode(),
    b"Infinity": repr(INFINITY).encode(),
    b"-Infinity": repr(-INFINITY).encode(),
}
# In a text that parses nowhere else, only what cannot be JSON is replaced. Every quantifier below is bounded or
# anchored at the start of a number, so that the search stays linear.
_BARE_WORD = re.compile(rb"(?<=[:\[,\s])-?(?:NaN|Infinity)(?=\s{0,8}[,\]}\r\n])")
_MOST_NESTED = 20
"""Objects inside the one that was cut: so often the end is looked for one object earlier."""
_LARGE = re.compile(
    rb"(?<![0-9.eE+-])-?(?:[0-9]{309,}(?:\.[0-9]{0,400})?|[0-9]{1,40}(?:\.[0-9]{0,40})?[eE]\+?[0-9]{3,9})(?![0-9.eE])"
)
_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u....)\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking a growing tree of parsed values again and again: it has no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def parse(content: bytes) -> Any:
    """Return the value of a JSON text; NaN and infinities come back as NAN and INFINITY (``numbers`` undoes it).

    Raises
    ------
    ValueError
        If it is no JSON, in orjson's words.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return orjson.loads(with_stand_ins(content))
    except orjson.JSONDecodeError:
        return orjson.loads(_repaired(content))


def with_stand_ins(content: bytes) -> bytes:
    """Return a text with NAN and INFINITY for the bare words, where json.dumps sets them."""
    for word, number in _WORDS.items():
        if word in content:  # looking is three times as fast as replacing nothing
            content = content.replace(b": " + word, b": " + number)
    return content


def parse_file(path: Path, content: bytes) -> Any:
    """Return the value of a JSON file, named in the error if it is none."""
    try:
        return parse(content)
    except ValueError as error:
        raise MalformedLog(f"{path}: no valid JSON ({error}); was the file cut short?") from None


def parse_start(content: bytes, closing: bytes) -> Any:
    """Return what a JSON text that was cut or damaged tells up to there: it is ended after a whole object.

    Parameters
    ----------
    content : bytes
    closing : bytes
        What closes the containers around that object.

    Raises
    ------
    ValueError
        If it cannot be ended so.
    """
    text = _repaired(content)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        end = len(error.doc[: error.pos].encode())
    for _ in range(_MOST_NESTED):
        end = text.rfind(b"}", 0, end)
        if end < 0:
            break
        try:
            return orjson.loads(text[: end + 1] + closing)
        except orjson.JSONDecodeError:
            continue
    raise ValueError("no whole object before the place where it breaks off")


def _repaired(content: bytes) -> bytes:
    """Return a text in valid UTF-8 with words and numbers that no parser takes replaced by their stand-ins."""
    text = as_utf8(content).decode("utf-8", "replace").encode()
    text = _LARGE.sub(_within_float64, text)
    text = _BARE_WORD.sub(lambda match: _WORDS.get(match[0], _WORDS[b"NaN"]), text)
    return _LONE_SURROGATE.sub(rb"\\ufffd", text)


def _within_float64(match: re.Match[bytes]) -> bytes:
    value = float(match[0])
    return match[0] if math.isfinite(value) else _WORDS[b"Infinity" if value > 0 else b"-Infinity"]
