"""Row, EvalSet: rows prepared once, to be scored at every evaluation.

What does not depend on the weights is done here: bad rows are refused, tokens after the last label are left out (a
causal model cannot see them), identical rows are scored once, and rows of like length share a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.errors import DataError

IGNORED = -100
"""Label of a position that is not scored."""
BATCH_OVERHEAD_TOKENS = 64
"""Padding tokens worth spending to save one more forward pass."""

Array = NDArray[Any]


class Row(NamedTuple):
    """One tokenised row."""

    input_ids: Sequence[int]
    """Token ids, shape (t,)."""
    labels: Sequence[int]
    """The id at each position that is to be predicted, -100 where none is scored; shape (t,).

    For an encoder-decoder the decoder's sequence, shape (u,); for a classifier the class, or what else it predicts.
    """


class EvalSet:
    """A fixed set of tokenised rows, prepared once and scored at every evaluation.

    Parameters
    ----------
    rows : sequence of Row or anything with ``input_ids`` and ``labels``, mappings and pairs included
        Labels are those of transformers' causal language models: ``labels[i]`` is the id at position i, predicted
        from the tokens before it, and -100 is not scored. The label at position 0 is never scored. A row may have
        an ``attention_mask``: positions where it is 0 are padding, on whichever side, and are left out.
    name : str
        What messages call the set.
    places : sequence of str
        Where each row stands, file and line, for people; empty where that is not known.

    Raises
    ------
    DataError
        If there is no row, or one without ids or labels.

    Notes
    -----
    An EvalSet keeps the batches it has made, so that evaluating again costs no preparation.
    """

    def __init__(self, rows: Sequence[Any], *, name: str = "validation set", places: Sequence[str] = ()) -> None:
        self.name = name
        self.places = list(places)
        pairs = [_pair(row, f"{name}, row {index}") for index, row in enumerate(rows)]
        if not pairs:
            raise DataError(f"{name}: no rows; an evaluation needs at least one")
        self.ids: list[Array] = [ids for ids, _ in pairs]
        """Token ids of each row."""
        self.labels: list[Array] = [labels for _, labels in pairs]
        """Labels of each row."""
        self.notices: list[str] = []
        """What the user should know of how the set was scored, a sentence each, in the order it came up."""
        self.prepared: dict[Any, Any] = {}
        """What was made of the rows for a model, a device and a budget."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Labelled tokens of all rows that a causal model scores."""
        return sum(int(np.count_nonzero(labels[1:] != IGNORED)) for labels in self.labels)

    def notice(self, sentence: str) -> bool:
        """Keep a sentence for the user; whether it is new."""
        if sentence in self.notices:
            return False
        self.notices.append(sentence)
        return True


@dataclass(frozen=True, eq=False, slots=True)
class ScoredRows:
    """The rows of a set as one kind of model scores them: cut to its context, and each one once."""

    lengths: NDArray[np.int64]
    """Tokens the model is given, shape (n,)."""
    token_counts: NDArray[np.int64]
    """Labels scored, shape (n,)."""
    targets: list[tuple[NDArray[np.int64], Array]]
    """Of each row: the positions its labels are predicted at, and those labels."""
    same_as: NDArray[np.int64]
    """The first row with the same tokens and labels, shape (n,)."""
    cut_rows: int
    """Rows longer than the context."""
    cut_labels: int
    """Labels they lose."""
    whole: bool = False
    """Whether tokens after the last label are kept, for a model that looks ahead."""

    @property
    def to_score(self) -> NDArray[np.int64]:
        """Rows that need a forward pass, the longest first."""
        own = np.flatnonzero((self.same_as == np.arange(len(self.same_as))) & (self.token_counts > 0))
        return own[np.argsort(-self.lengths[own], kind="stable")]


