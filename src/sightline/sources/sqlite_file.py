"""Reading a database that some tracker wrote, without touching it and without trusting it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sightline.errors import MalformedLog, SourceError
from sightline.sources.files import head, is_folder, is_regular, open_regular

MAGIC = b"SQLite format 3\0"
_MAX_BYTES = 2 << 30
_MAX_LOG_BYTES = 512 << 20
_MAX_SECONDS = 60.0
_MAX_ROWS = 20_000_000
_MAX_VALUE_BYTES = 16 << 20
_SELECT, _READ, _FUNCTION, _PRAGMA = 21, 20, 31, 19  # authorizer codes: SELECT, READ, FUNCTION, PRAGMA


def is_database(path: Path) -> bool:
    """Return whether a file is a SQLite database."""
    return not is_folder(path) and head(path).startswith(MAGIC)


class Database:
    """A database opened for reading, as a context.

    Nothing is written beside it: where another program's write-ahead log lies there, both are copied away first. Only
    plain tables are read, by statements of our own, for a bounded time.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    SourceError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Database:
        import sqlite3

        with open_regular(self.path) as file:
            if os.fstat(file.fileno()).st_size > _MAX_BYTES:
                raise SourceError(f"{self.path}: a database larger than {_MAX_BYTES >> 30} GiB")
        try:
            place = self._without_log()
            unchanging = "&immutable=1" if place == self.path else ""  # else SQLite makes files beside it
            connection = sqlite3.connect(f"file:{_quoted(place)}?mode=ro{unchanging}", uri=True)
            self._cleanup.callback(connection.close)
            self._connection = connection
            self._ends = time.monotonic() + _MAX_SECONDS
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
            connection.set_progress_handler(lambda: time.monotonic() > self._ends, 100_000)
            connection.text_factory = lambda content: content.decode("utf-8", "replace")
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"
            )
            self.tables = frozenset(str(name) for (name,) in tables.fetchmany(10_000))
            connection.set_authorizer(_only_reading)
        except (sqlite3.Error, OSError, ValueError) as error:  # a text of SQLite's own may be no UTF-8
            self._cleanup.close()
            raise MalformedLog(f"{self.path}: a database that cannot be read ({error})") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns; none if it does not exist or is no plain table.

        Raises
        ------
        MalformedLog
            If the database is damaged.
        """
        import sqlite3

        if table not in self.tables:
            return []
        try:
            cursor = self._connection.execute(f'SELECT * FROM "{table}" LIMIT 0')
        except (sqlite3.Error, ValueError) as error:
            raise MalformedLog(f"{self.path}: table {table} cannot be read ({error})") from None
        return [str(column[0]) for column in cursor.description]

    def rows(self, table: str, columns: Sequence[str], order: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a plain table.

        Raises
        ------
        MalformedLog
            If the database is damaged, or reading it takes more than a minute.
        """
        import sqlite3

        if table not in self.tables:
            return
        wanted = ", ".join(f'"{column}"' for column in columns)
        try:
            statement = f'SELECT {wanted} FROM "{table}" ORDER BY {order} LIMIT {_MAX_ROWS}'
            cursor = self._connection.execute(statement)
            while batch := cursor.fetchmany(10_000):
                yield from batch
        except (sqlite3.Error, OverflowError, ValueError) as error:
            raise MalformedLog(f"{self.path}: table {table} cannot be read ({error})") from None

    def _without_log(self) -> Path:
        """Return where a copy lies that has no write-ahead log in use, the file itself if there is none."""
        log = self.path.with_name(self.path.name + "-wal")
        if not is_regular(log) or log.lstat().st_size == 0:
            return self.path
        if self.path.lstat().st_size + log.lstat().st_size > _MAX_LOG_BYTES:
            return self.path  # too large to copy: what is not yet in the file itself is left out
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="sightline-db-")))
        for file in (self.path, log):
            with open_regular(file) as source, (folder / file.name).open("wb") as target:
                shutil.copyfileobj(source, target)
        return folder / self.path.name


def _only_reading(action: int, *_: object) -> int:
    return 0 if action in (_SELECT, _READ, _FUNCTION) else 1  # SQLITE_OK, SQLITE_DENY


def _quoted(path: Path) -> str:
    """Return a path as SQLite's URI takes it."""
    from urllib.parse import quote

    return quote(str(path.absolute()))
