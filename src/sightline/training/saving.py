"""Saving whole or not at all: written aside, brought to the disk, and only then given its name.

The Trainer writes a checkpoint file by file into the folder that bears its name, syncs nothing, and a run killed in
between cannot be resumed before a person deletes the folder. Here the files go into ``.sightline-saving-NAME`` beside
it, which no pattern for checkpoints matches; each is synced, the folder is renamed, and its parent is synced. Whatever
happens before the rename (a signal, a crash, a full disk), the checkpoints that were there are there still.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from sightline.checkpoints.removal import REMOVED, remove, set_aside
from sightline.errors import CheckpointError
from sightline.journal.files import open_regular, sync_folder
from sightline.training.ranks import Ranks

ASIDE = ".sightline-saving-"


def save_checkpoint(trainer: Any, ranks: Ranks, write_more: Callable[[Path], None]) -> Path:
    """Save a Trainer's state as ``<output_dir>/checkpoint-N``; every rank must call it at the same step.

    Parameters
    ----------
    trainer : transformers.Trainer
        Between two steps.
    ranks : Ranks
        The processes that save together.
    write_more : callable
        Writes what else belongs into the folder, on every rank.

    Returns
    -------
    Path
        The checkpoint, whole and on the disk. Its hash manifest is not written yet.

    Raises
    ------
    Exception
        Whatever broke the save off on this rank; CheckpointError where it was another one. The folder is as it was.

    Notes
    -----
    The parts and their order are those of ``transformers.Trainer._save_checkpoint`` (5.23), trainer state last, without
    its rotation, which deletes folders it never wrote.
    """
    args, state = trainer.args, trainer.state
    folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
    trainer.store_flos()
    _point_to_best(state, folder)
    with whole_or_not_at_all(folder, ranks, writes=args.should_save) as aside:
        trainer.save_model(str(aside), _internal_call=True)
        if not args.save_only_model:
            trainer._save_optimizer_and_scheduler(str(aside))
            trainer._save_scaler(str(aside))
            trainer._save_rng_state(str(aside))
        write_more(aside)
        if args.should_save:
            _take_callback_states(trainer)
            state.save_to_json(str(aside / TRAINER_STATE_NAME))
    if args.push_to_hub:
        trainer._push_from_checkpoint(str(folder))
    return folder


@contextlib.contextmanager
def whole_or_not_at_all(folder: Path, ranks: Ranks, *, writes: bool = True) -> Iterator[Path]:
    """Give a folder to write into that takes the place of ``folder`` if the block ends well on every rank.

    Parameters
    ----------
    folder : Path
        What is to be written; replaced if it is there.
    ranks : Ranks
        Every rank must enter and leave the block.
    writes : bool
        Whether this process makes, syncs and renames the folder: one on each file system.

    Yields
    ------
    Path
        An empty folder beside it.
    """
    aside = folder.with_name(ASIDE + folder.name)
    failure: Exception | None = None
    try:
        if writes:
            remove(aside)
            aside.mkdir(parents=True)
    except OSError as error:
        failure = error
    _agree(ranks, failure, folder)
    try:
        yield aside
    except Exception as error:
        failure = error
    except BaseException:  # Ctrl-C: nobody waits for anybody any more
        if writes:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    try:
        _agree(ranks, failure, folder)
        if writes:
            failure = _name(aside, folder)
        _agree(ranks, failure, folder)
    finally:
        if writes:
            shutil.rmtree(aside, ignore_errors=True)


def clear_leftovers(output_dir: Path) -> None:
    """Remove what saves and removals that were cut off have left behind."""
    for prefix in (ASIDE, REMOVED):
        for leftover in output_dir.glob(f"{prefix}*"):
            if not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)


def _agree(ranks: Ranks, failure: Exception | None, folder: Path) -> None:
    """Go on only if no rank has failed."""
    failed_somewhere = ranks.any(failure is not None)
    if failure is not None:
        raise failure
    if failed_somewhere:
        raise CheckpointError(f"{folder}: another process of the run could not write its part")


def _name(aside: Path, folder: Path) -> Exception | None:
    """Bring everything to the disk and rename; say what went wrong."""
    try:
        _sync_tree(aside)
        if os.path.lexists(folder):
            replaced = set_aside(folder)
            aside.rename(folder)
            remove(replaced)
        else:
            aside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        return error
    return None


def _sync_tree(folder: Path) -> None:
    """Wait until every file of a folder and every name in it stand on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                with open_regular(path) as file:
                    os.fsync(file.fileno())
        sync_folder(Path(parent))


def _point_to_best(state: Any, folder: Path) -> None:
    """Have the trainer state name its best checkpoint by the name it will have."""
    if state.best_global_step:
        best = folder.with_name(f"checkpoint-{state.best_global_step}")
        if best == folder or best.is_dir():
            state.best_model_checkpoint = str(best)


def _take_callback_states(trainer: Any) -> None:
    """Put the state of every callback that exports one into the trainer state, as the Trainer does."""
    known = trainer.state.stateful_callbacks
    for callback in (*trainer.callback_handler.callbacks, trainer.control):
        if isinstance(callback, ExportableState):
            name = type(callback).__name__
            if isinstance(known[name], list):
                known[name].append(callback.state())
            else:
                known[name] = callback.state()
