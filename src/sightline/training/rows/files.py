"""Local files as records: JSONL, JSON, CSV, TSV, Parquet and plain text, each record with its line.

Content is trusted before the name: a ``.json`` of one object a line is read as JSONL, a ``.jsonl`` that is one array as
JSON. Every error names file and line, what was found and what was expected.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from sightline.errors import DataError

Record = dict[str, Any]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
MAX_ROW_BYTES = 16 * 2**20
"""A single row larger than this is no training row, but a file read as the wrong format."""
_MAX_FILE_BYTES = 16 * 2**30


def read_records(path: Path) -> Iterator[tuple[Record, str]]:
    """Yield every record of a file with its place (``file, line 3``).

    Raises
    ------
    DataError
        If the file is missing, empty, of no known format or broken.
    """
    suffix = path.suffix.lower()
    try:
        size = path.stat().st_size
        if size == 0:
            raise DataError(f"{path} is empty; expected one row a line")
        if size > _MAX_FILE_BYTES:
            raise DataError(
                f"{path} has {size / 2**30:.0f} GiB; rows are held in memory: use max_train_rows on smaller files"
            )
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix in (".csv", ".tsv"):
            yield from _csv(path, "\t" if suffix == ".tsv" else ",")
        elif suffix == ".txt":
            yield from _text(path)
        elif suffix in (".jsonl", ".ndjson", ".json"):
            yield from _json(path)
        else:
            raise DataError(f"{path}: files of type {suffix or '(none)'} are not read; known: {', '.join(SUFFIXES)}")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _decoded(path: Path) -> str:
    """Return the whole file as text, its byte order mark left out."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None


def _json(path: Path) -> Iterator[tuple[Record, str]]:
    """JSON lines, or one JSON document that holds a list of objects."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = _decoded(path).encode()
    content = content.removeprefix(b"\xef\xbb\xbf")
    head = content[:4096].lstrip()
    if not head:
        raise DataError(f"{path} holds only white space; expected one JSON object a line")
    if head[:1] == b"[" or (path.suffix.lower() == ".json" and not _first_line_is_object(content)):
        yield from _document(path, content)
        return
    yield from _lines(path, content)


def _first_line_is_object(content: bytes) -> bool:
    """Whether the first line with anything on it is a whole JSON object."""
    first = next((line for line in content[: 2**20].split(b"\n") if line.strip()), b"")
    try:
        value = orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and (content.strip().count(b"\n") > 0 or not _row_lists(value))


def _row_lists(document: dict[str, Any]) -> list[str]:
    """Keys of a document whose value is a list of objects."""
    return [
        key
        for key, value in document.items()
        if isinstance(value, list) and value and isinstance(value[0], dict) and not _is_messages(value)
    ]


def _is_messages(value: list[Any]) -> bool:
    """Whether a list of objects is a conversation rather than rows."""
    return {"role", "from"} & set(value[0]) != set()


def _lines(path: Path, content: bytes) -> Iterator[tuple[Record, str]]:
    """One JSON object a line; blank lines are passed over."""
    start, number = 0, 0
    end = len(content)
    while start < end:
        number += 1
        stop = content.find(b"\n", start)
        stop = end if stop < 0 else stop
        line = content[start:stop].strip()
        start = stop + 1
        if not line:
            continue
        place = f"{path}, line {number}"
        if len(line) > MAX_ROW_BYTES:
            raise DataError(f"{place}: one row of {len(line) / 2**20:.0f} MiB; is this one JSON object a line?")
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            shown = line[:60].decode("utf-8", "replace")
            raise DataError(f"{place}: not a JSON object: {error.msg} near {shown!r}") from None
        if not isinstance(record, dict):
            raise DataError(f'{place}: expected a JSON object such as {{"prompt": …}}, found {_kind(record)}')
        yield record, place


def _document(path: Path, content: bytes) -> Iterator[tuple[Record, str]]:
    """Return a JSON array of objects, alone or under one key."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    if isinstance(document, dict):
        keys = _row_lists(document)
        if len(keys) != 1:
            raise DataError(
                f"{path}: expected a list of objects, found an object with keys {', '.join(list(document)[:8])}"
            )
        document = document[keys[0]]
    if not isinstance(document, list) or not document:
        raise DataError(f"{path}: expected a list of objects, found {_kind(document)}")
    for i, record in enumerate(document):
        place = f"{path}, row {i + 1}"
        if not isinstance(record, dict):
            raise DataError(f'{place}: expected an object such as {{"prompt": …}}, found {_kind(record)}')
        yield record, place


def _csv(path: Path, delimiter: str) -> Iterator[tuple[Record, str]]:
    """Return a table with a header line."""
    text = _decoded(path)
    first = text.split("\n", 1)[0]
    if delimiter == "," and "," not in first and (";" in first or "\t" in first):
        delimiter = ";" if ";" in first else "\t"
    csv.field_size_limit(MAX_ROW_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next((row for row in reader if any(cell.strip() for cell in row)), None)
        if header is None:
            raise DataError(f"{path} holds only white space; expected a header line and rows")
        names = [name.strip() for name in header]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{path}, line {reader.line_num}: column {twice!r} stands twice in the header")
        start = reader.line_num
        for row in reader:
            place = f"{path}, line {start + 1}"
            start = reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(names):
                raise DataError(
                    f"{place}: {len(row)} fields, the header has {len(names)} ({', '.join(names)}); is a quote missing?"
                )
            yield dict(zip(names, row, strict=True)), place
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a valid CSV table: {error}") from None


def _text(path: Path) -> Iterator[tuple[Record, str]]:
    """Plain text: each line that is not blank is a row."""
    found = False
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if line.strip():
            found = True
            yield {"text": line.rstrip("\r")}, f"{path}, line {number}"
    if not found:
        raise DataError(f"{path} holds only white space; expected one text a line")


def _parquet(path: Path) -> Iterator[tuple[Record, str]]:
    """Return a Parquet table, read in slices so that nested rows do not all stand as Python objects at once."""
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    for offset in range(0, frame.height, 4096):
        for i, record in enumerate(frame.slice(offset, 4096).to_dicts()):
            yield record, f"{path}, row {offset + i + 1}"


def _kind(value: Any) -> str:
    """Return what a JSON value is, for a person."""
    names = {
        list: "a list",
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
