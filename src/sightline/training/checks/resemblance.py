"""Prompts that are nearly the same: the share of word pairs they have in common, the template's words left out.

Only word pairs of the small side are looked for on the large one, so a hundred thousand training rows take seconds.

References
----------
.. [1] A. Broder, On the resemblance and containment of documents, SEQUENCES (1997): resemblance is the Jaccard index of
   the sets of shingles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAR = 0.7
"""Resemblance from which two prompts count as nearly the same."""
MIN_PAIRS = 5
"""Word pairs a prompt needs beside the template's; shorter ones are compared exactly only."""
COMMON_SHARE = 0.02
"""Word pairs that more than this share of rows have belong to the template."""
MAX_CHARACTERS = 2_000
"""Of a prompt that are compared."""
BUDGET_CHARACTERS = 40_000_000
"""Of all training prompts that are compared; of more, evenly spaced rows are taken."""
_WORD = re.compile(r"\w+")

Integers = NDArray[np.int64]


class NearPair(NamedTuple):
    """Two prompts that are nearly the same."""

    other: int
    """Position on the small side."""
    train: int
    """Position among the training prompts."""
    resemblance: float
    """0 to 1; 1.0 where they differ in punctuation or repetition only."""


def near_prompts(train: Sequence[str], others: Sequence[str]) -> list[NearPair]:
    """Find prompts of one side that are nearly a training prompt.

    Parameters
    ----------
    train : sequence of str
        Training prompts.
    others : sequence of str
        Validation or gold prompts.

    Returns
    -------
    list of NearPair
        The best partner of each of ``others`` that has one, most alike first.
    """
    length = sum(min(len(text), MAX_CHARACTERS) for text in train)
    step = max(1, -(-length // BUDGET_CHARACTERS))
    words: dict[str, int] = {}
    small, small_rows = _word_pairs(others, words)
    large, large_rows = _word_pairs(train[::step], words)
    if small.size == 0 or large.size == 0:
        return []
    template = np.union1d(_common(small, len(others)), _common(large, len(train[::step])))
    small, small_rows = _without(template, small, small_rows)
    large, large_rows = _without(template, large, large_rows)
    sizes, train_sizes = np.bincount(small_rows), np.bincount(large_rows)
    wanted = np.isin(large, small)
    theirs, ours = _meetings(small, small_rows, large[wanted], large_rows[wanted])
    keys, counts = np.unique(theirs * np.int64(len(train)) + ours, return_counts=True)
    theirs, ours = keys // len(train), keys % len(train)
    resemblance = counts / (sizes[theirs] + train_sizes[ours] - counts)
    alike = (resemblance >= NEAR) & (sizes[theirs] >= MIN_PAIRS)
    best: dict[int, NearPair] = {}
    for t, o, r in zip(theirs[alike].tolist(), ours[alike].tolist(), resemblance[alike].tolist(), strict=True):
        if t not in best or r > best[t].resemblance:
            best[t] = NearPair(t, o * step, r)
    return sorted(best.values(), key=lambda pair: -pair.resemblance)


def _word_pairs(texts: Sequence[str], words: dict[str, int]) -> tuple[Integers, Integers]:
    """Return each text's distinct pairs of neighbouring words as numbers, with the text's position."""
    flat: list[int] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        found = _WORD.findall(text[:MAX_CHARACTERS].casefold())
        flat.extend([words.setdefault(word, len(words)) for word in found])
        lengths[i] = len(found)
    ids = np.array(flat, dtype=np.int64)
    owners = np.repeat(np.arange(len(texts)), lengths)
    inside = owners[1:] == owners[:-1]
    pairs = (ids[:-1] * np.int64(2**31) + ids[1:])[inside]
    owners = owners[:-1][inside]
    order = np.lexsort((pairs, owners))
    pairs, owners = pairs[order], owners[order]
    if pairs.size == 0:
        return pairs, owners
    distinct = np.concatenate([[True], (pairs[1:] != pairs[:-1]) | (owners[1:] != owners[:-1])])
    return pairs[distinct], owners[distinct]


def _common(pairs: Integers, rows: int) -> Integers:
    """Return word pairs that so many rows have that they say nothing of one."""
    values, counts = np.unique(pairs, return_counts=True)
    common: Integers = values[counts > max(10, COMMON_SHARE * rows)]
    return common


def _without(template: Integers, pairs: Integers, owners: Integers) -> tuple[Integers, Integers]:
    """Leave out the template's word pairs."""
    kept = ~np.isin(pairs, template)
    return pairs[kept], owners[kept]


def _meetings(
    small: Integers, small_rows: Integers, large: Integers, large_rows: Integers
) -> tuple[Integers, Integers]:
    """Return the two rows of every word pair that stands on both sides."""
    order = np.argsort(small, kind="stable")
    small, small_rows = small[order], small_rows[order]
    first = np.searchsorted(small, large, side="left")
    count = np.searchsorted(small, large, side="right") - first
    start = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    return small_rows[start + np.arange(int(count.sum()))], np.repeat(large_rows, count)
