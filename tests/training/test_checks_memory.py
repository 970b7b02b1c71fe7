"""Checks of memory and disk, and of the weight files they are told from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sightline.runs import Severity
from sightline.training.checks import CheckContext
from sightline.training.checks.memory import checkpoint_bytes, estimate_memory, trainable_parameters
from sightline.training.checks.weights import EMBEDDINGS, planned_weights, read_rows, read_weights

from .checked import found
from .synthetic import CPU, GPU, model_folder, prepared, rows


def test_parameters_are_counted_as_peft_counts_them(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    for keys in ({"lora_r": 4}, {"lora_r": 8, "lora_target_modules": "[q_proj, v_proj]"}):
        context = CheckContext.of(prepared(tmp_path, rows(40), **keys))
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        assert context.weights is not None
        assert context.weights.parameters == sum(p.numel() for p in model.parameters())
        adapted = get_peft_model(model, LoraConfig(**context.recipe.lora_arguments()))
        assert trainable_parameters(context) == adapted.get_nb_trainable_parameters()[0]


def test_shapes_without_files_are_those_of_the_model(tmp_path):
    context = CheckContext.of(prepared(tmp_path, rows(40)))
    planned = planned_weights(context.model_config)
    assert planned is not None
    assert context.weights is not None
    assert planned.parameters == context.weights.parameters
    assert planned.linear() == context.weights.linear()
    assert planned_weights(object()) is None


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_activations_are_estimated_within_a_quarter(tmp_path, lora, half):
    """What autograd really keeps for the backward pass of a model, against the estimate."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model_path = model_folder(tmp_path / "m", hidden=128, layers=3, intermediate_size=256)
    keys = {"lora_r": 16} if lora else {}
    context = CheckContext.of(prepared(tmp_path, rows(40), model=model_path, hardware=replace(CPU, bf16=half), **keys))
    model = AutoModelForCausalLM.from_pretrained(model_path).train()
    if lora:
        model = get_peft_model(model, LoraConfig(**context.recipe.lora_arguments()))
    estimate = estimate_memory(context, checkpointing=False)
    assert estimate is not None
    tokens = int(context.train_rows.lengths.max())
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    body = (model.base_model.model if lora else model).model
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        body(input_ids=torch.ones(8, tokens, dtype=torch.long))
    assert sum(kept.values()) == pytest.approx(estimate.activations, rel=0.25)


def test_memory_that_is_not_there(tmp_path):
    tight = replace(GPU, free_memory_bytes=1_200_000)
    finding = found(tmp_path, hardware=tight, activation_checkpointing=False)["memory"]
    assert finding.severity is Severity.WARNING
    hopeless = replace(GPU, free_memory_bytes=50_000)
    finding = found(tmp_path, hardware=hopeless)["memory"]
    assert finding.severity is Severity.CRITICAL
    assert "use_peft" in finding.message
    assert "memory" not in found(tmp_path, hardware=replace(GPU, free_memory_bytes=None))


def test_disk_that_is_not_there(tmp_path, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, 300_000))
    finding = found(tmp_path)["disk"]
    assert finding.severity is Severity.CRITICAL
    assert finding.evidence["checkpoints"] == 3
    many = found(tmp_path, save_steps=1, max_steps=20)["disk"]
    assert many.evidence["checkpoints"] == 20
    limited = found(tmp_path, save_steps=1, max_steps=20, save_total_limit=2)["disk"]
    assert limited.evidence["checkpoints"] == 3


def test_checkpoints_are_about_as_large_as_estimated(tmp_path):
    """A real checkpoint of the Trainer, with its optimizer, against the estimate."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model_path = model_folder(tmp_path / "m", hidden=128, layers=3)
    ready = prepared(tmp_path, rows(40), model=model_path)
    estimate = checkpoint_bytes(CheckContext.of(ready))
    arguments = TrainingArguments(
        str(tmp_path / "t"), max_steps=1, per_device_train_batch_size=1, use_cpu=True, report_to=[], disable_tqdm=True
    )
    features = [{"input_ids": torch.ones(4, dtype=torch.long), "labels": torch.ones(4, dtype=torch.long)}]
    trainer = Trainer(
        AutoModelForCausalLM.from_pretrained(model_path),
        arguments,
        train_dataset=features,
        processing_class=ready.tokenizer,
    )
    trainer.train()
    trainer._save_checkpoint(trainer.model, trial=None)
    real = sum(f.stat().st_size for f in (tmp_path / "t" / "checkpoint-1").iterdir())
    assert real == pytest.approx(estimate, rel=0.25)


def test_rows_are_read_from_files_as_they_are(tmp_path):
    import torch
    from safetensors.torch import save_file

    matrix = torch.randn(20, 6)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        save_file({"model.embed_tokens.weight": matrix.to(dtype)}, tmp_path / "model.safetensors")
        weights = read_weights(tmp_path)
        assert weights is not None
        tensor = weights.named(EMBEDDINGS)
        assert tensor is not None
        read = read_rows(tensor, [3, 0, 19])
        assert (read == matrix.to(dtype).float().numpy()[[3, 0, 19]]).all()
        assert read_rows(tensor, [20]) is None


def test_broken_weight_files_say_nothing(tmp_path):
    assert read_weights(tmp_path) is None
    for content in (b"", b"\x08\0\0\0\0\0\0\0not json", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0[]"):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert read_weights(tmp_path) is None
