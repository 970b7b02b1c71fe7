"""Quicker forwards of norms and MLPs give what the layers give themselves, and are gone after the pass."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn

from sightline.evaluation import evaluate, ways
from sightline.evaluation.layers import quick_layers
from sightline.evaluation.models import base_model
from tests.evaluation.tiny import CAUSAL, SHAPE, build, rows_of

LLAMA = {"input_layernorm", "post_attention_layernorm", "norm", "mlp", "self_attn"}
IDS = torch.arange(60).view(3, 20) % 50


def taken_over(model: nn.Module) -> set[str]:
    """Return the last part of the names of modules that have a foreign forward."""
    return {name.split(".")[-1] for name, module in model.named_modules() if "forward" in vars(module)}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", LLAMA),
        ("granite_scaling", LLAMA),
        ("qwen2", LLAMA),
        ("cohere_scale", {"mlp"}),
        ("gpt2", set()),
        ("opt", set()),
    ],
)
@torch.no_grad()
def test_the_model_gives_the_same(family: str, expected: set[str]) -> None:
    """Whatever of it is recognised; weights and layers are as they were afterwards."""
    model = build(CAUSAL[family]).eval()
    weights, plain = copy.deepcopy(model.state_dict()), model(IDS).logits
    with quick_layers(model):
        assert taken_over(model) == expected
        torch.testing.assert_close(model(IDS).logits, plain, rtol=1e-4, atol=1e-4)
    assert not taken_over(model)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


@torch.no_grad()
def test_weights_that_are_added_to_one_are() -> None:
    """Gemma's norms multiply by 1 + weight."""
    model = build(CAUSAL["gemma2_softcap"]).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.normal_()
    norms = [module for name, module in model.named_modules() if name.endswith("norm")]
    x = torch.randn(2, 5, 32)
    plain = [norm(x) for norm in norms]
    with quick_layers(model):
        assert all("forward" in vars(norm) for norm in norms)
        for norm, expected in zip(norms, plain, strict=True):
            torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-6)
            assert norm(x.bfloat16()).dtype == torch.bfloat16  # its own way


def test_layers_that_only_look_alike_are_left_alone() -> None:
    """One that clamps, one whose parts someone watches, one that is broken."""
    llama = CAUSAL["llama"]

    class Clamped(hf.models.llama.modeling_llama.LlamaMLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = super().forward(x).clamp(-0.1, 0.1)
            return result

    class HalvedRMSNorm(hf.models.llama.modeling_llama.LlamaRMSNorm):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = super().forward(hidden_states) / 2
            return result

    clamped, watched, broken = build(llama), build(llama), build(llama)
    for layer in clamped.model.layers:
        layer.mlp = Clamped(clamped.config)
        layer.input_layernorm = HalvedRMSNorm(32)
    for layer in watched.model.layers:
        layer.mlp.gate_proj.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    for model, expected in (
        (clamped, LLAMA - {"mlp", "input_layernorm"}),
        (watched, LLAMA - {"mlp"}),
        (broken, LLAMA - {"norm"}),
    ):
        with quick_layers(model):
            assert taken_over(model) == expected


@torch.no_grad()
def test_adapters_in_an_mlp_count() -> None:
    """Its parts are called as they stand, whatever is around them."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["gate_proj", "up_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(build(CAUSAL["llama"]), config).eval()
    plain = model(input_ids=IDS).logits
    with quick_layers(model):
        assert "mlp" in taken_over(model)
        torch.testing.assert_close(model(input_ids=IDS).logits, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "lora", "qwen2_moe", "twice"])
def test_the_last_mlp_is_spared_where_it_is_the_last(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """It is given labelled positions only, unless it has experts or another layer comes after it; losses are the same."""
    from peft import LoraConfig, get_peft_model

    model = build(CAUSAL.get(family, CAUSAL["llama"]))
    if family == "lora":
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["up_proj"], init_lora_weights=False))
    if family == "twice":
        model.model.layers.append(model.model.layers[-1])
        model.config.num_hidden_layers += 1
    spared = evaluate(model, rows_of(12))
    assert ways._chosen[base_model(model)][2] == (family in ("llama", "gpt2", "lora"))
    monkeypatch.setattr(ways, "last_mlp", lambda model: None)
    np.testing.assert_allclose(spared.loss_sums, evaluate(model, rows_of(12)).loss_sums, rtol=2e-6)


def test_layers_are_restored_after_an_error() -> None:
    """No layer keeps a foreign forward when the pass fails."""
    model: Any = build(lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE)))
    with pytest.raises(ZeroDivisionError), quick_layers(model):
        raise ZeroDivisionError
    assert not taken_over(model)
