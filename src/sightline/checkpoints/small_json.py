"""JSON beside the weights, read in bounded time and memory whatever it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson

from sightline.errors import CheckpointError, SourceError
from sightline.sources.files import read_whole

MOST_VALUES = 600_000
"""Most commas, brackets and braces of a document: each may cost a hundred bytes once it is parsed."""
CONFIG_BYTES = 16 << 20


def parsed(raw: bytes, where: Path, *, most_values: int = MOST_VALUES) -> Any:
    """Parse a JSON document that may be hostile.

    Parameters
    ----------
    raw : bytes
        The document. Bare ``NaN`` and ``Infinity``, which the Trainer writes, are read.
    where : Path
        Its file, for the message.
    most_values : int
        Most commas, brackets and braces it may have.

    Raises
    ------
    CheckpointError
        If it is no JSON, nested too deeply, or has more values than that.
    """
    values = sum(raw.count(mark) for mark in (b",", b"{", b"["))
    if values > most_values:
        raise CheckpointError(f"{where}: {values} values, more than the {most_values} that are read")
    try:
        return orjson.loads(raw)
    except ValueError as error:
        reason = str(error)
    if not any(word in raw for word in (b"NaN", b"Infinity")):
        raise CheckpointError(f"{where}: no readable JSON ({reason})")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: no readable JSON ({error})") from None


def read_object(path: Path, *, limit: int = CONFIG_BYTES, most_values: int = MOST_VALUES) -> dict[str, Any]:
    """Read a file that holds one JSON object; links are not followed.

    Raises
    ------
    CheckpointError
        If it cannot be read, is larger than ``limit`` bytes, or holds anything else.
    """
    try:
        raw = read_whole(path, limit)
    except SourceError as error:
        raise CheckpointError(str(error)) from None
    value = parsed(raw, path, most_values=most_values)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds {type(value).__name__}, expected an object")
    return value