def causal_rows(eval_set: EvalSet, context: int | None, whole: bool = False) -> ScoredRows:
    """Return the rows as a causal model scores them: every label from the tokens before it, and no token past the last.

    Parameters
    ----------
    eval_set : EvalSet
        The rows.
    context : int or None
        Most tokens the model can read.
    whole : bool
        Whether tokens after the last label are kept, for a model that looks ahead.
    """
    lengths, targets = [], []
    for labels in eval_set.labels:
        at = np.flatnonzero(labels[1:] != IGNORED)
        at = at if context is None else at[at < context - 1]
        targets.append((at, labels[1:][at]))
        last = int(at[-1]) + 1 if at.size else 0  # the last label's own token is predicted, never read
        lengths.append(min(len(labels), context or len(labels)) if whole else last)
    every = [int(np.count_nonzero(labels[1:] != IGNORED)) for labels in eval_set.labels]
    return replace(_scored(eval_set, lengths, targets, every, context), whole=whole)


def aligned_rows(eval_set: EvalSet, context: int | None) -> ScoredRows:
    """Return the rows as every other kind of model scores them: whole, each label at its own position."""
    lengths, targets = [], []
    for ids, labels in zip(eval_set.ids, eval_set.labels, strict=True):
        kept = labels if context is None else labels[:context]
        at = np.flatnonzero(kept != IGNORED)
        targets.append((at, kept[at]))
        lengths.append(len(ids) if context is None else min(len(ids), context))
    every = [int(np.count_nonzero(labels != IGNORED)) for labels in eval_set.labels]
    return _scored(eval_set, lengths, targets, every, context)


