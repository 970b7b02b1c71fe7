"""Opening what lies on disk: regular files only, bounded, in whatever encoding they come.

A log folder may hold anything: pipes that never answer, devices, sockets, links that point elsewhere. Every reader
opens its files here, so none of them can be made to wait or to read what was not named.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from sightline.errors import MalformedLog, SourceError

HEAD_BYTES = 1 << 16
"""Bytes a reader may look at to recognise a format."""
WHOLE_BYTES = 256 << 20
"""Largest file of a format that can only be parsed as a whole (JSON)."""
LINE_BYTES = 1 << 20
"""Longest line of a text log; what is longer is skipped and counted."""
_CHUNK_BYTES = 1 << 20
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; never blocks and never follows a link.

    Parameters
    ----------
    path : Path
        File to open; resolve a link the user named before calling.

    Returns
    -------
    BinaryIO
        Buffered, to be closed by the caller.

    Raises
    ------
    SourceError
        If it does not exist, may not be read, or is a pipe, device, socket, folder or link.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and path.is_symlink():
            raise SourceError(f"{path}: a symbolic link, which is not followed; name the file it points to") from None
        raise SourceError(f"{path}: cannot be opened ({_reason(error)})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError(f"{path}: neither a file nor a folder (a pipe, device or socket); a log is a regular file")
    return os.fdopen(descriptor, "rb")


def is_regular(path: Path) -> bool:
    """Return whether a path is a regular file, links not followed."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, links not followed."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def head(path: Path) -> bytes:
    """Return the first 64 KiB of a regular file, ``b""`` for a folder; kept until the file changes.

    Raises
    ------
    SourceError
        If it cannot be opened.
    """
    try:
        status = path.lstat()
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be opened ({_reason(error)})") from None
    if stat.S_ISDIR(status.st_mode):
        return b""
    return _head(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _head(path: Path, mtime_ns: int, size: int) -> bytes:
    with open_regular(path) as file:
        return _read(path, file, HEAD_BYTES)


def read_whole(path: Path, limit: int = WHOLE_BYTES) -> bytes:
    """Return all bytes of a regular file.

    Raises
    ------
    SourceError
        If it cannot be read.
    MalformedLog
        If it is larger than ``limit`` bytes.
    """
    with open_regular(path) as file:
        known = os.fstat(file.fileno()).st_size  # not a byte is read of what is too large anyway
        content = b"" if known > limit else _read(path, file, limit + 1)
    if max(known, len(content)) > limit:
        raise MalformedLog(f"{path}: larger than {limit >> 20} MiB, the most that a file of this format may have")
    return content


def chunks(path: Path, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """Yield the bytes of a regular file in pieces of at most ``size`` bytes."""
    with open_regular(path) as file:
        while piece := _read(path, file, size):
            yield piece


def encoding_of(start: bytes) -> tuple[str, int]:
    """Return the encoding that the first bytes of a text tell and the length of its byte order mark."""
    for mark, encoding in _BOMS:
        if start.startswith(mark):
            return encoding, len(mark)
    sample = start[:256]
    if len(sample) >= 4 and len(sample) % 2 == 0:  # UTF-16 without a mark: PowerShell's and some Windows loggers'
        if not sample[1::2].strip(b"\0") and sample[0::2].count(0) == 0:
            return "utf-16-le", 0
        if not sample[0::2].strip(b"\0") and sample[1::2].count(0) == 0:
            return "utf-16-be", 0
    return "utf-8", 0


def as_utf8(content: bytes) -> bytes:
    """Return a text in UTF-8 without a byte order mark; undecodable pieces are replaced."""
    encoding, mark = encoding_of(content)
    if encoding == "utf-8":
        return content[mark:] if mark else content
    return content[mark:].decode(encoding, "replace").encode("utf-8", "replace")


def _read(path: Path, file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size) or b""
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
