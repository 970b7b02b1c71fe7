"""Ctrl-C and SIGTERM end a fine-tune between two steps, with its state saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sightline.training.ranks import Ranks

WATCHED = (signal.SIGINT, signal.SIGTERM)


class Interrupts(TrainerCallback):  # type: ignore[misc]
    """Stops the training after the step in which a signal came, and has that step saved.

    A handler that somebody else had set for the signal is called once the state is saved. The second signal of the
    same kind acts as if nobody had caught the first. Under several processes a signal to any of them stops all at the
    same step.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self.left_out_evaluation = False
        """Whether an evaluation was due at the step that was ended at; who resumes makes it first."""
        self._earlier: dict[int, Any] = {}
        self._ranks: Ranks | None = None

    @contextmanager
    def caught(self) -> Iterator[Interrupts]:
        """Catch the signals inside the block; elsewhere than in the main thread nothing is caught."""
        try:
            for number in WATCHED:
                self._earlier[number] = signal.signal(number, self._came)
        except ValueError:  # not the main thread
            pass
        earlier = dict(self._earlier)
        try:
            yield self
        finally:
            self._give_back()
            self._call_earlier(earlier)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Meet the other ranks."""
        self._ranks = Ranks()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """End here if a signal came to any rank."""
        came = self.signal_name is not None
        if self._ranks is not None and self._ranks.any(came):
            self.signal_name = self._ranks.told_by_first(self.signal_name) or self.signal_name or "SIGTERM"
            control.should_save = True
            control.should_training_stop = True
            if state.global_step >= state.max_steps:  # the run is over, and whole only with its last evaluation
                return control
            self.left_out_evaluation = bool(control.should_evaluate)
            control.should_evaluate = False
        return control

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name is not None:  # again: the user means it
            self._give_back()
            signal.raise_signal(number)
            return
        self.signal_name = signal.Signals(number).name

    def _call_earlier(self, earlier: dict[int, Any]) -> None:
        """Call whoever waited for the signal before: a batch system's handler asks to be started again, say."""
        if self.signal_name is None:
            return
        number = signal.Signals[self.signal_name]
        waiting = earlier.get(number)
        if callable(waiting) and waiting is not signal.default_int_handler:
            waiting(number, None)

    def _give_back(self) -> None:
        for number, earlier in self._earlier.items():
            signal.signal(number, earlier if earlier is not None else signal.SIG_DFL)
        self._earlier = {}
