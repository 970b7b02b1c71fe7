"""CheckpointWatch: every checkpoint is recorded, verified and given its hash manifest as soon as it is saved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sightline.checkpoints import MANIFEST, Verification, find_checkpoints, verify, write_manifest
from sightline.errors import CheckpointError
from sightline.journal import Recorder
from sightline.runs import Checkpoint, Finding, Severity
from sightline.training.afterwards import Afterwards

BROKEN = frozenset({"incomplete", "structure", "unreadable"})
"""Problems of a save that was cut off or went wrong; a manifest would only vouch for the damage."""
KIND = "damaged_checkpoint"


class CheckpointWatch:
    """Looks after the checkpoints that a Trainer saves; hashing and reading take place beside the training.

    Parameters
    ----------
    warn : callable
        Told in one sentence what is wrong, perhaps from another thread.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.afterwards = Afterwards()
        self._there_before: frozenset[str] = frozenset()

    def begin(self, output_dir: Path, save_total_limit: int | None) -> None:
        """Note what is there, and warn where the Trainer's rotation would delete what it must not."""
        self._there_before = frozenset(parts.path.name for parts in find_checkpoints(output_dir))
        for risk in rotation_risks(output_dir, save_total_limit, time.time()):
            self.warn(risk)

    def saved(self, recorder: Recorder, folder: Path, step: int) -> None:
        """Record a checkpoint that was saved and have it verified; one that is not there was not saved."""
        if folder.is_dir():
            (folder / MANIFEST).unlink(missing_ok=True)  # of an earlier save: the Trainer writes into what is there
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            checkpoint = Checkpoint(step, folder, size_bytes=size)
            recorder.checkpoint(checkpoint, "saved")
            self.afterwards.do(self._prove, recorder, checkpoint)

    def end(self, recorder: Recorder, output_dir: Path, last_step: int) -> None:
        """Record what was saved without an ``on_save`` (a save at SIGTERM), and wait until all is verified."""
        recorded = {checkpoint.path.name for checkpoint in recorder.run().checkpoints}
        for parts in find_checkpoints(output_dir):
            if parts.step <= last_step and parts.path.name not in recorded | self._there_before:
                self.saved(recorder, parts.path, parts.step)
        self.afterwards.wait()

    def _prove(self, recorder: Recorder, checkpoint: Checkpoint) -> None:
        folder = checkpoint.path
        try:
            found = verify(folder)
            if not _is_broken(found):
                write_manifest(folder)
        except CheckpointError:
            if folder.is_dir() and not _is_going(folder):
                raise
            found = None
        self._sweep(recorder)
        if found is None or _is_going(folder):  # the Trainer's rotation was quicker
            return
        wrong = [str(problem) for problem in found.problems if problem.kind != "unlearned"]  # a first step may be none
        if wrong:
            told = f"{folder.name} cannot be trusted: " + "; ".join(wrong[:5])
            recorder.alert(checkpoint.step, Finding(KIND, Severity.CRITICAL, told, from_step=checkpoint.step))
            self.warn(told)
        if found.intact:
            recorder.checkpoint(checkpoint, "verified")

    @staticmethod
    def _sweep(recorder: Recorder) -> None:
        """Remove folders that the Trainer's rotation has emptied but for a manifest written at that moment."""
        for checkpoint in recorder.run().checkpoints:
            if not checkpoint.deleted and _is_going(checkpoint.path):
                with contextlib.suppress(OSError):
                    (checkpoint.path / MANIFEST).unlink(missing_ok=True)
                    checkpoint.path.rmdir()


def rotation_risks(output_dir: Path, save_total_limit: int | None, now: float) -> Iterator[str]:
    """Say what the Trainer's rotation would delete that it never wrote, or at once.

    It takes every folder ``checkpoint-*`` for its own and goes by modification times.

    Parameters
    ----------
    output_dir : Path
        The Trainer's output folder.
    save_total_limit : int or None
        Checkpoints it keeps; without one it deletes nothing.
    now : float
        Unix time in seconds.

    Yields
    ------
    str
        One sentence for each kind of risk.
    """
    if not save_total_limit or save_total_limit < 1 or not output_dir.is_dir():
        return
    folders = [path for path in sorted(output_dir.glob("checkpoint-*")) if path.is_dir()]
    foreign = [path.name for path in folders if not path.name.removeprefix("checkpoint-").isdigit()]
    newer = [path.name for path in folders if path.stat().st_mtime > now + 1]
    if foreign:
        yield (
            f"save_total_limit {save_total_limit}: the Trainer will delete {', '.join(foreign[:5])} as if it were a "
            "checkpoint of its own; rename it"
        )
    if newer:
        yield (
            f"save_total_limit {save_total_limit}: {', '.join(newer[:5])} has a modification time in the future, so the "
            "Trainer may delete every new checkpoint at once; `touch` it or leave save_total_limit out"
        )


def _is_broken(found: Verification) -> bool:
    return any(problem.kind in BROKEN for problem in found.problems)


def _is_going(folder: Path) -> bool:
    """Whether nothing but a manifest is left of a checkpoint."""
    try:
        return {entry.name for entry in folder.iterdir()} <= {MANIFEST}
    except OSError:
        return True
