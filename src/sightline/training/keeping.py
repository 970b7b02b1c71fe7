"""KeepBest saves at evaluations; Rotation keeps the best and the last checkpoints and removes the others of the run."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sightline.checkpoints.removal import remove_whole
from sightline.runs import Checkpoint
from sightline.training.callback import SightlineCallback
from sightline.training.harmless import harmless
from sightline.training.ranks import Ranks

SAVING_SHARE = 0.05
"""Saving may take this share of the run's time; a new best is saved whatever it costs."""


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Has a step saved when it is the best so far, the last one, or when saving is cheap enough.

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
        """Take note of what saving costs."""
        if self._last_save_s:
            self._saving_s += time.monotonic() - self._last_save_s
            self._last_save_s = 0.0

    @harmless
    def _wanted(self, state: TrainerState, control: TrainerControl) -> bool:
        verdict = self.watcher.verdict
        best = None if verdict is None else verdict.diagnosis.best
        is_best = best is not None and best.step == state.global_step
        is_end = state.global_step >= state.max_steps or control.should_training_stop
        elapsed = time.monotonic() - self._began
        return is_best or is_end or self._saving_s <= SAVING_SHARE * elapsed


class Rotation(TrainerCallback):  # type: ignore[misc]
    """Removes checkpoints that are neither best nor among the last, by step, once the new one is verified.

    The Trainer's own rotation goes by modification times and deletes folders it never wrote; this one removes only
    checkpoints that the journal of this run names.

    Parameters
    ----------
    watcher : SightlineCallback
        Knows the best step, and verifies each checkpoint before this callback's turn.
    keep : int
        Checkpoints that stay besides the best one, at least 1.
    spread : int
        So many stay, if there are so many, spread evenly over the run: something else than the loss will choose.
    """

    def __init__(self, watcher: SightlineCallback, keep: int = 1, *, spread: int = 0) -> None:
        self.watcher = watcher
        self.keep = max(1, keep)
        self.spread = spread

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Have the others removed as soon as the new one is safe."""
        if state.is_world_process_zero:
            verdict = self.watcher.verdict
            best = None if verdict is None or verdict.diagnosis.best is None else verdict.diagnosis.best.step
            self.watcher.checkpoints.afterwards.do(self._rotate, state.global_step, best)

    def _rotate(self, last_step: int, best_step: int | None) -> None:
        recorder, run = self.watcher.recorder, self.watcher.run
        if recorder is None or run is None:
            return
        there = [checkpoint for checkpoint in run.checkpoints if not checkpoint.deleted]
        if not any(checkpoint.step == last_step and checkpoint.verified for checkpoint in there):
            return  # the new one is not safe: nothing goes
        newest = sorted(checkpoint.step for checkpoint in there if checkpoint.step <= last_step)[-self.keep :]
        stay = spread_out([c.step for c in there], {*newest, *([] if best_step is None else [best_step])}, self.spread)
        for checkpoint in there:
            if checkpoint.step > last_step:  # saved since, while this job waited
                continue
            if checkpoint.step not in stay and _is_ours(checkpoint):
                remove_whole(checkpoint.path)
                recorder.checkpoint(
                    Checkpoint(checkpoint.step, checkpoint.path, checkpoint.size_bytes, deleted=True), "deleted"
                )


def spread_out(steps: Sequence[int], wanted: Set[int], most: int) -> set[int]:
    """Return the steps wanted and as many others as make ``most``, those that leave the smallest gaps behind.

    Parameters
    ----------
    steps : sequence of int
        Steps to choose among, those wanted included.
    wanted : set of int
        Stay in any case.
    most : int
        How many stay, if there are so many; those wanted may be more.

    Returns
    -------
    set of int
    """
    stay = sorted(set(steps) | wanted)
    while len(stay) > max(most, len(wanted)):
        bounds = [0, *stay, stay[-1]]
        gaps = {step: bounds[i + 2] - bounds[i] for i, step in enumerate(stay) if step not in wanted}
        stay.remove(min(gaps, key=lambda step: (gaps[step], step)))
    return set(stay)


def _is_ours(checkpoint: Checkpoint) -> bool:
    """Whether the folder is a real one and carries the name the Trainer gives."""
    folder = checkpoint.path
    return folder.name == f"checkpoint-{checkpoint.step}" and folder.is_dir() and not folder.is_symlink()
