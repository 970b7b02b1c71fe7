"""The output folder: whose it is, and where a resumed run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

from sightline.checkpoints import find_checkpoints
from sightline.checkpoints.removal import remove_whole
from sightline.errors import RunFolderExists
from sightline.journal import reader
from sightline.journal.lines import RunLine
from sightline.runs import Run, Severity
from sightline.training.continuation import run_of
from sightline.training.display import Display
from sightline.training.recipe import Recipe
from sightline.training.resuming import QUARANTINED, ResumePoint, find_resume_point, refuse_ended
from sightline.training.saving import clear_leftovers

MADE_AT_THE_END = ("best", "merged")
"""Folders that a run writes beside its checkpoints when it is over."""


def claim_output_folder(recipe: Recipe, display: Display) -> ResumePoint | None:
    """Refuse a folder that holds another run, and find where to resume; nothing is written or removed yet.

    Parameters
    ----------
    recipe : Recipe
        Says the folder, and whether to resume or to overwrite.
    display : Display
        Told of checkpoints that are passed over.

    Returns
    -------
    ResumePoint or None
        Where to go on; None for a fresh start.

    Raises
    ------
    RunFolderExists
        If there is a run and neither ``resume`` nor ``overwrite`` was asked, or overwriting would remove a
        checkpoint that the run did not write.
    UsageError
        If there is nothing to resume, or the run has come to its end.
    CheckpointError
        If no checkpoint of the run can be gone on from.
    """
    folder = recipe.output_dir
    earlier = reader.read(folder) if reader.recognises(folder) else None
    if recipe.resume:
        refuse_ended(folder, earlier, early_stopping=recipe.early_stopping)
        point = find_resume_point(folder, earlier)
        _tell(point, display)
        return point
    checkpoints = find_checkpoints(folder)
    if earlier is None and not checkpoints:
        return None
    if not recipe.overwrite:
        what = "a run that Sightline recorded" if earlier is not None else f"{checkpoints[-1].path.name} of another run"
        raise RunFolderExists(
            f"{folder}: holds {what}; --resume goes on with it, --overwrite starts again in its place, "
            "--output_dir chooses another folder"
        )
    own, run_id = _own_checkpoints(earlier), _run_id(folder)
    for parts in checkpoints:
        if parts.path.name not in own and (run_id is None or run_of(parts.path) != run_id):
            raise RunFolderExists(
                f"{parts.path}: not written by the run that is to be overwritten; move it away or choose another "
                "--output_dir"
            )
    return None


def clear_output_folder(recipe: Recipe) -> None:
    """Remove what saves that were cut off left behind and, to overwrite a run, what it wrote; nothing else."""
    folder = recipe.output_dir
    if not folder.is_dir():
        return
    clear_leftovers(folder)
    if not recipe.overwrite or not reader.recognises(folder):
        return
    own, run_id = _own_checkpoints(reader.read(folder)), _run_id(folder)
    for parts in find_checkpoints(folder):
        if parts.path.name in own or run_of(parts.path) == run_id:
            remove_whole(parts.path)
    for name in (*MADE_AT_THE_END, *(QUARANTINED + name for name in own)):
        made = folder / name
        if made.is_dir() and not made.is_symlink():
            shutil.rmtree(made)


def _tell(point: ResumePoint, display: Display) -> None:
    for passed in point.passed_over:
        display.notice(f"{passed.path.name} is passed over: {passed.why}", Severity.WARNING)
    if not point.is_verified:
        display.notice(
            f"{point.path.name} has no hash manifest: it is whole, but nobody can say that its bytes are those that "
            "were saved",
            Severity.WARNING,
        )


def _own_checkpoints(run: Run | None) -> set[str]:
    return set() if run is None else {checkpoint.path.name for checkpoint in run.checkpoints}


def _run_id(folder: Path) -> str | None:
    if not reader.recognises(folder):
        return None
    return next((line.id for line in reader.read_lines(folder) if isinstance(line, RunLine)), None)
