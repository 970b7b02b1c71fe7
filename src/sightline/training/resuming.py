"""Where a run goes on: at the newest checkpoint that was verified byte by byte, and not where it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sightline.checkpoints import Parts, find_checkpoints, verify
from sightline.errors import CheckpointError, UsageError
from sightline.journal import Recorder
from sightline.journal.files import sync_folder
from sightline.runs import Checkpoint, Run, Status
from sightline.training.continuation import run_of

QUARANTINED = "quarantined-"
"""Stands before the name of a checkpoint that cannot be trusted, so that nothing takes it for the newest."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A checkpoint newer than the one that is resumed from."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a run goes on."""

    step: int
    path: Path
    size_bytes: int
    is_verified: bool
    """Whether every byte was compared with the hash manifest; False where there is none."""
    passed_over: tuple[PassedOver, ...]
    """Newer ones, newest first."""
    earlier: Run | None
    """The run so far, None where nothing was recorded."""


def find_resume_point(output_dir: Path, earlier: Run | None) -> ResumePoint:
    """Find the newest checkpoint whose bytes are those that were saved.

    Where no checkpoint has a hash manifest, because Sightline did not save them, the newest whole one is taken.

    Parameters
    ----------
    output_dir : Path
        The run's folder; nothing in it is changed.
    earlier : Run or None
        The run that is recorded there.

    Returns
    -------
    ResumePoint

    Raises
    ------
    UsageError
        If there is no checkpoint at all.
    CheckpointError
        If there are some and none can be gone on from.
    """
    passed_over: list[PassedOver] = []
    unverified: tuple[Parts, int] | None = None
    for parts in reversed(find_checkpoints(output_dir)):
        found = verify(parts.path)
        if not (found.intact and found.complete):
            why = "it holds weights only" if found.weights_only else "; ".join(map(str, found.problems))
            passed_over.append(PassedOver(parts.path, why))
        elif found.hashed:
            return ResumePoint(parts.step, parts.path, parts.size_bytes, True, tuple(passed_over), earlier)
        else:
            unverified = unverified or (parts, len(passed_over))
            passed_over.append(PassedOver(parts.path, "it has no hash manifest, so its save was never finished"))
    if unverified is not None:
        parts, newer = unverified
        return ResumePoint(parts.step, parts.path, parts.size_bytes, False, tuple(passed_over[:newer]), earlier)
    if passed_over:
        lacks = "; ".join(f"{passed.path.name}: {passed.why}" for passed in passed_over[:3])
        raise CheckpointError(f"{output_dir}: no checkpoint to go on from ({lacks}); --overwrite starts again")
    raise UsageError(f"{output_dir}: nothing to resume (no checkpoint-N); leave --resume out to start")


def refuse_ended(output_dir: Path, earlier: Run | None, *, early_stopping: bool) -> None:
    """Refuse to go on with a run that came to its end.

    Raises
    ------
    UsageError
        If it was finished, or stopped by its own decision and would be again.
    """
    if earlier is None:
        return
    new_run = f"--model_name_or_path {output_dir / 'best'} --output_dir NEW"
    if earlier.status is Status.FINISHED:
        raise UsageError(
            f"{output_dir}: the run is finished at step {earlier.last_step}; to train longer start a new run from its "
            f"weights: {new_run}"
        )
    if _was_decided(earlier) and early_stopping:
        raise UsageError(
            f"{output_dir}: the run was stopped at step {earlier.last_step} because {earlier.end_reason}; "
            f"--early_stopping false goes on all the same, a new run from its best weights is {new_run}"
        )


def take_up(point: ResumePoint, recorder: Recorder) -> None:
    """Put away the checkpoints that are passed over, and record the one that is gone on from if nobody did.

    What cannot be trusted gets a name that no tool takes for a checkpoint; only what this run saved is touched.

    Parameters
    ----------
    point : ResumePoint
        Where the run goes on.
    recorder : Recorder
        Of the run, opened to go on with it.
    """
    known = {checkpoint.path.name for checkpoint in recorder.run().checkpoints if not checkpoint.deleted}
    for passed in point.passed_over:
        folder = passed.path
        if folder.name not in known and run_of(folder) != recorder.id:
            continue
        folder.rename(_free_name(folder.with_name(QUARANTINED + folder.name)))
        sync_folder(folder.parent)
        step = int(folder.name.rpartition("-")[2])
        recorder.checkpoint(Checkpoint(step, folder, deleted=True), "deleted")
    if point.path.name not in known and run_of(point.path) == recorder.id:  # killed before it was recorded
        recorder.checkpoint(Checkpoint(point.step, point.path, point.size_bytes), "verified")


def _was_decided(run: Run) -> bool:
    """Whether a run was stopped by a decision, not by a signal or another callback."""
    return run.status is Status.STOPPED and not (run.end_reason or "").startswith(("interrupted", "ended at step"))


def _free_name(path: Path) -> Path:
    free, n = path, 2
    while free.exists():
        free, n = path.with_name(f"{path.name}-{n}"), n + 1
    return free
