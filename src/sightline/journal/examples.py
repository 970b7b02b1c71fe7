"""examples.f32: losses by row, float32 blocks that the ``eval`` lines of the journal point into."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sightline.journal.files import open_regular
from sightline.journal.lines import Rows
from sightline.runs import ExampleLosses

FILE_NAME = "examples.f32"

_FLOAT32 = np.dtype("<f4")
_LARGEST_COUNT = 2**24
"""Integers up to here are exact in float32."""


class DamagedRows(ValueError):
    """Losses by row that cannot be read back; its text says why."""


@dataclass(frozen=True, slots=True)
class WrittenCounts:
    """Token counts that already stand in the file."""

    counts: NDArray[np.int64]
    offset: int
    crc: str

    @property
    def end(self) -> int:
        """First byte after them."""
        return self.offset + _FLOAT32.itemsize * self.counts.size


def as_stored(losses: ExampleLosses) -> ExampleLosses:
    """Return the losses as a reader will see them: sums rounded to float32, so that live and replayed verdicts agree.

    Raises
    ------
    ValueError
        If sums and counts are not two vectors of one length, or a row has more tokens than float32 counts exactly.
    """
    sums = np.asarray(losses.loss_sums, dtype=np.float64)
    counts = np.asarray(losses.token_counts)
    if sums.ndim != 1 or counts.shape != sums.shape:
        raise ValueError(f"loss sums of shape {sums.shape} and token counts of shape {counts.shape}, not both (n,)")
    if counts.size and (not np.isfinite(counts).all() or counts.min() < 0 or counts.max() > _LARGEST_COUNT):
        raise ValueError(f"token counts must lie between 0 and {_LARGEST_COUNT:,}")
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = sums.astype(_FLOAT32).astype(np.float64)
    return ExampleLosses(rounded, counts.astype(np.int64))


def blocks(
    sets: Mapping[str, ExampleLosses], start: int, written: Mapping[str, WrittenCounts]
) -> tuple[bytes, dict[str, Rows], dict[str, WrittenCounts]]:
    """Return the bytes to append for one evaluation and where its rows will stand.

    Parameters
    ----------
    sets : mapping of str to ExampleLosses
        ``losses`` and perhaps ``probe``, as ``as_stored`` made them.
    start : int
        Size of the file in bytes, where the block will begin.
    written : mapping of str to WrittenCounts
        Counts of each set that stand in the file; they are written again only when they differ.

    Returns
    -------
    block : bytes
    places : dict of str to Rows
    written : dict of str to WrittenCounts
        What stands in the file once the block is appended.
    """
    block = b"\0" * (-start % _FLOAT32.itemsize)  # a write cut short may have left the file unaligned
    places, now_written = {}, dict(written)
    for name, losses in sets.items():
        counts = now_written.get(name)
        if counts is None or not np.array_equal(counts.counts, losses.token_counts):
            data = losses.token_counts.astype(_FLOAT32).tobytes()
            counts = WrittenCounts(losses.token_counts, start + len(block), _crc(data))
            now_written[name] = counts
            block += data
        data = losses.loss_sums.astype(_FLOAT32).tobytes()
        places[name] = Rows(start + len(block), len(losses.loss_sums), _crc(data), counts.offset, counts.crc)
        block += data
    return block, places, now_written


class ExampleReader:
    """Reads the rows that ``eval`` lines point to; token counts are read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counts: dict[tuple[int, int, str], NDArray[np.int64]] = {}

    def read(self, rows: Rows) -> ExampleLosses:
        """Return the losses at a place.

        Raises
        ------
        DamagedRows
            If the file is missing or shorter, or the bytes are not those that were written.
        """
        key = (rows.counts_offset, rows.rows, rows.counts_crc)
        counts = self._counts.get(key)
        if counts is None:
            with np.errstate(invalid="ignore"):
                counts = self._counts[key] = self._block(*key).astype(np.int64)
        sums = self._block(rows.offset, rows.rows, rows.crc)
        return ExampleLosses(sums.astype(np.float64), counts)

    def _block(self, offset: int, rows: int, crc: str) -> NDArray[np.float32]:
        """Read one block and compare it with its CRC."""
        size = rows * _FLOAT32.itemsize
        try:
            with open_regular(self.path) as file:
                if offset < 0 or rows < 0 or offset + size > os.fstat(file.fileno()).st_size:
                    raise DamagedRows(f"{self.path.name} ends before byte {offset + size:,}")
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise DamagedRows(f"{self.path.name}: {error.strerror or error}") from None
        if len(data) != size or _crc(data) != crc:
            raise DamagedRows(f"{self.path.name}: the CRC of bytes {offset:,} to {offset + size:,} does not match")
        return np.frombuffer(data, dtype=_FLOAT32)


def _crc(data: bytes) -> str:
    """Return the CRC of a block as the journal holds it."""
    return f"{crc32(data):08x}"
