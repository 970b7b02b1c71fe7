"""Settings that contradict each other, each refused with its reason.

Only what the user wrote can contradict: ``recipe.given`` tells it from a default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sightline.errors import RecipeError
from sightline.training.recipe.settings import Recipe
from sightline.training.recipe.yaml_source import Setting

METRICS = ("loss", "eval_loss")
"""What an evaluation reports and a best model can be chosen by."""

Contradiction = tuple[tuple[str, ...], str]
"""Keys that clash, and why."""


def refuse_contradictions(recipe: Recipe, settings: Mapping[str, Setting]) -> None:
    """Raise RecipeError for the first contradiction, naming where each of its keys stands.

    Raises
    ------
    RecipeError
        With the keys, their places and the reason.
    """
    for rule in _RULES:
        for keys, reason in rule(recipe):
            places = [f"{settings[key].key} ({settings[key].where})" for key in keys if key in settings]
            raise RecipeError(f"{' and '.join(places)}: {reason}")


def _without_evaluation(recipe: Recipe) -> Iterator[Contradiction]:
    """Return what needs validation while validation is switched off."""
    if recipe.evaluates:
        return
    off = "eval_strategy" if recipe.arguments.get("eval_strategy") == "no" else "eval_size"
    given, arguments = recipe.given, recipe.arguments
    needs = {
        "load_best_model_at_end": bool(arguments.get("load_best_model_at_end")),
        "early_stopping": "early_stopping" in given and recipe.early_stopping,
        "evals_per_epoch": "evals_per_epoch" in given,
        "eval_steps": "eval_steps" in given,
        "metric_for_best_model": "metric_for_best_model" in given,
    }
    for key, asked in needs.items():
        if asked:
            yield (off, key), "nothing is evaluated, so this cannot be done; switch evaluation on or leave it out"
    if arguments.get("save_strategy") == "best":
        yield (off, "save_strategy"), "without evaluation nothing is ever best and nothing would be saved"
    if arguments.get("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy"):
        yield (off, "lr_scheduler_type"), "this schedule follows the validation loss, and nothing is evaluated"
    if recipe.eval_dataset and off == "eval_strategy":
        yield (off, "eval_dataset"), "validation rows are given but evaluation is off; leave one of them out"


def _cadence(recipe: Recipe) -> Iterator[Contradiction]:
    """Two settings for one interval."""
    given, arguments = recipe.given, recipe.arguments
    if {"eval_steps", "evals_per_epoch"} <= given:
        yield ("eval_steps", "evals_per_epoch"), "both set how often the model is evaluated; keep one"
    if {"save_steps", "saves_per_epoch"} <= given:
        yield ("save_steps", "saves_per_epoch"), "both set how often the model is saved; keep one"
    if arguments.get("eval_strategy") == "epoch":
        for key in {"eval_steps", "evals_per_epoch"} & given:
            yield ("eval_strategy", key), "evaluation once an epoch leaves no room for another interval; keep one"
    if arguments.get("save_strategy") in ("epoch", "no", "best"):
        for key in {"save_steps", "saves_per_epoch"} & given:
            yield ("save_strategy", key), f"save_strategy {arguments['save_strategy']} has no interval; keep one"
    if arguments.get("logging_strategy") in ("epoch", "no") and "logging_steps" in given:
        yield (
            ("logging_strategy", "logging_steps"),
            f"logging_strategy {arguments['logging_strategy']} has no interval; keep one",
        )
    if arguments.get("max_steps", -1) > 0 and "num_train_epochs" in given:
        yield (
            ("max_steps", "num_train_epochs"),
            "max_steps wins over epochs in the Trainer, so one has no effect; keep one",
        )


def _best_model(recipe: Recipe) -> Iterator[Contradiction]:
    """Return what the Trainer needs to load the best model."""
    arguments, given = recipe.arguments, recipe.given
    metric = arguments.get("metric_for_best_model")
    if metric is not None and metric not in METRICS:
        yield ("metric_for_best_model",), f"{metric} is no metric of an evaluation; known: {', '.join(METRICS)}"
    if metric is not None and "greater_is_better" in given:
        loss = str(metric).endswith("loss")
        if bool(arguments["greater_is_better"]) == loss:
            better = "lower" if loss else "higher"
            yield ("metric_for_best_model", "greater_is_better"), f"{metric} is better when it is {better}"
    if not arguments.get("load_best_model_at_end"):
        return
    if arguments.get("save_strategy") == "no":
        yield ("save_strategy", "load_best_model_at_end"), "nothing is saved, so no best model can be loaded"
    save, evaluate = arguments.get("save_strategy"), arguments.get("eval_strategy")
    if save in ("steps", "epoch") and evaluate in ("steps", "epoch") and save != evaluate:
        yield (
            ("save_strategy", "eval_strategy"),
            "to load the best model, saving and evaluating must follow one strategy",
        )
    save_steps, eval_steps = arguments.get("save_steps"), arguments.get("eval_steps")
    if save_steps and eval_steps and save_steps >= 1 and eval_steps >= 1 and save_steps % eval_steps:
        reason = (
            f"save_steps {save_steps:g} is no multiple of eval_steps {eval_steps:g}: the evaluation that is best could "
            "never be saved"
        )
        yield ("save_steps", "eval_steps", "load_best_model_at_end"), reason


def _precision(recipe: Recipe) -> Iterator[Contradiction]:
    """Two precisions at once, or one the CPU does not have."""
    arguments = recipe.arguments
    for first, second in (("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval")):
        if arguments.get(first) and arguments.get(second):
            yield (first, second), "a run has one precision; keep bf16 where the GPU has it"
    if recipe.use_cpu and arguments.get("fp16"):
        yield ("use_cpu", "fp16"), "16-bit floats are not trained on a CPU; leave fp16 out"
    old, new = arguments.get("gradient_checkpointing"), arguments.get("activation_checkpointing")
    if old is not None and new is not None and bool(old) != bool(new):
        yield ("gradient_checkpointing", "activation_checkpointing"), "two names of one setting, with different values"


def _rows(recipe: Recipe) -> Iterator[Contradiction]:
    """Rows, labels and their packing."""
    arguments, form = recipe.arguments, recipe.dataset_format
    if recipe.eval_dataset and recipe.eval_size:
        yield ("eval_dataset", "eval_size"), "validation rows either have their own file or are split off; keep one"
    if recipe.completion_only_loss and form == "text":
        yield ("completion_only_loss", "dataset_format"), "rows of plain text have no completion; leave it out"
    if recipe.arguments.get("truncation_mode") == "keep_end":
        yield ("truncation_mode",), "rows are cut at their end, so that none begins in the middle; shorten the prompts"
    if recipe.assistant_only_loss and form not in ("auto", "messages"):
        yield ("assistant_only_loss", "dataset_format"), "only messages have assistant turns; use completion_only_loss"
    if recipe.assistant_only_loss and recipe.completion_only_loss is False:
        yield (
            ("assistant_only_loss", "completion_only_loss"),
            "one asks for the assistant's tokens alone, the other for all",
        )
    if recipe.packing and arguments.get("train_sampling_strategy") in ("group_by_length", "batch_rebalance"):
        yield ("packing", "train_sampling_strategy"), "packed blocks all have one length; keep one"
    if recipe.packing and str(arguments.get("packing_strategy", "bfd")) == "wrapped" and recipe.completion_only_loss:
        reason = (
            "the wrapped strategy cuts rows in the middle, so completions lose their prompt; use packing_strategy: bfd"
        )
        yield ("packing", "packing_strategy", "completion_only_loss"), reason
    if recipe.packing and recipe.attn_implementation in ("eager", "sdpa"):
        reason = "packed rows would attend to each other without flash attention; leave packing out"
        yield ("packing", "attn_implementation"), reason
    if recipe.eval_split and not recipe.eval_dataset and recipe.eval_split == recipe.dataset_split:
        yield ("eval_split",), "the validation split is the training split"


def _run(recipe: Recipe) -> Iterator[Contradiction]:
    """Schedule, what is kept, and the output folder."""
    if recipe.resume and recipe.overwrite:
        yield ("resume", "overwrite"), "one goes on with the run in the output folder, the other deletes it"
    if recipe.merge and not recipe.use_peft:
        yield ("merge",), "only an adapter can be merged into its base model; give use_peft, or leave merge out"
    if recipe.keep_by == "gold" and recipe.gold is None:
        yield ("keep_by",), "there is no gold set to choose the checkpoint by; give gold: FILE"
    if recipe.arguments.get("lr_scheduler_type") == "constant" and recipe.arguments.get("warmup_steps"):
        yield ("lr_scheduler_type", "warmup_steps"), "the constant schedule ignores warm-up; use constant_with_warmup"


_RULES: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (
    _without_evaluation,
    _cadence,
    _best_model,
    _precision,
    _rows,
    _run,
)
