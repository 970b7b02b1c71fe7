"""The training loss from labelled positions: the same loss and the same gradients as TRL's own."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from sightline.training import labelled_head
from sightline.training.labelled_head import project_labelled_positions

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def llama():
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def gemma2():
    return Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=5.0))


def cohere():
    return CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.25))


def adapted_llama():
    return get_peft_model(llama(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 64, (3, 12), generator=generator)
    labels = ids.clone()
    labels[:, :5] = -100
    labels[1, 8:] = -100
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


@pytest.mark.parametrize("make", [llama, gemma2, cohere, adapted_llama])
def test_loss_and_gradients_equal_those_of_the_fused_head(make):
    """Whatever the head does to its logits, both ways agree."""
    torch.manual_seed(0)
    theirs = make().double() if make is not adapted_llama else make()
    ours = copy.deepcopy(theirs)
    for model in (theirs, ours):
        add_fused_lm_head(model.get_base_model() if hasattr(model, "get_base_model") else model)
    project_labelled_positions(ours)
    losses = []
    for model in (theirs, ours):
        model.train()
        losses.append(model(**batch(), fused_lm_head=True, num_items_in_batch=30).loss)
        losses[-1].backward()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    for (name, a), (_, b) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_another_loss_is_noticed_and_the_fused_head_kept(monkeypatch):
    """A model whose head does something we do not know falls back to TRL's way."""
    torch.manual_seed(0)
    model = llama()
    add_fused_lm_head(model)
    expected = model(**batch(), fused_lm_head=True).loss.item()
    monkeypatch.setattr(labelled_head, "head_of", lambda m: labelled_head.Head(m.lm_head, scale=3.0))
    project_labelled_positions(model)
    assert model(**batch(), fused_lm_head=True).loss.item() == pytest.approx(expected, rel=1e-6)


def test_without_the_flag_the_model_is_as_it_was():
    """Generation and evaluation see the model's own forward."""
    torch.manual_seed(0)
    model = llama().eval()
    before = model(**batch()).logits
    add_fused_lm_head(model)
    project_labelled_positions(model)
    torch.testing.assert_close(model(**batch()).logits, before)
