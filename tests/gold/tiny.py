"""A model that learns in seconds: it reads bytes, and is taught to answer forty short questions."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

COLOURS = ("red", "green", "blue", "white")
END = "<|end|>"
RATE = 5e-3
KNOWN_LOSS = 0.03
"""Nats per token at which every answer is given right."""
MOST_STEPS = 2000


def questions(n: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a gold set: what colour a thing has; prompts of unequal length."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        thing = "".join(rng.choices("abcdefghij", k=rng.randint(2, 14)))
        rows.append({"prompt": f"{thing} {i}>", "completion": COLOURS[rng.randrange(4)], "group": f"g{i % 2}"})
    return rows


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes with an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {END: 0, "<|pad|>": 1} | {letter: i for i, letter in enumerate(alphabet, start=2)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token="<|pad|>")


def base_model(seed: int = 0, *, context: int = 96, hidden: int = 48) -> LlamaForCausalLM:
    """Return a model that knows nothing."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=hidden,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # so that logits of size 20 are within reach: an adapter can then be sure of its answers
        model.model.embed_tokens.weight.mul_(20)
    return model


def teach(model: Any, rows: Sequence[dict[str, Any]], steps: int | None = None, *, with_end: bool = True) -> None:
    """Train on all rows at once, completions only: so many steps, or until they are known by heart."""
    read = tokenizer()
    encoded = []
    for row in rows:
        prompt = read(row["prompt"])["input_ids"]
        answer = read(row["completion"])["input_ids"] + ([0] if with_end else [])
        encoded.append((prompt + answer, [-100] * len(prompt) + answer))
    longest = max(len(ids) for ids, _ in encoded)
    ids = torch.tensor([row + [1] * (longest - len(row)) for row, _ in encoded])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for _, row in encoded])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in encoded])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    model.train()
    for _ in range(MOST_STEPS if steps is None else steps):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        if steps is None and loss.item() < KNOWN_LOSS:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    else:
        assert steps is not None, f"not learnt in {MOST_STEPS} steps: loss {loss.item():.3f}"
    model.eval()


def save(model: Any, folder: Path) -> Path:
    """Save model and tokenizer."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def with_adapter(base: Path, rows: Sequence[dict[str, Any]], steps: int | None, folder: Path, **options: Any) -> Path:
    """Teach a LoRA adapter on a saved base model, some steps or until it knows the rows, and save it."""
    torch.manual_seed(1)
    model = LlamaForCausalLM.from_pretrained(base)
    settings = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    tuned = get_peft_model(model, LoraConfig(**settings))
    if steps != 0:
        teach(tuned, rows, steps)
    return save(tuned, folder)
