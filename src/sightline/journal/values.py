"""Numbers on their way into and out of the journal: what counts as a value, and what JSON makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_STEP_LIMIT = 2**63


class Refused(ValueError):
    """A value that is no number; its text says why."""


def metric_value(value: Any) -> float | None:
    """Return a metric as float64.

    Parameters
    ----------
    value : object
        A float, an int, a bool (0.0 or 1.0), a NumPy scalar, a tensor or array of one element (anything with
        ``item()``), or another object with ``__float__``. NaN and infinities are values.

    Returns
    -------
    float or None
        None for None, which means that there is no value.

    Raises
    ------
    Refused
        For text, complex numbers, containers, arrays of several elements and integers past the range of float64.
    """
    if value is None:
        return None
    if isinstance(value, str | bytes):
        raise Refused("text is no number")
    try:
        if not isinstance(value, int | float) and hasattr(value, "item"):
            value = value.item()
        if isinstance(value, str | bytes | complex):
            raise Refused(f"{type(value).__name__} is no number")
        return float(value)
    except Refused:
        raise
    except OverflowError:
        raise Refused("an integer past the range of float64") from None
    except Exception as error:
        raise Refused(f"{type(value).__name__} is no single number ({type(error).__name__})") from None


def step_value(step: Any) -> int:
    """Return a step as int; NumPy integers, 0-d tensors and whole floats are taken.

    Raises
    ------
    Refused
        For anything that is not one whole number of 64 bits.
    """
    if type(step) is not int:
        number = metric_value(step)
        if number is None or not number.is_integer():
            raise Refused(f"{step!r:.80} is no whole step")
        step = int(step) if isinstance(step, int) else int(number)
    if not -_STEP_LIMIT <= step < _STEP_LIMIT:
        raise Refused("a step must fit into 64 bits")
    return int(step)


def to_json_number(value: float | None) -> float | str | None:
    """Return a number as strict JSON can carry it: NaN and infinities as strings."""
    if value is None or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def from_json_number(value: object) -> float:
    """Return the float that ``to_json_number`` wrote.

    Raises
    ------
    ValueError
        If it is neither a number nor one of "NaN", "Infinity", "-Infinity".
    """
    if isinstance(value, float | int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    raise ValueError(f"{value!r:.80} is no number")


def optional_number(value: object) -> float | None:
    """Return None for None, else as ``from_json_number``."""
    return None if value is None else from_json_number(value)


def whole_number(value: object) -> int:
    """Return an int of 64 bits as the journal holds it.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if type(value) is not int or not -_STEP_LIMIT <= value < _STEP_LIMIT:
        raise ValueError(f"{value!r:.80} is no whole number of 64 bits")
    return value


def optional_whole_number(value: object) -> int | None:
    """Return None for None, else as ``whole_number``."""
    return None if value is None else whole_number(value)


def text(value: object) -> str:
    """Return a str as the journal holds it.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is no text")
    return value


def optional_text(value: object) -> str | None:
    """Return None for None, else as ``text``."""
    return None if value is None else text(value)


def mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.80} is no object")
    return value
