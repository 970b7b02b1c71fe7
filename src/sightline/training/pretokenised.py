"""Rows that a file holds as token ids: what another program has tokenised, scored as it stands."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import DataError
from sightline.training.rows import IGNORED, Example, TokenisedRows, prompt_hash
from sightline.training.rows.files import Record, read_records
from sightline.training.rows.loading import local_files


def pretokenised_rows(source: str, tokenizer: Any, max_length: int) -> TokenisedRows | None:
    """Read rows of ``input_ids``, with ``labels`` or TRL's ``completion_mask`` where there are any.

    Parameters
    ----------
    source : str
        Local file, folder or pattern.
    tokenizer : transformers.PreTrainedTokenizerBase
        Turns the ids back into text for people.
    max_length : int
        Tokens a row is cut to.

    Returns
    -------
    TokenisedRows or None
        None where the first row has no ``input_ids``, or nothing local has that name.

    Raises
    ------
    DataError
        Where a row is not as the first one, with file and line.
    """
    rows: list[tuple[NDArray[Any], NDArray[np.bool_], Example, int]] = []
    for file in local_files(source):
        for record, place in read_records(file):
            if not rows and "input_ids" not in record:
                return None
            ids, labelled = _row(record, place)
            cut = slice(0, max_length)
            rows.append((ids[cut], labelled[cut], _as_text(ids, labelled, tokenizer, place), len(ids)))
    return _joined(rows) if rows else None


def _row(record: Record, place: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the ids of a row and which of them are scored; padding left out."""
    ids = _whole_numbers(record, "input_ids", place)
    labelled = np.ones(len(ids), bool)
    if record.get("labels") is not None:
        labels = _whole_numbers(record, "labels", place, len(ids))
        labelled = labels != IGNORED
        if (labels[labelled] != ids[labelled]).any():
            raise DataError(f"{place}: labels differ from input_ids; expected the same ids, -100 where none is scored")
    elif record.get("completion_mask") is not None:
        labelled = _whole_numbers(record, "completion_mask", place, len(ids)) != 0
    if record.get("attention_mask") is not None:
        seen = _whole_numbers(record, "attention_mask", place, len(ids)) != 0
        ids, labelled = ids[seen], labelled[seen]
    return ids, labelled


def _whole_numbers(record: Record, column: str, place: str, length: int | None = None) -> NDArray[np.int64]:
    """Return a column of a row as an array of the length it must have."""
    value = record.get(column)
    try:
        found = np.asarray(value)
    except ValueError:  # lists of unequal length
        found = np.zeros(0)
    if found.ndim != 1 or not found.size or not np.issubdtype(found.dtype, np.integer):
        raise DataError(f"{place}: {column} must be a list of whole numbers, found {str(value)[:60]}")
    if length is not None and len(found) != length:
        raise DataError(f"{place}: {len(found)} {column} for {length} input_ids; they must be of one length")
    if np.abs(found).max() > np.iinfo(np.int32).max:
        raise DataError(f"{place}: {column} holds {np.abs(found).max()}, which is no token id")
    return found.astype(np.int64)


def _as_text(ids: NDArray[np.int64], labelled: NDArray[np.bool_], tokenizer: Any, place: str) -> Example:
    """Return the row as its tokenizer reads it; ids it does not know are left out."""
    known = (ids >= 0) & (ids < len(tokenizer))
    first = int(np.argmax(labelled)) if labelled.any() else len(ids)
    prompt, completion = (
        tokenizer.decode(part.tolist()) for part in (ids[:first][known[:first]], ids[first:][known[first:]])
    )
    return Example(prompt, completion, where=place)


def _joined(rows: list[tuple[NDArray[Any], NDArray[np.bool_], Example, int]]) -> TokenisedRows:
    """Lay the rows one after the other."""
    ids, labelled, examples, lengths = zip(*rows, strict=True)
    hashes = [prompt_hash(example.prompt_text) for example in examples]
    return TokenisedRows(
        input_ids=np.concatenate(ids).astype(np.int32),
        labelled=np.concatenate(labelled),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64),
        prompt_hashes=np.array(hashes, dtype=np.uint64),
        full_lengths=np.array(lengths, dtype=np.int32),
        examples=tuple(examples),
    )
