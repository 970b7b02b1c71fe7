"""Evaluations that fail in the middle of `sightline train`: told, left out, and the training goes on."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.errors import DataError, ModelError
from sightline.evaluation import evaluate
from sightline.journal import reader
from sightline.runs import Phase, Status
from sightline.training import validation as validation_module
from sightline.training.command import train
from sightline.training.display import Silent
from sightline.training.recipe import Recipe
from sightline.training.trainer import WatchedTrainer

from .test_train import data, settings

__all__ = ["data"]


class Noting(Silent):
    """Remembers what a person was told."""

    def __init__(self):
        self.notices = []

    def notice(self, text, severity):
        self.notices.append(text)


def failing_at(monkeypatch, calls, error):
    """Have some calls of evaluate() fail, counted from 1: validation rows, then the probe, at each evaluation."""
    count = []

    def fails(*args, **kwargs):
        count.append(1)
        if len(count) in calls:
            raise error
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(validation_module, "evaluate", fails)


@pytest.mark.parametrize(
    "error",
    [ModelError("out of memory on cpu with one row of 40 tokens"), torch.OutOfMemoryError("CUDA out of memory.\nTried"),
     DataError("validation set, row 3: token id 9 is outside"), ZeroDivisionError("a fault of ours")],
    ids=["model", "memory", "data", "ours"],
)  # fmt: skip
def test_a_failed_evaluation_is_left_out_and_told_once(data, tmp_path, monkeypatch, error):
    """The run ends as it should, with the evaluations that could be made."""
    failing_at(monkeypatch, {3, 4, 5}, error)  # two evaluations after the base model's
    display = Noting()
    outcome = train(Recipe.load(None, settings(data, tmp_path / "run")), display)
    assert outcome.status is Status.FINISHED
    run = reader.read(tmp_path / "run")
    assert [e.step for e in run.evaluations] == [0, 15, 20]
    assert run.status is Status.FINISHED and run.eval_loss.steps.tolist() == [0, 15, 20]
    told = [text for text in display.notices if "left out" in text]
    assert len(told) == 1 and str(error).splitlines()[0] in told[0] and "\n" not in told[0]


def test_a_base_model_that_cannot_be_scored_ends_the_run_before_it_begins(data, tmp_path, monkeypatch):
    """At step 0 nothing is lost: the reason is given and no step is made."""
    failing_at(monkeypatch, {1}, ModelError("out of memory on cpu with one row of 40 tokens"))
    with pytest.raises(Exception, match="out of memory on cpu with one row"):
        train(Recipe.load(None, settings(data, tmp_path / "run")), Silent())
    run = reader.read(tmp_path / "run")
    assert run.status is Status.FAILED and not run.train_loss


def test_nan_weights_are_counted_and_the_run_is_called_diverged(data, tmp_path, monkeypatch):
    """Weights that break at step 8 leave non-finite rows in every later evaluation, and the base of what came before."""
    step = WatchedTrainer.training_step

    def breaks(self, model, *args, **kwargs):
        if self.state.global_step == 8:
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).fill_(math.nan)
        return step(self, model, *args, **kwargs)

    monkeypatch.setattr(WatchedTrainer, "training_step", breaks)
    outcome = train(Recipe.load(None, settings(data, tmp_path / "run")), Silent())
    assert outcome.verdict.diagnosis.phase is Phase.DIVERGED
    run = reader.read(tmp_path / "run")
    broken = [e.losses.non_finite for e in run.evaluations if e.step >= 10]
    assert broken and all(n == 20 for n in broken)
    assert outcome.verdict.diagnosis.best.step == 5
