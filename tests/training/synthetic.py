"""Small tokenizers, model folders and row files made on the spot, sound unless a test breaks them."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from sightline.training.hardware import Hardware
from sightline.training.prepare import Prepared, prepare
from sightline.training.recipe import Recipe

SPECIAL = ["<pad>", "<s>", "</s>"]
CPU = Hardware(device="cpu", name="CPU", free_memory_bytes=8 * 2**30, total_memory_bytes=16 * 2**30, cores=4)
GPU = Hardware(
    device="cuda", name="Test GPU", free_memory_bytes=24 * 2**30, total_memory_bytes=24 * 2**30, cores=8, bf16=True
)
CHATML = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
TEXT = [
    "What is the capital of France? The capital of France is Paris.",
    "Question: how do I find my card? Answer: look in the drawer, please.",
    "Instruction: write a short story about a cat and a dog. Response: once upon a time",
    "0 1 2 3 4 5 6 7 8 9 + - = ( ) [ ] { } # * / % & @ £ é",
]


@cache
def _bpe(vocabulary: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    return tokenizer.to_str()


def byte_tokenizer(vocabulary: int = 300, **special: Any) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: every character has a token."""
    tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_bpe(vocabulary)), **tokens)


def word_tokenizer(words: str = "a b c d e f g h i j") -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters that has no token for any other: <unk>."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", *SPECIAL, *words.split(), " "])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def model_folder(
    folder: Path,
    tokenizer: Any | None = None,
    *,
    hidden: int = 16,
    layers: int = 2,
    embedding: Any = None,
    **config: Any,
) -> Path:
    """Write a Llama of random weights with its tokenizer; nothing is ever trained with it."""
    tokenizer = byte_tokenizer() if tokenizer is None else tokenizer
    settings = {
        "vocab_size": len(tokenizer), "hidden_size": hidden, "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "architectures": ["LlamaForCausalLM"],
    } | config  # fmt: skip
    rng = np.random.default_rng(0)
    tensors = {"model.embed_tokens.weight": rng.normal(0, 0.5, (settings["vocab_size"], hidden)).astype(np.float32)}
    if embedding is not None:
        tensors["model.embed_tokens.weight"] = embedding(tensors["model.embed_tokens.weight"])
    for i in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"model.layers.{i}.self_attn.{name}.weight"] = np.zeros((hidden, hidden), np.float32)
        for name, shape in (("gate_proj", (2, 1)), ("up_proj", (2, 1)), ("down_proj", (1, 2))):
            size = (shape[0] * hidden, shape[1] * hidden)
            tensors[f"model.layers.{i}.mlp.{name}.weight"] = np.zeros(size, np.float32)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{name}.weight"] = np.ones(hidden, np.float32)
    tensors["model.norm.weight"] = np.ones(hidden, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    LlamaConfig(**settings).save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    return folder


def rows(n: int, start: int = 0) -> list[dict[str, str]]:
    """Return rows of a prompt and a completion, all different."""
    return [
        {"prompt": f"Question: what comes after {i}?\nAnswer:\n", "completion": f"After {i} comes {i + 1}."}
        for i in range(start, start + n)
    ]


def write_rows(path: Path, records: list[Any]) -> Path:
    """Write records as JSON lines."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def prepared(
    folder: Path, records: list[Any] | None = None, *, hardware: Hardware = CPU, model: Path | None = None, **keys: Any
) -> Prepared:
    """Prepare a run on rows written to a folder; ``eval_records`` and ``gold_records`` go to files of their own."""
    overrides: dict[str, Any] = {
        "model_name_or_path": str(model or model_folder(folder / "model")),
        "dataset": str(write_rows(folder / "train.jsonl", rows(120) if records is None else records)),
        "output_dir": str(folder / "out"),
    }
    for name, key in (("eval_records", "eval_dataset"), ("gold_records", "gold")):
        if name in keys:
            overrides[key] = str(write_rows(folder / f"{key}.jsonl", keys.pop(name)))
    return prepare(Recipe.load(None, overrides | keys), hardware)


def shared(*parts: str) -> Path:
    """Return a real file kept beside the project, skipping the test where there is none."""
    root = Path(os.environ.get("SIGHTLINE_SHARED", Path(__file__).parents[2] / ".." / "shared")).resolve()
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} beside the project")
    return path
