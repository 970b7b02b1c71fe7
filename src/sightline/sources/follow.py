"""Follower: a log that grows, read on from where the last look ended.

What is appended is read once. A last line without its end waits for it. A file that was cut, moved aside and begun
anew, or written over is noticed by its inode, its size and the bytes in front of the place reached.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from sightline.errors import SourceError
from sightline.journal.reader import JournalFollower
from sightline.runs import Curve, Run
from sightline.sources import tensorboard
from sightline.sources.files import is_folder, open_regular
from sightline.sources.finding import Found, find
from sightline.sources.readers import Parser, Reader, reader_of
from sightline.sources.reading import judged_by

_CHUNK_BYTES = 1 << 20
_REMEMBERED_BYTES = 256


@dataclass(frozen=True, slots=True)
class Growth:
    """What one look at a growing log brought."""

    run: Run | None
    """The latest run in the log as it now stands, None as long as it holds none."""
    new: Mapping[str, Curve] = field(default_factory=dict)
    """Points that were not there at the last look, by metric; all of them when another run began."""
    begun: bool = False
    """Whether ``run`` is another one than at the last look."""

    def __bool__(self) -> bool:
        return bool(self.new)


class Follower:
    r"""Follows a log; ``poll`` gives what is new since the last time.

    Parameters
    ----------
    path : str or Path
        A log file, a run folder, an output folder; it may not exist yet.
    eval_metric : str, optional
        Curve to judge as validation loss, by the log's own or its canonical name.

    Notes
    -----
    A poll reads only what was appended, except for a ``trainer_state.json``, a JSON history, a folder of metric files
    and a database: their writers write them anew, so they are read again when they change.

    Examples
    --------
    >>> import tempfile
    >>> log = Path(tempfile.mkdtemp(), "train.log")
    >>> _ = log.write_text("step 10: train loss 2.5, val loss 2.6\nstep 20: train loss 2.1, val ")
    >>> follower = Follower(log)
    >>> follower.poll().new["eval_loss"].values
    array([2.6])
    >>> with log.open("a") as file:
    ...     _ = file.write("loss 2.3\n")
    >>> follower.poll().new["eval_loss"].values
    array([2.3])
    """

    def __init__(self, path: str | Path, *, eval_metric: str | None = None) -> None:
        self.path = Path(path)
        self.run: Run | None = None
        """The latest run as of the last poll."""
        self._eval_metric = eval_metric
        self._source: _Source | None = None
        self._seen: Mapping[str, Curve] = {}
        self._runs = 0

    def poll(self) -> Growth:
        """Look at the log and return what is new.

        Returns
        -------
        Growth
            False as a bool if nothing is.

        Raises
        ------
        SourceError
            If the log exists and cannot be opened; trying again later is fine.
        UsageError
            If the run has no curve called ``eval_metric``.
        """
        if self._source is None:
            self._source = _source_of(self.path)
        runs = None if self._source is None else self._source.poll()
        if runs is None:
            return Growth(self.run)
        return self._grown(runs)

    def finish(self) -> Growth:
        """Take the last line too, though no line end follows it: nobody writes any more."""
        if self._source is None:
            return self.poll()
        self._source.poll()
        return self._grown(self._source.finish())

    def _grown(self, runs: tuple[Run, ...]) -> Growth:
        if not runs:
            return Growth(self.run)
        run = runs[-1]
        if self._eval_metric is not None and any(name.startswith("eval") for name in run.curves):
            run = judged_by(run, self._eval_metric)
        begun = len(runs) != self._runs
        seen = {} if begun else self._seen
        new = {name: points for name, curve in run.curves.items() if (points := _added(seen.get(name), curve))}
        self.run, self._seen, self._runs = run, run.curves, len(runs)
        return Growth(run, new, begun)


def _added(before: Curve | None, now: Curve) -> Curve | None:
    """Return the points that a curve has gained, None if none; from the first that differs if it was rolled back."""
    if before is None:
        return now
    count = min(len(before), len(now))
    same = (before.steps[:count] == now.steps[:count]) & (
        (before.values[:count] == now.values[:count]) | np.isnan(before.values[:count])
    )
    first = count if same.all() else int(np.argmin(same))
    if first == len(now) < len(before):
        return now  # points have gone and none differs: another run began, like the one before
    return Curve(now.steps[first:], now.values[first:]) if first < len(now) else None


def liveliest(path: Path) -> Path:
    """Return the log at or below a path that tells most of what is going on there.

    In a folder of runs the one written last; of the logs of one run Sightline's own, else one that is appended to. The
    path itself where nothing is found, or more than a search may look at: a log may appear there.

    Raises
    ------
    SourceError
        If it cannot be opened.
    """
    if not is_folder(path):
        return path
    found = [each for each in find([path]) if isinstance(each, Found)]
    if not found:
        return path
    run = max(found, key=Found.newest_ns)

    def liveliness(part: tuple[Reader, Path]) -> tuple[bool, bool, int]:
        reader, place = part
        return reader.name == "journal", reader.parser is not None, Found(place, [part]).newest_ns()

    return max(run.parts, key=liveliness)[1]


class _Source(Protocol):
    def poll(self) -> tuple[Run, ...] | None:
        """Return the runs as they stand if anything changed, else None."""
        ...

    def finish(self) -> tuple[Run, ...]:
        """Return the runs with what a last unfinished line says."""
        ...


def _source_of(path: Path) -> _Source | None:
    """Return how to follow a path, None as long as nothing is recognised there."""
    named = Path(os.path.realpath(path)) if path.is_symlink() else path
    if not named.exists():
        return None
    reader = reader_of(named)
    if reader is None:
        return None
    if reader.name == "journal":
        return _Journal(named)
    if reader.name == "tensorboard" and is_folder(named):
        return _EventFolder(named)
    files = reader.files(named)
    make = reader.parser
    if len(files) != 1 or make is None:
        return _Rewritten(named, reader)
    return _Appended(files[0], lambda: make(named))


class _Journal:
    """A run folder of Sightline's own."""

    def __init__(self, path: Path) -> None:
        self._follower = JournalFollower(path)

    def poll(self) -> tuple[Run, ...] | None:
        return (self._follower.run(),) if self._follower.poll() else None

    def finish(self) -> tuple[Run, ...]:
        return (self._follower.read(),)


