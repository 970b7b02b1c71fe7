"""What TRL, PEFT and transformers get: chosen for the hardware, unless the user chose."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.training.cadence import Cadence
from sightline.training.recipe import Recipe
from sightline.training.recipe.sft import grouping_gain

from .synthetic import CPU, GPU, prepared, rows

PLAN = Cadence.plan(rows=1000, batch_size=8)


def recipe(**keys: object) -> Recipe:
    return Recipe.load(None, {"model_name_or_path": "m", "dataset": "d.jsonl", **keys})


def test_a_cpu_gets_neither_bf16_nor_checkpointing():
    arguments = recipe().sft_arguments(PLAN, CPU)
    assert arguments["bf16"] is False
    assert arguments["activation_checkpointing"] is False
    assert arguments["use_cpu"] is True
    assert arguments["dataloader_pin_memory"] is False


def test_a_gpu_gets_bf16_where_it_has_it():
    assert recipe().sft_arguments(PLAN, GPU)["bf16"] is True
    assert recipe(fp16=True).sft_arguments(PLAN, GPU)["bf16"] is False
    assert recipe(bf16=False).sft_arguments(PLAN, GPU)["bf16"] is False
    assert recipe(use_peft=True).model_arguments(GPU)["dtype"] == "bfloat16"
    assert recipe(use_peft=True).model_arguments(CPU)["dtype"] == "float32"
    assert recipe().model_arguments(GPU)["dtype"] == "float32"


def test_what_the_user_gave_is_obeyed():
    given = {
        "report_to": "tensorboard", "save_total_limit": 2, "logging_steps": 7, "eval_strategy": "epoch",
        "warmup_steps": 5, "gradient_checkpointing": True, "save_strategy": "epoch", "load_best_model_at_end": True,
    }  # fmt: skip
    arguments = recipe(**given).sft_arguments(PLAN, CPU)
    assert arguments["report_to"] == "tensorboard"
    assert (arguments["save_total_limit"], arguments["logging_steps"]) == (2, 7)
    assert (arguments["eval_strategy"], arguments["save_strategy"]) == ("epoch", "epoch")
    assert arguments["activation_checkpointing"] is True
    assert "gradient_checkpointing" not in arguments  # one name only: the old one warns


def test_numbers_that_hide_or_delete_are_off():
    arguments = recipe().sft_arguments(PLAN, CPU)
    assert arguments["logging_nan_inf_filter"] is False
    assert arguments["save_total_limit"] is None
    assert arguments["report_to"] == []
    assert arguments["seed"] == arguments["data_seed"] == 42


def test_no_evaluation_when_it_is_switched_off():
    plan = Cadence.plan(rows=100, batch_size=8, evaluate=False)
    arguments = recipe(eval_strategy="no").sft_arguments(plan, CPU)
    assert arguments["eval_strategy"] == "no"
    assert "eval_steps" not in arguments


def test_grouping_is_chosen_where_it_pays():
    unequal = np.random.default_rng(0).integers(5, 500, 2000)
    assert grouping_gain(unequal, 8) > 1.4
    assert grouping_gain(np.full(2000, 50), 8) == 1.0
    assert grouping_gain([5, 6], 8) == 1.0
    assert recipe().sft_arguments(PLAN, CPU, lengths=unequal)["train_sampling_strategy"] == "group_by_length"
    assert recipe().sft_arguments(PLAN, CPU, lengths=np.full(2000, 50))["train_sampling_strategy"] == "random"
    asked = recipe(train_sampling_strategy="random").sft_arguments(PLAN, CPU, lengths=unequal)
    assert asked["train_sampling_strategy"] == "random"


def test_lora_arguments():
    assert recipe().lora_arguments() is None
    arguments = recipe(lora_r=8, lora_modules_to_save="[embed_tokens]").lora_arguments()
    assert arguments is not None
    assert (arguments["r"], arguments["lora_alpha"], arguments["target_modules"]) == (8, 16, "all-linear")
    assert arguments["modules_to_save"] == ["embed_tokens"]


def test_learning_rate_follows_the_method():
    assert recipe().learning_rate < recipe(use_peft=True).learning_rate
    assert recipe(learning_rate=3e-3).learning_rate == 3e-3


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"use_peft": True, "max_steps": 5},
        {"packing": True},
        {"padding_free": True},
        {"completion_only_loss": False},
    ],
)
def test_trl_takes_the_arguments(tmp_path, keys):
    """SFTConfig and LoraConfig themselves accept what is made for them."""
    from peft import LoraConfig
    from trl import SFTConfig

    ready = prepared(tmp_path, rows(60), use_cpu=True, **keys)
    config = SFTConfig(**ready.sft_arguments())
    assert config.output_dir == str(tmp_path / "out")
    assert config.bf16 is False
    assert config.gradient_checkpointing is False
    assert config.eval_steps == ready.cadence.eval_steps
    if lora := ready.recipe.lora_arguments():
        LoraConfig(**lora)


def test_checkpointing_comes_on_where_memory_needs_it(tmp_path):
    from dataclasses import replace

    tight = replace(GPU, free_memory_bytes=1_000_000)
    assert prepared(tmp_path, hardware=GPU).sft_arguments()["activation_checkpointing"] is False
    assert prepared(tmp_path, hardware=tight).sft_arguments()["activation_checkpointing"] is True
    off = prepared(tmp_path, hardware=tight, activation_checkpointing=False)
    assert off.sft_arguments()["activation_checkpointing"] is False
