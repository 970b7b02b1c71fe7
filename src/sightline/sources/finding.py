"""find(): the runs at and below some paths, before anything of them is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.errors import SourceError, UnknownLogFormat
from sightline.runs import Curve, Run
from sightline.sources.cache import Cache
from sightline.sources.files import is_folder
from sightline.sources.readers import HUB, READERS, Reader, reader_of
from sightline.sources.search import MAX_DEPTH, MAX_FILES, TooMany, folders

_SAME_DIGITS = 2e-3  # a console prints four digits, an event file keeps seven
_ENOUGH_SHARED = 3


@dataclass(slots=True)
class Found:
    """What lies at one place and is read together: a log, or a run folder with all logs of its runs."""

    path: Path
    parts: list[tuple[Reader, Path]] = field(default_factory=list)
    """Readers and what each is to read, the run folder's own first."""

    def read(self) -> tuple[list[Run], list[tuple[Path, SourceError]]]:
        """Read its runs; one told by several logs is given once.

        Returns
        -------
        runs : list of Run
        errors : list of tuple of Path and SourceError
            Logs that cannot be read, and why.
        """
        runs: list[Run] = []
        errors: list[tuple[Path, SourceError]] = []
        for reader, path in self.parts:
            try:
                runs += reader.runs(path)
            except SourceError as error:
                errors.append((path, error))
        return (told_once(runs) if len(self.parts) > 1 else runs), errors

    def key(self) -> bytes | None:
        """Return what changes whenever a file of it does, a digest of their names, sizes and times.

        None where that says nothing: a model of the hub.
        """
        digest = hashlib.blake2b(digest_size=20)
        for reader, path in self.parts:
            if reader is HUB:
                return None
            digest.update(f"{reader.name}\0{path.absolute()}\0".encode("utf-8", "surrogateescape"))
            for file in reader.files(path):
                try:
                    status = file.lstat()
                except OSError:
                    digest.update(b"absent\0")
                    continue
                told = (str(file), status.st_size, status.st_mtime_ns, status.st_ino)
                digest.update(repr(told).encode("utf-8", "surrogateescape"))
        return digest.digest()

    def newest_ns(self) -> int:
        """Return when one of its files was last written, in nanoseconds since 1970."""
        newest = 0
        for reader, path in self.parts:
            for file in reader.files(path):
                try:
                    newest = max(newest, file.lstat().st_mtime_ns)
                except OSError:
                    continue
        return newest


def find(
    paths: Iterable[Path], *, max_depth: int = MAX_DEPTH, max_files: int = MAX_FILES, cache: Cache | None = None
) -> Iterator[Found | tuple[Path, SourceError]]:
    """Yield what there is to read at and below some paths.

    Parameters
    ----------
    paths : iterable of Path
        Logs, run folders, and folders to search.
    max_depth : int
        How far below a path its folders are searched.
    max_files : int
        How many directory entries a search looks at before it gives up and says so.
    cache : Cache, optional
        Remembers which files are what, so that a search opens only files it has not met.

    Yields
    ------
    Found, or tuple of Path and SourceError
        The latter for a named path that no reader knows, and for what cannot be opened.
    """
    for path in paths:
        try:
            named = path.resolve(strict=True) if path.is_symlink() else path  # a link the user names is followed, once
        except (OSError, RuntimeError) as error:
            yield path, SourceError(f"{path}: a symbolic link that leads nowhere ({error})")
            continue
        if is_folder(named):
            found = False
            for result in _in_folder(named, max_depth, max_files, cache):
                found = True
                yield result
            if not found:
                yield path, UnknownLogFormat(path, [reader.name for reader in READERS])
            continue
        try:
            reader = reader_of(named) if named.exists() else _remote(named)
        except SourceError as error:
            yield path, error
            continue
        if reader is None:
            yield path, UnknownLogFormat(path, [reader.name for reader in READERS])
        else:
            yield Found(path, [(reader, named)])


def _remote(path: Path) -> Reader | None:
    """Return the reader of models of the hub if a path that does not exist may name one."""
    return HUB if HUB.recognises(path) else reader_of(path)


def _in_folder(
    root: Path, max_depth: int, max_files: int, cache: Cache | None
) -> Iterator[Found | tuple[Path, SourceError]]:
    """Yield what a search finds; logs below a run folder are gathered with it."""
    claims: list[tuple[Path, Reader]] = []  # folders read as runs, from the outermost to the one we are in
    gathered: Found | None = None

    def passed_over(path: Path) -> bool:
        return any(path.is_relative_to(folder) and reader.covers(folder, path) for folder, reader in claims)

    try:
        for folder in folders(root, max_depth=max_depth, max_files=max_files, passed_over=passed_over):
            claims = [(path, reader) for path, reader in claims if folder.path.is_relative_to(path)]
            if not claims and gathered is not None:
                yield gathered
                gathered = None
            for path in (folder.path, *folder.files):
                if passed_over(path):
                    continue
                try:
                    reader = _known(path, cache)
                except SourceError as error:
                    yield path, error
                    continue
                if reader is None:
                    continue
                if path is folder.path:
                    claims.append((path, reader))
                    gathered = gathered or Found(path)
                if gathered is None:
                    yield Found(path, [(reader, path)])
                else:
                    gathered.parts.append((reader, path))
    except TooMany:
        yield root, SourceError(f"{root}: more than {max_files} files below it; the rest was not searched")
    if gathered is not None:
        yield gathered


def _known(path: Path, cache: Cache | None) -> Reader | None:
    """Return the reader of a file or folder, of a file that was met before without opening it."""
    if cache is None or is_folder(path):
        return reader_of(path)
    name = cache.reader_name(path)
    if name is None:
        reader = reader_of(path)
        cache.remember_reader(path, "" if reader is None else reader.module_name)
        return reader
    return next((reader for reader in READERS if name == reader.module_name), None)


def told_once(runs: list[Run]) -> list[Run]:
    """Return runs without those that another one tells too, each with the later points that only its double has.

    Two runs are the same if their losses agree at the steps both have, to the four digits that a console prints.
    """
    kept: list[Run] = []
    for run in runs:
        for i, known in enumerate(kept):
            if _same(known, run):
                kept[i] = _with_later_points(known, run)
                break
        else:
            kept.append(run)
    return kept


def _same(one: Run, other: Run) -> bool:
    if one.step_unit != "step" or other.step_unit != "step":
        return False
    shared = 0
    for a, b in ((one.train_loss, other.train_loss), (one.eval_loss, other.eval_loss)):
        if a is None or b is None:
            continue
        steps, in_a, in_b = np.intersect1d(a.steps, b.steps, assume_unique=True, return_indices=True)
        if not _agree(a.values[in_a], b.values[in_b]):
            return False
        shared += steps.size
    return shared >= min(_ENOUGH_SHARED, sum(len(c) for c in (other.train_loss, other.eval_loss) if c is not None)) > 0


def _agree(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool(np.allclose(a, b, rtol=_SAME_DIGITS, atol=1e-4, equal_nan=True))


def _with_later_points(known: Run, other: Run) -> Run:
    """Return a run with the points its double has after its last step: a checkpoint is older than the log beside it."""
    last = known.last_step or 0
    if known.format == "journal" or (other.last_step or 0) <= last:
        return known
    curves = dict(known.curves)
    for name, curve in other.curves.items():
        later = curve.since(last + 1)
        if len(later):
            own = curves.get(name)
            curves[name] = (
                later
                if own is None
                else Curve(np.append(own.steps, later.steps), np.append(own.values, later.values), own.replaced)
            )
    return replace(known, curves=curves)
