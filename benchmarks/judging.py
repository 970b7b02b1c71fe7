"""Answers per second: Sightline's decoding against ``model.generate`` at its best fixed batch size.

Same model (the embedded one, and a LoRA adapter taught on its rows here), same prompts, same end tokens, greedy, one
process of one thread; sides take turns, the best of each is compared, in seconds of the processor: on a quiet machine
those of the clock, on a busy one without what others take. Three gold sets: the demo's labels asked of the base and of the
tuned model, and beginnings of prose of very unequal length, which the base goes on with. ``model.generate`` takes the
rows in the order of the file, as plain use does, and sorted by length too. Answers must be the same tokens.

    python benchmarks/judging.py [--rows 192] [--repeats 2] [--continuous] [--json FILE]

``--continuous`` adds transformers' own continuous batching (``generate_batch``), which is made for GPUs: on a CPU it
takes minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BATCH_SIZES = (8, 16, 32, 64, 128)
TEACHING_STEPS = 120
LONGEST_ANSWER = {"labels": 16, "prose": 64}

Answers = dict[int, list[int]]


def ours(model: Any, tokenizer: Any, prompts: Sequence[list[int]], limit: int) -> Answers:
    """Decode with slots, as `sightline judge` does."""
    from sightline.gold.generation import Settings, TransformersBackend

    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers: Answers = {}
    settings = Settings(limit, frozenset([tokenizer.eos_token_id]))
    TransformersBackend(model, tokenizer).generate(
        [prompts[i] for i in order],
        [limit] * len(order),
        settings,
        lambda at, tokens, ended: answers.__setitem__(order[at], list(tokens)),
    )
    return answers


def plain(model: Any, tokenizer: Any, prompts: Sequence[list[int]], limit: int, batch: int, by_length: bool) -> Answers:
    """Decode with ``model.generate`` in batches of one size."""
    import torch

    order = list(range(len(prompts)))
    if by_length:
        order.sort(key=lambda i: -len(prompts[i]))
    answers: Answers = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        longest = max(len(prompts[i]) for i in rows)
        pad = tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(prompts[i])) + prompts[i] for i in rows])
        mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in rows])
        generated = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, pad_token_id=pad
        )
        for i, row in zip(rows, generated[:, longest:].tolist(), strict=True):
            answers[i] = list(itertools.takewhile(lambda token: token != tokenizer.eos_token_id, row))
    return answers


def continuous(model: Any, tokenizer: Any, prompts: Sequence[list[int]], limit: int) -> Answers:
    """Decode with transformers' continuous batching."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=limit, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    outputs = inner.generate_batch(inputs=list(prompts), generation_config=settings, progress_bar=False)
    ends = tokenizer.eos_token_id
    found = (list(itertools.takewhile(lambda token: token != ends, o.generated_tokens)) for o in outputs.values())
    return dict(enumerate(found))


