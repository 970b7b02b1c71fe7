"""Which gold rows stand in the training data: word for word, or nearly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sightline.runs import Finding, Severity
from sightline.runs.gold import GoldExample

NGRAM_WORDS = 8
"""Words of an n-gram: PaLM's choice [1]_; GPT-3 took 13, too long for most prompts."""
NEAR_SHARE = 0.7
"""A prompt is nearly a training text when so many of its n-grams stand in one (PaLM: 0.7)."""
TEMPLATE_SHARE = 0.02
"""N-grams in more than this share of the gold prompts belong to their template."""
FEW_SHARE = 0.01
"""So small a share of rows that are only nearly in the training data moves no answer: a note, no warning."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """Gold rows whose prompt is also in the training data."""

    equal: tuple[str, ...]
    """Ids of rows whose prompt is a training prompt word for word, in the order of the gold set."""
    near: tuple[str, ...]
    """Ids of rows of which most n-grams stand in one training text."""
    training_texts: int

    @property
    def ids(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self.equal) | frozenset(self.near)


def find_overlap(
    examples: Sequence[GoldExample],
    training_texts: Iterable[str] = (),
    *,
    training_hashes: Collection[int] = (),
    prompt_hash: Callable[[str], int] | None = None,
) -> Overlap:
    """Find gold rows that the model was trained on.

    Parameters
    ----------
    examples : sequence of GoldExample
        The gold set.
    training_texts : iterable of str
        Training rows, prompts alone or with their completions; read once, so it may be a generator.
    training_hashes : collection of int
        Hashes of training prompts, where only those are known.
    prompt_hash : callable, optional
        The function that made ``training_hashes``; without it they are not used.

    Returns
    -------
    Overlap
        Words are compared: letters and digits, lower case.

    References
    ----------
    .. [1] A. Chowdhery et al., PaLM (2022), section 8: a text is contaminated when 70 % of its 8-grams stand in the
       training data. https://arxiv.org/abs/2204.02311
    """
    words = [_WORD.findall(e.prompt.lower()) for e in examples]
    by_words: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(words):
        by_words.setdefault(tuple(row), []).append(i)
    grams = _own_ngrams(words)
    rows_of: dict[tuple[str, ...], list[int]] = {}
    for i, own in enumerate(grams):
        for gram in own:
            rows_of.setdefault(gram, []).append(i)
    equal = {i for i, e in enumerate(examples) if prompt_hash is not None and prompt_hash(e.prompt) in training_hashes}
    near: set[int] = set()
    n = 0
    for text in training_texts:
        n += 1
        text_words = tuple(_WORD.findall(text.lower()))
        equal.update(by_words.get(text_words, ()))
        found = Counter(i for gram in set(_ngrams(text_words)) for i in rows_of.get(gram, ()))
        near.update(i for i, count in found.items() if count >= NEAR_SHARE * len(grams[i]))
    near -= equal
    return Overlap(
        tuple(examples[i].id for i in sorted(equal)),
        tuple(examples[i].id for i in sorted(near)),
        max(n, len(training_hashes)),
    )


def overlap_finding(overlap: Overlap, n: int) -> Finding | None:
    """Say what part of ``n`` gold rows the model has seen in training; None where it has seen none."""
    seen = len(overlap.ids)
    if not seen:
        return None
    kinds = [f"{len(overlap.equal)} word for word"] * bool(overlap.equal) + [f"{len(overlap.near)} nearly"] * bool(
        overlap.near
    )
    verb = "stand" if seen > 1 else "stands"
    message = (
        f"{seen} of {n} gold prompts {verb} in the training data ({', '.join(kinds)}): they reward memorising; "
        "take them out of one of the two, or judge without them (--leave-out-seen)"
    )
    evidence = {"rows": seen, "equal": len(overlap.equal), "near": len(overlap.near), "n": n}
    severity = Severity.WARNING if overlap.equal or seen > FEW_SHARE * n else Severity.INFO
    return Finding("gold_overlap", severity, message, evidence=evidence)


def _own_ngrams(words: Sequence[Sequence[str]]) -> list[set[tuple[str, ...]]]:
    """Return the n-grams of each prompt without those of the template that many prompts share."""
    grams = [set(_ngrams(row)) for row in words]
    common = Counter(gram for own in grams for gram in own)
    limit = max(2, TEMPLATE_SHARE * len(words))
    return [{gram for gram in own if common[gram] <= limit} for own in grams]


def _ngrams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + NGRAM_WORDS]) for i in range(len(words) - NGRAM_WORDS + 1))
