"""What is learnt of each row: rows cut, rows without a label, empty completions, ids the model does not have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sightline.runs import Finding, Severity
from sightline.training.checks.context import CheckContext, finding, places, share
from sightline.training.rows import TokenisedRows

FEW_CUT = 0.01
"""Share of rows cut that is only mentioned."""
WASTED_SHARE = 0.5


def check_labels(context: CheckContext) -> Iterator[Finding]:
    """Look at what is left to learn once rows are tokenised and cut."""
    for rows, side in ((context.train_rows, "training"), (context.eval_rows, "validation")):
        if rows is not None:
            yield from _truncated(context, rows, side)
            yield from _without_label(context, rows, side)
            yield from _empty(rows, side)
    yield from _outside_vocabulary(context)
    yield from _end_learnt(context)


def _truncated(context: CheckContext, rows: TokenisedRows, side: str) -> Iterator[Finding]:
    """Count rows that were cut to the greatest length."""
    cut = np.flatnonzero(rows.truncated)
    if cut.size == 0:
        return
    lost = int((rows.full_lengths[cut] - rows.lengths[cut]).sum())
    needed = int(rows.full_lengths.max())
    context_length = getattr(context.text_config, "max_position_embeddings", None)
    possible = (
        f"raise max_length (up to {context_length}, the model's context)" if _can_grow(context) else "shorten them"
    )
    message = (
        f"{share(cut.size, len(rows))} {side} rows are longer than max_length {context.max_length} and lose their end "
        f"({lost:,} tokens in all; the longest row has {needed:,}), their end token with it; {possible} or take them "
        f"out ({places([rows.examples[i] for i in cut[:4]])})"
    )
    severity = Severity.WARNING if cut.size / len(rows) >= FEW_CUT else Severity.INFO
    evidence = {"rows": int(cut.size), "of": len(rows), "tokens_lost": lost, "longest": needed, "side": side}
    yield finding("rows_truncated", severity, message, evidence)


def _can_grow(context: CheckContext) -> bool:
    """Whether the model's context leaves room for longer rows."""
    limit = getattr(context.text_config, "max_position_embeddings", None)
    return isinstance(limit, int) and limit > context.max_length


def _without_label(context: CheckContext, rows: TokenisedRows, side: str) -> Iterator[Finding]:
    """Count rows that were left out because nothing was left to learn."""
    left_out = rows.without_label
    if not left_out:
        return
    total = len(rows) + len(left_out)
    message = (
        f"{share(len(left_out), total)} {side} rows were left out: their prompt alone fills max_length "
        f"{context.max_length}, so no token was left to learn ({places(left_out)}); shorten their prompts or raise "
        "max_length"
    )
    severity = Severity.CRITICAL if len(left_out) / total > WASTED_SHARE else Severity.WARNING
    yield finding("rows_without_label", severity, message, {"rows": len(left_out), "of": total, "side": side})


def _empty(rows: TokenisedRows, side: str) -> Iterator[Finding]:
    """Count rows whose completion is empty."""
    empty = [example for example in rows.examples if not example.target_text.strip()]
    if not empty:
        return
    message = (
        f"{share(len(empty), len(rows))} {side} rows have an empty completion ({places(empty)}): they teach the model "
        "to say nothing; take them out unless that is meant"
    )
    severity = Severity.CRITICAL if len(empty) / len(rows) > WASTED_SHARE else Severity.WARNING
    yield finding("empty_completions", severity, message, {"rows": len(empty), "of": len(rows), "side": side})


def _outside_vocabulary(context: CheckContext) -> Iterator[Finding]:
    """See that the model has an embedding for every id."""
    vocabulary = int(getattr(context.text_config, "vocab_size", 0) or 0)
    sides = [rows for rows in (context.train_rows, context.eval_rows) if rows is not None and rows.tokens]
    highest = max((int(rows.input_ids.max()) for rows in sides), default=0)
    if vocabulary and highest >= vocabulary:
        message = (
            f"rows hold token id {highest}, the model's vocabulary ends at {vocabulary - 1}: training would fail or "
            "read memory it should not; use the tokenizer the model was trained with"
        )
        yield finding(
            "ids_outside_vocabulary", Severity.CRITICAL, message, {"highest_id": highest, "vocab_size": vocabulary}
        )


def _end_learnt(context: CheckContext) -> Iterator[Finding]:
    """See that rows which were not cut end in a labelled end token."""
    end, rows = context.tokenizer.eos_token_id, context.train_rows
    if end is None or not len(rows):
        return
    last = rows.offsets[1:] - 1
    whole = ~rows.truncated
    closed = _has_labelled(rows, end) & whole
    missing = int(whole.sum() - closed.sum())
    if missing:
        ends = np.flatnonzero(whole & ~closed)
        message = (
            f"{share(missing, int(whole.sum()))} training rows do not teach the end token "
            f"({places([rows.examples[i] for i in ends[:4]])}); with a chat template, see that it closes the "
            "assistant's turn"
        )
        evidence = {"rows": missing, "last_token": int(rows.input_ids[last[ends[0]]])}
        yield finding("end_token_not_learnt", Severity.CRITICAL, message, evidence)


def _has_labelled(rows: TokenisedRows, token: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which rows have a token among their labels."""
    found = np.concatenate([[0], np.cumsum((rows.input_ids == token) & rows.labelled)])
    present: np.ndarray[tuple[int], np.dtype[np.bool_]] = found[rows.offsets[1:]] > found[rows.offsets[:-1]]
    return present
