"""Cadence: the Trainer's own step counts, and intervals that follow from one number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, SequentialSampler

from sightline.training.cadence import Cadence, steps_per_epoch

from .tiny import tiny_trainer


@pytest.mark.parametrize("batch", [1, 3, 4, 7])
@pytest.mark.parametrize("accumulation", [1, 2, 3, 50])
@pytest.mark.parametrize("epochs", [1.0, 2.3, 3.0])
def test_steps_are_those_of_the_trainer(tmp_path, batch, accumulation, epochs):
    """The Trainer itself counts the same steps, last short batches and accumulations included (40 rows)."""
    trainer = tiny_trainer(
        tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=-1,
        num_train_epochs=epochs,
    )  # fmt: skip
    values = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    per_epoch, max_steps = values[1], values[6]
    plan = Cadence.plan(rows=40, batch_size=batch, accumulation=accumulation, epochs=epochs)
    assert (plan.steps_per_epoch, plan.total_steps) == (per_epoch, max_steps)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("rows", [9, 16, 40, 41, 63])
def test_batches_are_shared_out_as_accelerate_does(rows, world, drop_last):
    from accelerate.data_loader import BatchSamplerShard

    sampler = BatchSampler(SequentialSampler(range(rows)), batch_size=4, drop_last=drop_last)
    shards = {len(BatchSamplerShard(sampler, world, i, even_batches=True)) for i in range(world)}
    assert {steps_per_epoch(rows, 4, 1, world, drop_last=drop_last)} == {max(1, n) for n in shards}


@given(
    rows=st.integers(1, 200_000),
    batch=st.integers(1, 64),
    accumulation=st.integers(1, 16),
    epochs=st.floats(0.01, 30),
    evals=st.floats(0.5, 100),
)
def test_intervals_fit_together(rows, batch, accumulation, epochs, evals):
    """Every evaluation has a log line at its step and a checkpoint, and the last step is evaluated."""
    plan = Cadence.plan(rows=rows, batch_size=batch, accumulation=accumulation, epochs=epochs, evals_per_epoch=evals)
    assert plan.eval_steps is not None
    assert 1 <= plan.eval_steps <= plan.total_steps
    assert plan.eval_steps % plan.logging_steps == 0
    assert plan.logging_steps <= 10
    assert plan.save_steps == plan.eval_steps
    steps = plan.evaluation_steps()
    assert steps[-1] == plan.total_steps
    assert list(steps) == sorted(set(steps))
    if plan.total_steps >= 10:
        assert plan.evaluations >= 10


def test_evaluations_an_epoch_are_about_what_was_asked():
    plan = Cadence.plan(rows=9000, batch_size=8, evals_per_epoch=15)
    assert 15 <= plan.steps_per_epoch / plan.eval_steps <= 16.5
    assert plan.logging_steps == 5


def test_a_short_epoch_is_evaluated_at_every_step_and_says_so():
    plan = Cadence.plan(rows=40, batch_size=8, evals_per_epoch=15)
    assert plan.eval_steps == 1
    assert any("only 5 steps" in note for note in plan.notes)


def test_given_intervals_are_obeyed():
    plan = Cadence.plan(rows=1000, batch_size=10, eval_steps=30, logging_steps=7, save_steps=45)
    assert (plan.eval_steps, plan.logging_steps, plan.save_steps) == (30, 7, 45)
    assert plan.fixed_evaluation
    assert Cadence.plan(rows=1000, batch_size=10, eval_steps=0.1).eval_steps == 30  # a share of the 300 steps
    assert Cadence.plan(rows=1000, batch_size=10, eval_steps=20, saves_per_epoch=2).save_steps == 40
    assert Cadence.plan(rows=1000, batch_size=10, evaluate=False).eval_steps is None
    assert Cadence.plan(rows=1000, batch_size=10, evaluate=False).evaluation_steps() == ()


def test_an_interval_longer_than_the_run_leaves_its_end():
    plan = Cadence.plan(rows=100, batch_size=10, max_steps=20, eval_steps=50)
    assert plan.evaluation_steps() == (20,)


def test_max_steps_wins_and_the_run_is_still_evaluated():
    plan = Cadence.plan(rows=100_000, batch_size=8, max_steps=20)
    assert plan.total_steps == 20
    assert plan.evaluations >= 10
    assert plan.epochs == pytest.approx(20 / 12_500)
