"""A long list in a JSON object, parsed some of its items at a time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sightline.sources import json_blocks
from sightline.sources.json_blocks import parse_apart


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after a few bytes already."""
    monkeypatch.setattr(json_blocks, "_BLOCK_BYTES", 10)


def joined(text: str) -> tuple[dict[str, Any], list[Any]]:
    """Return an object and the items of its list."""
    fields, blocks = parse_apart(text.encode(), "log")
    return fields, [item for block in blocks for item in block]


ITEMS = [{"loss": 1.5, "text": "}, {", "step": i} for i in range(20)]


@pytest.mark.parametrize("indent", [None, 0, 2, 4])
@pytest.mark.parametrize("rest", [{}, {"a": [{"b": 1}], "z": 1}, {"z": "]}"}, {"z": {"log": [1]}}], ids=str)
def test_parts_are_the_whole(indent: int | None, rest: dict[str, Any]) -> None:
    """Or the text is refused, where a string or a nested list looks like an end: then it is parsed as a whole."""
    whole = {"log": [{"loss": i, "step": i} for i in range(20)], **rest}
    try:
        fields, items = joined(json.dumps(whole, indent=indent))
    except ValueError:
        assert rest
    else:
        assert {**fields, "log": items} == whole


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "items", [ITEMS, [{"a": [{"b": 1}, {"b": 2}], "c": i} for i in range(9)]], ids=["text", "nested"]
)
def test_no_cut_inside_of_an_item(items: list[Any], indent: int | None) -> None:
    """What looks like the end of an item in a string or a list of its own never gives other items."""
    try:
        _, found = joined(json.dumps({"log": items}, indent=indent))
    except ValueError:
        return
    assert found == items


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"a": 1}',
        '{"log": 1}',
        '{"log": [{"a": 1}, {"b"',
        '{"log": [{"a": 1}], "log": [{"b": 1}]}',
        '{"c": {"log": [{"a": 1}]}, "log": []}',
    ],
)
def test_what_is_no_such_object_is_refused(text: str) -> None:
    """A list elsewhere, two of them, one cut short, none: it is for a parse of the whole to say what they are."""
    with pytest.raises(ValueError, match=r"\w"):
        joined(text)


def test_short_lists() -> None:
    """A list of one item, and an empty one, and one that a text speaks of before it."""
    assert joined('{"c": "\\"log\\": [", "log": [{"a": 1}]}')[1] == [{"a": 1}]
    assert joined('{"log": [ {"a": NaN} ], "b": 1}')[1] == [{"a": 1.7976931348623e308}]
    assert joined('{"b": 1, "log": []}') == ({"b": 1, "log": []}, [])
