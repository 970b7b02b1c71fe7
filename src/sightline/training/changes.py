"""changes(): what makes the continuation of a run differ from the run left alone, or is ignored, by name.

Pure: compares what the journal says of the run so far with what is asked for now. Which argument does what on a resume
was measured on transformers 5.23: learning rate, weight decay and the intervals of logging, evaluating and saving come
from the checkpoint whatever is asked; the others below change losses from the first step on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

IGNORED: Mapping[str, str] = {
    **dict.fromkeys(("learning_rate", "weight_decay"), "the optimizer's state in the checkpoint wins"),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), "the optimizer's state in the checkpoint wins"),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), "the trainer state in the checkpoint wins"),
}
"""Arguments without effect on a resumed run, and what wins over them."""

DIFFERS: Mapping[str, str] = {
    "per_device_train_batch_size": "rows are put into other batches, and the rows to skip are counted in the new ones",
    "gradient_accumulation_steps": "the same rows make other steps, with other dropout",
    "world_size": "rows are shared out among other processes",
    "threads": "on a CPU sums are taken in another order, so losses differ in their last digits",
    "max_steps": "the learning-rate schedule is drawn over another length",
    "num_train_epochs": "the learning-rate schedule is drawn over another length",
    "warmup_steps": "the learning-rate schedule has another shape",
    "lr_scheduler_type": "the learning-rate schedule has another shape",
    "seed": "the rows come in the new seed's order from the first epoch on, so some are seen twice and others not",
    "data_seed": "the rows come in the new seed's order from the first epoch on, so some are seen twice and others not",
    "ignore_data_skip": "the epoch's rows are gone through from its first one again",
    "save_only_model": "checkpoints without optimizer, schedule and random states cannot be gone on from exactly",
    "eval_strategy": "evaluations come at other steps or not at all; where they draw random numbers, dropout gets others",
    "attn_implementation": "another attention sums in another order",
    "train_sampling_strategy": "the rows come in another order, so some are seen twice and others not at all",
    "dataloader_drop_last": "the steps of an epoch are counted anew",
    "max_length": "rows are cut at another length",
    "model_name_or_path": "the adapter or the weights of the checkpoint belong to another model",
    "dataset": "the rows may be others",
}
"""Arguments that change what is computed, and how."""

HARMLESS = frozenset(
    {
        "output_dir", "resume_from_checkpoint", "resume", "overwrite", "force", "eval_on_start", "report_to",
        "run_name", "project", "trackio_space_id", "logging_dir", "logging_first_step", "logging_strategy",
        "log_level", "log_level_replica", "log_on_each_node", "disable_tqdm", "save_strategy", "save_total_limit",
        "save_on_each_node", "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
        "per_device_eval_batch_size", "eval_accumulation_steps", "eval_delay", "batch_eval_metrics",
        "include_for_metrics", "include_num_input_tokens_seen", "push_to_hub", "hub_model_id", "hub_strategy",
        "hub_token", "hub_private_repo", "hub_always_push", "hub_revision", "dataloader_num_workers",
        "dataloader_prefetch_factor", "dataloader_pin_memory", "dataloader_persistent_workers",
        "dataloader_multiprocessing_context", "ddp_timeout", "ddp_find_unused_parameters", "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers", "ddp_backend", "skip_memory_metrics", "torch_empty_cache_steps", "debug",
        "enable_jit_checkpoint", "restore_callback_states_from_checkpoint", "auto_find_batch_size",
        "logging_nan_inf_filter", "early_stopping", "evals_per_epoch", "eval_time_budget", "saves_per_epoch",
        "wandb_project", "gold", "keep_by", "merge", "on_failed_save", "dataset_num_proc", "do_train", "do_eval",
        "do_predict", "use_cpu", "accelerator_config", "deepspeed_plugin",
    }
)  # fmt: skip
"""Arguments that leave the weights alone; speed, places and words."""


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what is not as it was when a run is resumed.

    Parameters
    ----------
    before, now : mapping
        Facts of the run as the journal keeps them: ``arguments`` (of the Trainer), ``recipe``, ``model`` and ``rows``,
        each a mapping; what one side does not have is not compared.

    Returns
    -------
    tuple of str
        A sentence for each change that matters, beginning with its name.
    """
    found = dict(_settings(before, now))
    found |= {f"{side} rows": told for side, told in _rows(before, now)}
    return tuple(found.values())


def _settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Differences of arguments, recipe and model, the first place of a name winning."""
    seen: set[str] = set()
    for part in ("arguments", "model", "recipe"):
        old, new = _part(before, part), _part(now, part)
        for name in sorted(old.keys() & new.keys()):
            if name in seen or name in HARMLESS:
                continue
            seen.add(name)
            if old[name] != new[name]:
                yield name, _told(name, old[name], new[name])


def _told(name: str, old: Any, new: Any) -> str:
    if name in IGNORED:
        return f"{name} {_short(new)} is ignored, the run goes on with {_short(old)}: {IGNORED[name]}"
    why = DIFFERS.get(name, "the continuation may differ from the run left alone")
    return f"{name} was {_short(old)} and is {_short(new)}: {why}"


def _rows(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows that are not the ones the run began with."""
    old, new = _part(before, "rows"), _part(now, "rows")
    for side, word, consequence in (
        ("train", "training", "the place in the epoch counts rows of the old ones"),
        ("eval", "validation", "losses before and after cannot be compared"),
    ):
        digest = f"{side}_digest"
        if digest in old and digest in new and old[digest] != new[digest]:
            counts = f"{old.get(side)} then, {new.get(side)} now"
            yield side, f"the {word} rows are not those the run began with ({counts}): {consequence}"


def _part(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = facts.get(name)
    return part if isinstance(part, Mapping) else {}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
