"""Examples to token ids: the prompt is context, the completion is learnt, the end token closes it.

The prompt and the completion are tokenised together, as the model will see running text; the first token that holds a
character of the completion is the first that is learnt. The end token is added as an id, never as text: its text need
not be one token. Rows longer than ``max_length`` are cut at their end and counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.errors import DataError
from sightline.training.rows.chat import Span, rendered
from sightline.training.rows.example import Example, prompt_hash
from sightline.training.rows.tokenised import TokenisedRows

_CHUNK = 2048
"""Rows encoded at once: enough for the tokenizer's threads, little enough for memory."""

Locate = Callable[[int], int]
"""Character position -> index of the first token that reaches it."""


@dataclass(frozen=True, slots=True)
class Tokenisation:
    """How rows become tokens."""

    max_length: int
    completion_only: bool = True
    """Learn the completion only; False to learn prompts too."""
    every_turn: bool = False
    """Learn every assistant turn of a conversation, not only the last."""
    template: str | None = None
    """Chat template for messages, as Jinja text."""


def tokenise(examples: Sequence[Example], tokenizer: Any, how: Tokenisation) -> TokenisedRows:
    """Tokenise rows.

    Parameters
    ----------
    examples : sequence of Example
        At least one.
    tokenizer : PreTrainedTokenizerBase
        Fast tokenizers are used through their own batch encoder.
    how : Tokenisation
        Length, labels and chat template.

    Returns
    -------
    TokenisedRows
        In the order of ``examples``; rows without a token to learn stand in ``without_label``.

    Raises
    ------
    DataError
        If messages have no chat template, or nothing is left to learn.
    """
    encode = _encoder(tokenizer)
    ids, lengths = array("i"), array("q")
    spans: list[tuple[int, int]] = []
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        sources = [_source(example, tokenizer, how) for example in chunk]
        encodings = encode([text for text, _ in sources], [e.messages is None for e in chunk])
        for example, (text, parts), (row, locate) in zip(chunk, sources, encodings, strict=True):
            learnt = _token_spans(parts, len(text), len(row), locate)
            ended = _ended(row, learnt[-1][0], example, tokenizer.eos_token_id)
            if learnt[-1][1] == len(row):  # the end token is learnt with what it ends
                learnt[-1] = (learnt[-1][0], len(ended))
            spans.extend((len(ids) + first, len(ids) + last) for first, last in learnt)
            ids.extend(ended)
            lengths.append(len(ended))
    hashes = np.fromiter((prompt_hash(e.prompt_text) for e in examples), dtype=np.uint64, count=len(examples))
    return _cut(ids, lengths, spans, hashes, tuple(examples), how.max_length)


def _source(example: Example, tokenizer: Any, how: Tokenisation) -> tuple[str, list[Span]]:
    """Return the running text of a row and the character ranges that are learnt."""
    if example.messages is not None:
        if how.template is None:
            raise DataError(
                f"{example.where}: rows of messages need a chat template and the tokenizer has none; give "
                "chat_template: chatml or a .jinja file, or use prompt and completion"
            )
        return rendered(
            example, tokenizer, how.template, every_turn=how.every_turn, completion_only=how.completion_only
        )
    if example.text is not None:
        return example.text, [(0, len(example.text))]
    prompt, completion = example.prompt or "", example.completion or ""
    text = prompt + completion
    return text, [(len(prompt) if how.completion_only else 0, len(text))]


def _token_spans(parts: Sequence[Span], characters: int, tokens: int, locate: Locate) -> list[tuple[int, int]]:
    """Character ranges as token ranges."""
    return [
        (0 if first == 0 else locate(first), tokens if last >= characters else locate(last)) for first, last in parts
    ]


def _ended(row: list[int], first_label: int, example: Example, end: int | None) -> list[int]:
    """Return the row with its end token, where it does not have one."""
    if end is None or (row and row[-1] == end):
        return row
    if example.messages is not None and end in row[first_label:]:  # templates end the turn, then add a line break
        return row
    return [*row, end]