class _Rewritten:
    """A log whose writer writes it anew: read again when a file of it has changed."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self._path, self._reader = path, reader
        self._state: list[tuple[Any, ...]] | None = None
        self._runs: tuple[Run, ...] = ()

    def poll(self) -> tuple[Run, ...] | None:
        state = [(str(file), *_stamp(file)) for file in self._reader.files(self._path)]
        if state == self._state:
            return None
        try:
            runs = self._reader.runs(self._path)
        except SourceError:
            return None  # caught in the middle of being written; the next look will find it whole
        self._state, self._runs = state, runs
        return runs

    def finish(self) -> tuple[Run, ...]:
        return self._runs


class _Appended:
    """A file that is appended to."""

    def __init__(self, file: Path, make: Callable[[], Parser]) -> None:
        self.file = file
        self._make = make
        self.parser = make()
        self._offset = 0
        self._inode = 0
        self._last = b""

    def poll(self) -> tuple[Run, ...] | None:
        return self.parser.runs() if self.read_on() else None

    def finish(self) -> tuple[Run, ...]:
        self.parser.end()
        return self.parser.runs()

    def read_on(self) -> bool:
        """Feed the parser what was appended; return whether there was anything."""
        try:
            status = self.file.lstat()
        except OSError:
            return False  # moved aside; the next one is on its way
        if status.st_ino == self._inode and status.st_size == self._offset:
            return False
        with open_regular(self.file) as stream:
            opened = os.fstat(stream.fileno())
            grown = False
            if self._offset and opened.st_ino != self._inode:
                grown = self._read_moved()
                self._begin_anew()
            elif self._offset and opened.st_size < self._offset:
                self._begin_anew()
            elif self._offset and not self._unchanged(stream):
                self.parser, self._offset, self._last = self._make(), 0, b""  # written over: nothing read counts
            self._inode = opened.st_ino
            return self._feed(stream) or grown

    def _feed(self, stream: BinaryIO) -> bool:
        """Feed the parser from the place reached to the end; return whether there was anything."""
        stream.seek(self._offset)
        grown = False
        while piece := stream.read(_CHUNK_BYTES):
            self.parser.feed(piece)
            self._offset += len(piece)
            self._last = (self._last + piece)[-_REMEMBERED_BYTES:]
            grown = True
        return grown

    def _read_moved(self) -> bool:
        """Read what a file still gained before it was moved aside, if it lies in the same folder."""
        try:
            with os.scandir(self.file.parent) as entries:
                moved = next((Path(entry.path) for entry in entries if entry.inode() == self._inode), None)
            if moved is None:
                return False
            with open_regular(moved) as stream:
                return self._unchanged(stream) and self._feed(stream)
        except (OSError, SourceError):
            return False

    def _begin_anew(self) -> None:
        """Read a file from its start that was cut, or took the place of one moved aside: the log goes on in it."""
        next_file = getattr(self.parser, "next_file", None)
        if next_file is None:
            self.parser = self._make()
        else:
            next_file(self.file)
        self._offset, self._last = 0, b""

    def _unchanged(self, stream: BinaryIO) -> bool:
        """Return whether the bytes in front of the place reached are those that were read."""
        stream.seek(self._offset - len(self._last))
        return bool(stream.read(len(self._last)) == self._last)


class _EventFolder:
    """A log folder of TensorBoard: its newest event file grows, and a restart adds another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: list[tuple[Path, int]] = []
        self._parser = tensorboard.Parser(folder)
        self._last: _Appended | None = None

    def poll(self) -> tuple[Run, ...] | None:
        files = tensorboard.files(self._folder)
        known = [file for file, _ in self._read]
        current = [] if self._last is None else [self._last.file]
        if files[: len(known) + len(current)] != known + current or any(
            _size(file) != size for file, size in self._read
        ):
            self._read, self._last, self._parser = [], None, tensorboard.Parser(self._folder)
            known, current = [], []
        changed = self._last.read_on() if self._last is not None else False
        for file in files[len(known) + len(current) :]:
            if self._last is not None:
                self._read.append((self._last.file, _size(self._last.file)))
            self._parser.next_file(file)
            self._last = _Appended(file, lambda: self._parser)
            changed = self._last.read_on() or changed
        return self._parser.runs() if changed else None

    def finish(self) -> tuple[Run, ...]:
        return self._parser.runs()


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        status = file.lstat()
    except OSError:
        return (0, 0, 0)
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def _size(file: Path) -> int:
    return _stamp(file)[0]
