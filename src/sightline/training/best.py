"""At the end of a fine-tune: the best weights back in the model, checked, and saved ready for use."""

from __future__ import annotations

import math
import time
from pathlib import Path

from sightline.checkpoints import verify
from sightline.errors import CheckpointError
from sightline.evaluation import evaluate
from sightline.runs import Checkpoint
from sightline.training.callback import SightlineCallback
from sightline.training.merging import write_merged
from sightline.training.model_card import model_card
from sightline.training.prepare import Prepared
from sightline.training.ranks import Ranks
from sightline.training.saving import whole_or_not_at_all
from sightline.training.trainer import WatchedTrainer

SAME_LOSS = 1e-5
"""Relative difference up to which the loss of the restored weights counts as the journal's: bit-equal where sums are
taken in the same order, a few units in the last place of float32 where a device does not promise an order."""
PICKLED_ARGUMENTS = "training_args.bin"
"""A pickle that holds the hub's token in clear; nobody needs it beside weights."""


def restore_best(
    trainer: WatchedTrainer, watcher: SightlineCallback, prepared: Prepared, keep_step: int | None = None
) -> tuple[Path | None, list[str]]:
    """Load the best checkpoint into the model, score it again and save it as ``<output_dir>/best``.

    Every rank must call it. With ``merge`` the adapter merged into its base model goes to ``<output_dir>/merged``.

    Parameters
    ----------
    trainer : WatchedTrainer
        Has just ended its training.
    watcher : SightlineCallback
        Knows the best step and what was saved.
    prepared : Prepared
        The run that was trained.
    keep_step : int, optional
        The step that a gold set chose; the one of the lowest validation loss unless given.

    Returns
    -------
    best_dir : Path or None
        None when no checkpoint of the best step exists: the base model was never beaten, or nothing was evaluated.
    lines : list of str
        What to tell the user.

    Raises
    ------
    CheckpointError
        If the best checkpoint is damaged, or its weights do not give the loss that was recorded at their step.
    """
    ranks = watcher.ranks or Ranks()
    best, problem = ranks.told_by_first(_best_checkpoint(watcher, keep_step))
    if problem is not None:
        raise CheckpointError(problem)
    if best is None:
        return None, _why_none(watcher)
    trainer.state.best_model_checkpoint = str(best.path)
    trainer._load_best_model()
    lines = _checked(trainer, watcher, best, ranks)
    best_dir = prepared.recipe.output_dir / "best"
    card = None if watcher.verdict is None else model_card(prepared, watcher.verdict, keep_step)
    with whole_or_not_at_all(best_dir, ranks, writes=trainer.args.should_save) as aside:
        trainer.save_model(str(aside), _internal_call=True)
        if trainer.args.should_save:
            (aside / PICKLED_ARGUMENTS).unlink(missing_ok=True)
            if card is not None:
                (aside / "README.md").write_text(card, encoding="utf-8")
    lines.append(f"the best weights are in {best_dir}, ready for from_pretrained")
    if prepared.recipe.merge:
        lines.append(write_merged(trainer, prepared, ranks, card))
    if trainer.args.push_to_hub:
        trainer.push_to_hub(commit_message="Model save")
    return best_dir, lines


def _best_checkpoint(watcher: SightlineCallback, keep_step: int | None) -> tuple[Checkpoint | None, str | None]:
    """Return the checkpoint of the best step, and what is wrong with it; neither where it was not saved."""
    run, verdict = watcher.run, watcher.verdict
    if run is None or verdict is None or verdict.diagnosis.best is None:
        return None, None
    wanted = verdict.diagnosis.best.step if keep_step is None else keep_step
    saved = next((c for c in run.checkpoints if c.step == wanted and not c.deleted), None)
    if saved is None or not saved.path.is_dir():
        return None, None
    damage = [str(problem) for problem in verify(saved.path).problems if problem.is_damage]
    return saved, f"{saved.path}: the best checkpoint is damaged: {'; '.join(damage)}" if damage else None


def _why_none(watcher: SightlineCallback) -> list[str]:
    verdict = watcher.verdict
    if verdict is None or verdict.diagnosis.best is None:
        run = watcher.run
        if verdict is not None and verdict.diagnosis.finding("evaluation_unchanged") is not None:
            return ["the evaluations do not see the trained weights, so no checkpoint can be called best"]
        found = "was recorded" if run is None or not run.evaluations else "gave a finite loss"
        return [f"no evaluation {found}, so no checkpoint can be called best"]
    if verdict.diagnosis.best.step == 0:
        return ["no step of this run beat the base model: keep the base model, and lower the learning rate"]
    return [f"the best step {verdict.diagnosis.best.step} was not saved"]


def _checked(trainer: WatchedTrainer, watcher: SightlineCallback, best: Checkpoint, ranks: Ranks) -> list[str]:
    """Score the restored weights, compare with what the journal has for their step, and tell of all rows."""
    validation = trainer.validation
    if validation is None:
        return [f"{best.path.name} is restored"]
    recorded, rows = ranks.told_by_first(_recorded(watcher, best.step))
    sample = validation.sample if rows is None else validation.sample.of_size(rows)
    began = time.monotonic()
    again = evaluate(trainer.model, sample.rows).loss  # every rank scores its share
    validation.spending.spend(time.monotonic() - began, step=trainer.state.global_step)
    if recorded is not None and not math.isclose(again, recorded, rel_tol=SAME_LOSS):
        raise CheckpointError(
            f"{best.path}: its weights score {again:.6f} once loaded, not the {recorded:.6f} recorded at their step, so "
            f"they were not written as best; look with `sightline checkpoints {best.path.parent} verify`"
        )
    lines = [f"{best.path.name} is restored and scores {again:.4f} again"]
    if sample.is_part:
        of_all = evaluate(trainer.model, sample.whole).loss
        lines.append(
            f"{len(sample)} of {len(sample.whole)} validation rows were scored at its evaluation; on all of them "
            f"{best.path.name} has {of_all:.4f}"
        )
    return lines


def _recorded(watcher: SightlineCallback, step: int) -> tuple[float | None, int | None]:
    """Return what the rows scored at a step gave, and how many they were; None where the journal does not say."""
    run = watcher.run
    found = None if run is None else next((e for e in run.evaluations if e.step == step), None)
    if found is None:
        return None, None
    return found.loss_of_rows, None if found.losses is None else len(found.losses.loss_sums)
