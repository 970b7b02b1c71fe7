"""Removing a folder so that no half of it ever bears its name."""

from __future__ import annotations

import shutil
from pathlib import Path

from sightline.journal.files import sync_folder

REMOVED = ".sightline-removing-"
"""Stands before the name of a folder that is going; no pattern for checkpoints matches it."""


def remove_whole(folder: Path) -> None:
    """Remove a folder so that no half of it ever bears its name.

    Raises
    ------
    OSError
        If it cannot be renamed; nothing is removed then.
    """
    going = set_aside(folder)
    sync_folder(folder.parent)
    shutil.rmtree(going, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Give a folder the name of one that is going, and return it.

    Raises
    ------
    OSError
        If it cannot be renamed.
    """
    going = folder.with_name(REMOVED + folder.name)
    remove(going)
    folder.rename(going)
    return going


def remove(path: Path) -> None:
    """Remove a folder, or a link or file in its place, if there is one.

    Raises
    ------
    OSError
        If it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
