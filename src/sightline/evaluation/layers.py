"""Quicker forwards for layers that transformers spells out in many operations, on a CPU.

An RMS norm takes six passes over its input there and allocates five tensors; three passes and two tensors do. A rotary
embedding takes five where two do, and a gated MLP multiplies into new memory what it may as well multiply in place.
Layers are recognised by their parts and taken over where they give on a trial what their own forward gives; everything
else is left alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sightline.evaluation.replaced import Forward, replaced_forwards

Rotation = Callable[..., Any]

GATED_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
"""The parts of ``down_proj(act_fn(gate_proj(x)) * up_proj(x))``, as transformers names them."""

ROTATION = "apply_rotary_pos_emb"
"""The function by which attention rotates queries and keys in transformers, one in each model's own file."""

_alike: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
"""Whether a gated MLP was found to be nothing more than its parts; what it is does not change with its weights."""


@contextmanager
def quick_layers(model: nn.Module) -> Iterator[None]:
    """Have norms, rotations and MLPs of a model use quicker forwards meanwhile, without gradients."""
    with replaced_forwards(model, lambda module: _quick_norm(module) or _quick_mlp(module) or _quick_attention(module)):
        yield


def _quick_norm(module: Any) -> Forward | None:
    """Return a replacement of an RMS norm's forward; Gemma's weights are what is added to 1."""
    weight: Any = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or not _is_plain_vector(weight) or not isinstance(eps, float):
        return None
    for factor in (weight.detach(), 1.0 + weight.detach()):
        forward = _norm(factor, eps, module.forward)
        if _agrees(module.forward, forward, len(factor)):
            return forward
    return None


def _norm(factor: torch.Tensor, eps: float, own: Forward) -> Forward:
    """Return the forward of an RMS norm; anything but plain float32 goes the module's own way."""
    mean = 1.0 / len(factor)

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or hidden.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return own(hidden, *args, **kwargs)
        norm: torch.Tensor = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return (hidden * norm.square_().mul_(mean).add_(eps).rsqrt_()).mul_(factor)

    return forward


def _quick_mlp(module: Any) -> Forward | None:
    """Return a replacement of a gated MLP's forward that makes one tensor where its own makes three."""
    if {name for name, _ in module.named_children()} != GATED_MLP:
        return None
    gate, up = module.gate_proj, module.up_proj
    weight = getattr(gate, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.device.type != "cpu" or gate._forward_hooks or up._forward_hooks:
        return None  # a hook may keep what would be written over
    if not (isinstance(gate, nn.Linear) or hasattr(gate, "lora_A")):
        return None
    own: Forward = module.forward
    is_silu = isinstance(module.act_fn, nn.SiLU) or type(module.act_fn).__name__ == "SiLUActivation"

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return own(hidden, *args, **kwargs)
        gated = gate(hidden)
        gated = functional.silu(gated, inplace=True) if is_silu else module.act_fn(gated)
        product: torch.Tensor = module.down_proj(gated.mul_(up(hidden)))
        return product

    if module not in _alike:
        _alike[module] = _agrees(own, forward, weight.shape[-1], weight.dtype)
    return forward if _alike[module] else None


def _quick_attention(module: Any) -> Forward | None:
    """Return an attention's own forward with a quicker rotation in the place of the one it would call."""
    forward = type(module).forward
    own = getattr(forward, "__globals__", {}).get(ROTATION)
    code = getattr(forward, "__code__", None)
    if own is None or code is None or ROTATION not in code.co_names or not _is_plain_rotation(own):
        return None
    names = {**forward.__globals__, ROTATION: _rotation(own)}
    copy = FunctionType(code, names, forward.__name__, forward.__defaults__, forward.__closure__)
    copy.__kwdefaults__ = forward.__kwdefaults__
    return MethodType(copy, module)


def _rotation(own: Rotation) -> Rotation:
    """Return the rotation of whole heads, first half against second; anything else goes its own way."""

    def rotation(q: Any, k: Any, cos: Any, sin: Any, *args: Any, **kwargs: Any) -> Any:
        plain = q.dim() == 4 and cos.dim() == 3 and cos.shape[-1] == q.shape[-1] and q.dtype == torch.float32
        if args or kwargs or not plain or q.device.type != "cpu":
            return own(q, k, cos, sin, *args, **kwargs)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return _rotated(q, cos, sin), _rotated(k, cos, sin)

    return rotation


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return ``x * cos + (-second half, first half) * sin``, shape (b, heads, t, d)."""
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned


@cache
def _is_plain_rotation(own: Rotation) -> bool:
    """Try both on random numbers, once for each model's function."""
    generator = torch.Generator().manual_seed(0)
    q, k, cos, sin = (
        torch.randn(*shape, generator=generator) for shape in ((2, 3, 5, 8), (2, 1, 5, 8), (1, 5, 8), (1, 5, 8))
    )
    try:
        pairs = list(zip(own(q, k, cos, sin), _rotation(own)(q, k, cos, sin), strict=True))
    except Exception:  # another signature
        return False
    return all(torch.allclose(found, expected, rtol=1e-5, atol=1e-5) for expected, found in pairs)


def _agrees(own: Forward, quick: Forward, width: int, dtype: torch.dtype = torch.float32) -> bool:
    """Try both on a few vectors, of length 1 to 100 per entry."""
    generator = torch.Generator().manual_seed(0)
    trial = torch.randn(3, width, generator=generator) * torch.tensor([[1.0], [10.0], [100.0]])
    try:
        expected, found = own(trial.to(dtype)), quick(trial.to(dtype))
    except Exception:  # whatever an unusual layer makes of it: its own forward is always there
        return False
    if not isinstance(expected, torch.Tensor) or expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    size = expected.abs().amax(-1, keepdim=True)
    return bool(((found - expected).abs() <= 1e-5 * size).all())


def _is_plain_vector(weight: Any) -> bool:
    """Whether a weight is an ordinary float32 vector on the CPU."""
    return (
        type(weight) in (nn.Parameter, torch.Tensor)
        and weight.dim() == 1
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
    )