def _encoder(tokenizer: Any) -> Callable[[list[str], list[bool]], list[tuple[list[int], Locate]]]:
    """Batch encoder of the tokenizer: (texts, with special tokens) -> ids and a locator for each."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch"):
        return lambda texts, special: [_encode_slowly(tokenizer, t, s) for t, s in zip(texts, special, strict=True)]
    backend.no_truncation()
    backend.no_padding()

    def encode(texts: list[str], special: list[bool]) -> list[tuple[list[int], Locate]]:
        found: list[Any] = [None] * len(texts)
        for flag in set(special):
            at = [i for i, s in enumerate(special) if s is flag]
            for i, encoding in zip(
                at, backend.encode_batch([texts[i] for i in at], add_special_tokens=flag), strict=True
            ):
                found[i] = encoding
        return [(e.ids, _locator(e, len(t))) for e, t in zip(found, texts, strict=True)]

    return encode


def _locator(encoding: Any, characters: int) -> Locate:
    """Locator from an encoding's own offsets; a character in no token (dropped) passes to the next."""

    def locate(position: int) -> int:
        for character in range(position, characters):
            token = encoding.char_to_token(character)
            if token is not None:
                return int(token)
        return len(encoding.ids)

    return locate


def _encode_slowly(tokenizer: Any, text: str, special: bool) -> tuple[list[int], Locate]:
    """One text through a tokenizer without offsets; positions follow from tokenising what stands before them."""
    ids: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]

    def locate(position: int) -> int:
        before = tokenizer(text[:position], add_special_tokens=special)["input_ids"]
        return next(
            (i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), min(len(before), len(ids))
        )

    return ids, locate


def _cut(
    ids: array[int],
    lengths: array[int],
    spans: Sequence[tuple[int, int]],
    hashes: np.ndarray[Any, np.dtype[np.uint64]],
    examples: tuple[Example, ...],
    max_length: int,
) -> TokenisedRows:
    """Flat arrays cut to the greatest length, rows without a label left out."""
    flat = np.frombuffer(ids, dtype=np.int32) if len(ids) else np.zeros(0, np.int32)
    full = np.frombuffer(lengths, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(full)])
    change = np.zeros(flat.size + 1, dtype=np.int32)
    edges = np.array(spans, dtype=np.int64).reshape(-1, 2)
    np.add.at(change, edges[:, 0], 1)
    np.add.at(change, edges[:, 1], -1)
    labelled = np.cumsum(change[:-1]) > 0
    kept = np.minimum(full, max_length)
    position = np.arange(flat.size) - np.repeat(starts[:-1], full)
    inside = position < np.repeat(kept, full)
    rows = TokenisedRows(
        input_ids=flat[inside],
        labelled=labelled[inside],
        offsets=np.concatenate([[0], np.cumsum(kept)]),
        prompt_hashes=hashes,
        full_lengths=full.astype(np.int32),
        examples=examples,
    )
    usable = rows.label_counts > 0
    if bool(usable.all()):
        return rows
    if not usable.any():
        raise DataError(_nothing_left(rows, max_length))
    left_out = tuple(e for e, ok in zip(examples, usable, strict=True) if not ok)
    chosen = rows.select(usable)
    return TokenisedRows(
        chosen.input_ids,
        chosen.labelled,
        chosen.offsets,
        chosen.prompt_hashes,
        chosen.full_lengths,
        chosen.examples,
        left_out,
    )


def _nothing_left(rows: TokenisedRows, max_length: int) -> str:
    """Why no row has a token to learn."""
    longest, first = int(rows.full_lengths.max()), rows.examples[0].where
    if longest > max_length:
        return (
            f"no row has a token left to learn, from {first} on: prompts alone fill max_length {max_length} (rows have up "
            f"to {longest} tokens); raise max_length or shorten the prompts"
        )
    return f"no row has a token to learn, from {first} on: completions and texts are empty"
