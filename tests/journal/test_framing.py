"""Lines and their CRC; lines cut out of bytes in pieces, damaged or far too long."""

from __future__ import annotations

import json
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.journal.framing import (
    FOREIGN_LINE_LIMIT,
    DamagedLine,
    LineScanner,
    decode,
    encode,
    salvage,
)

PAYLOADS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["log", "eval", "run"]), "seq": st.integers(0, 2**53)},
    optional={
        "text": st.text(st.characters(exclude_categories=["Cs"])),
        "numbers": st.lists(st.floats(allow_nan=False, allow_infinity=False)),
        "nested": st.dictionaries(st.text('ab{}":,', max_size=5), st.integers(0, 9)),
    },
).map(lambda payload: {"kind": payload.pop("kind"), "seq": payload.pop("seq"), **payload})


ONE_LINE = st.binary(max_size=40).map(lambda content: content.replace(b"\n", b""))


@given(PAYLOADS)
def test_a_line_is_json_and_carries_the_crc_of_what_stands_before_it(payload):
    """The format is what docs/journal.md says, checked with the standard library alone."""
    line = encode(payload)
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    record = json.loads(line)
    crc = record.pop("crc")
    body = line[: line.rindex(b',"crc":"')]
    assert record == payload and crc == f"{crc32(body):08x}"
    assert decode(line[:-1]) == payload | {"crc": crc}


@given(PAYLOADS, st.data())
def test_one_changed_byte_is_always_noticed(payload, data):
    """No single changed byte yields a record."""
    line = bytearray(encode(payload)[:-1])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedLine):
        decode(bytes(line))


@given(PAYLOADS, st.data())
def test_a_line_cut_short_is_noticed(payload, data):
    """Every proper beginning of a line is damage."""
    line = encode(payload)[:-1]
    with pytest.raises(DamagedLine):
        decode(line[: data.draw(st.integers(0, len(line) - 1))])


@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.binary(max_size=9), st.data()
)
def test_lines_are_the_same_however_the_bytes_arrive(lines, rest, data):
    """Cutting the stream anywhere changes neither lines nor numbers nor offsets."""
    rest = rest.replace(b"\n", b"")
    stream = b"".join(line + b"\n" for line in lines) + rest
    scanner, got, at = LineScanner(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, 12))
        got += scanner.feed(stream[at : at + size])
        at += size
    offsets = [sum(len(line) + 1 for line in lines[:i]) for i in range(len(lines))]
    assert got == [(i + 1, offsets[i], line) for i, line in enumerate(lines)]
    assert scanner.unfinished == rest


@pytest.mark.parametrize("piece", [1000, 2**20, 2**25])
def test_a_foreign_line_of_ten_megabytes_is_skipped_in_bounded_memory(piece):
    """Of a line that is none of ours no more than a megabyte is ever kept."""
    stream = b"x" * 10_000_000 + b"\n" + b"next\n"
    scanner, got = LineScanner(), []
    for at in range(0, len(stream), piece):
        got += scanner.feed(stream[at : at + piece])
        assert len(scanner.unfinished) <= FOREIGN_LINE_LIMIT + piece
    assert got == [(1, 0, None), (2, 10_000_001, b"next")]


def test_a_long_line_of_ours_is_read():
    """A config of ten megabytes is a long line, but a line of ours."""
    payload = {"kind": "run", "seq": 0, "config": {"text": "x" * 10_000_000}}
    lines = list(LineScanner().feed(encode(payload)))
    assert decode(lines[0][2])["config"] == payload["config"]


@given(PAYLOADS, PAYLOADS, st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")))
def test_records_joined_by_a_damaged_newline_are_both_read(first, second, between):
    """Whatever stands where the newline was."""
    joined = encode(first)[:-1] + between + encode(second)[:-1]
    if between:
        assert [{k: v for k, v in r.items() if k != "crc"} for r in salvage(joined)] == [first, second]


def test_damage_is_called_by_its_name():
    """The sentence tells what a person would see in the file."""
    line = encode({"kind": "log", "seq": 1})[:-1]
    cases = {
        b"\0" * 4096: "4,096 NUL bytes",
        line[:-5]: "cut short",
        line.replace(b"1", b"2", 1): "CRC does not match",
        b"Traceback (most recent call last):": "not JSON",
        b'{"kind":"log","seq":1}': "without a CRC",
        b"\xff\xfe\xff": "not UTF-8",
    }
    for damaged, words in cases.items():
        with pytest.raises(DamagedLine, match=words):
            decode(damaged)
