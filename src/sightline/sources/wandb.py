"""Weights & Biases' ``.wandb`` file, online and offline runs alike; wandb itself is not needed.

The file is a LevelDB log [1]_ (blocks of 32 KiB, each record in pieces with a CRC-32 of type and content) after a
header of seven bytes; a record is a protocol buffer ``wandb_internal.Record`` [2]_. A damaged piece costs its block.

References
----------
.. [1] https://github.com/google/leveldb/blob/main/doc/log_format.md
.. [2] https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sightline.errors import MalformedLog, SourceError
from sightline.runs import Run, Status
from sightline.sources.files import chunks, head, is_folder, is_regular
from sightline.sources.json_text import parse
from sightline.sources.numbers import as_float
from sightline.sources.protobuf import BYTES, VARINT, fields, varint
from sightline.sources.table import Origin, Table, plain_settings
from sightline.sources.table_runs import runs_of

NAME = "wandb"
_MAGIC = b":W&B\xe1\xbe"
_HEADER_BYTES = 7
_BLOCK_BYTES = 32768
_PIECE = struct.Struct("<IHB")  # CRC, length, type
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MAX_RECORD_BYTES = 16 << 20
_SEEDS = {kind: zlib.crc32(bytes([kind])) for kind in (_FULL, _FIRST, _MIDDLE, _LAST)}
_HISTORY, _CONFIG, _RUN, _EXIT = 2, 5, 17, 18  # of Record
_KEY, _NESTED_KEY, _VALUE_JSON = 1, 2, 16  # of HistoryItem and ConfigItem
_CONFIG_ITEMS = 2000


def recognises(path: Path) -> bool:
    """Return whether ``path`` is a ``.wandb`` file, or a run's folder with one in it."""
    if is_folder(path):
        return _file_in(path) is not None
    return head(path).startswith(_MAGIC)


def covers(folder: Path, path: Path) -> bool:
    """Return whether a path below a run's folder belongs to the run: its copies of console and summary do."""
    return path != folder


def files(path: Path) -> list[Path]:
    """Return the file that a run's folder is read from."""
    file = _file_in(path) if is_folder(path) else path
    return [] if file is None else [file]


class Parser:
    """Reads a growing ``.wandb`` file piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Blocks of which something was lost."""
        self._pending = b""
        self._offset = 0  # of the pending bytes in the file
        self._record: bytearray | None = None
        self._origin = Origin(path, NAME)
        self._table = Table()
        self._rows: list[dict[str, float]] = []

    def feed(self, piece: bytes) -> None:
        """Read what was appended."""
        self._pending += piece
        for record in self._records():
            try:
                self._take(record)
            except ValueError:
                self.damaged += 1
        self._table.add(self._rows)
        self._rows = []

    def end(self) -> None:
        """Take it that no more comes; a record without its end is not one."""
        self._table.complete = True

    def runs(self) -> tuple[Run, ...]:
        """Return the runs as they stand."""
        origin = self._origin
        origin.damage = []
        if self.damaged:
            origin.damage.append(f"{self.path}: {self.damaged} damaged places; what is intact around them is read")
        if self._pending.strip(b"\0") or self._record:
            origin.damage.append(f"{self.path}: ends inside a record: still written, or cut short")
        origin.name = origin.name or self.path.stem
        return runs_of(self._table, origin)

    def _records(self) -> Iterator[bytes]:
        """Yield the whole records among the pending bytes and drop them."""
        content, position = self._pending, 0
        if self._offset == 0 and len(content) >= _HEADER_BYTES:
            position = _HEADER_BYTES
        while True:
            left = _BLOCK_BYTES - (self._offset + position) % _BLOCK_BYTES
            if left < _PIECE.size:  # too short for a piece: zeros up to the next block
                position, left = position + left, _BLOCK_BYTES
            if position + _PIECE.size > len(content):
                break
            crc, length, kind = _PIECE.unpack_from(content, position)
            end = position + _PIECE.size + length
            if kind == 0 and length == 0:
                if position + left > len(content):
                    break  # a block that is still being filled
                position += left
                continue
            if _PIECE.size + length <= left and end > len(content):
                break
            body = content[position + _PIECE.size : end]
            if _PIECE.size + length > left or zlib.crc32(body, _SEEDS.get(kind, 0)) != crc or kind not in _SEEDS:
                self.damaged += 1
                self._record = None
                position += left
                continue
            position = end
            whole = self._assembled(kind, body)
            if whole is not None:
                yield whole
        position = min(position, len(content))
        self._pending, self._offset = content[position:], self._offset + position

    def _assembled(self, kind: int, body: bytes) -> bytes | None:
        """Return the record that a piece completes."""
        if kind == _FULL:
            self._record = None
            return body
        if kind == _FIRST:
            self._record = bytearray(body)
        elif self._record is not None:
            self._record += body
            if len(self._record) > _MAX_RECORD_BYTES:
                self._record, self.damaged = None, self.damaged + 1
            elif kind == _LAST:
                whole, self._record = bytes(self._record), None
                return whole
        return None

    def _take(self, record: bytes) -> None:
        for number, wire_type, start, end in fields(record):
            if wire_type != BYTES:
                continue
            if number == _HISTORY:
                self._rows.append(_history(record, start, end))
            elif number == _CONFIG:
                self._configure(record, start, end)
            elif number == _RUN:
                for inner, inner_type, inner_start, inner_end in fields(record, start, end):
                    if inner == 8 and inner_type == BYTES:  # display_name
                        self._origin.name = record[inner_start:inner_end].decode("utf-8", "replace")[:200]
                    elif inner == 4 and inner_type == BYTES:
                        self._configure(record, inner_start, inner_end)
            elif number == _EXIT:
                codes = [varint(record, s, e)[0] for n, w, s, e in fields(record, start, end) if n == 1 and w == VARINT]
                self._origin.status = Status.FAILED if any(codes) else Status.FINISHED

    def _configure(self, record: bytes, start: int, end: int) -> None:
        """Keep the plain values of a configuration; what looks like a secret is left out."""
        for number, wire_type, item_start, item_end in fields(record, start, end):
            if number != 1 or wire_type != BYTES or len(self._origin.config) >= _CONFIG_ITEMS:
                continue
            name, value = _item(record, item_start, item_end)
            try:
                plain: Any = parse(value)
            except ValueError:
                continue
            if isinstance(plain, dict) and "value" in plain:
                plain = plain["value"]
            self._origin.config |= plain_settings({name: plain})


