"""Watching hurts no training: whatever fails inside, and however much is watched, the weights are those of nobody watching."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sightline.journal import Recorder
from sightline.training import callback as callback_module
from sightline.training import checkpoint_watch, ranks
from sightline.training.callback import SightlineCallback
from sightline.training.exact_losses import ExactLosses

from .small_runs import run_of, write_demo_rows
from .tiny import tiny_trainer, weights


class Panic(BaseException):
    """Neither an Exception nor the user's wish; libraries written in Rust raise such."""


KINDS = (ValueError, OSError, Panic)
PLACES = {
    **{f"recorder.{name}": (Recorder, name) for name in (
        "open", "run", "log", "evaluation", "decision", "checkpoint", "configure", "segment", "end", "alert",
    )},
    "the verdict": (callback_module, "judge_run"),
    "exact losses, attached": (ExactLosses, "attach"),
    "exact losses, a batch": (ExactLosses, "batch_done"),
    "exact losses": (ExactLosses, "evaluation"),
    "the look at what is there": (checkpoint_watch, "find_checkpoints"),
    "verification": (checkpoint_watch, "verify"),
    "the manifest": (checkpoint_watch, "write_manifest"),
    "the words of a warning": (SightlineCallback, "warn"),
    "meeting the ranks": (ranks, "Ranks"),
}  # fmt: skip
"""What the events of the callback lean on."""
SAVING = {"save_strategy": "steps", "save_steps": 4}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The weights of the run that nobody watches."""
    trainer = tiny_trainer(tmp_path_factory.mktemp("alone"), **SAVING)
    trainer.train()
    return weights(trainer)


@pytest.mark.parametrize(
    "kind", [Panic, *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:2])], ids=lambda kind: kind.__name__
)
def test_no_error_inside_reaches_the_training(tmp_path, monkeypatch, alone, trials, kind):
    """Each thing an event leans on raises in turn: training ends normally, its weights bit-equal."""
    tally = trials("H1", "events that raise inside: training ends normally, weights bit-equal to nobody watching")

    def broken(*args, **kwargs):
        raise kind("broken on purpose")

    for place, (owner, name) in PLACES.items():
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(owner, name, broken)
            if place == "meeting the ranks":
                patch.setattr(callback_module, "Ranks", broken)
            trainer = tiny_trainer(tmp_path / place, callbacks=[SightlineCallback(stop_early=True)], **SAVING)
            trainer.train()
        same = all(torch.equal(a, b) for a, b in zip(alone, weights(trainer), strict=True))
        tally.count(trainer.state.global_step == 12 and same, place)
    tally.check()


def test_a_journal_that_cannot_be_written_hurts_nothing(tmp_path, alone, trials):
    """A file stands where the run's folder should be."""
    tally = trials("H1", "events that raise inside: training ends normally, weights bit-equal to nobody watching")
    (tmp_path / "sightline").write_text("in the way")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback()], **SAVING)
        trainer.train()
    same = all(torch.equal(a, b) for a, b in zip(alone, weights(trainer), strict=True))
    tally.count(trainer.state.global_step == 12 and same, "a file in the way")
    tally.check()


def test_evaluating_probing_and_saving_leave_the_weights_alone(tmp_path, trials):
    """`sightline train` with dropout: evaluated, probed and saved at every step or not at all, the weights are the same."""
    tally = trials("H2", "watched with every feature, weights bit-equal to the run not watched")
    data = write_demo_rows(tmp_path)
    often = run_of(data, tmp_path / "often", max_steps=6, eval_steps=1)
    never = run_of(data, tmp_path / "never", max_steps=6, eval_steps=None, eval_dataset=None, eval_strategy="no")
    a, b = (_last_weights(outcome.output_dir) for outcome in (often, never))
    tally.count(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), "often and never")
    tally.check()


def test_a_pass_of_its_own_leaves_the_weights_alone(tmp_path, alone, trials):
    """In anyone's script: exact evaluation by an own pass, the train probe, verified saves."""
    tally = trials("H2", "watched with every feature, weights bit-equal to the run not watched")
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback(exact_evaluation=True)], **SAVING)
    trainer.train()
    tally.count(all(torch.equal(a, b) for a, b in zip(alone, weights(trainer), strict=True)), "own pass")
    tally.count(all(parameter.grad is None for parameter in trainer.model.parameters()), "gradients are left over")
    tally.check()


def _last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint-6" / "adapter_model.safetensors")
