"""What a signal changes about the step in which it comes."""

from __future__ import annotations

import signal

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from sightline.training.interrupts import Interrupts


@pytest.mark.parametrize(("step", "evaluated"), [(9, False), (10, True)])
def test_a_signal_leaves_out_every_evaluation_but_the_last(step, evaluated, tmp_path):
    """In the last step there is no later one to make the evaluation up: without it the run would not be whole."""
    interrupts, arguments = Interrupts(), TrainingArguments(tmp_path, report_to=[])
    state, control = TrainerState(global_step=step, max_steps=10), TrainerControl(should_evaluate=True)
    with interrupts.caught():
        interrupts.on_train_begin(arguments, state, control)
        signal.raise_signal(signal.SIGTERM)
        control = interrupts.on_step_end(arguments, state, control)
    assert control.should_training_stop and control.should_save
    assert control.should_evaluate is evaluated and interrupts.left_out_evaluation is not evaluated
