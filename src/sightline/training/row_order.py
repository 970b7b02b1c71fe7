"""RowOrder: the order in which rows are trained on, a function of seed and epoch alone, and its hash.

The Trainer draws the order of length-grouped rows from the global random state, which a run resumed in its second epoch
no longer has at that place; under several processes it forgets the epoch when it skips into the middle of one. Here
every epoch's order comes from ``seed + epoch`` (for random order the same rows in the same places as accelerate's
``SeedableRandomSampler``), so a resumed run trains on exactly the rows that were left.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler


class RowOrder(Sampler[int]):
    """Goes through another sampler's order, seeded anew for each epoch, and keeps a running hash of it.

    Parameters
    ----------
    inner : Sampler
        ``RandomSampler``, ``LengthGroupedSampler`` or ``SequentialSampler``; the first two get a generator.
    seed : int
        Of epoch 0.
    """

    def __init__(self, inner: Any, seed: int) -> None:
        self.inner = inner
        self.seed = seed
        self.epoch = 0
        """The epoch that is iterated next or now; whoever trains says it."""
        self._hashes = array("L")

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[int]:
        self._hashes = hashes = array("L")
        crc = 0
        for row in self._order(self.epoch):
            crc = _added(crc, row)
            hashes.append(crc)
            yield row

    def digest(self, rows: int) -> str | None:
        """Return the hash of the first rows that were handed out in this epoch; None if there were not so many."""
        if rows > len(self._hashes):
            return None
        return _as_text(self._hashes[rows - 1] if rows else 0)

    def expected_digest(self, epoch: int, rows: int) -> str:
        """Return what ``digest`` will be in an epoch, without handing out a row."""
        crc = 0
        for _, row in zip(range(rows), self._order(epoch), strict=False):
            crc = _added(crc, row)
        return _as_text(crc)

    def _order(self, epoch: int) -> Iterator[int]:
        if hasattr(self.inner, "generator"):
            self.inner.generator = torch.Generator().manual_seed(self.seed + epoch)
        return iter(self.inner)


def _added(crc: int, row: int) -> int:
    return zlib.crc32(row.to_bytes(8, "little"), crc)


def _as_text(crc: int) -> str:
    return f"{crc:08x}"
