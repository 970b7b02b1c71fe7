"""read() and read_runs(): from paths to runs, whatever wrote them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sightline.errors import SourceError, UsageError
from sightline.runs import Run
from sightline.runs.names import canonical
from sightline.sources.finding import Found, find
from sightline.sources.search import MAX_DEPTH, MAX_FILES


@dataclass(frozen=True, slots=True)
class ReadError:
    """A path that gave no run."""

    path: Path
    error: str
    """What was found, what was expected, what to do; one line."""


def read(path: str | Path, *, eval_metric: str | None = None) -> Run:
    """Read the training run in a log file or folder, whatever wrote it.

    Parameters
    ----------
    path : str or Path
        A log, a run folder, a checkpoint, or a folder with one run somewhere in it.
    eval_metric : str, optional
        Curve to judge as validation loss, by the log's own or its canonical name.

    Returns
    -------
    Run
        Of several runs the one with most points; ``damage`` then counts the others. ``read_runs`` gives all.

    Raises
    ------
    UnknownLogFormat
        If no reader knows it.
    SourceError
        If it cannot be read.
    UsageError
        If the run has no curve called ``eval_metric``.
    """
    path = Path(path)
    runs, errors = _read_found([path], MAX_DEPTH, MAX_FILES)
    if not runs:
        raise errors[0][1]
    longest = max(runs, key=lambda run: sum(map(len, run.curves.values())))
    if len(runs) > 1:
        others = f"{path}: {len(runs) - 1} more runs in it are left out; this is the one with most points"
        longest = replace(longest, damage=(*longest.damage, others))
    return longest if eval_metric is None else judged_by(longest, eval_metric)


def read_runs(
    paths: Iterable[str | Path],
    *,
    eval_metric: str | None = None,
    max_depth: int = MAX_DEPTH,
    max_files: int = MAX_FILES,
) -> tuple[list[Run], list[ReadError]]:
    """Read every run in some files and folders; a bad file never hides the others.

    Parameters
    ----------
    paths : iterable of str or Path
        Logs, run folders, and folders to search.
    eval_metric : str, optional
        Curve to judge as validation loss, by the log's own or its canonical name.
    max_depth : int
        How far below a path its folders are searched.
    max_files : int
        How many directory entries a search looks at before it gives up and says so.

    Returns
    -------
    runs : list of Run
        In the order of the paths; inside a folder by name.
    errors : list of ReadError
        Paths that could not be read, and why. Files that are no logs are not errors unless they were named.
    """
    found, failed = _read_found(map(Path, paths), max_depth, max_files)
    errors = [ReadError(path, str(error)) for path, error in failed]
    if eval_metric is None:
        return found, errors
    runs: list[Run] = []
    for run in found:
        try:
            runs.append(judged_by(run, eval_metric))
        except UsageError as error:
            errors.append(ReadError(run.path, str(error)))
    return runs, errors


def judged_by(run: Run, eval_metric: str) -> Run:
    """Return the run with another of its curves as the validation loss it is judged by.

    Raises
    ------
    UsageError
        If it has no such curve.
    """
    for name in (eval_metric, canonical(eval_metric)):
        if name in run.curves:
            return replace(run, eval_metric=name)
    known = ", ".join(sorted(run.curves)) or "none"
    raise UsageError(f"{run.path}: no curve called {eval_metric}; choose one of: {known}")


def _read_found(
    paths: Iterable[Path], max_depth: int, max_files: int
) -> tuple[list[Run], list[tuple[Path, SourceError]]]:
    """Read whatever is found, errors beside it."""
    runs: list[Run] = []
    errors: list[tuple[Path, SourceError]] = []
    for found in find(paths, max_depth=max_depth, max_files=max_files):
        if isinstance(found, Found):
            read_here, failed = found.read()
            runs += read_here
            errors += failed
        else:
            errors.append(found)
    return runs, errors
