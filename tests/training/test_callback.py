"""Watching a Trainer: everything recorded, nothing changed, nothing raised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sightline.decisions import Verdict
from sightline.journal import reader
from sightline.runs import Action, Decision, Diagnosis, Phase, Status
from sightline.training import callback as callback_module
from sightline.training.callback import SightlineCallback, watch

from .tiny import tiny_trainer, weights

RECORDED = ("loss", "grad_norm", "learning_rate", "eval_loss")


def test_watching_changes_no_weight_and_no_loss(tmp_path):
    """On a model with dropout the weights are bit-equal with and without the callback."""
    plain = tiny_trainer(tmp_path / "plain")
    plain.train()
    watched = tiny_trainer(tmp_path / "watched", callbacks=[SightlineCallback()])
    watched.train()
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(watched), strict=True))
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (plain, watched)]
    assert losses[0] == losses[1]


def test_the_journal_holds_what_the_trainer_logged(tmp_path):
    """Every logged value stands at its step in the run read back; the Trainer's eval_loss beside the exact one."""
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback()])
    trainer.train()
    run = reader.read(tmp_path)
    for name in RECORDED:
        logged = {e["step"]: e[name] for e in trainer.state.log_history if name in e}
        curve = run.curves["eval_loss_reported" if name == "eval_loss" else name]
        assert dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) == logged
    assert run.status is Status.FINISHED
    assert "train_loss" not in run.curves


def test_steps_after_the_last_interval_are_logged(tmp_path):
    """With logging every 5 of 12 steps the last two steps stand in a line of their own."""
    tiny_trainer(tmp_path, callbacks=[SightlineCallback()], logging_steps=5).train()
    assert reader.read(tmp_path).train_loss.steps.tolist() == [5, 10, 12]


def test_report_to_sightline_works_by_name(tmp_path):
    """After `import sightline` the Trainer knows the name, whichever is imported first."""
    script = (
        "import sightline\n"
        "from tests.training.tiny import tiny_trainer\n"
        f"tiny_trainer({str(tmp_path)!r}, report_to=['sightline']).train()\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root, capture_output=True, timeout=120)
    assert len(reader.read(tmp_path).train_loss) == 12


def test_watch_adds_one_callback_however_often_it_is_called(tmp_path):
    """A second watch() returns the first one's callback."""
    trainer = tiny_trainer(tmp_path)
    assert watch(trainer) is watch(trainer)


def test_a_failing_verdict_never_reaches_the_trainer(tmp_path, monkeypatch):
    """An error in the diagnosis is reported and the run goes on."""
    monkeypatch.setattr(callback_module, "judge_run", lambda *a: 1 / 0)
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback(stop_early=True)])
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        trainer.train()
    assert trainer.state.global_step == 12


@pytest.mark.parametrize(("stop_early", "last_step"), [(True, 6), (False, 12)])
def test_a_verdict_stops_the_run_only_when_asked(tmp_path, monkeypatch, stop_early, last_step):
    """The decision `stop` ends the training at its evaluation, or is only recorded."""

    def stops_at_six(run, policy):
        step = int(run.eval_loss.steps[-1])
        action = Action.STOP if step >= 6 else Action.CONTINUE
        return Verdict(run, Diagnosis(Phase.HEALTHY, 0.9), Decision(action, None, None, "enough"))

    monkeypatch.setattr(callback_module, "judge_run", stops_at_six)
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback(stop_early=stop_early)])
    trainer.train()
    assert trainer.state.global_step == last_step
    run = reader.read(tmp_path)
    assert run.status is (Status.STOPPED if stop_early else Status.FINISHED)


def test_a_verdict_at_the_last_step_stops_nothing(tmp_path, monkeypatch):
    """A run that has trained every step is finished, whatever its last decision says."""

    def stops_at_the_end(run, policy):
        action = Action.STOP if int(run.eval_loss.steps[-1]) == 12 else Action.CONTINUE
        return Verdict(run, Diagnosis(Phase.HEALTHY, 0.9), Decision(action, None, None, "settled"))

    monkeypatch.setattr(callback_module, "judge_run", stops_at_the_end)
    watcher = SightlineCallback(stop_early=True)
    tiny_trainer(tmp_path, callbacks=[watcher]).train()
    run = reader.read(tmp_path)
    assert not watcher.stopped_by_decision
    assert (run.status, run.end_reason, run.last_step) == (Status.FINISHED, None, 12)


def test_training_twice_supersedes_the_first_points(tmp_path):
    """train() again starts at step 0: one curve, of the second session, and both in the file."""
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback()])
    trainer.train()
    trainer.train()
    run = reader.read(tmp_path)
    assert len(run.segments) == 2
    second = [e["loss"] for e in trainer.state.log_history if "loss" in e][-12:]
    assert run.train_loss.values.tolist() == second


def test_resuming_makes_one_continuous_run(tmp_path):
    """Points after the checkpoint are superseded by those of the resumed session."""
    first = tiny_trainer(tmp_path, callbacks=[SightlineCallback()], max_steps=12, save_strategy="steps", save_steps=6)
    first.train()
    again = tiny_trainer(tmp_path, callbacks=[SightlineCallback()], max_steps=12, save_strategy="steps", save_steps=6)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    run = reader.read(tmp_path)
    assert [s.from_step for s in run.segments] == [0, 6]
    assert run.train_loss.steps.tolist() == list(range(1, 13))


def test_an_error_in_the_script_is_the_end_reason(tmp_path):
    """A script that dies of an exception leaves a failed run with the error's first line."""
    script = (
        "import sightline\n"
        "from tests.training.tiny import tiny_trainer\n"
        f"trainer = tiny_trainer({str(tmp_path)!r})\n"
        "sightline.watch(trainer)\n"
        "step = trainer.training_step\n"
        "def breaks(*a, **k):\n"
        "    if trainer.state.global_step == 4: raise RuntimeError('lost the GPU\\nand more')\n"
        "    return step(*a, **k)\n"
        "trainer.training_step = breaks\n"
        "trainer.train()\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, timeout=120, text=True)
    assert "lost the GPU" in done.stderr
    run = reader.read(tmp_path)
    assert run.status is Status.FAILED
    assert run.end_reason == "RuntimeError: lost the GPU"
