"""What TRL, PEFT and transformers take, chosen for the recipe and the hardware at hand.

What the user gave always wins. The choices, each with its reason:

- bfloat16 only where an accelerator computes it: on a CPU TRL's default (on) makes a run 4 to 5 times slower.
- activation checkpointing off unless memory needs it: it trades a fifth of the speed or more for memory.
- rows grouped by length where random batches would be padded by 15 % more tokens than grouped ones.
- packing only when asked: without flash attention packed rows attend to each other.
- ``logging_nan_inf_filter`` off, so that a NaN is seen; ``save_total_limit`` open, because the Trainer's rotation goes
  by file times and may delete every new checkpoint; reports and progress bars off, because Sightline shows the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.training.recipe.settings import DEFAULT_MAX_LENGTH, Recipe
from sightline.training.recipe.trainer_fields import trainer_fields

if TYPE_CHECKING:
    from sightline.training.cadence import Cadence
    from sightline.training.hardware import Hardware

WARMUP_SHARE = 0.03
ANSWERED = frozenset({"assistant_only_loss", "completion_only_loss", "pad_token", "eval_packing"})
"""Given arguments that the rows' labels and the tokenizer already answer; TRL would refuse or warn of some."""
GROUPING_PAYS = 1.15
"""Padded tokens of random batches over those of grouped ones, from which grouping is chosen."""


def sft_arguments(
    recipe: Recipe,
    plan: Cadence,
    hardware: Hardware,
    *,
    lengths: ArrayLike | None = None,
    activation_checkpointing: bool = False,
) -> dict[str, Any]:
    """Return keyword arguments for ``trl.SFTConfig``.

    Parameters
    ----------
    recipe : Recipe
        What the user asked for; its ``arguments`` win over every choice made here.
    plan : Cadence
        When to log, evaluate and save.
    hardware : Hardware
        Where the run takes place.
    lengths : array_like of int, shape (n,), optional
        Tokens of each training row; with them length grouping is chosen where it pays.
    activation_checkpointing : bool
        Whether memory needs it; see ``sightline.training.checks.memory``.

    Returns
    -------
    dict
        Only names the installed ``SFTConfig`` has. The rows are expected tokenised, with ``labels`` and a ``length``
        column, so TRL's own preparation is skipped unless rows are packed.
    """
    given = {name: value for name, value in recipe.arguments.items() if name not in ANSWERED}
    checkpointing = given.pop("gradient_checkpointing", None)
    chosen: dict[str, Any] = {
        "output_dir": str(recipe.output_dir),
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "num_train_epochs": recipe.num_train_epochs,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "max_length": DEFAULT_MAX_LENGTH,
        "warmup_steps": 0 if given.get("lr_scheduler_type") == "constant" else WARMUP_SHARE,
        "report_to": [],
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
        "save_total_limit": None,
        "dataloader_pin_memory": not hardware.is_cpu,
        "remove_unused_columns": False,  # the length column must reach the sampler; TRL's collator ignores the rest
        "eval_packing": False,
        "train_sampling_strategy": "random",
        "bf16": hardware.bf16 and not given.get("fp16", False),
        "activation_checkpointing": activation_checkpointing if checkpointing is None else checkpointing,
    }
    chosen |= _intervals(recipe, plan)
    if recipe.packing:
        chosen["remove_unused_columns"] = True
    else:
        chosen["dataset_kwargs"] = {"skip_prepare_dataset": True}
        batch = recipe.batch_size * recipe.gradient_accumulation_steps
        if lengths is not None and grouping_gain(lengths, batch, recipe.seed) >= GROUPING_PAYS:
            chosen["train_sampling_strategy"] = "group_by_length"
    if given.get("padding_free") and not recipe.packing:
        chosen["max_length"] = given["max_length"] = None  # rows are cut already; TRL refuses the pair
    if hardware.is_cpu:
        chosen["use_cpu"] = True
    arguments = chosen | given
    known = trainer_fields()
    if "activation_checkpointing" not in known:  # transformers before 5.20
        arguments["gradient_checkpointing"] = arguments.pop("activation_checkpointing")
    return {name: value for name, value in arguments.items() if name in known}


def _intervals(recipe: Recipe, plan: Cadence) -> dict[str, Any]:
    """Return logging, evaluation and saving by step, where the user chose no other strategy."""
    intervals: dict[str, Any] = {"logging_strategy": "steps", "logging_steps": plan.logging_steps}
    if plan.eval_steps is None:
        intervals["eval_strategy"] = "no"
    else:
        intervals |= {"eval_strategy": "steps", "eval_steps": plan.eval_steps}
    if plan.save_steps is not None:
        intervals |= {"save_strategy": "steps", "save_steps": plan.save_steps}
    if recipe.arguments.get("save_strategy") in ("epoch", "no", "best"):
        intervals.pop("save_steps", None)
    return intervals


def lora_arguments(recipe: Recipe) -> dict[str, Any] | None:
    """Return keyword arguments for ``peft.LoraConfig``; None where the whole model is trained."""
    if not recipe.use_peft:
        return None
    modules = recipe.lora_target_modules
    return {
        "task_type": "CAUSAL_LM",
        "r": recipe.lora_r,
        "lora_alpha": recipe.effective_lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "target_modules": modules if isinstance(modules, str) else list(modules),
        "modules_to_save": list(recipe.lora_modules_to_save) or None,
        "bias": recipe.lora_bias,
        "use_rslora": recipe.use_rslora,
        "use_dora": recipe.use_dora,
    }


def model_arguments(recipe: Recipe, hardware: Hardware) -> dict[str, Any]:
    """Return keyword arguments for ``AutoModelForCausalLM.from_pretrained``.

    Weights that are trained stay float32 (small updates vanish in 16 bits); frozen ones under LoRA are bfloat16 where
    the hardware computes it.
    """
    dtype = recipe.dtype or ("bfloat16" if recipe.use_peft and hardware.bf16 else "float32")
    arguments: dict[str, Any] = {"dtype": dtype, "trust_remote_code": recipe.trust_remote_code}
    if recipe.model_revision != "main":
        arguments["revision"] = recipe.model_revision
    attention = recipe.attn_implementation
    if attention is None and recipe.packing and hardware.flash_attention:
        attention = "flash_attention_2"
    if attention is not None:
        arguments["attn_implementation"] = attention
    return arguments


def grouping_gain(lengths: ArrayLike, batch_size: int, seed: int = 0) -> float:
    """Return padded tokens of random batches divided by those of batches grouped by length.

    Parameters
    ----------
    lengths : array_like of int, shape (n,)
        Tokens of each row.
    batch_size : int
        Rows that are padded to one length.
    seed : int
        Of the order that is tried.

    Returns
    -------
    float
        1.0 where grouping gains nothing; the grouping is that of the Trainer's ``LengthGroupedSampler``.
    """
    array = np.asarray(lengths, dtype=np.int64)
    if array.size <= batch_size or batch_size < 2:
        return 1.0
    shuffled = np.random.default_rng(seed).permutation(array)
    mega = batch_size * max(1, min(array.size // (batch_size * 4), 50))
    grouped = np.concatenate([np.sort(shuffled[i : i + mega])[::-1] for i in range(0, array.size, mega)])
    return _padded(shuffled, batch_size) / _padded(grouped, batch_size)


def _padded(lengths: NDArray[np.int64], batch_size: int) -> float:
    """Tokens with padding when rows go in this order."""
    starts = np.arange(0, lengths.size, batch_size)
    sizes = np.diff(np.append(starts, lengths.size))
    return float((np.maximum.reduceat(lengths, starts) * sizes).sum())
