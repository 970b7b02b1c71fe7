"""Prompts and right answers as token ids, the way a fine-tune sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sightline.errors import DataError, ModelError
from sightline.runs.gold import GoldExample

IGNORED = -100
"""Label of a token that is not scored."""


class ScoredRow(NamedTuple):
    """A prompt with an answer whose likelihood is wanted."""

    input_ids: list[int]
    labels: list[int]
    """The answer's ids where they stand, -100 elsewhere."""


@dataclass(frozen=True, slots=True)
class Template:
    """How conversations become text."""

    chat_template: str | None = None
    """Jinja text, None for the tokenizer's own."""
    options: Mapping[str, Any] | None = None
    """Further variables of the template."""


def prompt_text(example: GoldExample, tokenizer: Any, template: Template | None = None) -> tuple[str, bool]:
    """Return the text a model is given, and whether the tokenizer adds its special tokens to it.

    Raises
    ------
    ModelError
        If a conversation is asked and the tokenizer has no chat template.
    DataError
        If the template refuses the conversation.
    """
    if not example.messages:
        return example.prompt, True
    return _rendered(example, example.messages, tokenizer, template or Template(), begins_answer=True), False


def prompt_ids(example: GoldExample, tokenizer: Any, template: Template | None = None) -> list[int]:
    """Return the tokens a model is given; a closing end token that the tokenizer adds by itself is left out."""
    text, special = prompt_text(example, tokenizer, template)
    ids: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]
    end = tokenizer.eos_token_id
    adds_end = special and end is not None and len(ids) > 1 and ids[-1] == end
    if adds_end and tokenizer(text, add_special_tokens=False)["input_ids"][-1:] != [end]:
        return ids[:-1]
    return ids


def scored_row(
    example: GoldExample, answer: str, tokenizer: Any, template: Template | None = None, *, with_end: bool = True
) -> ScoredRow:
    """Return a prompt with an answer, the answer's tokens labelled.

    Parameters
    ----------
    example : GoldExample
        Whose prompt comes first.
    answer : str
        Written after it, tokenised together with it.
    tokenizer : PreTrainedTokenizerBase
    template : Template, optional
        For conversations.
    with_end : bool
        Whether the end token after the answer counts: for a right answer it does, for one choice of several not.
    """
    if example.messages:
        turn = [*example.messages, {"role": "assistant", "content": answer}]
        before = prompt_text(example, tokenizer, template)[0]
        whole = _rendered(example, turn, tokenizer, template or Template(), begins_answer=False)
        start = _common_prefix(before, whole)
        whole = whole if with_end else whole[: whole.find(answer, start) + len(answer)]
        ids, first = _located(whole, start, tokenizer, special=False)
    else:
        ids, first = _located(example.prompt + answer, len(example.prompt), tokenizer, special=True)
        end = tokenizer.eos_token_id
        if ids and end is not None and ids[-1] != end and with_end:
            ids = [*ids, end]
        elif ids and ids[-1] == end and not with_end and len(ids) > first + 1:
            ids = ids[:-1]
    return ScoredRow(ids, [IGNORED] * first + ids[first:])


def end_ids(tokenizer: Any, generation_config: Any = None) -> frozenset[int]:
    """Return the tokens that end an answer: those of the generation config and the tokenizer's own."""
    found = getattr(generation_config, "eos_token_id", None)
    listed = list(found) if isinstance(found, list | tuple) else [found]
    return frozenset(int(token) for token in [*listed, tokenizer.eos_token_id] if token is not None)


def cannot_be_written(answers: Sequence[str], tokenizer: Any) -> list[str]:
    """Return the answers that the tokenizer cannot spell: it drops or replaces some of their letters."""
    lost = []
    for answer in answers:
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        written = tokenizer.decode(ids, skip_special_tokens=True)
        if "".join(written.split()) != "".join(answer.split()):
            lost.append(answer)
    return lost


def _located(text: str, position: int, tokenizer: Any, *, special: bool) -> tuple[list[int], int]:
    """Return the ids of a text and the index of the first token that reaches past a character position."""
    if getattr(tokenizer, "is_fast", False):
        encoding = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        ids: list[int] = encoding["input_ids"]
        reached = (i for i, (_, last) in enumerate(encoding["offset_mapping"]) if last > position)
        return ids, next(reached, len(ids))
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    before: list[int] = tokenizer(text[:position], add_special_tokens=special)["input_ids"]
    return ids, _common_prefix(before, ids)


def _rendered(
    example: GoldExample,
    messages: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    template: Template,
    *,
    begins_answer: bool,
) -> str:
    where = example.where or example.id
    if template.chat_template is None and not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"{where}: is a conversation, and the model's tokenizer has no chat template to make it text; "
            "give prompts as text, or --chat-template"
        )
    try:
        text = tokenizer.apply_chat_template(
            [dict(m) for m in messages],
            chat_template=template.chat_template,
            tokenize=False,
            add_generation_prompt=begins_answer,
            **(template.options or {}),
        )
    except Exception as error:  # Jinja's errors, and whatever a template does to a message it did not expect
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{where}: the chat template refuses this conversation: {reason}") from None
    return str(text)


def _common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return how many items two sequences share at their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
