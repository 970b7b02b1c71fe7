"""The rows of any Trainer's data set, as its collator gives them to the model.

A data set may hold text, tokens with a completion mask, or packed rows; what the model sees is made by the collator.
So each row is collated by itself, and a packed row is taken apart where its positions begin anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sightline.errors import DataError
from sightline.evaluation import Row

PACKED = frozenset({"cu_seq_lens_q", "cu_seq_lens_k", "seq_idx"})
"""What kernels for packed rows are told of where each begins, as ``position_ids`` say too."""
UNDERSTOOD = PACKED | {"input_ids", "labels", "attention_mask", "position_ids", "decoder_input_ids"}
"""Tensors of a batch that an exact evaluation uses, or makes itself."""


@dataclass(frozen=True, eq=False, slots=True)
class CollatedRow:
    """One item of a data set as the model gets it."""

    input_ids: NDArray[np.int64]
    labels: NDArray[Any]
    begins: NDArray[np.int64]
    """Where the rows begin that are packed into it; [0] for an ordinary one."""

    def rows(self) -> list[Row]:
        """Return the rows it is made of."""
        if len(self.begins) == 1:
            return [Row(self.input_ids.tolist(), self.labels.tolist())]
        parts = zip(np.split(self.input_ids, self.begins[1:]), np.split(self.labels, self.begins[1:]), strict=True)
        return [Row(ids.tolist(), labels.tolist()) for ids, labels in parts]


class CollatedRows(Sequence[CollatedRow]):
    """Items of a data set, collated one at a time when they are asked for.

    Parameters
    ----------
    loader : torch.utils.data.DataLoader
        A Trainer's own; it is not iterated, which would draw a random number.
    name : str
        What messages call the set.

    Raises
    ------
    DataError
        If the data set has no length, so that it cannot be scored twice alike.
    """

    def __init__(self, loader: Any, name: str) -> None:
        self.dataset, self.name = loader.dataset, name
        self.collate: Callable[[list[Any]], Mapping[str, Any]] = loader.collate_fn
        if not hasattr(self.dataset, "__len__") or not hasattr(self.dataset, "__getitem__"):
            raise DataError(f"{name}: a data set without a length cannot be scored exactly; give a map-style one")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        batch = self.collate([self.dataset[int(index)]])
        place = f"{self.name}, row {index}"
        if "labels" not in batch or "input_ids" not in batch:
            raise DataError(f"{place}: the collator gives {', '.join(batch)}; expected input_ids and labels")
        more = sorted(name for name in batch if name not in UNDERSTOOD and _says_something(batch[name]))
        if more:
            raise DataError(
                f"{place}: the model is also given {', '.join(more)}, which an exact evaluation cannot give"
            )
        ids, labels = batch["input_ids"], batch["labels"]
        if len(ids) != 1 or len(labels) != 1:
            raise DataError(f"{place}: the collator makes {len(ids)} rows of one")
        return _row(batch, ids[0].cpu().numpy(), np.atleast_1d(labels[0].cpu().numpy()))


def _row(batch: Mapping[str, Any], ids: NDArray[Any], labels: NDArray[Any]) -> CollatedRow:
    """Leave out padding and find where packed rows begin."""
    kept = np.ones(len(ids), bool)
    mask = batch.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.shape == batch["input_ids"].shape:
        kept = mask[0].cpu().numpy() != 0
    if labels.shape == ids.shape and not (labels[~kept] != -100).any():
        labels = labels[kept]
    ids = ids[kept]
    begins = np.zeros(1, np.int64)
    positions = batch.get("position_ids")
    if isinstance(positions, torch.Tensor) and positions.shape == batch["input_ids"].shape:
        begins = np.unique(np.append(begins, np.flatnonzero(positions[0].cpu().numpy()[kept] == 0)))
    elif isinstance(ends := batch.get("cu_seq_lens_q"), torch.Tensor) and kept.all():
        begins = np.unique(np.append(begins, ends.cpu().numpy()[:-1]))
    return CollatedRow(ids.astype(np.int64), labels, begins)


def _says_something(value: Any) -> bool:
    """Whether a tensor of a batch is more than zeros: token types of single sentences are not."""
    return isinstance(value, torch.Tensor) and bool(value.any())
