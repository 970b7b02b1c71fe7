"""What TRL, axolotl and older releases call the same settings: one visible table, tested against docs/recipe.md.

Four kinds: ``RENAMED`` keys only have another name, ``TRANSLATED`` ones mean several settings or another unit,
``WITHOUT_EFFECT`` ones are accepted with a note because nothing depends on them here, and ``REFUSED`` ones ask for
something Sightline does not do: leaving them out silently would train something else than was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sightline.errors import RecipeError

RENAMED: Mapping[str, str] = {
    # axolotl
    "base_model": "model_name_or_path",
    "tokenizer_config": "tokenizer_name_or_path",
    "revision_of_model": "model_revision",
    "sequence_len": "max_length",
    "micro_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "num_epochs": "num_train_epochs",
    "optimizer": "optim",
    "lr_scheduler": "lr_scheduler_type",
    "val_set_size": "eval_size",
    "sample_packing": "packing",
    "lora_use_rslora": "use_rslora",
    "peft_use_rslora": "use_rslora",
    "peft_use_dora": "use_dora",
    "wandb_name": "run_name",
    "wandb_run_id": "run_name",
    "chat_template_jinja": "chat_template",
    "auto_resume_from_checkpoints": "resume",
    # TRL
    "dataset_name": "dataset",
    "dataset_path": "dataset",
    "dataset_train_split": "dataset_split",
    "dataset_test_split": "eval_split",
    "dataset_text_field": "text_column",
    "max_seq_length": "max_length",
    "chat_template_path": "chat_template",
    # Trainer examples and earlier releases
    "model": "model_name_or_path",
    "model_name": "model_name_or_path",
    "tokenizer_name": "tokenizer_name_or_path",
    "torch_dtype": "dtype",
    "train_file": "dataset",
    "train_dataset": "dataset",
    "validation_file": "eval_dataset",
    "dataset_config_name": "dataset_config",
    "max_train_samples": "max_train_rows",
    "max_eval_samples": "max_eval_rows",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "evaluation_strategy": "eval_strategy",
    "overwrite_output_dir": "overwrite",
    "resume_from_checkpoint": "resume",
    "no_cuda": "use_cpu",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
}
"""Other name -> our name, the value unchanged."""

WITHOUT_EFFECT: Mapping[str, str] = {
    "strict": "every recipe is checked strictly",
    "model_type": "the class comes from the model's own config.json",
    "tokenizer_type": "the class comes from the tokenizer's own files",
    "eval_sample_packing": "validation rows are scored one by one",
    "dataset_prepared_path": "rows are prepared in memory at each start",
    "dataset_processes": "the fast tokenizer uses all cores by itself",
    "dataset_num_proc": "the fast tokenizer uses all cores by itself",
    "shuffle_merged_datasets": "training rows are always shuffled, each epoch anew",
    "pad_to_sequence_len": "batches are padded to their longest row only",
    "shuffle_dataset": "training rows are always shuffled, each epoch anew",
    "eval_packing": "validation rows are scored one by one",
    "do_train": "`sightline train` trains",
    "do_eval": "validation follows from eval_strategy",
    "logging_dir": "TensorBoard files go to <output_dir>/runs",
    "save_safetensors": "weights are always saved as safetensors",
    "flash_attention": "choose with attn_implementation: flash_attention_2",
    "sdp_attention": "scaled-dot-product attention is the default",
    "xformers_attention": "choose with attn_implementation",
    "wandb_entity": "set the environment variable WANDB_ENTITY",
    "wandb_watch": "set the environment variable WANDB_WATCH",
    "wandb_log_model": "set the environment variable WANDB_LOG_MODEL",
    "dataset_streaming": "rows are held in memory, so that validation rows can be kept apart from training rows",
}
"""Accepted with a note: key -> why nothing depends on it."""

_NO_QUANTISATION = "the base model is not quantised here; use LoRA on it as it is (use_peft: true, dtype: bfloat16)"
_NO_NEW_TOKENS = "no tokens are added to a vocabulary; prepare a tokenizer folder and give tokenizer_name_or_path"

REFUSED: Mapping[str, str] = {
    "model_init_kwargs": "give dtype, attn_implementation, model_revision or trust_remote_code by their own names",
    "batch_size": "it means rows a step in some tools, rows a device in others; give per_device_train_batch_size",
    "load_in_4bit": _NO_QUANTISATION,
    "load_in_8bit": _NO_QUANTISATION,
    "gptq": "the base model is not quantised here",
    "rl": "this is supervised fine-tuning only; watch TRL's other trainers with report_to: sightline",
    "reward_model": "reward models are not supervised fine-tuning",
    "process_reward_model": "reward models are not supervised fine-tuning",
    "pretraining_dataset": "streamed pretraining has no epochs to place evaluations in; give dataset",
    "skip_prepare_dataset": "rows must be prepared: labels and validation rows depend on it",
    "unfrozen_parameters": "training a chosen part of the weights is not supported; use LoRA or the full model",
    "relora": "ReLoRA is not supported; use use_peft: true",
    "special_tokens": _NO_NEW_TOKENS,
    "tokens": _NO_NEW_TOKENS,
    "plugins": "axolotl's plugins do not exist here",
    "lora_model_dir": "going on from an adapter is done with resume; for a new run merge it into the base model first",
    "loss_watchdog_threshold": "Sightline judges the loss against its own noise; there is no fixed threshold",
}
"""Refused unless false or empty: key -> why, and what to do."""

CHOSEN_BY_HARDWARE = ("bf16", "fp16", "tf32", "activation_checkpointing", "gradient_checkpointing", "packing")
"""Keys for which ``auto`` (axolotl) means what leaving them out means here."""

_ADAPTERS: Mapping[str, bool] = {"lora": True, "none": False, "full": False, "": False}
_DATASET_KEYS = {"path", "type", "split", "name", "data_files", "ds_type", "field", "field_messages", "revision"}
_DATASET_TYPES: Mapping[str, str] = {
    "alpaca": "alpaca",
    "completion": "text",
    "chat_template": "messages",
    "sharegpt": "messages",
    "messages": "messages",
    "prompt_completion": "prompt_completion",
    "text": "text",
}


def _adapter(value: Any, where: str) -> dict[str, Any]:
    """``adapter: lora`` of axolotl."""
    name = str(value).lower()
    if name not in _ADAPTERS:
        raise RecipeError(
            f"{where}: adapter: {value} is not supported; use `adapter: lora`, or leave it out for full fine-tuning"
        )
    return {"use_peft": _ADAPTERS[name]}


def _datasets(value: Any, where: str) -> dict[str, Any]:
    """``datasets: [{path, type, split, …}]`` of axolotl."""
    entries = value if isinstance(value, list) else [value]
    paths: list[str] = []
    together: dict[str, Any] = {}
    for entry in entries:
        entry = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or not (entry.get("path") or entry.get("data_files")):
            raise RecipeError(
                f"{where}: each entry of datasets needs a path, found {entry!r}; example: `- path: train.jsonl`"
            )
        if unknown := sorted(set(entry) - _DATASET_KEYS):
            raise RecipeError(
                f"{where}: datasets entry key {unknown[0]} is not known; known: {', '.join(sorted(_DATASET_KEYS))}"
            )
        files = entry.get("data_files") or entry["path"]
        paths.extend([str(f) for f in files] if isinstance(files, list) else [str(files)])
        for name, item in _dataset_settings(entry, where).items():
            if together.setdefault(name, item) != item:
                raise RecipeError(
                    f"{where}: datasets of different {name} ({together[name]}, {item}); bring them to one form first"
                )
    return {"dataset": paths if len(paths) > 1 else paths[0], **together}


def _dataset_settings(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what one entry says beside its path."""
    settings: dict[str, Any] = {}
    if entry.get("split"):
        settings["dataset_split"] = entry["split"]
    if entry.get("name"):
        settings["dataset_config"] = entry["name"]
    if entry.get("field"):
        settings["text_column"] = entry["field"]
    if entry.get("field_messages"):
        settings["messages_column"] = entry["field_messages"]
    if (kind := entry.get("type")) is not None:
        if isinstance(kind, Mapping):
            return settings | _field_columns(kind, where)
        base = str(kind).split(".")[0].split(":")[0]
        if base not in _DATASET_TYPES:
            raise RecipeError(
                f"{where}: dataset type {kind!r} is not known; known: {', '.join(sorted(_DATASET_TYPES))}"
            )
        settings["dataset_format"] = _DATASET_TYPES[base]
    return settings


