"""The floor of an exact evaluation: what it must compute, and how fast this machine does that."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from _evaluation_set import Row

RATE_SECONDS = 2


def clocked(work: Callable[[], float]) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds over all threads, and the result, a number on the host: the device has ended."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def operations_of(rows: list[Row], config: Any) -> float:
    """Return the floating-point operations that the exact loss needs."""
    total, hidden, layers = 0.0, config.hidden_size, config.num_hidden_layers
    for row in rows:
        tokens, labelled = _tokens_and_labels(row)
        total += 2 * tokens * layers * (4 * hidden**2 + 3 * hidden * config.intermediate_size)
        total += 2 * layers * hidden * tokens**2  # scores and values, each half under the causal mask
        total += 2 * labelled * hidden * config.vocab_size
    return total


def exponentials_of(rows: list[Row], config: Any) -> float:
    """Return the exponentials that the exact loss needs: of logits, and of the scores of causal attention."""
    both, heads = map(_tokens_and_labels, rows), config.num_hidden_layers * config.num_attention_heads
    return sum(labelled * config.vocab_size + heads * tokens * (tokens + 1) / 2 for tokens, labelled in both)


def _tokens_and_labels(row: Row) -> tuple[int, int]:
    """Return how many tokens of a row the model must read, and how many labels it has."""
    labelled = [at for at, label in enumerate(row["labels"]) if at and label != -100]
    return (labelled[-1] if labelled else 0), len(labelled)


def product_rates(model: Any) -> dict[str, float]:
    """Return the operations a second of the products PyTorch carries for a model's weights, on a layer's shape."""
    import torch
    from torch.nn import functional

    from sightline.evaluation.products import _onednn

    like = next(model.parameters())
    side = 2048 if like.device.type == "cpu" else 16384
    x, weight = (torch.randn(side, model.config.hidden_size, device=like.device, dtype=like.dtype) for _ in range(2))
    operations = 2 * len(x) * weight.numel()
    products = {"torch.mm": functional.linear} | ({"oneDNN": _onednn} if like.device.type == "cpu" else {})
    rates = {}
    for name, product in products.items():
        seconds, began = [], time.perf_counter()
        while time.perf_counter() - began < RATE_SECONDS:
            seconds.append(clocked(lambda p=product: _waited(p(x, weight)))[0])
        rates[name] = operations / statistics.median(seconds)
    return {"torch.mm": rates["torch.mm"], "quickest": max(rates.values())}


def _waited(result: Any) -> float:
    """Return one number of a result, once the device has made it."""
    return float(result[0, 0].item())


def exponential_rate(device: str) -> float:
    """Return how many exponentials a second are made and added up, on a tile of logits in the cache."""
    import torch

    if device != "cpu":
        logits = torch.randn(4096, 16384, device=device)
        return logits.numel() / min(clocked(lambda: logits.exp2().sum(-1)[0].item())[0] for _ in range(40))
    threads, logits = torch.get_num_threads(), torch.randn(512, 1024)
    tile = logits.clone()
    seconds = []
    torch.set_num_threads(1)  # each with a tile of its own: to share one costs as much as it saves
    for _ in range(40):
        tile.copy_(logits)
        seconds.append(clocked(lambda: tile.exp2_().sum(-1).sum().item())[0])
    torch.set_num_threads(threads)
    return threads * logits.numel() / min(seconds)


def seconds_to_read(model: Any) -> float:
    """Return the seconds it takes to read every weight once."""
    return sum(min(clocked(lambda p=p: p.detach().sum().item())[0] for _ in range(3)) for p in model.parameters())
