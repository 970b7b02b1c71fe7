"""Text against tokens: characters that get lost, and tokens that reach over the end of the prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from sightline.runs import Finding, Severity
from sightline.training.checks.context import CheckContext, finding, places, share
from sightline.training.rows.example import Example

WASTED_SHARE = 0.5
"""Share of completions with lost characters from which training is called wasted."""
MERGED_SHARE = 0.01
MAX_CHARACTERS = 20_000
"""Of a row's text that is looked at: a fault shows in it, and a check stays quick."""


def check_characters(context: CheckContext) -> Iterator[Finding]:
    """Encode and decode a sample of rows and see which characters do not come back."""
    lost: Counter[str] = Counter()
    in_target: Counter[str] = Counter()
    rows, target_rows = [], 0
    sample = context.sample()
    prompts = _lost_characters(context.tokenizer, [e.prompt_text if e.text is None else "" for e in sample])
    targets = _lost_characters(context.tokenizer, [e.target_text for e in sample])
    for example, of_prompt, of_target in zip(sample, prompts, targets, strict=True):
        if of_prompt or of_target:
            rows.append(example)
            lost.update(of_prompt | of_target)
            in_target.update(of_target)
            target_rows += bool(of_target)
    if not rows:
        return
    shown = " ".join(repr(c)[1:-1] if c.isprintable() else f"U+{ord(c):04X}" for c, _ in lost.most_common(12))
    severity = Severity.CRITICAL if target_rows / len(sample) >= WASTED_SHARE else Severity.WARNING
    learnt = f", in {share(target_rows, len(sample))} in the part that is learnt, which the model then cannot write"
    message = (
        f"the tokenizer has no tokens for some characters ({shown}): they become <unk> or vanish in "
        f"{share(len(rows), len(sample))} rows looked at{learnt if target_rows else ''} ({places(rows)}); replace them "
        "in the rows or use a tokenizer with byte fallback"
    )
    evidence = {
        "rows": len(rows),
        "rows_in_completion": target_rows,
        "rows_looked_at": len(sample),
        "characters": "".join(c for c, _ in lost.most_common(40)),
    }
    yield finding("unknown_characters", severity, message, evidence)


def _lost_characters(tokenizer: Any, texts: list[str]) -> list[set[str]]:
    """Return, for each text, the characters that decoding its tokens does not give back.

    Counts are compared rather than positions, because tokenizers may add or drop blanks; a character counts as lost
    where the decoded text, unknown tokens left out, holds fewer of it.
    """
    cut = [text[:MAX_CHARACTERS] for text in texts]
    ids = tokenizer(cut, add_special_tokens=False, verbose=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    kept = [[i for i in row if i != unknown] if unknown is not None and unknown in row else row for row in ids]
    decoded = tokenizer.batch_decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return [set() if text == back else _missing(text, back) for text, back in zip(cut, decoded, strict=True)]


def _missing(text: str, back: str) -> set[str]:
    """Return characters, white space aside, of which the second text has fewer; letter case may be folded."""
    before = Counter(c for c in text if not c.isspace())
    after = Counter(back)
    if all(after[c] >= n for c, n in before.items()):
        return set()
    if back and not any(c.isupper() for c in back):  # a tokenizer that lowers everything loses no character
        before = Counter(c for c in text.lower() if not c.isspace())
    return {c for c, n in before.items() if after[c] < n}


def check_boundary(context: CheckContext) -> Iterator[Finding]:
    """Tokenise prompts alone and with their completion and see whether tokens reach over the seam."""
    pairs = [e for e in context.sample() if e.prompt and e.completion]
    if not pairs:
        return
    merged = _merged(context.tokenizer, pairs)
    if len(merged) / len(pairs) < MERGED_SHARE:
        return
    example = merged[0]
    seam = f"{(example.prompt or '')[-12:]!r} + {(example.completion or '')[:12]!r}"
    message = (
        f"in {share(len(merged), len(pairs))} rows looked at a token reaches over the end of the prompt (such as "
        f"{seam}, {example.where}): when the model answers, its prompt is tokenised differently from how it was "
        "trained; end prompts on a line break or another mark that never merges, and begin completions without a blank"
    )
    evidence = {"rows": len(merged), "rows_looked_at": len(pairs)}
    yield finding("boundary_merge", Severity.WARNING, message, evidence)


def _merged(tokenizer: Any, pairs: list[Example]) -> list[Example]:
    """Return the rows whose prompt has other tokens alone than in front of its completion."""
    prompts = [(e.prompt or "")[-MAX_CHARACTERS:] for e in pairs]
    joined = [p + (e.completion or "")[:200] for p, e in zip(prompts, pairs, strict=True)]
    alone = tokenizer(prompts, add_special_tokens=False, verbose=False)["input_ids"]
    together = tokenizer(joined, add_special_tokens=False, verbose=False)["input_ids"]
    return [e for e, a, b in zip(pairs, alone, together, strict=True) if b[: len(a)] != a]