def _field_columns(kind: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Take axolotl's own prompt type as far as it only names columns."""
    columns = {"field_instruction": "prompt_column", "field_output": "completion_column"}
    if unknown := sorted(set(kind) - set(columns)):
        raise RecipeError(f"{where}: dataset type key {unknown[0]} is not supported; known: {', '.join(columns)}")
    return {columns[key]: value for key, value in kind.items()}


def _test_datasets(value: Any, where: str) -> dict[str, Any]:
    """``test_datasets`` of axolotl."""
    translated = _datasets(value, where)
    return {"eval_dataset": translated["dataset"]} | (
        {"eval_split": translated["dataset_split"]} if "dataset_split" in translated else {}
    )


def _warmup_ratio(value: Any, where: str) -> dict[str, Any]:
    """``warmup_ratio``: the Trainer takes a share of the run as warmup_steps below 1."""
    try:
        ratio = float(value)
    except (TypeError, ValueError):
        ratio = -1.0
    if not 0 <= ratio < 1:
        raise RecipeError(
            f"{where}: warmup_ratio: {value!r} must be a share of the run, 0 to below 1; for steps use warmup_steps"
        )
    return {"warmup_steps": ratio}


def _train_on_inputs(value: Any, where: str) -> dict[str, Any]:
    """``train_on_inputs`` of axolotl is the opposite of completion_only_loss."""
    if not isinstance(value, bool):
        raise RecipeError(f"{where}: train_on_inputs: {value!r} must be true or false")
    return {"completion_only_loss": not value}


def _group_by_length(value: Any, where: str) -> dict[str, Any]:
    """``group_by_length``: now a train_sampling_strategy."""
    if not isinstance(value, bool):
        raise RecipeError(f"{where}: group_by_length: {value!r} must be true or false")
    return {"train_sampling_strategy": "group_by_length" if value else "random"}


def _linear(value: Any, where: str) -> dict[str, Any]:
    """``lora_target_linear`` of axolotl."""
    return {"lora_target_modules": "all-linear"} if value else {}


def _patience(value: Any, where: str) -> dict[str, Any]:
    """``early_stopping_patience``: asks for early stopping; its count has no meaning here."""
    return {"early_stopping": bool(value)}


def _wandb(value: Any, where: str) -> dict[str, Any]:
    """``wandb_project`` of axolotl."""
    return {"report_to": ["wandb"], "wandb_project": str(value)} if value else {}


def _tensorboard(value: Any, where: str) -> dict[str, Any]:
    """``use_tensorboard`` of axolotl."""
    return {"report_to": ["tensorboard"]} if value is True else {}


TRANSLATED: Mapping[str, tuple[Callable[[Any, str], dict[str, Any]], str]] = {
    "adapter": (_adapter, "`lora` is use_peft: true"),
    "peft_type": (_adapter, "`lora` is use_peft: true"),
    "datasets": (
        _datasets,
        "a list of {path, type, split, name, data_files, field}: dataset, dataset_format and its columns",
    ),
    "test_datasets": (_test_datasets, "as datasets, for eval_dataset"),
    "warmup_ratio": (_warmup_ratio, "a share of the run: warmup_steps below 1"),
    "train_on_inputs": (_train_on_inputs, "the opposite of completion_only_loss"),
    "group_by_length": (_group_by_length, "train_sampling_strategy: group_by_length"),
    "lora_target_linear": (_linear, "lora_target_modules: all-linear"),
    "early_stopping_patience": (
        _patience,
        "early_stopping: true; a stop follows from the loss's noise, not from a count",
    ),
    "wandb_project": (_wandb, "report_to: wandb, and WANDB_PROJECT"),
    "use_tensorboard": (_tensorboard, "report_to: tensorboard"),
}
"""Other name -> (translation of its value, what it becomes in words)."""


def all_aliases() -> frozenset[str]:
    """Every key of the table."""
    return frozenset(RENAMED) | frozenset(TRANSLATED) | frozenset(WITHOUT_EFFECT) | frozenset(REFUSED)
