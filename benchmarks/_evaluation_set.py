"""The model and the rows that the evaluation benchmarks share."""

from __future__ import annotations

from typing import Any

import numpy as np

LONGEST = 512
Row = dict[str, list[int]]


def model_of(vocabulary: int, loud: float = 5.0, hidden: int = 256) -> Any:
    """Return a Llama of 6 layers with random weights, ``loud`` times as large so that its loss is not uniform."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 43 // 16,
        num_hidden_layers=6,
        num_attention_heads=hidden // 64,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(loud)
    return model


def rows_of(vocabulary: int, n: int, sigma: float = 0.9, masked: float = 0.5, seed: int = 0) -> list[Row]:
    """Return rows of log-normal length from 8 to 512 tokens, median 96, the first part of each masked."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in np.clip(rng.lognormal(np.log(96), sigma, n), 8, LONGEST).astype(int):
        ids = rng.integers(3, vocabulary, length).tolist()
        hidden = min(int(length * masked), length - 1)
        rows.append({"input_ids": ids, "labels": [-100] * hidden + ids[hidden:]})
    return rows


def collate(batch: list[Row]) -> dict[str, Any]:
    """Pad a batch at the right, as the collators of transformers and TRL do."""
    import torch

    width = max(len(row["input_ids"]) for row in batch)
    pads = [width - len(row["input_ids"]) for row in batch]
    return {
        "input_ids": torch.tensor([r["input_ids"] + [0] * p for r, p in zip(batch, pads, strict=True)]),
        "labels": torch.tensor([r["labels"] + [-100] * p for r, p in zip(batch, pads, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(r["labels"]) + [0] * p for r, p in zip(batch, pads, strict=True)]),
    }


def trainer_of(model: Any, rows: list[Row], batch_size: int, folder: str) -> Any:
    """Return a plain Trainer that evaluates on ``rows``."""
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(
        folder,
        per_device_eval_batch_size=batch_size,
        report_to=[],
        use_cpu=model.device.type == "cpu",
        disable_tqdm=True,
        logging_strategy="no",
    )
    return Trainer(model=model, args=args, eval_dataset=rows, data_collator=collate)


def sft_trainer_of(model: Any, rows: list[Row], batch_size: int, folder: str) -> Any:
    """Return TRL's SFTTrainer that evaluates on ``rows``."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    args = SFTConfig(
        folder,
        per_device_eval_batch_size=batch_size,
        report_to=[],
        use_cpu=model.device.type == "cpu",
        bf16=False,
        disable_tqdm=True,
        logging_strategy="no",
        max_length=LONGEST,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,
    )
    return SFTTrainer(
        model=model,
        args=args,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows[:1]),
        eval_dataset=Dataset.from_list(rows),
        data_collator=collate,
    )


def exact_loss(model: Any, rows: list[Row]) -> float:
    """Return the token mean in float64: float64 weights, one row at a time."""
    import copy

    import torch
    from torch.nn import functional

    exact = copy.deepcopy(model).double().eval()
    total, tokens = 0.0, 0
    for row in rows:
        targets = torch.tensor(row["labels"][1:], device=exact.device)
        with torch.no_grad():
            hidden = exact.model(input_ids=torch.tensor([row["input_ids"]], device=exact.device)).last_hidden_state[
                0, :-1
            ]
            logits = exact.lm_head(hidden[targets != -100])
        total += functional.cross_entropy(logits, targets[targets != -100], reduction="sum").item()
        tokens += int((targets != -100).sum())
    return total / tokens
