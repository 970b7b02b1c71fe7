"""The same prompt on two sides: training rows that give validation or gold rows away, and rows that repeat.

Exact matches are of normalised text; near ones are told by ``sightline.training.checks.resemblance``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.runs import Finding, Severity
from sightline.training.checks.context import CheckContext, finding, places, share
from sightline.training.checks.resemblance import near_prompts
from sightline.training.rows import Example, TokenisedRows, prompt_hash

DUPLICATES_SHARE = 0.10
COPIED_SHARE = 0.5
"""Share of validation rows that are training rows word for word from which the validation loss measures memory."""


def check_overlap(context: CheckContext) -> Iterator[Finding]:
    """Look for prompts that stand on two sides, and for training rows that repeat."""
    train, validation = context.train_rows, context.eval_rows
    gold = np.array([prompt_hash(e.prompt_text) for e in context.gold_rows], dtype=np.uint64)
    other = gold if validation is None else np.concatenate([gold, validation.prompt_hashes])
    seen = np.isin(train.prompt_hashes, other)
    if validation is not None:
        yield from _exact(train, validation.prompt_hashes, validation.examples, "validation")
        yield from _near(train, seen, validation.examples, "validation")
    if gold.size:
        yield from _exact(train, gold, context.gold_rows, "gold")
        if validation is not None:
            yield from _validation_and_gold(validation, gold)
        yield from _near(train, seen, context.gold_rows, "gold")
    yield from _repeated(train)


def _exact(
    train: TokenisedRows, hashes: NDArray[np.uint64], examples: Sequence[Example], side: str
) -> Iterator[Finding]:
    """Count rows of the other side whose prompt is also trained on."""
    shared = np.flatnonzero(np.isin(hashes, train.prompt_hashes))
    if shared.size == 0:
        return
    distinct = np.unique(hashes)
    common = np.intersect1d(distinct, train.prompt_hashes)
    in_train = int(np.isin(train.prompt_hashes, common).sum())
    spoilt = "its loss is too good" if side == "validation" else "its score is too good"
    first = np.flatnonzero(np.isin(train.prompt_hashes, hashes[shared[:1]]))[0]
    message = (
        f"{share(common.size, distinct.size)} distinct {side} prompts are also trained on ({shared.size} {side} rows, "
        f"{in_train} training rows), so {spoilt}; take them out of one side (such as "
        f"{places([examples[int(shared[0])]])} = {places([train.examples[int(first)]])})"
    )
    evidence = {"prompts": int(common.size), "of": int(distinct.size), "rows": int(shared.size), "train_rows": in_train}
    severity = Severity.WARNING
    if side == "validation":
        evidence["copied_rows"] = copied = _copied(train, [examples[int(i)] for i in shared])
        if copied >= COPIED_SHARE * len(examples):
            severity = Severity.CRITICAL
            message += f"; {share(copied, len(examples))} validation rows are training rows word for word: no "
            message += "memorising can be seen on them"
    yield finding(f"prompts_in_train_and_{side}", severity, message, evidence)


def _copied(train: TokenisedRows, examples: Sequence[Example]) -> int:
    """Count examples that are training rows word for word; a prompt may well have several answers."""
    known = {(example.prompt_text, example.target_text) for example in train.examples}
    return sum((example.prompt_text, example.target_text) in known for example in examples)


def _validation_and_gold(validation: TokenisedRows, gold: NDArray[np.uint64]) -> Iterator[Finding]:
    """Count gold prompts that also choose the checkpoint."""
    shared = int(np.isin(gold, validation.prompt_hashes).sum())
    if shared:
        message = (
            f"{share(shared, gold.size)} gold prompts also stand in the validation rows, by which the checkpoint is "
            "chosen: the gold score is slightly too good; take them out of one side"
        )
        yield finding("prompts_in_validation_and_gold", Severity.INFO, message, {"rows": shared, "of": int(gold.size)})


def _repeated(train: TokenisedRows) -> Iterator[Finding]:
    """Count training rows that repeat another word for word."""
    keys = np.array([hash((e.prompt_text, e.target_text)) for e in train.examples], dtype=np.int64)
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    extra = int(counts.sum() - counts.size)
    if extra == 0:
        return
    often = int(np.argmax(counts))
    message = (
        f"{share(extra, len(train))} training rows repeat another row word for word (one of them {counts[often]} "
        f"times, {places([train.examples[int(first[often])]])}): they count double and are memorised first; take them "
        "out"
    )
    severity = Severity.WARNING if extra / len(train) >= DUPLICATES_SHARE else Severity.INFO
    yield finding("duplicate_rows", severity, message, {"rows": extra, "of": len(train), "most": int(counts[often])})


def _near(train: TokenisedRows, seen: NDArray[np.bool_], others: Sequence[Example], side: str) -> Iterator[Finding]:
    """Count rows of the other side whose prompt is nearly one that is trained on."""
    ours = [example for example, exact in zip(train.examples, seen, strict=True) if not exact]
    pairs = near_prompts([e.prompt_text for e in ours], [e.prompt_text for e in others])
    if not pairs:
        return
    best = pairs[0]
    message = (
        f"{share(len(pairs), len(others))} {side} prompts are nearly the same as one that is trained on (such as "
        f"{places([others[best.other]])} and {places([ours[best.train]])}, {best.resemblance:.0%} alike); if they ask "
        f"the same thing, the {side} result is too good"
    )
    evidence = {"rows": len(pairs), "of": len(others), "most_alike": round(best.resemblance, 3)}
    yield finding(f"near_prompts_in_train_and_{side}", Severity.INFO, message, evidence)
