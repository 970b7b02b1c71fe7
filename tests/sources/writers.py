"""Writes logs as their producers do, so that tests may damage, cut and grow them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from sightline.sources.crc32c import masked_crc32c

Points = Mapping[str, Iterable[tuple[int, float]]]


def varint(number: int) -> bytes:
    """Return a number as protocol buffers write it."""
    parts = []
    while True:
        low, number = number & 0x7F, number >> 7
        parts.append(low | (0x80 if number else 0))
        if not number:
            return bytes(parts)


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def framed(content: bytes) -> bytes:
    """Return a record of an event file."""
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc32c(length)) + content + struct.pack("<I", masked_crc32c(content))


def event(step: int, values: Mapping[str, float], *, tensor: bool = False, time: float = 1.7e9) -> bytes:
    """Return a record with scalars, as simple values or as tensors."""
    summary = b""
    for tag, value in values.items():
        if tensor:
            held = field(8, b"\x08\x01\x12\x00" + field(5, struct.pack("<f", value)))
        else:
            held = b"\x15" + struct.pack("<f", value)
        summary += field(1, field(1, tag.encode()) + held)
    counted = b"\x10" + varint(step) if step else b""
    return framed(b"\x09" + struct.pack("<d", time) + counted + field(5, summary))


def file_version() -> bytes:
    """Return the first record of every event file."""
    return framed(b"\x09" + struct.pack("<d", 1.7e9) + field(3, b"brain.Event:2"))


def event_file(path: Path, records: Iterable[bytes]) -> Path:
    """Write an event file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_version() + b"".join(records))
    return path


class WandbLog:
    """A ``.wandb`` file that grows in memory."""

    def __init__(self) -> None:
        self.content = bytearray(b":W&B\xe1\xbe\x00")

    def record(self, body: bytes) -> None:
        """Append a record, in as many pieces as its blocks need."""
        first = True
        while True:
            left = 32768 - len(self.content) % 32768
            if left < 7:
                self.content += bytes(left)
                continue
            piece, body = body[: left - 7], body[left - 7 :]
            kind = (1 if first else 4) if not body else (2 if first else 3)
            self.content += struct.pack("<IHB", zlib.crc32(piece, zlib.crc32(bytes([kind]))), len(piece), kind) + piece
            first = False
            if not body:
                return

    def history(self, step: int, values: Mapping[str, object]) -> None:
        """Append a logged step; the values are JSON texts or numbers."""
        items = b"".join(
            field(1, field(2, name.encode()) + varint(16 << 3 | 2) + varint(len(text)) + text)
            for name, value in {**values, "_step": step}.items()
            for text in [str(value).encode()]
        )
        self.record(field(2, items))
