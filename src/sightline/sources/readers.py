"""READERS: every format, the most specific first."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sightline.journal import reader as journal
from sightline.journal.assembly import FOLDER
from sightline.runs import Run
from sightline.sources import (
    console,
    csv_log,
    json_log,
    jsonl_log,
    mlflow,
    mlflow_db,
    tensorboard,
    trackio,
    trainer_state,
    wandb,
)


class Reader(Protocol):
    """What every module in READERS offers; what some offer beside it stands at the head of the package."""

    NAME: str

    def recognises(self, path: Path) -> bool:
        """Return whether the content is of this format."""
        ...

    def read(self, path: Path) -> Run:
        """Return the run."""
        ...


READERS: tuple[Reader, ...] = (
    journal,
    trainer_state,
    mlflow,
    tensorboard,
    wandb,
    trackio,
    mlflow_db,
    jsonl_log,
    json_log,
    csv_log,
    console,
)
"""Every reader, the most specific first."""


def reader_of(path: Path) -> Reader | None:
    """Return the first reader that recognises a file or folder.

    Raises
    ------
    SourceError
        If it cannot be opened.
    """
    return next((reader for reader in READERS if reader.recognises(path)), None)


def all_runs(reader: Reader, path: Path) -> tuple[Run, ...]:
    """Return every run that a reader finds in a path.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    read_all = getattr(reader, "read_all", None)
    return tuple(read_all(path)) if read_all else (reader.read(path),)


def covers(reader: Reader, folder: Path, path: Path) -> bool:
    """Return whether ``path``, below a folder that was read as a run, belongs to that run."""
    if reader is journal:
        own = path.relative_to(folder).parts[:1]
        return own == (FOLDER,) or trainer_state.covers(folder, path)
    decides = getattr(reader, "covers", None)
    return path != folder and (decides is None or decides(folder, path))


def files_of(reader: Reader, path: Path) -> list[Path]:
    """Return the files that a reader reads for a path: while they are the same, so is the run."""
    if reader is journal:
        found = journal.journal_of(path)
        return [] if found is None else [found, found.parent / "examples.f32"]
    decides = getattr(reader, "files", None)
    return decides(path) if decides else [path]
