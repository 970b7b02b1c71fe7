"""The output folder: whose it is, and where a resumed run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

from sightline.checkpoints import Parts, find_checkpoints, newest_complete
from sightline.errors import CheckpointError, RunFolderExists, UsageError
from sightline.journal import reader
from sightline.runs import Run, Severity, Status
from sightline.training.display import Display
from sightline.training.recipe import Recipe


def claim_output_folder(recipe: Recipe, display: Display, *, is_first_process: bool = True) -> Parts | None:
    """Refuse a folder that holds another run, and find where to resume; nothing is written or removed yet.

    Parameters
    ----------
    recipe : Recipe
        Says the folder, and whether to resume or to overwrite.
    display : Display
        Told of incomplete checkpoints that are passed over.
    is_first_process : bool
        The other ranks of a distributed run only look where to resume: the first one may have begun to write.

    Returns
    -------
    Parts or None
        The checkpoint to resume from; None for a fresh start.

    Raises
    ------
    RunFolderExists
        If there is a run and neither ``resume`` nor ``overwrite`` was asked, or overwriting would remove a
        checkpoint that the run did not write.
    UsageError
        If there is nothing to resume, or the run is finished.
    CheckpointError
        If no checkpoint of the run is complete.
    """
    folder = recipe.output_dir
    if not is_first_process:
        return newest_complete(folder)[0] if recipe.resume else None
    earlier = _earlier_run(folder)
    checkpoints = find_checkpoints(folder)
    if recipe.resume:
        return _resume_point(folder, earlier, recipe, display)
    if earlier is None and not checkpoints:
        return None
    if not recipe.overwrite:
        what = "a run that Sightline recorded" if earlier is not None else f"{checkpoints[-1].path.name} of another run"
        raise RunFolderExists(
            f"{folder}: holds {what}; --resume goes on with it, --overwrite starts again in its place, "
            "--output_dir chooses another folder"
        )
    own = _own_checkpoints(earlier)
    for parts in checkpoints:
        if parts.path.name not in own:
            raise RunFolderExists(
                f"{parts.path}: not written by the run that is to be overwritten; move it away or choose another "
                "--output_dir"
            )
    return None


def clear_output_folder(recipe: Recipe) -> None:
    """Remove the checkpoints and the best weights of the run that is overwritten, and nothing else."""
    folder = recipe.output_dir
    earlier = _earlier_run(folder)
    if not recipe.overwrite or earlier is None:
        return
    own = _own_checkpoints(earlier)
    for parts in find_checkpoints(folder):
        if parts.path.name in own:
            shutil.rmtree(parts.path)
    best = folder / "best"
    if best.is_dir() and not best.is_symlink():
        shutil.rmtree(best)


def _own_checkpoints(run: Run | None) -> set[str]:
    return set() if run is None else {checkpoint.path.name for checkpoint in run.checkpoints}


def _earlier_run(folder: Path) -> Run | None:
    return reader.read(folder) if reader.recognises(folder) else None


def _resume_point(folder: Path, earlier: Run | None, recipe: Recipe, display: Display) -> Parts:
    newest, skipped = newest_complete(folder)
    if earlier is not None and earlier.status is Status.FINISHED:
        raise UsageError(
            f"{folder}: the run is finished at step {earlier.last_step}; to train longer start a new run from its "
            f"weights: --model_name_or_path {folder / 'best'} --output_dir NEW"
        )
    for parts in skipped:
        display.notice(f"{parts.path.name} is passed over, it lacks {', '.join(parts.missing)}", Severity.WARNING)
    if newest is None:
        if skipped:
            raise CheckpointError(f"{folder}: no complete checkpoint to resume from; --overwrite starts again")
        raise UsageError(f"{folder}: nothing to resume (no checkpoint-N); leave --resume out to start")
    return newest
