"""Values as the Trainer's fields want them: the annotation decides, and a value of another type is refused."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from sightline.errors import RecipeError
from sightline.training.recipe.trainer_fields import TrainerField
from sightline.training.recipe.yaml_source import Setting

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
_MISSING = object()


def coerce(setting: Setting, field: TrainerField) -> Any:
    """Return the value of a setting in the type of the Trainer's field.

    Raises
    ------
    RecipeError
        Naming where the setting stands, the key, the value and what was expected.
    """
    members = [part.strip() for part in _split_union(field.annotation)]
    value = setting.value
    if field.choices and not isinstance(value, list):
        return _choice(setting, field)
    for member in sorted(members, key=_most_specific_first):
        converted = _convert(value, member)
        if converted is not _MISSING:
            return converted
    raise RecipeError(f"{setting.where}: {setting.key}: {value!r} is not {_in_words(members)}")


def _choice(setting: Setting, field: TrainerField) -> str:
    """One of a fixed set of words; YAML 1.1 habits such as ``off`` for ``no`` are not guessed."""
    value = "no" if setting.value is False and "no" in field.choices else setting.value
    word = str(value).lower() if not isinstance(value, bool) else str(value)
    for choice in field.choices:
        if word == choice.lower():
            return choice
    near = difflib.get_close_matches(word, field.choices, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise RecipeError(
        f"{setting.where}: {setting.key}: {setting.value!r} is not one of {', '.join(field.choices)}{meant}"
    )


def _split_union(annotation: str) -> list[str]:
    """Members of ``A | B[C | D] | None``, brackets respected; ``Optional`` and ``Union`` of older releases too."""
    text = re.sub(r"^(?:typing\.)?Optional\[(.*)\]$", r"\1 | None", annotation)
    if match := re.match(r"^(?:typing\.)?Union\[(.*)\]$", text):
        text = re.sub(r",\s*(?![^\[]*\])", " | ", match.group(1))
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "|" and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def _most_specific_first(member: str) -> int:
    """Text takes anything, so it is tried last."""
    order = ("bool", "int", "float", "list", "dict", "Literal")
    return next((i for i, name in enumerate(order) if member.startswith(name)), len(order) + (member == "str"))


def _convert(value: Any, member: str) -> Any:
    """Return the value as one member of a union, or ``_MISSING``."""
    if member == "bool":
        return _as_bool(value)
    if member == "int":
        return _as_int(value)
    if member == "float":
        return _as_float(value)
    if member.startswith(("list", "tuple", "set")):
        return list(value) if isinstance(value, list | tuple) else _MISSING
    if member.startswith(("dict", "Mapping")):
        return _as_dict(value)
    if member == "str":
        return _MISSING if isinstance(value, bool | list | dict) else str(value)
    if member == "Any":
        return value
    return _MISSING


def _as_bool(value: Any) -> Any:
    """Return true or false, also as the words people write."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    return _MISSING


def _as_float(value: Any) -> Any:
    """Return a finite number; text such as ``2e-4`` counts."""
    if isinstance(value, bool):
        return _MISSING
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return _MISSING
    return number if math.isfinite(number) else _MISSING


def _as_int(value: Any) -> Any:
    """Return a whole number; 1e3 counts."""
    number = _as_float(value)
    if number is _MISSING or number != int(number):
        return _MISSING
    return int(value) if isinstance(value, int) else int(number)


def _as_dict(value: Any) -> Any:
    """Return a mapping, or the JSON text of one."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = json.loads(value)
        except ValueError:
            return _MISSING
        return parsed if isinstance(parsed, dict) else _MISSING
    return _MISSING


def _in_words(members: list[str]) -> str:
    """Return what was expected, for a person."""
    words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
    known = [
        words.get(m, "a list" if m.startswith("list") else "a mapping" if m.startswith("dict") else "") for m in members
    ]
    return " or ".join(dict.fromkeys(word for word in known if word)) or "a value of its type"
