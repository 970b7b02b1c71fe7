"""Find the checkpoints of a run."""

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
