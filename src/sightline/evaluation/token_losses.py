"""The loss of each labelled token from the head's input, without a full logits tensor.

For a position with hidden state h and target t the loss is ``log(1 + sum_{v != t} exp(z_v) / exp(z_t))`` with logits
``z = W h + b``. The sum runs over tiles of the vocabulary that stay in the cache. The target's own term is the exact 1 of
``log1p``, so that small losses keep their digits. No pass for a maximum is needed: where the target's logit is far from
0, all logits of the position are shifted by it, and the few sums that still leave float32's range (losses above 88
nats, for one) are done again the ordinary way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sightline.evaluation.products import is_plain_weight, product

LOG2_E = math.log2(math.e)
CPU_TILE = (1536, 960)
"""Positions and vocabulary entries of a tile on a CPU: 5.6 MiB of float32.

The larger a tile, the less its product spends on copying weights and hidden states into the order it needs; it does so
in blocks of 48 or 16 entries.
"""
CPU_STRIP = 256
"""Positions of a tile whose terms are made and added up while they are in the cache: under 1 MiB."""
DEVICE_TILE = (4096, 16384)
"""The same on an accelerator: 256 MiB."""
LARGE_LOGIT = 60.0
"""Target's logit, in units of log 2, past which a position's logits are shifted by it before they are exponentiated."""
SMALLEST_SUM = 2.0**-60
"""Sums below this may have lost terms that float32 cannot hold, unless they were shifted."""
WHOLE_ROWS = 64
"""Positions whose whole rows of logits are made at once."""


@dataclass(frozen=True, slots=True)
class Head:
    """How a model makes logits from the last hidden states."""

    module: nn.Module
    """The output embeddings as the model holds them, adapters included."""
    scale: float = 1.0
    """Factor on the logits."""
    softcap: float | None = None
    """Logits are ``softcap * tanh(logits / softcap)``, after the scale."""

    def adjusted(self, logits: torch.Tensor) -> torch.Tensor:
        """Apply scale and cap to float32 logits, in place."""
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.softcap is not None:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def matrix(self) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Return weight (v, h) and bias (v,), None where the module is more than that."""
        module = self.module
        plain = type(module) is nn.Linear and is_plain_weight(module.weight) and not hasattr(module, "parametrizations")
        return (module.weight, module.bias) if plain else None  # type: ignore[return-value]


def tile_of(device: torch.device) -> tuple[int, int]:
    """Return how many positions and vocabulary entries are best projected at once."""
    return CPU_TILE if device.type == "cpu" else DEVICE_TILE


