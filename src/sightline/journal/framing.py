"""How a record becomes a line of the journal, and how lines are cut out of bytes that may be damaged.

A line is one JSON object, its last key the CRC of all bytes before it:

    {"kind":"log","seq":7,"t":3.2,"step":10,"metrics":{"loss":1.25},"crc":"89abcdef"}
     └──────────────── zlib.crc32 of these bytes, brace included ──┘

so that a reader tells an intact line from a damaged one without knowing what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from typing import Any
from zlib import crc32

import orjson

FOREIGN_LINE_LIMIT = 2**20
"""Bytes after which a line that does not begin as one of ours is skipped unread."""
LINE_LIMIT = 2**26
"""Bytes of the longest line ever written or read."""

_OPENING = b'{"kind":"'
_START = re.compile(rb'\{"kind":"[a-z]{1,32}","seq":\d')
_END = re.compile(rb',"crc":"[0-9a-f]{8}"\}')
_TAIL_BYTES = len(b',"crc":"01234567"}')


class DamagedLine(ValueError):
    """A line that is not what was written; its text says what is wrong with it."""


def encode(payload: Mapping[str, Any]) -> bytes:
    """Return the line of a record, its CRC and newline included.

    Raises
    ------
    TypeError
        If the record holds something JSON cannot carry.
    ValueError
        If the line were longer than LINE_LIMIT.
    """
    body = orjson.dumps(payload)[:-1]
    if len(body) > LINE_LIMIT - 64:
        raise ValueError(f"a line of {len(body):,} bytes is longer than the {LINE_LIMIT:,} a reader takes")
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def decode(line: bytes) -> dict[str, Any]:
    """Return the record of a line without its newline; the key ``crc`` is left in.

    Raises
    ------
    DamagedLine
        If the line is not, byte for byte, what was written.
    """
    if line[-2:] != b'"}' or line[-_TAIL_BYTES:-10] != b',"crc":"':
        raise DamagedLine(_what_is_wrong(line))
    body = line[:-_TAIL_BYTES]
    if b"%08x" % crc32(body) != line[-10:-2]:
        nul_bytes = len(line) - len(line.lstrip(b"\0"))
        where = f"{nul_bytes:,} NUL bytes before it; " if nul_bytes else ""
        raise DamagedLine(f"{where}its CRC does not match its content")
    try:
        payload = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise DamagedLine("not JSON, though its CRC matches") from None
    if not isinstance(payload, dict):
        raise DamagedLine("no JSON object")
    return payload


def salvage(line: bytes) -> list[dict[str, Any]]:
    """Return the intact records inside a damaged line.

    A damaged newline joins two lines, a hole of NUL bytes stands before one: both leave whole records in between.
    """
    starts = [match.start() for match in _START.finditer(line)]
    records = []
    for start, stop in pairwise([*starts, len(line)]):
        # records hold CRCs of their own, so the first one found may not be the last key; bounded for hostile bytes
        for end in islice(_END.finditer(line, start, stop), 16):
            try:
                records.append(decode(line[start : end.end()]))
                break
            except DamagedLine:
                continue
    return records


def _what_is_wrong(line: bytes) -> str:
    """Name the damage of a line that does not end with a CRC."""
    if not line.strip(b"\0"):
        return f"{len(line):,} NUL bytes"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return f"cut short or overwritten, {len(line):,} bytes" if line.startswith(b"{") else "not JSON"
    return "JSON without a CRC: not written by Sightline, or edited"


class LineScanner:
    """Cuts lines out of bytes that arrive in pieces.

    Memory is bounded: a line that does not begin as one of ours is given up at FOREIGN_LINE_LIMIT, any at LINE_LIMIT.
    """

    def __init__(self) -> None:
        self.number = 1
        """Number of the line being gathered, from 1."""
        self.offset = 0
        """Byte at which it begins."""
        self._parts: list[bytes] = []
        self._head = b""
        self._gathered = 0
        self._skipping = False

    @property
    def unfinished(self) -> bytes:
        """Bytes of the last line so far, its newline still missing."""
        return b"".join(self._parts)

    def feed(self, chunk: bytes) -> Iterator[tuple[int, int, bytes | None]]:
        """Yield (line number, byte offset, line without newline) of each line that the chunk completes.

        The line is None where it was too long to be kept.
        """
        pieces = chunk.split(b"\n")
        last = pieces.pop()
        for piece in pieces:
            line: bytes | None = piece
            length = len(piece)
            if self._gathered or length > FOREIGN_LINE_LIMIT:
                self._gather(piece)
                length = self._gathered
                line = None if self._skipping else b"".join(self._parts)
                self._parts, self._head, self._gathered, self._skipping = [], b"", 0, False
            yield self.number, self.offset, line
            self.number += 1
            self.offset += length + 1
        self._gather(last)

    def _gather(self, piece: bytes) -> None:
        """Keep a part of a line, unless the line has grown too long."""
        if not piece:
            return
        self._gathered += len(piece)
        if len(self._head) < len(_OPENING):
            self._head = (self._head + piece[: len(_OPENING)])[: len(_OPENING)]
        if self._gathered > (LINE_LIMIT if self._head == _OPENING else FOREIGN_LINE_LIMIT):
            self._parts, self._skipping = [], True
        if not self._skipping:
            self._parts.append(piece)
