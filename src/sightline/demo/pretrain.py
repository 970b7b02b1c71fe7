"""Make the demo's base model: ``python -m sightline.demo.pretrain FOLDER``.

A tokenizer and a small Llama are trained from nothing on `corpus.pretraining_documents`. Documents stand one after the
other with the end token between, so that the end token's embedding is learnt like any other. One thread and a fixed
seed make it the same weights again on the same processor, Python and PyTorch; elsewhere a model equal in kind. The
time it takes is in the model card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.demo.corpus import Document, held_out_documents, pretraining_documents

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

END_TOKEN = "<|endoftext|>"
PAD_TOKEN = "<|pad|>"


@dataclass(frozen=True, slots=True)
class Pretraining:
    """Everything that decides the outcome; the defaults made the model that ships."""

    vocab_size: int = 1536
    hidden_size: int = 128
    intermediate_size: int = 352
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 512
    block_tokens: int = 256
    """Tokens of one training sequence."""
    batch_blocks: int = 16
    steps: int = 2200
    warmup_steps: int = 60
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    seed: int = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write the model folder, print what the model card states as JSON."""
    parser = argparse.ArgumentParser(prog="python -m sightline.demo.pretrain", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="where the model goes; made if it is not there")
    for name, value in asdict(Pretraining()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"(default: {value})")
    options = vars(parser.parse_args(arguments))
    facts = pretrain(options.pop("folder"), Pretraining(**options))
    print(json.dumps(facts, indent=2))
    return 0


def pretrain(folder: Path, settings: Pretraining) -> dict[str, Any]:
    """Train tokenizer and model, save them in the Hugging Face form.

    Parameters
    ----------
    folder : Path
        Where the model goes.
    settings : Pretraining
        Architecture and training.

    Returns
    -------
    dict
        What the model card states: tokens, losses (nats per token, token mean), time in seconds, versions, hashes.
    """
    import torch

    started = time.monotonic()
    torch.set_num_threads(1)  # more threads add in another order: other weights
    torch.manual_seed(settings.seed)
    documents = pretraining_documents()
    tokenizer = train_tokenizer([document.text for document in documents], settings.vocab_size)
    files = tokenised_files(documents, tokenizer)
    held_out = _pack([_ids(tokenizer, text) for text in held_out_documents()], settings.block_tokens)
    some_held_out = held_out[:: max(1, len(held_out) // 60)]  # to follow the training by
    model = new_model(tokenizer, settings)
    for step, loss in train(model, files, settings):
        if step % 200 == 0 or step == settings.steps:
            held_out_loss, seconds = mean_loss(model, some_held_out), time.monotonic() - started
            print(f"{step:5d}  loss {loss:.3f}  held out {held_out_loss:.3f}  {seconds:.0f} s", file=sys.stderr)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    corpus = "\0".join(document.text for document in documents)
    return {
        "settings": asdict(settings),
        "parameters": model.num_parameters(),
        "corpus": {
            "documents": len(documents),
            "characters": len(corpus),
            "tokens": sum(map(len, files)),
            "sha256": hashlib.sha256(corpus.encode()).hexdigest(),
        },
        "tokens_seen": settings.steps * settings.batch_blocks * settings.block_tokens,
        "held_out_tokens": held_out[:, 1:].numel(),
        "held_out_loss": round(mean_loss(model, held_out), 4),
        "unigram_loss": round(unigram_loss(files, held_out, settings.vocab_size), 4),
        "runtime_s": round(time.monotonic() - started),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every text can be written in it, none loses a character.

    Parameters
    ----------
    texts : sequence of str
        What to learn the merges from.
    vocab_size : int
        Tokens in all, the 256 bytes and two special tokens included.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # The pattern of GPT-2: letters, digits, punctuation and blanks never share a token, so ">" ends a prompt cleanly.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_TOKEN, PAD_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_TOKEN, pad_token=PAD_TOKEN, clean_up_tokenization_spaces=False
    )


def tokenised_files(documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Tokens of the documents of each file in their order, the end token after every document."""
    return [
        [token for document in members for token in _ids(tokenizer, document.text)]
        for _, members in groupby(documents, key=lambda document: document.source)
    ]


def new_model(tokenizer: PreTrainedTokenizerFast, settings: Pretraining) -> LlamaForCausalLM:
    """Make a Llama with random weights from torch's generator, float32, embeddings tied."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    shape = {key: value for key, value in asdict(settings).items() if key in LlamaConfig().to_dict()}
    config = LlamaConfig(**shape, bos_token_id=None, eos_token_id=end, pad_token_id=pad, tie_word_embeddings=True)
    model = LlamaForCausalLM(config).float()
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False)
    return model


def train(model: LlamaForCausalLM, files: Sequence[list[int]], settings: Pretraining) -> Iterator[tuple[int, float]]:
    """Train in place; yields the step (from 1) and the mean training loss since the last 50 steps or so."""
    import torch

    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
    batches = _batches(files, settings)
    smooth = math.log(settings.vocab_size)
    for step in range(1, settings.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings)
        model.train()
        loss = _loss(model, next(batches))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smooth += 0.02 * (loss.item() - smooth)
        yield step, smooth
    model.eval()


def mean_loss(model: LlamaForCausalLM, blocks: torch.Tensor) -> float:
    """Token mean of the loss over blocks of equal length, nats."""
    import torch

    model.eval()
    with torch.inference_mode():
        parts = [(_loss(model, part).item(), len(part)) for part in torch.split(blocks, 16)]
    return sum(loss * rows for loss, rows in parts) / sum(rows for _, rows in parts)


def unigram_loss(files: Sequence[list[int]], held_out: torch.Tensor, vocab_size: int) -> float:
    """Loss on held-out blocks of a model that knows only how frequent each token is, in nats per token (add-one)."""
    import torch

    counts = (
        torch.bincount(torch.tensor([token for file in files for token in file]), minlength=vocab_size).double() + 1
    )
    return float(-(counts / counts.sum()).log()[held_out[:, 1:].flatten()].mean())


def _loss(model: LlamaForCausalLM, block: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each token given those before it in its block."""
    import torch

    logits = model(input_ids=block[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), block[:, 1:].flatten())


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Tokens of a document and the end token after it."""
    return [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def _pack(documents: Sequence[list[int]], block_tokens: int) -> torch.Tensor:
    """Blocks of the documents' joined tokens, shape (n, block_tokens + 1); the short rest at the end is left out."""
    import torch

    stream = torch.tensor([token for document in documents for token in document])
    # Neighbours share one token, so that every token is predicted once.
    return stream.unfold(0, block_tokens + 1, block_tokens).contiguous()


def _batches(files: Sequence[list[int]], settings: Pretraining) -> Iterator[torch.Tensor]:
    """Batches of blocks without end: every epoch the files in a new order, so the blocks are cut at other places."""
    order = random.Random(settings.seed)
    while True:
        # A file's documents stay together: what one says helps to predict the next.
        blocks = _pack(order.sample(files, len(files)), settings.block_tokens)
        places = order.sample(range(len(blocks)), len(blocks) // settings.batch_blocks * settings.batch_blocks)
        for i in range(0, len(places), settings.batch_blocks):
            yield blocks[places[i : i + settings.batch_blocks]]


def _schedule(step: int, settings: Pretraining) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine down to a tenth."""
    if step <= settings.warmup_steps:
        return step / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


if __name__ == "__main__":
    sys.exit(main())
