"""The end token: whether there is one, the model can tell it apart, and generation stops at it.

A model whose end token is never learnt runs on after every answer: its validation loss looks fine and its exact match
is zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from sightline.runs import Finding, Severity
from sightline.training.checks.context import CheckContext, finding
from sightline.training.checks.weights import EMBEDDINGS, HEADS, Tensor, read_rows

COMPARED_ROWS = 1024
"""Embedding rows an end token's row is compared with."""
SAME = 0.01
"""Distance over norm under which two rows are called the same; rows that were trained lie far apart."""
SAME_SHARE = 0.02
"""Share of rows that are the same from which a row counts as never trained."""
SMALL_NORM = 0.1
"""Norm over the median norm under which a row counts as never trained (reserved tokens of large models)."""


def check_end_token(context: CheckContext) -> Iterator[Finding]:
    """Look at the end token as text, as an id, in the model's embedding and in its generation config."""
    tokenizer = context.tokenizer
    end = tokenizer.eos_token_id
    if end is None:
        message = (
            "the tokenizer has no end token, so the model never learns where an answer ends; name one of its tokens "
            "with eos_token"
        )
        yield finding("end_token_missing", Severity.CRITICAL, message)
        return
    yield from _as_text(tokenizer, end)
    vocabulary = int(getattr(context.text_config, "vocab_size", 0) or 0)
    if vocabulary and end >= vocabulary:
        message = (
            f"the end token {tokenizer.eos_token!r} has id {end}, the model's vocabulary ends at {vocabulary - 1}; use "
            "the tokenizer the model was trained with"
        )
        evidence = {"end_token_id": end, "vocab_size": vocabulary}
        yield finding("end_token_outside_vocabulary", Severity.CRITICAL, message, evidence)
        return
    yield from _untrained(context, end)
    yield from _generation(context, end)


def _as_text(tokenizer: Any, end: int) -> Iterator[Finding]:
    """See whether the end token's text is one token."""
    alone, behind = tokenizer([tokenizer.eos_token, f"x{tokenizer.eos_token}"], add_special_tokens=False)["input_ids"]
    if alone[-1:] == behind[-1:] == [end]:
        return
    pieces = alone if alone[-1:] != [end] else behind
    message = (
        f"the text {tokenizer.eos_token!r} of the end token becomes {len(pieces)} other tokens, never id {end}; "
        "Sightline ends rows with the id itself, so it is learnt here, but tools that append the text (TRL among "
        "them) never teach "
        'it: set "normalized": false for it in tokenizer.json and tokenizer_config.json'
    )
    evidence = {"end_token": tokenizer.eos_token, "end_token_id": end, "pieces": len(pieces)}
    yield finding("end_token_text_split", Severity.WARNING, message, evidence)


def _untrained(context: CheckContext, end: int) -> Iterator[Finding]:
    """See whether the row the model predicts the end token with was ever trained."""
    if context.weights is None:
        return
    matrix = context.weights.named(HEADS) or context.weights.named(EMBEDDINGS)
    if matrix is None or end >= matrix.shape[0]:
        return
    described = _describe_row(matrix, end)
    if described is None:
        return
    same, compared, norm = described
    if same / compared < SAME_SHARE and norm >= SMALL_NORM:
        return
    recipe = context.recipe
    how = (
        f"is the same as {same} of {compared} other rows looked at"
        if same / compared >= SAME_SHARE
        else f"has {norm:.0%} of the usual norm"
    )
    evidence: dict[str, float | int | str | None] = {
        "end_token_id": end,
        "same_rows": same,
        "compared_rows": compared,
        "norm_over_median": round(norm, 4),
    }
    token = context.tokenizer.eos_token
    if recipe.use_peft and not _trains_embedding(recipe.lora_modules_to_save):
        message = (
            f"the embedding of the end token {token!r} was never trained ({how}) and LoRA leaves it frozen, so the "
            "model cannot learn to stop: choose another end token with eos_token, add lora_modules_to_save: "
            "[embed_tokens, lm_head], or train the whole model (use_peft: false)"
        )
        yield finding("end_token_untrained", Severity.CRITICAL, message, evidence)
    else:
        message = (
            f"the embedding of the end token {token!r} was never trained before ({how}); it is trained in this run"
        )
        yield finding("end_token_untrained", Severity.INFO, message, evidence)


def _describe_row(matrix: Tensor, row: int) -> tuple[int, int, float] | None:
    """Return how many other rows are the same, of how many looked at, and its norm over their median."""
    count = min(matrix.shape[0], COMPARED_ROWS)
    others = np.unique(np.linspace(0, matrix.shape[0] - 1, count).astype(np.int64))
    others = others[others != row]
    values = read_rows(matrix, np.concatenate([[row], others]))
    if values is None or others.size == 0:
        return None
    own, rest = values[0].astype(np.float64), values[1:].astype(np.float64)
    if not (np.isfinite(own).all() and np.isfinite(rest).all()):
        return None  # weights that are no numbers are refused when they are loaded
    norm, norms = float(np.linalg.norm(own)), np.linalg.norm(rest, axis=1)
    trained = float(np.median(norms[norms > 0])) if bool((norms > 0).any()) else 1.0
    same = np.linalg.norm(rest - own, axis=1) <= SAME * norm
    return int(same.sum()), int(others.size), norm / trained


def _trains_embedding(modules: tuple[str, ...]) -> bool:
    """Whether LoRA's fully trained modules hold an embedding or the head."""
    return any(name in f"{module}.weight" for module in modules for name in ("embed_tokens", "lm_head", "wte", "embed"))


def _generation(context: CheckContext, end: int) -> Iterator[Finding]:
    """See whether generation stops at the token that is learnt."""
    stops = _generation_ends(context)
    if not stops or end in stops:
        return
    message = (
        f"rows end in {context.tokenizer.eos_token!r} (id {end}) but the model's generation_config.json stops at "
        f"{', '.join(map(str, sorted(stops)))}, so answers run on: make the two agree, with eos_token or eos_token_id"
    )
    evidence = {"end_token_id": end, "generation_ends": ",".join(map(str, sorted(stops)))}
    yield finding("end_token_not_generation_end", Severity.WARNING, message, evidence)


def _generation_ends(context: CheckContext) -> set[int]:
    """Return the ids at which generation stops, from generation_config.json or the model's config."""
    value: Any = getattr(context.text_config, "eos_token_id", None)
    folder = context.model_folder
    if folder is not None and (file := folder / "generation_config.json").is_file():
        with contextlib.suppress(OSError, orjson.JSONDecodeError, AttributeError):
            value = orjson.loads(file.read_bytes()).get("eos_token_id", value)
    ids = value if isinstance(value, list) else [value]
    return {int(i) for i in ids if isinstance(i, int)}
