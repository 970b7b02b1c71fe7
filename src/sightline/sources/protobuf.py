"""Protocol buffers' wire format, as far as logs need it: the fields of a message, where their bytes lie."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_FIELDS = 1_000_000


def fields(content: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of a message.

    Parameters
    ----------
    content : bytes
        Holds the message from ``start`` to ``end``.

    Yields
    ------
    number, wire_type, value_start, value_end : int
        Of a VARINT the bytes of the number itself, of BYTES those after the length.

    Raises
    ------
    ValueError
        If it is no message.
    """
    position, end = start, len(content) if end is None else end
    met = 0
    while position < end:
        key, position = varint(content, position, end)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            stop = varint(content, position, end)[1]
        elif wire_type == FIXED64:
            stop = position + 8
        elif wire_type == FIXED32:
            stop = position + 4
        elif wire_type == BYTES:
            length, position = varint(content, position, end)
            stop = position + length
        else:
            raise ValueError(f"wire type {wire_type}")
        met += 1
        if stop > end or not number or met > _MAX_FIELDS:
            raise ValueError("a field that is longer than its message")
        yield number, wire_type, position, stop
        position = stop


def varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a variable-length integer and the place after it."""
    value = shift = 0
    while position < end and shift < 70:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("an integer without an end")
