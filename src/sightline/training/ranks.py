"""Ranks: what every process of a distributed run must hear from rank 0 at the same event."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

Told = TypeVar("Told")

GROUP_TIMEOUT = timedelta(minutes=30)


class Ranks:
    """The processes of a run, over a CPU group of their own: no GPU waits and no training traffic is mixed in.

    With one process every method answers at once. Every rank must create it and call its methods at the same
    events, whatever went wrong on one of them in between.
    """

    def __init__(self) -> None:
        self.world_size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        self.rank = dist.get_rank() if self.world_size > 1 else 0
        self._group = dist.new_group(backend="gloo", timeout=GROUP_TIMEOUT) if self.world_size > 1 else None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and decides."""
        return self.rank == 0

    def told_by_first(self, word: Told) -> Told:
        """Return what rank 0 passed, on every rank."""
        if self.world_size == 1:
            return word
        box = [word]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Return whether any rank passed True."""
        if self.world_size == 1:
            return flag
        said = torch.tensor([int(flag)], dtype=torch.uint8)
        dist.all_reduce(said, op=dist.ReduceOp.MAX, group=self._group)
        return bool(said.item())

    def sum(self, value: float) -> float:
        """Return the sum of what the ranks passed."""
        if self.world_size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(total, op=dist.ReduceOp.SUM, group=self._group)
        return float(total.item())

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world_size > 1:
            dist.barrier(group=self._group)
