"""The model card beside the best weights: what they are, what they were trained on, and how they were chosen."""

from __future__ import annotations

from collections.abc import Iterator

from sightline.decisions import Verdict
from sightline.runs import Run, perplexity
from sightline.training.prepare import Prepared


def model_card(prepared: Prepared, verdict: Verdict, keep_step: int | None = None) -> str:
    """Return a card that states facts, to stand in for the library's empty one.

    Parameters
    ----------
    prepared : Prepared
        Rows and recipe of the run.
    verdict : Verdict
        What the run came to; it has a best step.
    keep_step : int, optional
        The step of the weights, where a gold set chose them and not the loss.

    Returns
    -------
    str
        Markdown with the front matter that the Hub reads.
    """
    recipe, run, diagnosis = prepared.recipe, verdict.run, verdict.diagnosis
    best = diagnosis.best
    assert best is not None
    header = [
        "---",
        f"base_model: {recipe.model_name_or_path}",
        "pipeline_tag: text-generation",
        "library_name: " + ("peft" if recipe.use_peft else "transformers"),
        "tags:",
        "- sightline",
        "- sft",
        "---",
    ]
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in _facts(prepared, verdict, keep_step))]
    alike = [str(step) for step in best.equivalent_steps if step != best.step and keep_step in (None, best.step)]
    note = f"\nSteps {', '.join(alike)} cannot be told apart from it.\n" if alike else ""
    return "\n".join([*header, "", f"# {run.name}", "", *table, "", verdict.decision.why, note])


def _facts(prepared: Prepared, verdict: Verdict, keep_step: int | None) -> Iterator[tuple[str, str]]:
    """Yield what the card's table states, name and value."""
    recipe, run, diagnosis = prepared.recipe, verdict.run, verdict.diagnosis
    best = diagnosis.best
    assert best is not None
    validation = 0 if prepared.eval_rows is None else len(prepared.eval_rows)
    base = None if run.eval_loss is None else run.eval_loss.at(0)
    onset = "" if diagnosis.onset is None else f" since step {diagnosis.onset.step}"
    yield "Base model", f"`{recipe.model_name_or_path}`"
    yield (
        "Trained",
        f"LoRA (r {recipe.lora_r}, alpha {recipe.effective_lora_alpha:g})" if recipe.use_peft else "all weights",
    )
    yield "Data", ", ".join(f"`{source}`" for source in recipe.dataset)
    yield "Rows", f"{len(prepared.train_rows):,} training, {validation:,} validation"
    yield "Learning rate", f"{recipe.learning_rate:g}"
    yield "Rows a step", f"{prepared.cadence.rows_per_step}"
    step = best.step if keep_step is None else keep_step
    loss = best.eval_loss if step == best.step or run.eval_loss is None else run.eval_loss.at(step)
    yield "Step", f"{step} of {prepared.cadence.total_steps} planned, {run.last_step} run"
    yield "Validation loss", "not known" if loss is None else _loss(loss)
    yield "Base model's validation loss", "not known" if base is None else _loss(base)
    for metric, score in _gold(run, step):
        yield f"Gold score ({metric})", score
    yield "The run", f"{diagnosis.phase.value}{onset}"
    evaluations = 0 if run.eval_loss is None else len(run.eval_loss)
    choice = run.judgements[-1].choice if keep_step is not None and run.judgements else None
    by_loss = f"lowest exact validation loss of {evaluations} evaluations"
    yield "Chosen", by_loss if choice is None else f"by {choice.choosing_rows} rows of the gold set: {choice.why}"


def _loss(nats: float) -> str:
    return f"{nats:.4f} nats per token (perplexity {perplexity(nats):.4g})"


def _gold(run: Run, step: int) -> Iterator[tuple[str, str]]:
    """Yield what the newest gold set says of a step, metric and sentence."""
    if not run.judgements:
        return
    newest = run.judgements[-1]
    for comparison in newest.comparisons:
        if comparison.tuned.step == step:
            yield (
                comparison.metric,
                f"{comparison.tuned.value:.4g}, base model {comparison.base.value:.4g}, on {comparison.tuned.n} rows of "
                f"{newest.gold}: {comparison.answer.value}",
            )
