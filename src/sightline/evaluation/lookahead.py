"""Whether a model that predicts the next token sees the tokens after it, as BERT without ``is_decoder`` and XLM do.

The loss of such a model depends on the tokens after a row's last label, and on padding that no mask hides.
"""

from __future__ import annotations

import weakref

import torch
from torch import nn

from sightline.evaluation import forwards
from sightline.evaluation.batches import EvalSet
from sightline.evaluation.models import base_model, device_of
from sightline.evaluation.untouched import untouched

MOST_TOKENS = 16
"""Tokens of the row that is tried with one second half and with another."""
ROUNDING = {2: 0.05, 4: 1e-5, 8: 1e-5}
"""By how much of the largest logit the others may move, by the bytes of a number: experts meet other batches."""

_known: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def looks_ahead(model: nn.Module, eval_set: EvalSet) -> bool:
    """Whether logits change when later tokens do, tried once per model on the beginning of a row."""
    known = _known.get(base_model(model))
    if known is None:
        known = _second_half_counts(model, torch.from_numpy(max(eval_set.ids, key=len)[:MOST_TOKENS]))
        if known is not None:
            _known[base_model(model)] = known
    return bool(known)


def _second_half_counts(model: nn.Module, ids: torch.Tensor) -> bool | None:
    """Whether other tokens in its place change the logits before it; None where that cannot be told."""
    half = len(ids) // 2
    if not half:
        return None
    other = torch.where(torch.arange(len(ids)) < len(ids) - half, ids, (ids - 1).abs())
    try:
        with untouched(model):
            first, second = (_logits(model, row.to(device_of(model)))[:-half] for row in (ids, other))
    except Exception:  # the pass itself will say what is wrong
        return None
    if not (first.isfinite().all() and second.isfinite().all() and first.any()):
        return None
    apart = (first.double() - second.double()).abs().max()
    return bool(apart > ROUNDING[first.dtype.itemsize] * first.double().abs().max())


def _logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of all positions of a row, shape (t, v)."""
    logits: torch.Tensor = forwards.call(model, input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits
    return logits[0, -len(ids) :]  # virtual prompt tokens of an adapter come first
