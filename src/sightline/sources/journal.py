"""Sightline's own run folder, read by ``sightline.journal``, which is imported only where there is one."""

from __future__ import annotations

from pathlib import Path

from sightline.journal import FILE_NAME, FOLDER, NAME
from sightline.runs import Run
from sightline.sources.files import head, is_folder, is_regular
from sightline.sources.trainer_state import covers as covered_by_trainer

__all__ = ["NAME", "covers", "files", "read", "recognises"]

_EXAMPLES = "examples.f32"
_LINE_BEGIN = b'{"kind":"'


def recognises(path: Path) -> bool:
    """Return whether a path is a run folder, its ``sightline`` folder, or a journal under any name."""
    if is_folder(path):
        if not (is_regular(path / FOLDER / FILE_NAME) or is_regular(path / FILE_NAME)):
            return False
    elif _LINE_BEGIN not in head(path):
        return False
    from sightline.journal import reader

    return reader.recognises(path)


def read(path: Path) -> Run:
    """Read the run in a run folder, its ``sightline`` folder, or a journal."""
    from sightline.journal import reader

    return reader.read(path)


def covers(folder: Path, path: Path) -> bool:
    """Return whether a path below a run folder is part of its run: its journal, or the Trainer's own files."""
    return path.relative_to(folder).parts[:1] == (FOLDER,) or covered_by_trainer(folder, path)


def files(path: Path) -> list[Path]:
    """Return the files that a run is read from."""
    from sightline.journal import reader

    found = reader.journal_of(path)
    return [] if found is None else [found, found.parent / _EXAMPLES]
