"""A tiny model with dropout and rows for it: trains in a second, and any random number drawn elsewhere shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

VOCABULARY = 48


def tiny_model(seed: int = 0) -> GPT2LMHeadModel:
    """Return a GPT-2 of a few thousand parameters with dropout everywhere."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2,
            resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def tiny_rows(n: int, seed: int = 1) -> list[dict[str, list[int]]]:
    """Return rows whose next token follows from the one before, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(n):
        length = int(torch.randint(6, 16, (1,), generator=generator))
        tokens = [int(torch.randint(VOCABULARY, (1,), generator=generator))]
        for _ in range(length - 1):
            noise = int(torch.randint(3, (1,), generator=generator))
            tokens.append((tokens[-1] * 5 + noise) % VOCABULARY)
        rows.append({"input_ids": tokens, "labels": list(tokens)})
    return rows


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad a batch."""
    width = max(len(row["input_ids"]) for row in rows)
    pad = [width - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([r["input_ids"] + [0] * p for r, p in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(r["input_ids"]) + [0] * p for r, p in zip(rows, pad, strict=True)]),
        "labels": torch.tensor([r["labels"] + [-100] * p for r, p in zip(rows, pad, strict=True)]),
    }


def tiny_trainer(output_dir: Path, *, callbacks: list[Any] | None = None, **arguments: Any) -> Trainer:
    """Return a plain Trainer on the tiny model: 12 steps, an evaluation every 3."""
    settings: dict[str, Any] = {
        "output_dir": str(output_dir), "max_steps": 12, "per_device_train_batch_size": 4, "logging_steps": 1,
        "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "no", "learning_rate": 1e-2, "seed": 3,
        "disable_tqdm": True, "report_to": [], "use_cpu": True,
    } | arguments  # fmt: skip
    return Trainer(
        model=tiny_model(),
        args=TrainingArguments(**settings),
        train_dataset=tiny_rows(40),
        eval_dataset=tiny_rows(12, seed=2),
        data_collator=collate,
        callbacks=callbacks,
    )


def weights(trainer: Trainer) -> list[torch.Tensor]:
    """Return a copy of every weight."""
    return [p.detach().clone() for p in trainer.model.parameters()]