def _scored(
    eval_set: EvalSet,
    lengths: list[int],
    targets: list[tuple[NDArray[np.int64], Array]],
    every: list[int],
    context: int | None,
) -> ScoredRows:
    first: dict[tuple[bytes, bytes, bytes], int] = {}
    same_as = [
        first.setdefault((ids[:length].tobytes(), at.tobytes(), labels.tobytes()), row)
        for row, (ids, length, (at, labels)) in enumerate(zip(eval_set.ids, lengths, targets, strict=True))
    ]
    counts = np.array([at.size for at, _ in targets], dtype=np.int64)
    if not counts.any():
        raise DataError(
            f"{eval_set.name}: {'its only row has no' if len(eval_set) == 1 else f'none of its {len(eval_set)} rows has a'} "
            f"label to score (all are -100, at position 0{'' if context is None else f' or past the {context} tokens the model takes'}"
            "); was the completion cut off, or masked with the prompt?"
        )
    cut = (
        0
        if context is None
        else sum(max(len(i), len(t)) > context for i, t in zip(eval_set.ids, eval_set.labels, strict=True))
    )
    lost = int(np.sum(every) - counts.sum())
    return ScoredRows(np.array(lengths, dtype=np.int64), counts, targets, np.array(same_as, dtype=np.int64), cut, lost)


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Rows scored in one forward pass, padded on the right."""

    rows: NDArray[np.int64]
    """Which rows of the set, shape (b,)."""
    input_ids: NDArray[np.int64]
    """Shape (b, t)."""
    lengths: NDArray[np.int64]
    """Tokens of each row before padding, shape (b,)."""
    labels: Array
    """Labels padded with -100, shape (b, u); u is t but for encoder-decoders and classifiers."""
    positions: NDArray[np.int64]
    """Where labels are predicted, shape (n,), row after row: indices into the flattened (b * t), or (b * u)."""
    targets: Array
    """The labels there, shape (n,)."""
    owners: NDArray[np.int64]
    """The row of the set each belongs to, shape (n,)."""


def plan_batches(lengths: NDArray[np.int64], batch_tokens: int) -> list[slice]:
    """Cut rows sorted by falling length into batches.

    Parameters
    ----------
    lengths : ndarray of int, shape (n,)
        Tokens of each row, never rising.
    batch_tokens : int
        Most tokens of a batch, padding included; a longer row has a batch of its own.

    Returns
    -------
    list of slice
        Consecutive rows. A batch ends where the budget is full, or where padding its rows to the length of the first
        would cost more than the pass it saves.
    """
    batches: list[slice] = []
    start, padding = 0, 0
    for i in range(1, len(lengths) + 1):
        if i < len(lengths):
            padding += int(lengths[start] - lengths[i])
            fits = (i - start + 1) * lengths[start] <= batch_tokens
            if fits and padding <= BATCH_OVERHEAD_TOKENS:
                continue
        batches.append(slice(start, i))
        start, padding = i, 0
    return batches if len(lengths) else []


def make_batches(
    eval_set: EvalSet, scored: ScoredRows, rows: NDArray[np.int64], batch_tokens: int, pad_id: int = 0
) -> Iterator[Batch]:
    """Yield the batches of ``rows``, which are sorted by falling length."""
    for part in plan_batches(scored.lengths[rows], batch_tokens):
        yield _batch(eval_set, scored, rows[part], pad_id)


def _batch(eval_set: EvalSet, scored: ScoredRows, rows: NDArray[np.int64], pad_id: int) -> Batch:
    lengths = scored.lengths[rows]
    parts = [scored.targets[row] for row in rows]
    input_ids = np.full((len(rows), int(lengths.max())), pad_id, np.int64)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        input_ids[place, :length] = eval_set.ids[row][:length]
    same_grid = all(len(eval_set.labels[row]) == len(eval_set.ids[row]) for row in rows)
    width = input_ids.shape[1] if same_grid else max(int(at.max()) + 1 for at, _ in parts)
    labels = np.full((len(rows), width), IGNORED, parts[0][1].dtype)
    for place, (at, values) in enumerate(parts):
        labels[place, at] = values
    return Batch(
        rows,
        input_ids,
        lengths,
        labels,
        positions=np.concatenate([place * width + at for place, (at, _) in enumerate(parts)]),
        targets=np.concatenate([values for _, values in parts]),
        owners=np.repeat(rows, [at.size for at, _ in parts]),
    )


def _pair(row: Any, place: str) -> tuple[Array, Array]:
    """Return the ids and labels of a row as arrays."""
    mask = None
    if isinstance(row, Mapping):
        ids, labels, mask = (row.get(name) for name in ("input_ids", "labels", "attention_mask"))
    elif hasattr(row, "input_ids"):
        ids, labels, mask = (getattr(row, name, None) for name in ("input_ids", "labels", "attention_mask"))
    else:
        ids, labels = row
    if ids is None or labels is None:
        raise DataError(f"{place}: needs input_ids and labels")
    ids, labels = np.asarray(ids), np.atleast_1d(np.asarray(labels))
    if not len(ids) or not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 1:
        found = "none" if not len(ids) else f"{ids.dtype} of shape {ids.shape}"
        raise DataError(f"{place}: input_ids must be a list of whole numbers, found {found}")
    if labels.ndim != 1 or not (labels.size == 0 or np.issubdtype(labels.dtype, np.number)):
        raise DataError(f"{place}: labels must be a list of numbers, found {labels.dtype} of shape {labels.shape}")
    if mask is not None:
        ids, labels = _without_padding(ids, labels, np.asarray(mask), place)
    kept = np.float32 if np.issubdtype(labels.dtype, np.floating) and labels.size else np.int64
    return ids.astype(np.int64), labels.astype(kept)


def _without_padding(ids: Array, labels: Array, mask: Array, place: str) -> tuple[Array, Array]:
    """Leave out the positions an attention mask hides."""
    if mask.shape != ids.shape:
        raise DataError(f"{place}: attention_mask of shape {mask.shape} for {len(ids)} input_ids")
    kept = mask != 0
    hides_labels = labels.shape == ids.shape and (labels[~kept] != IGNORED).any()  # then they are a decoder's own
    return ids[kept], labels if hides_labels or labels.shape != ids.shape else labels[kept]
