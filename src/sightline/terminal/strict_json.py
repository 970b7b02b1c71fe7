"""JSON that every parser reads: no bare NaN, no lone surrogates, whatever a log brought along."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(value: Any, *, encoding: str | None = "utf-8", indent: int | None = None) -> str:
    """Return a value as strict JSON.

    Parameters
    ----------
    value : object
        Mappings, sequences, numbers (NumPy's too), text, None; anything else becomes its ``str()``.
    encoding : str, optional
        Encoding of the output; other than UTF-8 everything beyond ASCII is escaped.
    indent : int, optional
        Blanks a level is indented by; one line unless given.

    Returns
    -------
    str
        Non-finite numbers are the strings "NaN", "Infinity" and "-Infinity".
    """
    escape = (encoding or "").lower().replace("-", "").replace("_", "") != "utf8"
    return json.dumps(_strict(value), ensure_ascii=escape, allow_nan=False, indent=indent)


def _strict(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _NON_FINITE[str(float(value))]
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_strict(str(key)): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_strict(item) for item in value]
    item = getattr(value, "item", None)  # a NumPy scalar
    return _strict(item()) if callable(item) else _strict(str(value))


_NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
