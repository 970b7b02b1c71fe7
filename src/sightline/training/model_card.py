"""The model card beside the best weights: what they are, what they were trained on, and how they were chosen."""

from __future__ import annotations

from pathlib import Path

from sightline.decisions import Verdict
from sightline.runs import perplexity
from sightline.training.prepare import Prepared


def write_model_card(best_dir: Path, prepared: Prepared, verdict: Verdict) -> None:
    """Replace the library's empty card by one that states facts.

    Parameters
    ----------
    best_dir : Path
        Folder with the best weights.
    prepared : Prepared
        Rows and recipe of the run.
    verdict : Verdict
        What the run came to.
    """
    (best_dir / "README.md").write_text(_card(prepared, verdict), encoding="utf-8")


def _card(prepared: Prepared, verdict: Verdict) -> str:
    recipe, run, diagnosis = prepared.recipe, verdict.run, verdict.diagnosis
    best = diagnosis.best
    assert best is not None
    validation = 0 if prepared.eval_rows is None else len(prepared.eval_rows)
    base = None if run.eval_loss is None else run.eval_loss.at(0)
    onset = "" if diagnosis.onset is None else f" since step {diagnosis.onset.step}"
    method = f"LoRA (r {recipe.lora_r}, alpha {recipe.effective_lora_alpha:g})" if recipe.use_peft else "all weights"
    facts = [
        ("Base model", f"`{recipe.model_name_or_path}`"),
        ("Trained", method),
        ("Data", ", ".join(f"`{source}`" for source in recipe.dataset)),
        ("Rows", f"{len(prepared.train_rows):,} training, {validation:,} validation"),
        ("Learning rate", f"{recipe.learning_rate:g}"),
        ("Rows a step", f"{prepared.cadence.rows_per_step}"),
        ("Step", f"{best.step} of {prepared.cadence.total_steps} planned, {run.last_step} run"),
        ("Validation loss", f"{best.eval_loss:.4f} nats per token (perplexity {perplexity(best.eval_loss):.4g})"),
        ("Base model's validation loss", "not known" if base is None else f"{base:.4f}"),
        ("The run", f"{diagnosis.phase.value}{onset}"),
        ("Chosen", f"lowest exact validation loss of {0 if run.eval_loss is None else len(run.eval_loss)} evaluations"),
    ]
    header = ["---", f"base_model: {recipe.model_name_or_path}", "pipeline_tag: text-generation"]
    header += [
        "library_name: " + ("peft" if recipe.use_peft else "transformers"),
        "tags:",
        "- sightline",
        "- sft",
        "---",
    ]
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]
    alike = [str(step) for step in best.equivalent_steps if step != best.step]
    note = f"\nSteps {', '.join(alike)} cannot be told apart from it.\n" if alike else ""
    return "\n".join([*header, "", f"# {run.name}", "", *table, "", verdict.decision.why, note])
