"""Tiny random models of many families, rows of unequal length, and the float64 loss they must come out at."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch.nn import functional

from sightline.evaluation import EvalSet, evaluate

VOCABULARY = 211
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
GPT = {"vocab_size": VOCABULARY, "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True, "router_aux_loss_coef": 0.5}
NO_GROUPS = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}

CAUSAL: dict[str, Any] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE)),
    "llama_tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE, tie_word_embeddings=True)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SHAPE)),
    "mistral_sliding": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SHAPE, sliding_window=8)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**NO_GROUPS)),
    "phi_bias": lambda: hf.PhiForCausalLM(hf.PhiConfig(**SHAPE)),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=96,
            word_embed_proj_dim=24,
        )
    ),
    "bloom_alibi": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    ),
    "gemma2_softcap": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=5.0)),
    "cohere_scale": lambda: hf.CohereForCausalLM(hf.CohereConfig(**SHAPE, logit_scale=0.3)),
    "granite_scaling": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**SHAPE, logits_scaling=4.0)),
    "mixtral_aux": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**SHAPE, **EXPERTS)),
    "qwen2_moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(
            **SHAPE,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            output_router_logits=True,
        )
    ),
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    ),
}


def build(make: Any, seed: int = 0, loud: float = 20.0) -> Any:
    """Return a model whose logits are far from uniform: all weights are ``loud`` times as large as at random."""
    torch.manual_seed(seed)
    model = make()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(loud)
            elif "bias" in name:
                parameter.normal_(std=0.5)
    return model.train()


def rows_of(n: int = 13, longest: int = 60, seed: int = 0, vocabulary: int = VOCABULARY) -> list[tuple[Any, Any]]:
    """Return rows of unequal length whose first half is masked; one of them has labels in the middle only."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        ids = rng.integers(3, vocabulary, int(rng.integers(2, longest)))
        labels = ids.copy()
        labels[: len(ids) // 2] = -100
        if i == 5:
            labels[len(ids) * 3 // 4 + 1 :] = -100
        rows.append((ids, labels))
    return rows


def reference(model: Any, rows: list[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return loss sums and token counts by definition: float64 weights, one row at a time, every logit."""
    exact = copy.deepcopy(model).double().eval()
    if hasattr(exact, "set_experts_implementation"):
        exact.set_experts_implementation("eager")  # grouped products exist in float32 only
    sums, counts = [], []
    for ids, labels in rows:
        with torch.no_grad():
            logits = exact(input_ids=torch.tensor(np.asarray(ids)[None])).logits[0].double()
        target = torch.tensor(np.asarray(labels))[1:]
        sums.append(functional.cross_entropy(logits[:-1], target, ignore_index=-100, reduction="sum").item())
        counts.append(int((target != -100).sum()))
    return np.array(sums), np.array(counts)


def assert_exact(model: Any, rows: Any, **options: Any) -> None:
    """Assert that sums, counts and loss are those of the float64 model."""
    sums, counts = reference(model, rows)
    found = evaluate(model, EvalSet(rows), **options)
    np.testing.assert_array_equal(found.token_counts, counts)
    np.testing.assert_allclose(found.loss_sums, sums, rtol=2e-6, atol=1e-5)
    assert found.loss == pytest.approx(sums.sum() / counts.sum(), rel=1e-6)