def read_all(path: Path) -> tuple[Run, ...]:
    """Read every run in a ``.wandb`` file; a script may restart its Trainer inside one.

    Raises
    ------
    SourceError
        If a folder holds no such file.
    MalformedLog
        If no intact history record holds a metric.
    """
    file = _file_in(path) if is_folder(path) else path
    if file is None:
        raise SourceError(f"{path}: no .wandb file in it")
    parser = Parser(path)
    for piece in chunks(file):
        parser.feed(piece)
    parser.end()
    runs = parser.runs()
    if not runs:
        raise MalformedLog(
            f"{path}: no logged metric in it; was wandb.log() never called, or the file cut at its start?"
        )
    return runs


def read(path: Path) -> Run:
    """Read the longest run in a ``.wandb`` file."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))


def _history(record: bytes, start: int, end: int) -> dict[str, float]:
    """Return the numbers of one history record."""
    row: dict[str, float] = {}
    for number, wire_type, item_start, item_end in fields(record, start, end):
        if wire_type != BYTES:
            continue
        if number == 1:
            name, value = _item(record, item_start, item_end)
            if value[:1] not in (b"{", b"["):
                plain = as_float(value.decode("utf-8", "replace").strip('"'))
                if plain is not None:
                    row[name] = plain
        elif number == 2:
            for inner, inner_type, inner_start, inner_end in fields(record, item_start, item_end):
                if inner == 1 and inner_type == VARINT:
                    row.setdefault("_step", float(varint(record, inner_start, inner_end)[0]))
    return row


def _item(record: bytes, start: int, end: int) -> tuple[str, bytes]:
    """Return the name and the JSON of one item."""
    names: list[bytes] = []
    value = b""
    for number, wire_type, inner_start, inner_end in fields(record, start, end):
        if wire_type != BYTES:
            continue
        if number in (_KEY, _NESTED_KEY):
            names.append(record[inner_start:inner_end])
        elif number == _VALUE_JSON:
            value = record[inner_start:inner_end]
    return b"/".join(names).decode("utf-8", "replace"), value


def _file_in(folder: Path) -> Path | None:
    """Return the only ``.wandb`` file directly in a folder."""
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".wandb" and is_regular(path)]
    except OSError:
        return None
    return found[0] if len(found) == 1 else None
