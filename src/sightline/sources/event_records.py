"""TensorBoard event files: records to scalars, many at once.

A file is a sequence of records ``length (8), CRC of it (4), Event message, CRC of that (4)`` [1]_. A training run
writes the same few messages over and over: records of one length differ only in time, step, tag and value. So one
record of a kind is parsed as a protocol buffer, and all that are laid out alike are decoded with it, their CRCs checked
and their columns copied out by NumPy. What is laid out like nothing before is parsed on its own.

References
----------
.. [1] TensorFlow, tensorflow/core/lib/io/record_writer.h; tensorflow/core/util/event.proto; summary.proto.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sightline.sources.crc32c import alike_are_intact, masked_crc32c, short_length_crcs
from sightline.sources.protobuf import BYTES, FIXED32, FIXED64, VARINT, fields, varint

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_SCALAR_BYTES = 1 << 13
"""A longer record holds an image, a histogram or a graph; it is passed over unread."""
_MAX_TAG_BYTES = 1 << 10
_SETTINGS = b"args/text_summary"  # the Trainer's callback writes its arguments under this tag
_SETTINGS_BEGIN, _SETTINGS_BYTES, _MAX_TEXTS = 200, 1 << 17, 1000
_CHAIN_BYTES = 1 << 16  # below, following the records one by one is as quick
_FLOAT, _DOUBLE = 1, 2  # types.proto: DT_FLOAT, DT_DOUBLE

_Piece = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
_Found = dict[bytes, list[_Piece]]


@dataclass(frozen=True, slots=True)
class Scalars:
    """Points of one tag in the order of the file."""

    records: NDArray[np.int64]
    """Number of the record each point came in, shape (n,), ascending."""
    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Value:
    """One scalar inside a record."""

    tag: slice
    place: int
    dtype: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a record keeps its step and scalars, and which of its bytes hold anything else."""

    step: slice
    values: tuple[_Value, ...]
    free: NDArray[np.int64]
    """Places of the bytes that differ between records laid out alike: time, step, tags, values."""
    fixed: NDArray[np.bool_]
    """Which bytes may not differ, shape (length + 4,): the CRC behind the record may."""


