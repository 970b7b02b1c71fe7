"""Texts that are nearly equal, found without comparing every pair.

Two word sets with a Jaccard similarity of at least t share a word among the first ``|x| - ceil(t |x|) + 1`` words of
each when all sets are sorted by the same order, rarest word first: only such pairs are compared [1]_.

References
----------
.. [1] S. Chaudhuri, V. Ganti, R. Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006
   (prefix filter).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence


def near_duplicate_groups(texts: Sequence[Iterable[str]], threshold: float) -> list[list[int]]:
    """Group texts so that any two with a similarity of `threshold` or more share a group.

    Parameters
    ----------
    texts : sequence of iterable of str
        Words of each text; their order and number do not count.
    threshold : float
        Jaccard similarity in (0, 1]: size of the intersection over size of the union.

    Returns
    -------
    list of list of int
        Every index once; groups by their first member, members ascending. Similarity chains: of a group's texts two
        may be similar to a third and not to each other.
    """
    words = [frozenset(text) for text in texts]
    parent = list(range(len(words)))
    for i, j in similar_pairs(words, threshold):
        parent[_root(parent, i)] = _root(parent, j)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(words)):
        groups[_root(parent, i)].append(i)
    return sorted(groups.values())


def similar_pairs(words: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair of texts with a similarity of `threshold` or more, the later index first.

    Parameters
    ----------
    words : sequence of frozenset of str
        Words of each text.
    threshold : float
        Jaccard similarity in (0, 1].
    """
    frequency = Counter(word for text in words for word in text)
    indexed: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(words):
        prefix = sorted(text, key=lambda word: (frequency[word], word))[: _prefix_length(len(text), threshold)]
        for j in sorted({j for word in prefix for j in indexed[word]}):
            if similarity(text, words[j]) >= threshold:
                yield i, j
        for word in prefix:
            indexed[word].append(i)


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity of two word sets; 1.0 for two empty ones."""
    union = len(one | other)
    return len(one & other) / union if union else 1.0


def _prefix_length(size: int, threshold: float) -> int:
    """How many of a set's rarest words a similar set must meet."""
    # A hair less than t |x|: a rounding error must not lose a pair.
    return size - math.ceil(threshold * size - 1e-9) + 1


def _root(parent: list[int], i: int) -> int:
    """Find the representative of i's group, halving the path on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
