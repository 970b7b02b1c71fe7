"""KeepBest: saves at evaluations, keeps the best and the last checkpoint and removes the others it wrote."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sightline.runs import Checkpoint
from sightline.training.callback import SightlineCallback
from sightline.training.harmless import harmless
from sightline.training.ranks import Ranks

SAVING_SHARE = 0.05
"""Saving may take this share of the run's time; a new best is saved whatever it costs."""


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Rotation that follows the verdict.

    The Trainer's own rotation sorts by modification time and deletes folders it never wrote; this one removes only
    checkpoints saved by this run, never the best and never the last, and only after a newer one is on disk.

    Parameters
    ----------
    watcher : SightlineCallback
        Judges each evaluation before this callback hears of it, so it must stand before it in the list.
    """

    def __init__(self, watcher: SightlineCallback) -> None:
        self.watcher = watcher
        self._ranks: Ranks | None = None
        self._began = 0.0
        self._saving_s = 0.0
        self._last_save_s = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Meet the other ranks and start the clock."""
        self._ranks = Ranks()
        self._began = time.monotonic()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Have this step saved when it is the best so far, the end, or when saving is cheap enough."""
        if state.global_step == 0 or self._ranks is None:  # the base model is on disk already
            return control
        wanted = bool(self._wanted(state, control)) if self._ranks.is_first else False
        if self._ranks.told_by_first(wanted):
            control.should_save = True
            self._last_save_s = time.monotonic()
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Have the last step saved."""
        if state.global_step >= state.max_steps > 0:
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remove what is neither best nor last, now that the new one is whole."""
        if self._last_save_s:
            self._saving_s += time.monotonic() - self._last_save_s
            self._last_save_s = 0.0
        if state.is_world_process_zero:
            self._rotate(state.global_step)

    @harmless
    def _wanted(self, state: TrainerState, control: TrainerControl) -> bool:
        verdict = self.watcher.verdict
        best = None if verdict is None else verdict.diagnosis.best
        is_best = best is not None and best.step == state.global_step
        is_end = state.global_step >= state.max_steps or control.should_training_stop
        elapsed = time.monotonic() - self._began
        return is_best or is_end or self._saving_s <= SAVING_SHARE * elapsed

    @harmless
    def _rotate(self, last_step: int) -> None:
        run, verdict = self.watcher.run, self.watcher.verdict
        recorder = self.watcher.recorder
        if run is None or recorder is None:
            return
        keep = {last_step}
        if verdict is not None and verdict.diagnosis.best is not None:
            keep.add(verdict.diagnosis.best.step)
        for checkpoint in run.checkpoints:
            if checkpoint.step in keep or checkpoint.deleted:
                continue
            if self._is_ours(checkpoint):
                shutil.rmtree(checkpoint.path)
                recorder.checkpoint(
                    Checkpoint(checkpoint.step, checkpoint.path, checkpoint.size_bytes, deleted=True), "deleted"
                )

    @staticmethod
    def _is_ours(checkpoint: Checkpoint) -> bool:
        """Whether the folder is a real one and carries the name the Trainer gives."""
        folder: Path = checkpoint.path
        return folder.name == f"checkpoint-{checkpoint.step}" and folder.is_dir() and not folder.is_symlink()
