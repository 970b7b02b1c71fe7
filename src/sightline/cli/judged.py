"""The runs at some paths, each judged; of a folder of runs those that are as they were are not read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

import sightline
from sightline.decisions import Verdict, judge_run, verdict_as_json
from sightline.errors import SourceError, UsageError
from sightline.runs import Status
from sightline.sources import Cache, Found, ReadError, cache_folder, find, judged_by
from sightline.sources.files import is_folder
from sightline.sources.readers import reader_of
from sightline.terminal.strict_json import strict_json

_JUDGES = ("runs", "journal", "sources", "sources/console", "diagnosis", "decisions")
"""Parts of the package that a verdict depends on."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A run and what became of it."""

    document: dict[str, Any]
    """Its entry in the JSON of `sightline read`."""
    verdict: Verdict | None
    """None where the entry was remembered from an earlier look."""
    place: Found
    """Where it was found."""

    def whole(self, eval_metric: str | None = None) -> Verdict:
        """Return the verdict with its curves, reading the run again if it was only remembered."""
        if self.verdict is not None:
            return self.verdict
        (run, *_), _ = self.place.read()
        return judge_run(run if eval_metric is None else judged_by(run, eval_metric))


def judged(paths: Sequence[Path], eval_metric: str | None = None) -> tuple[list[Judged], list[ReadError]]:
    """Find, read and judge the runs at some paths.

    Parameters
    ----------
    paths : sequence of Path
        Log files, run folders, folders to search, models of the hub.
    eval_metric : str, optional
        Curve to judge as validation loss.

    Returns
    -------
    judged : list of Judged
        In the order of the paths; inside a folder by name.
    errors : list of ReadError
        What could not be read, and why.
    """
    runs: list[Judged] = []
    errors: list[ReadError] = []
    with Cache(cache_folder() if any(map(_is_searched, paths)) else None) as cache:
        for found in find(paths, cache=cache):
            if isinstance(found, Found):
                runs += _judged_here(found, eval_metric, cache, errors)
            else:
                errors.append(ReadError(found[0], str(found[1])))
    return runs, errors


def _is_searched(path: Path) -> bool:
    """Return whether a path is a folder that may hold many runs, not a run's own folder."""
    try:
        return is_folder(path) and reader_of(path) is None
    except SourceError:
        return False


def _judged_here(found: Found, eval_metric: str | None, cache: Cache, errors: list[ReadError]) -> Iterator[Judged]:
    """Yield the runs of one place; append what cannot be read to ``errors``."""
    key = found.key() if cache.works else None
    if key is not None:
        key = hashlib.blake2b(
            key + f"{eval_metric}\0{found.path}\0{_code()}".encode("utf-8", "surrogateescape")
        ).digest()
        remembered = cache.answer(key)
        if remembered is not None:
            yield from (Judged(document, None, found) for document in orjson.loads(remembered))
            return
    runs, failed = found.read()
    errors += [ReadError(path, str(error)) for path, error in failed]
    here: list[Judged] = []
    settled = not failed
    for run in runs:
        settled = settled and run.status is not Status.RUNNING
        try:
            verdict = judge_run(run if eval_metric is None else judged_by(run, eval_metric))
        except UsageError as error:
            errors.append(ReadError(run.path, str(error)))
            settled = False
            continue
        here.append(Judged(verdict_as_json(verdict), verdict, found))
    if key is not None and settled:
        cache.remember(key, strict_json([each.document for each in here]).encode(), found.newest_ns())
    yield from here


@lru_cache(maxsize=1)
def _code() -> str:
    """Return what changes with the code that judges: an editable installation has one version for many states."""
    package = Path(sightline.__file__).parent
    files = []
    for part in _JUDGES:
        with os.scandir(package / part) as entries:
            files += [
                (entry.path, status.st_size, status.st_mtime_ns)
                for entry in entries
                if entry.name.endswith(".py")
                for status in [entry.stat()]
            ]
    return hashlib.blake2b(repr((sightline.__version__, sorted(files))).encode()).hexdigest()
