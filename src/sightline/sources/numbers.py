"""Numbers as logs write them, to float64 and int64, by rules rather than by whatever ``float()`` accepts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from sightline.sources.json_text import INFINITY, NAN

MAX_STEP = 2**53
"""Largest step taken for one: beyond it float64 no longer counts."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,5})?", re.ASCII)
_SHORT = 40
_NUMBERS = frozenset({float, int})
_NO_NUMBER = ("u", "l", '"', "[", "{")
"""What everything in JSON that is no number has one of: true, false, null, texts, lists, objects."""
_WORDS = {
    "nan": math.nan,
    "inf": math.inf,
    "+inf": math.inf,
    "-inf": -math.inf,
    "infinity": math.inf,
    "+infinity": math.inf,
    "-infinity": -math.inf,
}


def as_float(value: Any) -> float | None:
    """Return a logged value as float, None if it is no number.

    Numbers, numbers in a string, and the words nan, inf and infinity in any case count; booleans, text, digits of other
    scripts and ``1_000`` do not.
    """
    kind = type(value)
    if kind is float:
        return _restored(value)
    if kind is int:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if kind is str and len(value) <= 64:
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        return _WORDS.get(text.lower())
    return None


def as_step(value: Any) -> int | None:
    """Return a logged step as int, None if it is no whole number from 0 to 2**53."""
    number = as_float(value)
    if number is None or not 0 <= number <= MAX_STEP or number != int(number):
        return None
    return int(number)


def as_array(
    values: Sequence[Any], kinds: Set[type] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Return many logged values, whose types may be given, as float64 and which of them are numbers (None: all)."""
    kinds = set(map(type, values)) if kinds is None else kinds
    if kinds <= _NUMBERS:
        return _restored_array(values), None
    if kinds == {str} and (plain := _plain_texts(values)) is not None:
        return plain, None
    each = [as_float(value) for value in values]
    valid = np.array([value is not None for value in each], dtype=np.bool_)
    return np.array([math.nan if value is None else value for value in each], dtype=np.float64), valid


def as_floats(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return logged values as float64 if each is a plain number, or each is one in a string; else None."""
    if type(next(iter(values), None)) is str:
        return _plain_texts(values)
    return _restored_array(values) if set(map(type, values)) <= _NUMBERS else None


def _restored_array(values: Sequence[float]) -> NDArray[np.float64]:
    """Return parsed numbers with NaN and infinities where their stand-ins are."""
    numbers = np.array(values, dtype=np.float64)
    if numbers.size and (numbers.max() >= INFINITY or numbers.min() <= -INFINITY):
        numbers[numbers == NAN] = np.nan
        numbers[numbers == INFINITY] = np.inf
        numbers[numbers == -INFINITY] = -np.inf
    return numbers


def _plain_texts(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return texts as numbers if each is a number as JSON has it, nan or inf; None if it takes a closer look."""
    try:
        joined = ",".join(values)
    except TypeError:  # not all of them are texts
        return None
    if any(sign in joined for sign in _NO_NUMBER):
        return None
    # JSON's -0 is an integer, without a sign.
    if len(joined) > _SHORT * len(values) or "-0," in joined or joined.endswith("-0") or "-nan" in joined:
        return None
    if "n" in joined:
        joined = joined.replace("nan", repr(NAN)).replace("inf", repr(INFINITY))
    try:
        numbers = orjson.loads(f"[{joined}]")
    except ValueError:
        return None
    return _restored_array(numbers) if len(numbers) == len(values) else None


def _restored(value: float) -> float:
    if abs(value) < INFINITY:
        return value
    return math.nan if value == NAN else math.copysign(math.inf, value) if abs(value) == INFINITY else value
