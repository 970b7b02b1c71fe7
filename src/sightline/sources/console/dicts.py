"""Dictionaries as the Trainer prints them, ``{'loss': 1.23, 'epoch': 0.5}``, to numbers by name.

The text is never evaluated. Lines that hold nothing but plain numbers (all of them, in a sound log) are turned into
JSON by replacing quotes and parsed together; of any other line the pairs ``'name': number`` are picked out one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from sightline.runs.names import is_loss
from sightline.sources.json_text import with_stand_ins

Entry = dict[str, Any]

_PYTHON_WORDS = re.compile(rb"(?<=[:,\[] )(?:-?nan|-?inf|None|True|False)(?=[,}\]])")
_AS_JSON = {
    b"nan": b"NaN",
    b"-nan": b"NaN",
    b"inf": b"Infinity",
    b"-inf": b"-Infinity",
    b"None": b"null",
    b"True": b"true",
    b"False": b"false",
}
_WRAPPED = re.compile(
    rb"\b(?:np\.float(?:16|32|64)|np\.int(?:32|64)|tensor|array)\(([-+0-9.einfa]{1,40})[^(){}]{0,60}\)"
)
_PAIR = re.compile(
    rb"'([^'\\\n]{1,120})': {0,2}(?:np\.(?:float|int)[0-9]{2}\(|tensor\()?'?"
    rb"([-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?(?:[eE][-+]?[0-9]{1,5})?|nan|inf))"
)
_QUOTES = bytes.maketrans(b"'", b'"')
_LINES = bytes.maketrans(b"'\n", b'",')
_MANY_DICTS = 8
_SUMMARY = "train_runtime"
_LOSS_KEY, _QUOTED_LOSS = b"loss': ", b"loss': '"
"""ms-swift puts times and shares in quotes, and no number."""


def holds_metrics(line: bytes) -> bool:
    """Return whether a line that shows a dictionary names a loss or an epoch in it."""
    return b"loss'" in line or b"'epoch'" in line


def tells_metrics(names: Sequence[str]) -> bool:
    """Return whether a dictionary with these names is a log entry: it has a loss, or says it is an evaluation."""
    return any(is_loss(name) for name in names) or any(name.startswith("eval_") for name in names) or _SUMMARY in names


def entries_of(texts: Sequence[bytes]) -> tuple[list[Entry], list[int] | None, bool]:
    """Return the entries of many dictionary texts.

    Parameters
    ----------
    texts : sequence of bytes
        Each from its first ``{'`` to its last ``}``, or to the end of the line where none follows.

    Returns
    -------
    entries : list of dict
        Numbers by name; more than one of a text in which several dictionaries stand, none of a broken one.
    origins : list of int or None
        Which text each entry comes from, None if each gives one.
    quoted : bool
        Whether numbers stand in quotes, as the Trainer 5 prints them, rounded to four digits.
    """
    if not texts:
        return [], None, False
    quoted = says_quoted(texts[0])
    text = b",".join(texts).translate(_QUOTES)
    for reword in (bytes, _plainly_reworded, _reworded):
        try:
            entries = orjson.loads(b"[" + reword(text) + b"]")
        except ValueError:
            continue
        if len(entries) == len(texts) and set(map(type, entries)) == {dict}:
            return entries, None, quoted
        break
    entries, origins = [], list[int]()
    for i, single in enumerate(texts):
        found = _one(single)
        entries += found
        origins += [i] * len(found)
    return entries, origins, quoted


def entries_of_block(block: bytes) -> list[Entry] | None:
    """Return the entries of lines that are nothing but a sound dictionary each, None if they are not."""
    try:
        entries = orjson.loads(b"[" + block.rstrip().translate(_LINES) + b"]")
    except ValueError:
        return None
    return entries if len(entries) == block.count(b"\n") and set(map(type, entries)) == {dict} else None


def dicts_from(lines: Sequence[bytes], begin: int) -> int:
    """Return where the lines end that are nothing but one dictionary each."""
    if begin + 1 >= len(lines) or lines[begin + 1][:2] != b"{'":
        return begin
    end = begin
    while end < len(lines) and lines[end][:2] == b"{'":
        end += 1
    if end - begin < _MANY_DICTS:
        return begin
    return end if b"".join(lines[begin:end]).count(b"{'") == end - begin else begin


def says_quoted(text: bytes) -> bool:
    """Return whether dictionaries have their numbers in quotes, as the Trainer 5 prints them."""
    return _QUOTED_LOSS in text or (b"': '" in text and _LOSS_KEY not in text)


def _plainly_reworded(text: bytes) -> bytes:
    """Return a text with Python's words as JSON has them where they are values (or in a string, which is no number)."""
    for word, instead in _AS_JSON.items():
        if word in text:
            text = text.replace(b": " + word, b": " + instead)
    return with_stand_ins(text if b"(" not in text else _WRAPPED.sub(_inside, text))


def _inside(match: re.Match[bytes]) -> bytes:
    return match[1]


def _reworded(text: bytes) -> bytes:
    """Return a text with Python's words, NumPy's and torch's numbers as JSON has them."""
    return with_stand_ins(_WRAPPED.sub(_inside, _PYTHON_WORDS.sub(lambda match: _AS_JSON[match[0]], text)))


def _one(text: bytes) -> list[Entry]:
    """Return the entries of one text, by JSON if it can be, else pair by pair."""
    try:
        entry = orjson.loads(_reworded(text.translate(_QUOTES)))
        if type(entry) is dict:
            return [entry]
    except ValueError:
        pass
    entries = []
    for piece in text.split(b"{'")[1:]:
        whole, closed, _ = piece.partition(b"}")
        if not closed:
            continue  # cut off, or another process wrote into the middle of it
        entry = {name.decode("utf-8", "replace"): value.decode() for name, value in _PAIR.findall(b"'" + whole)}
        if entry:
            entries.append(entry)
    return entries
