"""The zip layout of files written by ``torch.save``, checked without unpickling anything.

``torch.save`` writes an uncompressed zip whose every record carries a CRC-32, and ``torch.load`` never looks at it. So
optimizer, scheduler and random states can be checked byte by byte even where no hash manifest was written. Only the
directory of the zip and the bytes of the records are read; no pickle is interpreted.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sightline.errors import CheckpointError, SourceError
from sightline.sources.files import open_regular

DIRECTORY_LIMIT_BYTES = 16 << 20
"""Largest zip directory that is read: some 200 000 records, three a parameter in an optimizer's state."""
_END, _END64, _LOCATOR64, _ENTRY, _LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02", b"PK\x03\x04"
_TAIL_BYTES = 22 + 20 + 65_535
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the zip."""

    name: str
    crc: int
    size_bytes: int
    local_offset: int
    """Where its local header begins."""


def read_records(path: Path) -> tuple[Record, ...] | None:
    """Read the directory of a file written by ``torch.save``.

    Parameters
    ----------
    path : Path
        The file; links are not followed.

    Returns
    -------
    tuple of Record or None
        By offset; None for a file that is no zip (written before torch 1.6, or by something else).

    Raises
    ------
    CheckpointError
        If it cannot be opened, or begins as a zip and has no whole directory: it was cut short.
    """
    try:
        with open_regular(path) as file:
            return _records(path, file)
    except SourceError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None


def damaged_records(path: Path) -> tuple[str, ...] | None:
    """Name the records whose bytes do not fit their CRC-32, or that are not where the directory says.

    Reads the file once, a mebibyte at a time.

    Returns
    -------
    tuple of str or None
        None for a file that is no zip, which has no checksums.

    Raises
    ------
    CheckpointError
        As `read_records`.
    """
    records = read_records(path)
    if records is None:
        return None
    try:
        with open_regular(path) as file:
            return tuple(record.name for record in records if not _is_whole(file, record))
    except SourceError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None


def _records(path: Path, file: BinaryIO) -> tuple[Record, ...] | None:
    if file.read(4) != _LOCAL:
        return None
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise CheckpointError(f"{path}: cut short: a zip of {size} bytes without its directory")
    count, length, offset = struct.unpack("<HII", tail[at + 10 : at + 20])
    if (count, length, offset) != (0, 0, 0) and (count == 0xFFFF or length == 0xFFFFFFFF or offset == 0xFFFFFFFF):
        count, length, offset = _zip64_end(path, file, tail, at, size)
    if length > DIRECTORY_LIMIT_BYTES or offset + length > size:
        raise CheckpointError(f"{path}: its zip directory claims {length} bytes at {offset} of {size}")
    file.seek(offset)
    records = sorted(_entries(path, file.read(length), count), key=lambda record: record.local_offset)
    if sum(record.size_bytes for record in records) > size or any(r.local_offset >= size for r in records):
        raise CheckpointError(f"{path}: the records of its zip overlap, or lie beyond its end")
    return tuple(records)


def _zip64_end(path: Path, file: BinaryIO, tail: bytes, at: int, size: int) -> tuple[int, int, int]:
    """Follow the locator before the end record to the directory of a zip with large offsets."""
    locator = tail[max(0, at - 20) : at]
    if not locator.startswith(_LOCATOR64) or len(locator) < 20:
        raise CheckpointError(f"{path}: its zip directory is damaged (no zip64 locator)")
    file.seek(min(struct.unpack("<Q", locator[8:16])[0], size))
    record = file.read(56)
    if not record.startswith(_END64) or len(record) < 56:
        raise CheckpointError(f"{path}: its zip directory is damaged (no zip64 end)")
    count, length, offset = struct.unpack("<QQQ", record[32:56])
    return count, length, offset


def _entries(path: Path, directory: bytes, count: int) -> list[Record]:
    records, at = [], 0
    while at + 46 <= len(directory) and directory[at : at + 4] == _ENTRY:
        method, crc, packed, size, name_length, extra_length, comment_length, local = struct.unpack(
            "<10xH4xIIIHHH8xI", directory[at : at + 46]
        )
        name = directory[at + 46 : at + 46 + name_length]
        extra = directory[at + 46 + name_length : at + 46 + name_length + extra_length]
        size, packed, local = _large(extra, (size, packed, local))
        if method != 0 or packed != size:
            raise CheckpointError(f"{path}: a compressed record, which torch.save never writes")
        records.append(Record(name.decode("utf-8", "replace"), crc, size, local))
        at += 46 + name_length + extra_length + comment_length
    if len(records) != count or at != len(directory):
        raise CheckpointError(f"{path}: its zip directory is damaged ({len(records)} of {count} records)")
    return records


def _large(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Take sizes and offset from the zip64 field where the plain ones are all ones."""
    at, found = 0, list(values)
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            for i, value in enumerate(values):
                if value == 0xFFFFFFFF and len(field) >= 8:
                    found[i], field = struct.unpack("<Q", field[:8])[0], field[8:]
        at += 4 + length
    return found[0], found[1], found[2]


def _is_whole(file: BinaryIO, record: Record) -> bool:
    file.seek(record.local_offset)
    local = file.read(30)
    if len(local) < 30 or not local.startswith(_LOCAL):
        return False
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    if file.read(name_length).decode("utf-8", "replace") != record.name:
        return False
    file.seek(extra_length, 1)
    crc, left = 0, record.size_bytes
    while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
        crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    return not left and crc == record.crc
