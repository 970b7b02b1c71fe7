"""Reads a run folder: the journal and its losses by row become a Run; damage is named and read around."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sightline.errors import MalformedLog, SourceError
from sightline.journal import FILE_NAME, FOLDER, NAME
from sightline.journal.assembly import RunAssembler
from sightline.journal.files import open_regular
from sightline.journal.lines import Line
from sightline.runs import Run

__all__ = ["NAME", "JournalFollower", "journal_of", "read", "read_lines", "recognises"]

_CHUNK_BYTES = 2**20
_SNIFF_BYTES = 2**16
_LINE = re.compile(
    rb'^\{"kind":"(?:run|segment|log|eval|checkpoint|decision|gold|alert|heartbeat|end)","seq":\d+,"t":', re.MULTILINE
)


def recognises(path: Path) -> bool:
    """Return whether a path is a run folder, its ``sightline`` folder, or a journal under any name."""
    try:
        journal = journal_of(path)
        if journal is None:
            return False
        with open_regular(journal) as file:
            return _LINE.search(file.read(_SNIFF_BYTES)) is not None
    except OSError:
        return False


def journal_of(path: Path) -> Path | None:
    """Return the journal that a path names, be it the output folder, the ``sightline`` folder or the file itself."""
    for candidate in (path / FOLDER / FILE_NAME, path / FILE_NAME):
        if candidate.is_file():
            return candidate
    return path if path.is_file() else None


def read(path: Path) -> Run:
    """Read a run folder.

    Parameters
    ----------
    path : Path
        The output folder, its ``sightline`` folder, or the journal itself.

    Returns
    -------
    Run
        With everything that is intact; ``damage`` names the rest. The status is ``running`` while the recording process
        lives, ``failed`` when it died without an end line.

    Raises
    ------
    SourceError
        If there is no journal or it cannot be opened.
    MalformedLog
        If nothing in it is intact, or a newer Sightline wrote it.
    """
    return JournalFollower(path).read()


def read_lines(path: Path) -> Iterator[Line]:
    """Yield every intact line in the order written, superseded ones too; damaged ones are left out.

    Parameters
    ----------
    path : Path
        As for ``read``.

    Raises
    ------
    SourceError
        If there is no journal, it cannot be opened, or a newer Sightline wrote it.
    """
    follower = JournalFollower(path)
    assembler = follower.assembler
    lines = assembler.lines = []
    for chunk in follower.chunks():
        assembler.feed(chunk)
        yield from lines
        lines.clear()
    assembler.finish()
    yield from lines


class JournalFollower:
    """Reads a journal as it grows; each poll goes on where the last one ended.

    Parameters
    ----------
    path : Path
        As for ``read``.

    Raises
    ------
    SourceError
        If there is no journal.
    """

    def __init__(self, path: Path) -> None:
        journal = journal_of(path)
        if journal is None:
            what = "no such file or folder" if not path.exists() else f"no {FOLDER}/{FILE_NAME} in it"
            raise SourceError(f"{path}: {what}")
        self.path = path
        self.journal = journal
        self._head = b""
        self._begin()

    def poll(self) -> list[Line]:
        """Return the lines written since the last poll, an empty list if none.

        Raises
        ------
        SourceError
            If the journal cannot be opened any more.
        """
        lines: list[Line] = []
        for chunk in self.chunks():
            self.assembler.lines = lines
            self.assembler.feed(chunk)
        self.assembler.note_damaged_rows()
        return lines

    def read(self) -> Run:
        """Read to the end and return the run, its last line judged too; for a file that no longer grows.

        Raises
        ------
        SourceError
            As ``sightline.journal.read``.
        """
        for chunk in self.chunks():
            self.assembler.feed(chunk)
        self.assembler.finish()
        self.assembler.note_damaged_rows()
        if not self.assembler.has_run:
            first = "".join(f"; {damage}" for damage in self.assembler.builder.damage[:1])
            raise MalformedLog(f"{self.journal}: no intact line of a journal{first}")
        return self.run()

    def run(self) -> Run:
        """Return the run as it stood at the last poll."""
        return self.assembler.build()

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes not yet read; a file that was replaced or overwritten is read from its start."""
        try:
            with open_regular(self.journal) as file:
                head = file.read(len(self._head))
                if head != self._head or os.fstat(file.fileno()).st_size < self._read_bytes:
                    self._begin()
                file.seek(self._read_bytes)
                while chunk := file.read(_CHUNK_BYTES):
                    if len(self._head) < 256:
                        self._head = (self._head + chunk)[:256]
                    self._read_bytes += len(chunk)
                    yield chunk
        except OSError as error:
            raise SourceError(f"{self.journal}: {error.strerror or error}") from None

    def _begin(self) -> None:
        """Forget everything read."""
        inside = self.journal.parent.name == FOLDER
        output_dir = self.journal.parent.parent if inside else self.journal.parent
        self.assembler = RunAssembler(self.journal, self.path, output_dir)
        self._read_bytes = 0
        self._head = b""
