"""A captured terminal: the Trainer's printed dictionaries, and the lines in which other programs say their losses.

``dicts`` reads the Trainer's dictionaries, ``lines`` everything said in words, ``parser`` goes through the text, and
``runs`` finds out which steps the numbers belong to, where one run ends and another begins.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.errors import MalformedLog
from sightline.runs import Run
from sightline.sources.files import chunks, encoding_of, head, is_folder
from sightline.sources.json_text import parse

if TYPE_CHECKING:
    from sightline.sources.console.parser import Parser

__all__ = ["NAME", "Parser", "read", "read_all", "recognises"]

NAME = "console"
_SEARCHED_BYTES = 16 << 20
"""How far into a text the first loss is looked for: downloads and tokenisation may fill the beginning."""
_ENOUGH_ROWS = 2
_PIECE_BYTES = 1 << 19
"""Bytes read at once: what is made of them stays in the processor's cache."""


def recognises(path: Path) -> bool:
    """Return whether a text file says losses: reads on past the beginning only while no loss is named in it."""
    if is_folder(path):
        return False
    start = head(path)
    if not start.strip() or not _is_text(start) or _is_json(start):
        return False
    from sightline.sources.console.parser import Parser

    parser = Parser(path)
    parser.feed(start)
    parser.end()
    if parser.rows:
        return parser.rows >= _ENOUGH_ROWS or parser.sure
    parser = Parser(path)
    read_bytes = 0
    for piece in chunks(path, _PIECE_BYTES):
        parser.feed(piece)
        read_bytes += len(piece)
        if parser.rows >= _ENOUGH_ROWS or parser.sure:
            return True
        if read_bytes >= _SEARCHED_BYTES:
            break
    parser.end()
    return parser.rows >= _ENOUGH_ROWS or parser.sure


def read_all(path: Path) -> tuple[Run, ...]:
    """Read every run in a captured terminal.

    Raises
    ------
    MalformedLog
        If no line of it says a loss.
    """
    from sightline.sources.console.parser import Parser

    parser = Parser(path)
    for piece in chunks(path, _PIECE_BYTES):
        parser.feed(piece)
    parser.end()
    runs = parser.runs()
    if not runs:
        raise MalformedLog(f"{path}: no line that says a loss")
    return runs


def read(path: Path) -> Run:
    """Read the longest run in a captured terminal."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))


def _is_text(start: bytes) -> bool:
    if encoding_of(start) != ("utf-8", 0):
        return True
    controls = sum(start.count(bytes([code])) for code in (*range(1, 7), *range(14, 27)))
    return start.count(0) <= len(start) // 20 and controls <= len(start) // 20


def _is_json(start: bytes) -> bool:
    """Return whether the first line is a JSON value of some other format (asciinema's header is its own)."""
    line = start.lstrip().split(b"\n", 1)[0]
    if line[:1] not in (b"{", b"["):
        return False
    try:
        value = parse(line)
    except ValueError:
        return False
    return not (type(value) is dict and "version" in value and ("width" in value or "term" in value))


def __getattr__(name: str) -> Any:
    """Import the parser when it is first asked for: its expressions take a while to compile."""
    if name == "Parser":
        from sightline.sources.console.parser import Parser

        return Parser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
