"""At the end of a fine-tune: the best weights back in the model, checked, and saved ready for use."""

from __future__ import annotations

import math
from pathlib import Path

from sightline.checkpoints import read_parts
from sightline.evaluation import evaluate
from sightline.runs import Checkpoint
from sightline.training.callback import SightlineCallback
from sightline.training.model_card import write_model_card
from sightline.training.prepare import Prepared
from sightline.training.trainer import WatchedTrainer

SAME_LOSS = 1e-4
"""Relative difference up to which the loss of the restored weights counts as the journal's."""


def restore_best(
    trainer: WatchedTrainer, watcher: SightlineCallback, prepared: Prepared
) -> tuple[Path | None, list[str]]:
    """Load the best checkpoint into the model, score it again and save it as ``<output_dir>/best``.

    Every rank must call it.

    Parameters
    ----------
    trainer : WatchedTrainer
        Has just ended its training.
    watcher : SightlineCallback
        Knows the best step and what was saved.
    prepared : Prepared
        The run that was trained.

    Returns
    -------
    best_dir : Path or None
        None when no checkpoint of the best step exists: the base model was never beaten, or nothing was evaluated.
    lines : list of str
        What to tell the user.
    """
    best = _best_checkpoint(watcher)
    if watcher.ranks is not None:
        best = watcher.ranks.told_by_first(best)
    if best is None:
        return None, _why_none(watcher)
    trainer.state.best_model_checkpoint = str(best.path)
    trainer._load_best_model()
    best_dir = prepared.recipe.output_dir / "best"
    trainer.save_model(str(best_dir))
    if watcher.verdict is not None:
        write_model_card(best_dir, prepared, watcher.verdict)
    return best_dir, [
        *_checked(trainer, watcher, best),
        f"the best weights are in {best_dir}, ready for from_pretrained",
    ]


def _best_checkpoint(watcher: SightlineCallback) -> Checkpoint | None:
    run, verdict = watcher.run, watcher.verdict
    if run is None or verdict is None or verdict.diagnosis.best is None:
        return None
    wanted = verdict.diagnosis.best.step
    saved = next((c for c in run.checkpoints if c.step == wanted and not c.deleted), None)
    return saved if saved is not None and not read_parts(saved.path).missing else None


def _why_none(watcher: SightlineCallback) -> list[str]:
    verdict = watcher.verdict
    if verdict is None or verdict.diagnosis.best is None:
        return ["no evaluation was recorded, so no checkpoint can be called best"]
    if verdict.diagnosis.best.step == 0:
        return ["no step of this run beat the base model: keep the base model, and lower the learning rate"]
    return [f"the best step {verdict.diagnosis.best.step} was not saved"]


def _checked(trainer: WatchedTrainer, watcher: SightlineCallback, best: Checkpoint) -> list[str]:
    """Score the restored weights, compare with what the journal has for their step, and tell of all rows."""
    if trainer.scored is None or trainer.eval_set is None:
        return [f"{best.path.name} is restored"]
    again = evaluate(trainer.model, trainer.scored.rows).loss  # every rank scores its share
    of_all = evaluate(trainer.model, trainer.eval_set).loss if trainer.scored.is_part else again
    told = None if watcher.verdict is None else watcher.verdict.diagnosis.best
    if told is not None and not math.isclose(again, told.eval_loss, rel_tol=SAME_LOSS):
        return [
            f"{best.path.name} is restored but scores {again:.4f}, not the {told.eval_loss:.4f} recorded at its step: "
            "do not trust it before you have looked"
        ]
    lines = [f"{best.path.name} is restored and scores {again:.4f} again"]
    if trainer.scored.is_part:
        lines.append(
            f"{len(trainer.scored.index)} of {len(trainer.eval_set)} validation rows were scored at each evaluation; "
            f"on all of them {best.path.name} has {of_all:.4f}"
        )
    return lines
