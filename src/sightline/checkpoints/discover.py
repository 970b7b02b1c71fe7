"""Find the checkpoints of a run: all of them, and the newest that training can go on from."""

from __future__ import annotations

from pathlib import Path

from sightline.checkpoints.parts import CHECKPOINT_NAME, Parts, read_parts


def find_checkpoints(output_dir: Path) -> tuple[Parts, ...]:
    """Return the checkpoints of an output folder by ascending step; links are not followed.

    Parameters
    ----------
    output_dir : Path
        The Trainer's output folder. A missing one holds no checkpoints.

    Returns
    -------
    tuple of Parts
        Complete and incomplete ones alike.
    """
    if not output_dir.is_dir():
        return ()
    folders = [
        entry
        for entry in output_dir.iterdir()
        if CHECKPOINT_NAME.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
    ]
    return tuple(sorted((read_parts(folder) for folder in folders), key=lambda parts: parts.step))


def newest_complete(output_dir: Path) -> tuple[Parts | None, tuple[Parts, ...]]:
    """Return the newest checkpoint that training can go on from, and the newer ones that were passed over.

    Parameters
    ----------
    output_dir : Path
        The Trainer's output folder.

    Returns
    -------
    newest : Parts or None
        None when there is no complete one.
    skipped : tuple of Parts
        Incomplete ones of a higher step, newest first; their ``missing`` says why.
    """
    skipped: list[Parts] = []
    for parts in reversed(find_checkpoints(output_dir)):
        if parts.is_complete:
            return parts, tuple(skipped)
        skipped.append(parts)
    return None, tuple(skipped)
