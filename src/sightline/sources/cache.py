"""What was found out about files before, so that a second look at many runs is quick.

A small SQLite file in the user's cache folder. It may be deleted at any time; a damaged one is thrown away. An answer
counts only while the file has the same path, size, time and inode, and none is kept of a file written in the last
seconds, whose next change might not show in its time. ``SIGHTLINE_CACHE=0`` turns it off, another value is its folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import sqlite3

FORMAT = 1
"""Changes with anything that an answer depends on; answers of another format do not count."""
SETTLED_NS = 3 * 10**9
"""A file younger than this may change again without its time showing it."""
_MAX_BYTES = 256 << 20
_ENVIRONMENT = "SIGHTLINE_CACHE"
_SCHEMA = """
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS readers (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, name TEXT);
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, content BLOB);
"""


def cache_folder() -> Path | None:
    """Return the folder of the cache, None if it is turned off."""
    told = os.environ.get(_ENVIRONMENT)
    if told is not None:
        return None if told in ("", "0", "off", "no", "false") else Path(told)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "sightline" if base else None
    except RuntimeError:  # no home folder
        return None


class Cache:
    """Answers about files, used as a context; every failure of its own means no answer, never an error.

    Parameters
    ----------
    folder : Path or None
        Where it lies; None turns it off.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None
        self._readers: dict[str, tuple[int, int, int, str]] = {}
        self._new_readers: list[tuple[str, int, int, int, str]] = []
        self._new_answers: list[tuple[bytes, bytes]] = []

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._open(self._folder / f"files-{FORMAT}.sqlite")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._save()

    @property
    def works(self) -> bool:
        """Whether it remembers anything."""
        return self._connection is not None

    def reader_name(self, path: Path) -> str | None:
        """Return the name of the reader that knows a file, "" for none, None if it was not met as it now is."""
        known = self._readers.get(str(path.absolute()))
        if known is None:
            return None
        try:
            status = path.lstat()
        except OSError:
            return None
        return known[3] if known[:3] == (status.st_size, status.st_mtime_ns, status.st_ino) else None

    def remember_reader(self, path: Path, name: str) -> None:
        """Keep which reader knows a file."""
        if self._connection is None:
            return
        try:
            status = path.lstat()
        except OSError:
            return
        if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
            self._new_readers.append((str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino, name))

    def answer(self, key: bytes) -> bytes | None:
        """Return what was kept under a key."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute("SELECT content FROM answers WHERE key = ?", (key,)).fetchone()
        except Exception:  # whatever SQLite makes of a damaged file
            return None
        return bytes(row[0]) if row is not None and isinstance(row[0], bytes) else None

    def remember(self, key: bytes, content: bytes, newest_ns: int) -> None:
        """Keep an answer that depends on files of which the newest was written at ``newest_ns``."""
        if self._connection is not None and time.time_ns() - newest_ns > SETTLED_NS:
            self._new_answers.append((key, content))

    def _open(self, file: Path) -> None:
        import sqlite3

        for attempt in (1, 2):
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.exists() and (attempt == 2 or file.stat().st_size > _MAX_BYTES):
                    file.unlink()
                self._connection = sqlite3.connect(file, timeout=0.2, isolation_level=None)
                self._connection.executescript(_SCHEMA)
                rows = self._connection.execute("SELECT path, size, mtime_ns, inode, name FROM readers")
                self._readers = {path: (size, mtime, inode, name) for path, size, mtime, inode, name in rows}
                return
            except (sqlite3.DatabaseError, OSError, ValueError, TypeError):
                self._close()

    def _save(self) -> None:
        if self._connection is None:
            return
        import sqlite3

        with contextlib.suppress(sqlite3.DatabaseError, OverflowError):
            if self._new_readers or self._new_answers:
                self._connection.execute("BEGIN")
                self._connection.executemany("INSERT OR REPLACE INTO readers VALUES (?, ?, ?, ?, ?)", self._new_readers)
                self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", self._new_answers)
                self._connection.execute("COMMIT")
        self._close()

    def _close(self) -> None:
        import sqlite3

        if self._connection is not None:
            with contextlib.suppress(sqlite3.DatabaseError):
                self._connection.close()
        self._connection = None
        self._readers, self._new_readers, self._new_answers = {}, [], []
