"""The quickest exact matrix product there is for a model's linear layers, chosen by measuring.

PyTorch's float32 product on x86 is MKL's, which runs at half the speed of oneDNN's on AMD processors (measured: 105
against 225 GFLOP/s on one Zen 5 core). PyTorch carries both. Both are plain float32 and differ in the order of their
sums only.

A low-rank adapter beside a small layer costs more than the layer: three more calls and as much arithmetic again. Where
the sum of both matrices is cheap to hold, one product with it takes their place; no weight is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sightline.evaluation.replaced import Forward, replaced_forwards

Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""``linear(x, weight, bias)`` as ``torch.nn.functional.linear``."""

WORTH_IT = 1.15
"""How many times as fast the other product must be to be used."""
SMALLEST_SIDE = 64
"""Matrices narrower than this (low-rank adapters) gain nothing."""
MERGED_BYTES = 256 << 20
"""Most bytes of matrices with their adapters in them that are held during a pass."""


def quickest_linear(weight: torch.Tensor) -> Linear:
    """Return the quickest function that computes ``functional.linear`` for weights like this one, without gradients."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and _onednn_is_quicker(torch.get_num_threads()):
        return _onednn
    return functional.linear


def product(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Return ``x @ weight.T`` by the quickest product, in ``out`` where it can write there; without gradients."""
    linear = quickest_linear(weight)
    return torch.mm(x, weight.t(), out=out) if linear is functional.linear else linear(x, weight, None)


@contextmanager
def quick_products(model: nn.Module) -> Iterator[None]:
    """Have the linear layers of a model use the quickest product meanwhile, without gradients."""
    left = MERGED_BYTES

    def quicker(module: Any) -> Forward | None:
        nonlocal left
        forward = _quick_forward(module)
        if forward is None and (matrix := _adapted_weight(module, left)) is not None:
            forward, left = _merged_forward(module, matrix), left - matrix.nbytes
        return forward

    with replaced_forwards(model, quicker):
        yield


def is_plain_weight(weight: Any) -> bool:
    """Whether a weight is an ordinary dense matrix of real numbers, neither sharded nor quantised nor elsewhere."""
    return (
        type(weight) in (nn.Parameter, torch.Tensor)
        and weight.dim() == 2
        and weight.is_floating_point()
        and weight.dtype.itemsize >= 2
        and weight.layout == torch.strided
        and weight.device.type != "meta"
    )


def _quick_forward(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return a replacement of a layer's forward, None where its own is as good."""
    is_linear = type(module) is nn.Linear
    if not is_linear and type(module).__name__ != "Conv1D":  # GPT-2's layer, whose weight lies the other way round
        return None
    if not is_plain_weight(module.weight):
        return None
    weight = module.weight if is_linear else module.weight.t()
    bias = module.bias
    linear = quickest_linear(weight)
    if linear is functional.linear or min(weight.shape) < SMALLEST_SIDE:
        return None

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return linear(hidden, weight, bias)

    return forward


def _adapted_weight(module: Any, most_bytes: int) -> torch.Tensor | None:
    """Return the matrix of a layer with its plain low-rank adapters in it; None where there are none or more to it."""
    if not (type(module).__name__ == "Linear" and hasattr(module, "lora_A")):
        return None
    base = module.base_layer
    if type(base) is not nn.Linear or not is_plain_weight(base.weight) or module.disable_adapters or module.merged:
        return None
    names = [name for name in module.active_adapters if name in module.lora_A]
    if not names or any(name in module.lora_variant or module.lora_bias[name] for name in names):
        return None
    weights = [base.weight, *(part[name].weight for part in (module.lora_A, module.lora_B) for name in names)]
    if any(weight.dtype != torch.float32 or weight.device.type != "cpu" for weight in weights):
        return None
    if base.weight.nbytes > most_bytes:
        return None
    matrix: torch.Tensor = base.weight.detach().clone()
    for name in names:
        matrix += module.get_delta_weight(name)
    return matrix


def _merged_forward(module: Any, matrix: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Return a forward that multiplies by the merged matrix; anything but plain float32 goes the layer's own way."""
    linear, bias, own = quickest_linear(matrix), module.base_layer.bias, module.forward

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args or kwargs or hidden.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            result: torch.Tensor = own(hidden, *args, **kwargs)
            return result
        return linear(hidden, matrix, bias)

    return forward


def _onednn(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Compute a float32 linear layer with oneDNN."""
    if hidden.dtype != torch.float32 or hidden.numel() == 0 or torch.is_autocast_enabled("cpu"):
        return functional.linear(hidden, weight, bias)
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")
    return product


@cache
def _onednn_is_quicker(threads: int) -> bool:
    """Measure both products, once for a number of threads; False where oneDNN is absent or differs."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(256, 256, generator=generator)
    weight = torch.randn(1024, 256, generator=generator)
    try:
        same = torch.allclose(_onednn(hidden, weight), functional.linear(hidden, weight), rtol=1e-4, atol=1e-4)
    except (RuntimeError, AttributeError):
        return False
    ours, theirs = (min(_seconds(f, hidden, weight) for _ in range(7)) for f in (_onednn, functional.linear))
    return same and theirs > WORTH_IT * ours


def _seconds(linear: Linear, hidden: torch.Tensor, weight: torch.Tensor) -> float:
    began = time.perf_counter()
    linear(hidden, weight, None)
    return time.perf_counter() - began
