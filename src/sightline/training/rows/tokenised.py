"""TokenisedRows: the rows of one side of a run as token ids, held in flat arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.training.rows.example import Example

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100
"""Label of a token that is not learnt (PyTorch's ``ignore_index``)."""


@dataclass(frozen=True, slots=True)
class TokenisedRow:
    """One row as the model sees it."""

    input_ids: NDArray[np.int32]
    """Token ids, shape (n,)."""
    labels: NDArray[np.int32]
    """The same ids where they are learnt, else -100, shape (n,)."""
    prompt_hash: int
    """64 bits of the normalised prompt."""


@dataclass(frozen=True, eq=False, slots=True)
class TokenisedRows(Sequence[TokenisedRow]):
    """Rows as token ids, one after the other in flat arrays."""

    input_ids: NDArray[np.int32]
    """Ids of all rows, shape (tokens,)."""
    labelled: NDArray[np.bool_]
    """Whether a token is learnt, shape (tokens,)."""
    offsets: NDArray[np.int64]
    """Where each row begins, shape (rows + 1,)."""
    prompt_hashes: NDArray[np.uint64]
    """Hash of each row's normalised prompt, shape (rows,)."""
    full_lengths: NDArray[np.int32]
    """Tokens each row had before it was cut, shape (rows,)."""
    examples: tuple[Example, ...]
    """The rows as written."""
    without_label: tuple[Example, ...] = ()
    """Rows left out because no token to learn remained once they were cut."""

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, index: int) -> TokenisedRow:  # type: ignore[override]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = slice(self.offsets[index], self.offsets[index + 1])
        ids = self.input_ids[part]
        labels = np.where(self.labelled[part], ids, IGNORED).astype(np.int32)
        return TokenisedRow(ids, labels, int(self.prompt_hashes[index]))

    def __iter__(self) -> Iterator[TokenisedRow]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, shape (rows,)."""
        return np.diff(self.offsets)

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """Tokens of each row that enter the loss, shape (rows,); the first token of a row never does."""
        running = np.concatenate([[0], np.cumsum(self.labelled, dtype=np.int64)])
        first = self.labelled[np.minimum(self.offsets[:-1], max(self.labelled.size - 1, 0))] & (self.lengths > 0)
        counts: NDArray[np.int64] = running[self.offsets[1:]] - running[self.offsets[:-1]] - first
        return counts

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Whether a row was cut to the greatest length, shape (rows,)."""
        return self.full_lengths > self.lengths

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.input_ids.size)

    def digest(self) -> str:
        """Return 16 hexadecimal digits of the rows' tokens, of what is learnt of them and of their order."""
        hashed = hashlib.blake2b(digest_size=8)
        for array in (self.input_ids, self.labelled, self.offsets):
            hashed.update(np.ascontiguousarray(array).data)
        return hashed.hexdigest()

    def select(self, index: ArrayLike) -> TokenisedRows:
        """Return some of the rows, by a boolean mask or by positions."""
        chosen = np.asarray(index)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        flat = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return TokenisedRows(
            input_ids=self.input_ids[flat],
            labelled=self.labelled[flat],
            offsets=offsets,
            prompt_hashes=self.prompt_hashes[chosen],
            full_lengths=self.full_lengths[chosen],
            examples=tuple(self.examples[i] for i in chosen),
            without_label=(),
        )

    def to_dataset(self) -> Dataset:
        """Return the rows as a ``datasets.Dataset`` with columns ``input_ids``, ``labels`` and ``length``."""
        import pyarrow as pa  # type: ignore[import-untyped]
        from datasets import Dataset

        offsets = pa.array(self.offsets, type=pa.int64())
        labels = np.where(self.labelled, self.input_ids, IGNORED).astype(np.int32)
        columns = {
            "input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(self.input_ids)),
            "labels": pa.LargeListArray.from_arrays(offsets, pa.array(labels)),
            "length": pa.array(self.lengths),
        }
        return Dataset(pa.table(columns))