def taught(model: Any, tokenizer: Any, rows: Sequence[dict[str, str]]) -> Any:
    """Teach a LoRA adapter the demo's labels."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=5e-3, weight_decay=0.0)
    tuned.train()
    chooser = random.Random(0)
    for _ in range(TEACHING_STEPS):
        encoded = []
        for row in chooser.sample(list(rows), 16):
            prompt = tokenizer(row["prompt"])["input_ids"]
            answer = [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id]
            encoded.append((prompt + answer, [-100] * len(prompt) + answer))
        longest = max(len(ids) for ids, _ in encoded)
        pad = [longest - len(ids) for ids, _ in encoded]
        tuned(
            input_ids=torch.tensor([ids + [0] * n for (ids, _), n in zip(encoded, pad, strict=True)]),
            attention_mask=torch.tensor([[1] * len(x) + [0] * n for (x, _), n in zip(encoded, pad, strict=True)]),
            labels=torch.tensor([labels + [-100] * n for (_, labels), n in zip(encoded, pad, strict=True)]),
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return tuned.eval()


def beginnings(texts: Sequence[str], tokenizer: Any, n: int) -> list[list[int]]:
    """Return beginnings of prose, 8 to 300 tokens long, most of them short."""
    chooser = random.Random(1)
    tokens = [tokenizer("\n\n".join(chooser.sample(list(texts), 4)))["input_ids"] for _ in range(n)]
    return [ids[: min(300, max(8, int(chooser.lognormvariate(3.4, 0.9))))] for ids in tokens]


def measure(sides: dict[str, Callable[[], Answers]], repeats: int) -> tuple[dict[str, float], dict[str, Answers]]:
    """Time every side by turns; return the best seconds and the answers of each."""
    best: dict[str, float] = {}
    answers: dict[str, Answers] = {}
    for _ in range(repeats):
        for name, side in sides.items():
            began = time.process_time()
            answers[name] = side()
            seconds = time.process_time() - began
            best[name] = min(seconds, best.get(name, seconds))
    return best, answers


def compared(
    name: str, model: Any, tokenizer: Any, prompts: list[list[int]], limit: int, options: Any
) -> dict[str, Any]:
    """Measure one gold set on one model, print it, return its numbers."""
    sides: dict[str, Callable[[], Answers]] = {"sightline": lambda: ours(model, tokenizer, prompts, limit)}
    for size in BATCH_SIZES:
        for by_length in (False, True):
            label = f"generate, {size} a batch" + (", sorted" if by_length else "")
            sides[label] = lambda size=size, by_length=by_length: plain(  # type: ignore[misc]
                model, tokenizer, prompts, limit, size, by_length
            )
    if options.continuous:
        sides["generate_batch"] = lambda: continuous(model, tokenizer, prompts, limit)
    seconds, answers = measure(sides, options.repeats)
    rate = {side: len(prompts) / value for side, value in seconds.items()}
    in_order = max((s for s in rate if s.startswith("generate,") and "sorted" not in s), key=lambda s: rate[s])
    in_any = max((s for s in rate if s.startswith("generate,")), key=lambda s: rate[s])
    equal = sum(answers["sightline"][i] == answers[in_order][i] for i in range(len(prompts)))
    lengths = sorted(map(len, prompts))
    print(
        f"{name}: {len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, "
        f"{sum(map(len, answers['sightline'].values()))} tokens answered\n"
        f"  sightline {rate['sightline']:7.1f} answers/s\n"
        f"  {in_order:30} {rate[in_order]:7.1f} answers/s   {rate['sightline'] / rate[in_order]:.2f}x\n"
        f"  {in_any:30} {rate[in_any]:7.1f} answers/s   {rate['sightline'] / rate[in_any]:.2f}x   (best of all)\n"
        f"  the same tokens in {equal} of {len(prompts)} answers",
        flush=True,
    )
    return {
        "answers_per_s": rate,
        "best_fixed_batch": in_order,
        "ratio": rate["sightline"] / rate[in_order],
        "ratio_to_sorted": rate["sightline"] / rate[in_any],
        "equal_answers": equal,
        "rows": len(prompts),
    }


def main() -> int:
    """Measure the three sets; 1 if an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--continuous", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from sightline.demo import base_model_path, demo_rows, forgetting_text

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base_model_path())
    base = AutoModelForCausalLM.from_pretrained(base_model_path(), dtype=torch.float32).eval()
    rows = demo_rows()
    labels = [tokenizer(str(row["prompt"]))["input_ids"] for row in rows.gold[: options.rows]]
    prose = beginnings(forgetting_text(), tokenizer, options.rows)
    table = {
        "prose, base": compared("prose, base", base, tokenizer, prose, LONGEST_ANSWER["prose"], options),
        "labels, base": compared("labels, base", base, tokenizer, labels, LONGEST_ANSWER["labels"], options),
    }
    tuned = taught(base, tokenizer, rows.train)
    table["labels, tuned"] = compared("labels, tuned", tuned, tokenizer, labels, LONGEST_ANSWER["labels"], options)
    if options.json:
        options.json.write_text(json.dumps({"judging": table}, indent=2))
    return int(any(part["equal_answers"] < part["rows"] for part in table.values()))


if __name__ == "__main__":
    sys.exit(main())
