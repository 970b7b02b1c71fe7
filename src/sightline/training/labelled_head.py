"""The training loss from labelled positions only: the vocabulary is projected where there is something to learn.

TRL's fused head does so on Triton devices and scores every position elsewhere. On rows whose prompt is masked, most of
the head's work and memory is then spent on positions that no label needs.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from trl.trainer.utils import FusedCausalLMOutput

from sightline.evaluation.models import base_model, head_of
from sightline.evaluation.token_losses import Head
from sightline.evaluation.untouched import untouched

LOGITS_BYTES = 1 << 30
"""Largest float32 logits tensor that is made at once; above it TRL's chunked head is used."""
TRITON_DEVICES = ("cuda", "xpu")
SAME_LOSS = 1e-4
"""Relative difference up to which two float32 ways to the same loss count as equal."""


def project_labelled_positions(model: nn.Module) -> None:
    """Have ``model(..., fused_lm_head=True)`` project labelled positions only.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model that TRL has given its fused head, adapters around it included.

    Notes
    -----
    The first batch is scored both ways, in eval mode and without a trace; where they differ TRL's way is kept.
    """
    base = base_model(model)
    head = head_of(model)
    if head is None:
        return
    fused = base.forward
    vocabulary = base.config.get_text_config().vocab_size
    trusted: bool | None = None

    @functools.wraps(type(base).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        nonlocal trusted
        labels = kwargs.get("labels")
        if not fused_lm_head or labels is None or labels.device.type in TRITON_DEVICES or trusted is False:
            return fused(*args, fused_lm_head=fused_lm_head, **kwargs)
        mask = labels[:, 1:] != -100
        if int(mask.sum()) * vocabulary * 4 > LOGITS_BYTES:
            return fused(*args, fused_lm_head=True, **kwargs)
        if trusted is None:
            with untouched(self):
                ours = _labelled_loss(self, head, mask, args, kwargs).loss
                trusted = bool(torch.isclose(ours, fused(*args, fused_lm_head=True, **kwargs).loss, rtol=SAME_LOSS))
            return forward(self, *args, fused_lm_head=True, **kwargs)
        return _labelled_loss(self, head, mask, args, kwargs)

    base.forward = types.MethodType(forward, base)


def _labelled_loss(
    model: Any, head: Head, mask: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FusedCausalLMOutput:
    """Return the loss of the labelled positions, shape of ``mask`` (b, t - 1)."""
    labels, items = kwargs["labels"], kwargs.get("num_items_in_batch")
    body = {name: value for name, value in kwargs.items() if name not in ("labels", "num_items_in_batch")}
    hidden = model.base_model(*args, **body).last_hidden_state[:, :-1][mask]
    logits = head.module(hidden).float() * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    total = functional.cross_entropy(logits, labels[:, 1:][mask], reduction="sum")
    return FusedCausalLMOutput(loss=total / (mask.sum().clamp(min=1) if items is None else items), label_mask=mask)
