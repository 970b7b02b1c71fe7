"""Merging: the best adapter as a model of its own, checked to give the same loss."""

from __future__ import annotations

import math

import torch
from transformers import AutoModelForCausalLM

from sightline.errors import CheckpointError
from sightline.evaluation import evaluate
from sightline.training.prepare import Prepared
from sightline.training.ranks import Ranks
from sightline.training.saving import whole_or_not_at_all
from sightline.training.trainer import WatchedTrainer

SAME_LOSS = {torch.float32: 1e-4}
SAME_LOSS_16_BIT = 1e-2
"""Relative difference of loss that rounding explains: the sum of two matrices is rounded once more, to eight bits of
mantissa where the base model is bfloat16."""


def write_merged(trainer: WatchedTrainer, prepared: Prepared, ranks: Ranks, card: str | None) -> str:
    """Merge the adapter in the trainer's model into its base and write ``<output_dir>/merged``.

    Every rank must call it; the trainer's model has no adapter any more afterwards.

    Parameters
    ----------
    trainer : WatchedTrainer
        Its model holds the best adapter.
    prepared : Prepared
        Recipe and tokenizer.
    ranks : Ranks
        The processes of the run.
    card : str or None
        Model card to lie beside the weights.

    Returns
    -------
    str
        What to tell the user.

    Raises
    ------
    CheckpointError
        If the merged weights, loaded from the disk, give another loss; nothing is written then.
    """
    folder = prepared.recipe.output_dir / "merged"
    rows = None if trainer.validation is None else trainer.validation.sample.rows
    before = None if rows is None else evaluate(trainer.model, rows).loss
    adapted = trainer.accelerator.unwrap_model(trainer.model)
    merged = adapted.merge_and_unload(safe_merge=True).to("cpu")
    with whole_or_not_at_all(folder, ranks, writes=trainer.args.should_save) as aside:
        if trainer.args.should_save:
            merged.save_pretrained(aside)
            prepared.tokenizer.save_pretrained(aside)
            if card is not None:
                text = card.replace("library_name: peft", "library_name: transformers", 1)
                (aside / "README.md").write_text(text, encoding="utf-8")
        ranks.wait()
        if rows is None or before is None:
            return f"the merged weights are in {folder}; nothing was there to score them on"
        loaded = AutoModelForCausalLM.from_pretrained(
            aside, dtype=merged.dtype, trust_remote_code=prepared.recipe.trust_remote_code
        ).to(trainer.args.device)
        after = evaluate(loaded, rows).loss
        if not math.isclose(before, after, rel_tol=SAME_LOSS.get(merged.dtype, SAME_LOSS_16_BIT)):
            raise CheckpointError(
                f"{folder}: the merged weights score {after:.6f} where the adapter scores {before:.6f}, so they were not "
                "written; use the adapter in best"
            )
    return f"the merged weights are in {folder}: {after:.6f} where the adapter scores {before:.6f}"