def token_losses(
    head: Head, hidden: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return the loss of each position in nats.

    Parameters
    ----------
    head : Head
        From hidden states to logits.
    hidden : Tensor, shape (n, h)
        Inputs of the head.
    targets : Tensor of int64, shape (n,)
        The ids to be predicted.
    dtype : torch.dtype, optional
        To which weights and hidden states are rounded (autocast's); the weights' own unless told. Sums are float32.

    Returns
    -------
    Tensor of float32 (float64 for a float64 head), shape (n,)
        NaN or inf where the logits are not finite.
    """
    matrix = head.matrix()
    count = max(1, round(len(hidden) / tile_of(hidden.device)[0]))  # equal pieces: a small rest would cost a whole one
    pieces = zip(hidden.chunk(count), targets.chunk(count), strict=True)
    if matrix is None:
        return torch.cat([_by_module(head, h, t, dtype) for h, t in pieces])
    weight, bias = matrix
    tiles = _Tiles(head, weight, bias, weight.dtype if dtype is None else dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        return torch.cat([_by_tiles(tiles, h, t) for h, t in pieces])


@dataclass(frozen=True, slots=True)
class _Tiles:
    """A head's matrix, read tile by tile as logits in units of log 2."""

    head: Head
    weight: torch.Tensor
    bias: torch.Tensor | None
    dtype: torch.dtype
    """What hidden states and weights are rounded to; sums are at least float32."""

    @property
    def wide(self) -> torch.dtype:
        """What products are summed in."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def unit(self) -> float:
        """Factor from raw to kept logits: exp2 is three times as fast as exp, but a cap needs nats."""
        return self.head.scale * (LOG2_E if self.head.softcap is None else 1.0)

    @property
    def narrow_product(self) -> bool:
        """Whether the device multiplies half-precision numbers into float32 sums by itself."""
        return self.weight.device.type == "cuda" and self.dtype.itemsize == 2

    def rounded(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return hidden states as they enter the product; the unit goes in here where that costs no digits."""
        rounded = hidden.to(self.dtype)
        return rounded if self.narrow_product else rounded.to(self.wide) * self.unit

    def own(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the target's logit of each position, shape (n,)."""
        weight = self.weight[targets].to(self.dtype).to(self.wide)
        logits = (hidden.to(self.wide) * weight).sum(-1)
        return self._finished(logits, None if self.bias is None else self.bias[targets])

    def logits(self, hidden: torch.Tensor, begin: int, end: int, out: torch.Tensor) -> torch.Tensor:
        """Return the logits of some vocabulary entries, shape (n, end - begin); ``out`` may be written to."""
        weight = self.weight[begin:end].to(self.dtype)
        if self.narrow_product:
            logits = torch.mm(hidden, weight.t(), out_dtype=torch.float32)
        else:
            logits = product(hidden, weight.to(self.wide), out)  # products of half-precision numbers are exact there
        return self._finished(logits, None if self.bias is None else self.bias[begin:end])

    def _finished(self, logits: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if self.narrow_product and self.unit != 1.0:
            logits *= self.unit
        if bias is not None:
            logits += bias.to(self.wide) * self.unit
        if self.head.softcap is not None:
            logits = logits.div_(self.head.softcap).tanh_().mul_(self.head.softcap * LOG2_E)
        return logits


def _by_tiles(tiles: _Tiles, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the losses of a chunk of positions; the few whose sums leave float32 are done again the ordinary way."""
    rounded = tiles.rounded(hidden)
    own = tiles.own(rounded, targets)
    shift = own.where(own.abs() > LARGE_LOGIT, 0.0)
    others = _sum_of_others(tiles, rounded, targets, shift if shift.any() else None)
    losses = torch.log1p(others * torch.exp2(shift - own))
    lost = ~losses.isfinite() | ((shift == 0.0) & (others < SMALLEST_SUM))
    left = lost.nonzero().squeeze(-1)
    if left.numel():
        losses[left] = _by_module(tiles.head, hidden[left], targets[left], None).to(tiles.wide)
    return losses


def _sum_of_others(
    tiles: _Tiles, hidden: torch.Tensor, targets: torch.Tensor, shift: torch.Tensor | None
) -> torch.Tensor:
    """Return the sum over all entries but the target of 2^(logit - shift), shape (n,)."""
    size, columns = tiles.weight.shape[0], tile_of(hidden.device)[1]
    strip = CPU_STRIP if hidden.device.type == "cpu" else len(hidden)
    total = torch.zeros(len(hidden), dtype=tiles.wide, device=hidden.device)
    buffer = torch.empty(len(hidden), min(columns, size), dtype=tiles.wide, device=hidden.device)
    by_target, order = targets.sort()
    begins = range(0, size, columns)
    of_tile = torch.bincount(by_target // columns, minlength=len(begins)).tolist()
    rows, entries = torch.split(order, of_tile), torch.split(by_target % columns, of_tile)
    nothing = torch.full((), -math.inf, dtype=tiles.wide, device=hidden.device)
    sums = total.split(strip)  # type: ignore[no-untyped-call]
    for begin, its_rows, its_entries in zip(begins, rows, entries, strict=True):
        end = min(begin + columns, size)
        terms = tiles.logits(hidden, begin, end, buffer if end - begin == columns else buffer[:, : end - begin])
        if shift is not None:
            terms -= shift.unsqueeze(-1)
        terms.index_put_((its_rows, its_entries), nothing)
        for part, its_sum in zip(terms.split(strip), sums, strict=True):  # type: ignore[no-untyped-call]
            its_sum += part.exp2_().sum(-1)
    return total


def _by_module(head: Head, hidden: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Return losses from whole rows of logits, a few positions at a time."""
    losses = []
    weight = getattr(head.module, "weight", None)
    if dtype is None and isinstance(weight, torch.Tensor) and weight.is_floating_point():
        hidden = hidden.to(weight.dtype)
    with torch.autocast(hidden.device.type, dtype=dtype, enabled=dtype is not None):
        for h, t in zip(hidden.split(WHOLE_ROWS), targets.split(WHOLE_ROWS), strict=True):  # type: ignore[no-untyped-call]
            logits = head.module(h)
            logits = head.adjusted(logits if logits.dtype == torch.float64 else logits.float())
            losses.append(functional.cross_entropy(logits, t, reduction="none"))
    return torch.cat(losses)
