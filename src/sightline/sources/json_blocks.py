"""A long list of objects inside a JSON object, parsed some of them at a time.

What is parsed together stays in the processor's cache until its numbers are taken out, and a tree of the whole file is
never in memory. Where a piece is cut wrongly (in a string, in a nested list) it is no valid JSON, so whatever parses
was cut between two objects of the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sightline.sources.json_text import parse

_BLOCK_BYTES = 1 << 17
_BETWEEN = re.compile(rb"\},\s{0,64}(?=\{)")
_STAND_IN = "the list that stood here"
_ENDS_TRIED = 4
_LONGEST_REST = 1 << 20


def parse_apart(content: bytes, key: str) -> tuple[dict[str, Any], Iterator[list[Any]]]:
    """Return an object and, apart from it, the items of the list under one of its keys.

    Parameters
    ----------
    content : bytes
        JSON in UTF-8.
    key : str
        Key of the object itself; the list under it holds objects.

    Returns
    -------
    fields : dict
        The object with an empty list in that place.
    blocks : iterator of list
        The items in order. It raises ValueError where the text cannot be taken apart after all.

    Raises
    ------
    ValueError
        If the text cannot be taken apart: it may still be parsed as a whole.
    """
    opened = re.search(rb'"' + re.escape(key.encode()) + rb'"\s{0,8}:\s{0,8}\[', content)
    if opened is None:
        raise ValueError(f"no list {key}")
    begin, end = opened.end(), len(content)
    for _ in range(_ENDS_TRIED):
        end = content.rfind(b"]", begin, end)
        if end < 0 or len(content) - end > _LONGEST_REST:
            break
        try:
            fields = parse(content[:begin] + b'"' + _STAND_IN.encode() + b'"' + content[end:])
        except ValueError:
            continue
        if type(fields) is dict and fields.get(key) == [_STAND_IN]:
            return {**fields, key: []}, _blocks(content, begin, end)
    raise ValueError(f"no end of the list {key}")


def _blocks(content: bytes, begin: int, end: int) -> Iterator[list[Any]]:
    """Yield the items of a list between two places of a text."""
    while begin < end:
        between = _BETWEEN.search(content, begin + _BLOCK_BYTES, end)
        cut = end if between is None else between.start() + 1
        yield parse(b"[" + content[begin:cut] + b"]")
        begin = end if between is None else between.end()