class EventRecords:
    """Reads a growing event file piece by piece."""

    def __init__(self) -> None:
        self.damaged = 0
        """Places at which bytes were lost: bad CRCs and torn records."""
        self.records = 0
        self.texts: list[bytes] = []
        """Records with the texts that tell a run's settings."""
        self._tail = b""
        self._offset = 0  # of the tail in the file
        self._skip = 0
        self._skipped_from = 0
        self._known_lengths: dict[int, int] = {}
        self._lost = False

    def feed(self, piece: bytes) -> dict[str, Scalars]:
        """Return the scalars of the records that a piece completes, by tag."""
        if self._skip:
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            self._offset += skipped
            piece = piece[skipped:]
        content = self._tail + piece
        chained_starts, chained_lengths, position = _chain(content)
        starts, lengths, consumed = self._frames(content, position)
        self._tail = content[consumed:]
        self._offset += consumed
        return self._scalars(
            content,
            np.concatenate([chained_starts, np.array(starts, dtype=np.int64)]),
            np.concatenate([chained_lengths, np.array(lengths, dtype=np.int64)]),
        )

    @property
    def torn(self) -> bool:
        """Whether the text ends inside a record: the file is being written, or was cut short."""
        return bool(self._tail or self._skip)

    def search_again(self) -> int | None:
        """Return where to read on if a record claimed more bytes than the file has, None if none did.

        A damaged or forged length must not hide what follows it.
        """
        if not self._skip:
            return None
        self._skip, self._tail, self._offset = 0, b"", self._skipped_from + 12
        self.damaged += 1
        self._lost = True
        return self._offset

    def _frames(self, content: bytes, position: int) -> tuple[list[int], list[int], int]:
        """Return where the whole records from a place on begin, how long they are, and where what is left begins."""
        starts: list[int] = []
        lengths: list[int] = []
        known, unpack = self._known_lengths, _HEADER.unpack_from
        end = len(content)
        while position + 12 <= end:
            length, crc = unpack(content, position)
            if known.get(length) != crc and not self._intact_length(content, position, length, crc):
                found = self._resume(content, position + 1)
                if found < 0:
                    return starts, lengths, max(position + 1, end - 11)
                position = found
                continue
            self._lost = False
            after = position + 16 + length
            if length > _SCALAR_BYTES:
                if after > end:
                    self._skip, self._skipped_from = after - end, self._offset + position
                    return starts, lengths, end
                self._keep_text(content[position + 12 : after - 4])
            elif after > end:
                return starts, lengths, position
            else:
                starts.append(position + 12)
                lengths.append(length)
            position = after
        return starts, lengths, position

    def _intact_length(self, content: bytes, position: int, length: int, crc: int) -> bool:
        if crc != masked_crc32c(content[position : position + 8]) or length >= 1 << 40:
            return False
        if len(self._known_lengths) < 100_000:
            self._known_lengths[length] = crc
        return True

    def _resume(self, content: bytes, position: int) -> int:
        """Return the place of the next record whose length is intact, -1 if there is none."""
        if not self._lost:
            self.damaged += 1
            self._lost = True
        window = np.frombuffer(content, dtype=np.uint8)
        if len(window) - position < 12:
            return -1
        # A record worth finding is shorter than 64 KiB: the upper six bytes of its length are zero.
        zero = window[position:] == 0
        runs = ~(zero[:-11] & zero[1:-10])
        for i in range(2, 8):
            runs &= zero[i : i + len(runs)]
        for candidate in (np.flatnonzero(runs) + position).tolist():
            _, crc = _HEADER.unpack_from(content, candidate)
            if crc == masked_crc32c(content[candidate : candidate + 8]):
                return int(candidate)
        return -1

    def _scalars(self, content: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> dict[str, Scalars]:
        """Decode records; those of one length together."""
        found: _Found = {}
        window = np.frombuffer(content, dtype=np.uint8)
        for length in sorted(set(lengths.tolist())):
            chosen = np.flatnonzero(lengths == length)
            if length == 0:
                continue
            rows = np.lib.stride_tricks.sliding_window_view(window, length + 4)[starts[chosen]]
            self._decode(rows, chosen + self.records, length, found)
        self.records += len(starts)
        return {tag.decode("utf-8", "replace"): _joined(pieces) for tag, pieces in found.items()}

    def _decode(self, rows: NDArray[np.uint8], numbers: NDArray[np.int64], length: int, found: _Found) -> None:
        """Decode records of one length, layout by layout."""
        while len(rows):
            layout = None
            passed = 0
            while layout is None and passed < len(rows):
                layout = self._layout_of(rows[passed].tobytes(), length)
                passed += 1
            if layout is None:
                return
            rows, numbers = rows[passed - 1 :], numbers[passed - 1 :]
            alike = ~((rows != rows[0]) & layout.fixed).any(axis=1)
            alike &= ((rows[:, layout.step] ^ rows[0, layout.step]) < 0x80).all(axis=1)  # the same continuation bits
            if alike.all():
                self._decode_alike(rows, numbers, layout, found)
                return
            self._decode_alike(rows[alike], numbers[alike], layout, found)
            rows, numbers = rows[~alike], numbers[~alike]

    def _layout_of(self, record: bytes, length: int) -> _Layout | None:
        """Return the layout of one record (its CRC behind it), None if it holds no scalars."""
        try:
            layout = _layout(record[:length])
        except ValueError:
            layout = None
        if layout is None:
            if masked_crc32c(record[:length]) != _CRC.unpack_from(record, length)[0]:
                self.damaged += 1
            else:
                self._keep_text(record[:length])
        return layout

    def _keep_text(self, record: bytes) -> None:
        if _SETTINGS in record[:_SETTINGS_BEGIN] and len(record) <= _SETTINGS_BYTES and len(self.texts) < _MAX_TEXTS:
            self.texts.append(record)

    def _decode_alike(
        self, rows: NDArray[np.uint8], numbers: NDArray[np.int64], layout: _Layout, found: _Found
    ) -> None:
        """Check the CRC of records laid out alike and copy out their scalars."""
        length = rows.shape[1] - 4
        stored = np.ascontiguousarray(rows[:, length:]).view("<u4")[:, 0]
        intact = alike_are_intact(rows[:, :length], stored, layout.free)
        if not intact.all():
            self.damaged += int((~intact).sum())
            rows, numbers = rows[intact], numbers[intact]
            if not len(rows):
                return
        steps = _steps(rows[:, layout.step])
        for value in layout.values:
            raw = np.ascontiguousarray(rows[:, value.place : value.place + int(value.dtype[-1])])
            decoded = raw.view(value.dtype)[:, 0].astype(np.float64)
            for tag, which in _by_tag(rows[:, value.tag]):
                found.setdefault(tag, []).append((numbers[which], steps[which], decoded[which]))


def _chain(content: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the records at the beginning of a text that follow each other without a fault, found all at once.

    Every place with an intact length is a candidate; a chain holds where each record ends at the next candidate.
    """
    none = np.zeros(0, dtype=np.int64)
    if len(content) < _CHAIN_BYTES:
        return none, none, 0
    window = np.frombuffer(content, dtype=np.uint8)
    zero = window == 0
    runs = ~(zero[:-11] & zero[1:-10])
    for i in range(2, 8):  # the upper six bytes of the length
        runs &= zero[i : i + len(runs)]
    places = np.flatnonzero(runs)
    lengths = window[places].astype(np.int64) | window[places + 1].astype(np.int64) << 8
    stored = np.lib.stride_tricks.sliding_window_view(window, 4)[places + 8].copy().view("<u4")[:, 0]
    intact = stored == short_length_crcs()[lengths]
    places, lengths = places[intact], lengths[intact]
    after = places + 16 + lengths
    if not len(places) or places[0]:
        return none, none, 0
    broken = np.flatnonzero((after[:-1] != places[1:]) | (lengths[:-1] > _SCALAR_BYTES))
    count = int(broken[0]) if len(broken) else len(places) - 1  # the last one may not be whole: left to the caller
    return places[:count] + 12, lengths[:count], int(places[count])


def _layout(record: bytes) -> _Layout | None:
    """Return the layout of an Event with scalars, None for any other."""
    step = slice(0, 0)
    free: list[tuple[int, int]] = []
    values: list[_Value] = []
    for number, wire_type, start, end in fields(record):
        if number == 1 and wire_type == FIXED64:  # wall_time
            free.append((start, end))
        elif number == 2 and wire_type == VARINT:  # step
            step = slice(start, end)
        elif number == 5 and wire_type == BYTES:  # summary
            for inner, inner_type, inner_start, inner_end in fields(record, start, end):
                if inner == 1 and inner_type == BYTES:
                    value = _value(record, inner_start, inner_end)
                    if value is not None:
                        values.append(value)
    if not values or step.stop - step.start > 9:
        return None
    for value in values:
        free += [(value.tag.start, value.tag.stop), (value.place, value.place + int(value.dtype[-1]))]
    places = np.zeros(len(record), dtype=np.bool_)
    for start, end in [*free, (step.start, step.stop)]:
        places[start:end] = True
    fixed = np.append(~places, np.zeros(4, dtype=np.bool_))
    return _Layout(step, tuple(values), np.flatnonzero(places), fixed)


def _value(record: bytes, start: int, end: int) -> _Value | None:
    """Return where a Summary.Value keeps its tag and scalar, None if it holds none."""
    tag: slice | None = None
    place: tuple[int, str] | None = None
    for number, wire_type, inner_start, inner_end in fields(record, start, end):
        if number == 1 and wire_type == BYTES:
            tag = slice(inner_start, inner_end)
        elif number == 2 and wire_type == FIXED32:  # simple_value
            place = (inner_start, "<f4")
        elif number == 8 and wire_type == BYTES:  # tensor
            place = _tensor(record, inner_start, inner_end)
    if tag is None or place is None or not 0 < tag.stop - tag.start <= _MAX_TAG_BYTES:
        return None
    return _Value(tag, *place)


def _tensor(record: bytes, start: int, end: int) -> tuple[int, str] | None:
    """Return where a tensor keeps its only element and its type, None if it is no floating-point scalar."""
    dtype = 0
    places: list[tuple[int, int]] = []
    for number, wire_type, inner_start, inner_end in fields(record, start, end):
        if number == 1 and wire_type == VARINT:
            dtype = varint(record, inner_start, inner_end)[0]
        elif number in (4, 5, 6) and wire_type in (BYTES, FIXED32, FIXED64):  # tensor_content, float_val, double_val
            places.append((inner_start, inner_end))
    size = {_FLOAT: 4, _DOUBLE: 8}.get(dtype)
    if size is None or len(places) != 1 or places[0][1] - places[0][0] != size:
        return None
    return places[0][0], f"<f{size}"


def _steps(columns: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return variable-length integers of one length, shape (n, length), as numbers (n,)."""
    steps = np.zeros(len(columns), dtype=np.int64)
    for i in range(columns.shape[1]):
        steps |= (columns[:, i].astype(np.int64) & 0x7F) << (7 * i)
    return steps


def _by_tag(columns: NDArray[np.uint8]) -> list[tuple[bytes, NDArray[np.int64] | slice]]:
    """Return the different tags among records laid out alike, each with the records that have it."""
    first = columns[0]
    if (columns == first).all():
        return [(first.tobytes(), slice(None))]
    texts = np.ascontiguousarray(columns).view(f"V{columns.shape[1]}")[:, 0]
    keys = columns.astype(np.uint64) @ _weights(columns.shape[1])
    order = np.argsort(keys, kind="stable")
    bounds = [0, *(np.flatnonzero(np.diff(keys[order])) + 1).tolist(), len(order)]
    groups: list[tuple[bytes, NDArray[np.int64] | slice]] = []
    for begin, stop in pairwise(bounds):
        which = order[begin:stop]
        tags = texts[which]
        if (tags == tags[0]).all():
            groups.append((tags[0].tobytes(), which))
        else:  # two tags with one key: told apart one by one
            groups += [(tag, which[tags == np.void(tag)]) for tag in {t.tobytes() for t in tags}]
    return groups


def _weights(count: int) -> NDArray[np.uint64]:
    """Return odd numbers without a pattern, shape (count,), to tell texts apart by one product (SplitMix64)."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed | np.uint64(1)


def _joined(pieces: list[_Piece]) -> Scalars:
    """Return the pieces of one tag in the order of the file."""
    records, steps, values = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    if len(pieces) > 1:
        order = np.argsort(records, kind="stable")
        records, steps, values = records[order], steps[order], values[order]
    return Scalars(records, steps, values)
