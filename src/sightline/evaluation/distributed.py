"""Share: which rows a rank scores, and how the ranks' sums come together.

Every rank calls ``evaluate`` at the same event with the same rows. Rows are dealt by length, so that all ranks are done
at about the same time; each is scored once, and the sums are added up in float64 with zeros elsewhere, which is exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from sightline.errors import DataError, ModelError
from sightline.evaluation.batches import EvalSet, ScoredRows, plan_batches
from sightline.evaluation.models import is_sharded, is_split


def share_of(model: nn.Module) -> Share:
    """Return what this rank has to do for a model; all of it in a single process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return Share()
    if is_split(model):  # the ranks hold parts of one model: all of them see all rows
        return Share()
    return Share(dist.get_rank(), dist.get_world_size(), is_sharded(model))


def dealt(n: int, world_size: int, rank: int) -> NDArray[np.int64]:
    """Return which of n rows, the longest first, a rank scores; dealt there and back, so that lengths even out."""
    place = np.arange(n)
    lap, step = np.divmod(place, world_size)
    owner = np.where(lap % 2 == 0, step, world_size - 1 - step)
    return np.flatnonzero(owner == rank)


class Share:
    """What one rank scores, and how it meets the others.

    Parameters
    ----------
    rank, world_size : int
        This process among how many.
    in_lockstep : bool
        Whether every forward needs all ranks, as with sharded weights.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, in_lockstep: bool = False) -> None:
        self.rank = rank
        self.world_size = world_size
        self.in_lockstep = in_lockstep and world_size > 1

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this rank's rows of those to score, the longest first."""
        return rows[dealt(len(rows), self.world_size, self.rank)]

    def agree(self, eval_set: EvalSet) -> None:
        """Make sure, once, that all ranks hold the same rows.

        Raises
        ------
        DataError
            If they do not: sums over different rows mean nothing.
        """
        if self.world_size == 1 or eval_set.prepared.get("agreed"):
            return
        checksum = 0
        for array in (*eval_set.ids, *eval_set.labels):
            checksum = zlib.crc32(array.tobytes(), checksum)
        of_ranks: list[Any] = [None] * self.world_size
        dist.all_gather_object(of_ranks, (len(eval_set), checksum))
        if len(set(of_ranks)) > 1:
            counts = ", ".join(str(count) for count, _ in of_ranks)
            raise DataError(
                f"{eval_set.name}: the ranks hold different rows ({counts} rows); "
                "load the same file with the same seed on every rank"
            )
        eval_set.prepared["agreed"] = True

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Have an error on one rank end the evaluation on every rank, instead of leaving the others waiting.

        Raises
        ------
        ModelError
            On the ranks that were well, naming the one that was not.
        """
        if self.world_size == 1:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        said: list[Any] = [None] * self.world_size
        dist.all_gather_object(said, None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, message in enumerate(said):
            if message is not None:
                raise ModelError(f"rank {rank} could not evaluate: {message}")

    def passes(self, scored: ScoredRows, rows: NDArray[np.int64], batch_tokens: int) -> int:
        """Return how many forward passes the rank with the most batches makes; every rank can tell without asking."""
        of_ranks = (rows[dealt(len(rows), self.world_size, rank)] for rank in range(self.world_size))
        return max(len(plan_batches(scored.lengths[own], batch_tokens)) for own in of_ranks)

    def sum(self, values: NDArray[np.float64], device: torch.device) -> NDArray[np.float64]:
        """Return the sum over the ranks."""
        if self.world_size == 1:
            return values
        on_device = "nccl" in str(dist.get_backend()) and device.type == "cuda"
        total = torch.from_numpy(values).to(device if on_device else "cpu")
        dist.all_reduce(total)
        summed: NDArray[np.float64] = total.cpu().numpy()
        return summed
