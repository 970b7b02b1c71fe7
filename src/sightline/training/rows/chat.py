"""Messages to text through the tokenizer's chat template, with the parts that are learnt as character spans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.errors import DataError, ModelError
from sightline.training.rows.example import Example, Message, target_turn

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The template most open chat models derive from."""

Span = tuple[int, int]


def chat_template(asked: str | None, tokenizer: Any) -> str | None:
    """Return the chat template to use, as Jinja text; None where there is none.

    Parameters
    ----------
    asked : str or None
        The recipe's ``chat_template``: a ``.jinja`` file, Jinja text, ``chatml`` or ``tokenizer_default``.
    tokenizer : PreTrainedTokenizerBase
        Whose own template is the default.

    Raises
    ------
    ModelError
        If a file or a name asked for does not exist.
    """
    if asked is None or asked == "tokenizer_default":
        own = getattr(tokenizer, "chat_template", None)
        if isinstance(own, dict):
            own = own.get("default")
        return own if isinstance(own, str) else None
    if asked == "chatml":
        return CHATML
    if "{%" in asked or "{{" in asked:
        return asked
    path = Path(asked).expanduser()
    if path.is_dir():
        path = path / "chat_template.jinja"
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError:
        raise ModelError(
            f"chat_template: {asked}: no such Jinja file, and no known template (chatml, tokenizer_default)"
        ) from None


def rendered(
    example: Example, tokenizer: Any, template: str, *, every_turn: bool, completion_only: bool
) -> tuple[str, list[Span]]:
    """Render a row of messages.

    Parameters
    ----------
    example : Example
        With messages.
    tokenizer : PreTrainedTokenizerBase
        Renders the template.
    template : str
        Jinja text.
    every_turn : bool
        Learn every assistant turn; else the last one only.
    completion_only : bool
        False to learn the whole conversation.

    Returns
    -------
    text : str
        The conversation up to the last assistant turn; what follows it is left out.
    spans : list of (int, int)
        Half-open character ranges that are learnt.

    Raises
    ------
    DataError
        If no message is the assistant's, or the template refuses the conversation.
    """
    messages = example.messages or ()
    last = target_turn(messages)
    if last == len(messages):
        roles = ", ".join(dict.fromkeys(str(m["role"]) for m in messages))
        raise DataError(f"{example.where}: no message of the assistant to learn from (roles: {roles})")
    kept = list(messages[: last + 1])
    text = _render(kept, tokenizer, template, False, example.where)
    if not completion_only:
        return text, [(0, len(text))]
    turns = [i for i, m in enumerate(kept) if m["role"] == "assistant"] if every_turn else [last]
    return text, [_turn_span(kept, turn, text, tokenizer, template, example.where) for turn in turns]


def _turn_span(messages: Sequence[Message], turn: int, text: str, tokenizer: Any, template: str, place: str) -> Span:
    """Where in the rendered text one assistant turn stands, its end-of-turn mark included."""
    before = _render(messages[:turn], tokenizer, template, True, place) if turn else ""
    start = _common_prefix(before, text)
    if turn == len(messages) - 1:
        return start, len(text)
    upto = _render(messages[: turn + 1], tokenizer, template, False, place)
    return start, max(start, _common_prefix(upto, text))


def _render(messages: Sequence[Message], tokenizer: Any, template: str, generation: bool, place: str) -> str:
    """Text of some messages; the template's own complaints become a DataError."""
    try:
        text = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=generation
        )
    except Exception as error:  # Jinja's errors, and whatever a template does to a message it did not expect
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{place}: the chat template refuses this conversation: {reason}") from None
    return str(text)


def _common_prefix(a: str, b: str) -> int:
    """Characters that two texts share at their start."""
    if b.startswith(a):
        return len(a)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
