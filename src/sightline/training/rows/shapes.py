"""Records to Examples: which columns hold the prompt and what is learnt.

Shapes, tried in this order: ``prompt`` + ``completion``; ``messages`` (or ``conversations``); Alpaca's ``instruction``,
``input``, ``output``; ``question`` + ``answer``; ``text``. A file has one shape; columns of another name are named by
``prompt_column``, ``completion_column``, ``text_column``, ``messages_column``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sightline.errors import DataError
from sightline.training.rows.example import Example, Message

ALPACA = "### Instruction:\n{instruction}\n\n### Response:\n"
ALPACA_WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
QUESTION = "Question: {question}\nAnswer:\n"
ROLES: Mapping[str, str] = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
}
"""Role names of other formats -> those of chat templates."""
EXPECTED = "prompt+completion, messages, instruction+output (Alpaca), question+answer, or text"


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns named by the recipe, and the shape it asks for."""

    shape: str = "auto"
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    messages: str | None = None
    needs_completion: bool = True
    """False for a gold set, whose rows may have references instead."""


Convert = Callable[[dict[str, Any], str], Example]


def to_examples(records: Iterable[tuple[dict[str, Any], str]], columns: Columns) -> Iterator[Example]:
    """Turn the records of one file into Examples, all of the shape of its first row.

    Raises
    ------
    DataError
        Where a row lacks its columns or holds values of another type, with file and line.
    """
    shape: str | None = None
    convert: Convert | None = None
    for record, place in records:
        if convert is None:
            shape, convert = _converter(record, place, columns)
        try:
            yield convert(record, place)
        except KeyError as error:
            other = _shape_of(record)
            mixed = (
                f"; this row looks like {other}, those before it like {shape}: keep one shape a file"
                if other and other != shape
                else ""
            )
            raise DataError(f"{place}: no column {error} (columns: {_names(record)}){mixed}") from None


def _converter(record: dict[str, Any], place: str, columns: Columns) -> tuple[str, Convert]:
    """Return the shape of a file and the function that reads a row of it."""
    if columns.text is not None:
        return "text", lambda r, p: Example(text=_text(r, columns.text or "", p), where=p)
    if columns.messages is not None:
        return "messages", _messages_reader(columns.messages)
    if columns.prompt is not None or columns.completion is not None:
        prompt = columns.prompt or _first(record, ("prompt", "question", "instruction", "input"), "prompt")
        completion = columns.completion or _first(record, ("completion", "answer", "output", "response"), "completion")
        return "prompt+completion", _pair_reader(prompt, completion)
    shape = _SHAPES.get(columns.shape) or _shape_of(record, columns.needs_completion)
    if shape is None:
        raise DataError(
            f"{place}: no columns to learn from: found {_names(record)}; expected {EXPECTED}; or name them with "
            f"prompt_column and completion_column{_advice(record)}"
        )
    if not columns.needs_completion and shape == "prompt+completion":
        return shape, _gold_reader
    return shape, _READERS[shape](record)


_SHAPES = {
    "prompt_completion": "prompt+completion",
    "messages": "messages",
    "text": "text",
    "alpaca": "alpaca",
    "question_answer": "question+answer",
}


def _shape_of(record: Mapping[str, Any], needs_completion: bool = True) -> str | None:
    """Return the shape a record has, None where it has none."""
    keys = set(record)
    if "prompt" in keys and ("completion" in keys or not needs_completion):
        return "prompt+completion"
    if keys & {"messages", "conversations", "conversation"}:
        return "messages"
    if "instruction" in keys and (keys & {"output", "response"} or not needs_completion):
        return "alpaca"
    if "question" in keys and ("answer" in keys or not needs_completion):
        return "question+answer"
    return "text" if "text" in keys else None


def _advice(record: Mapping[str, Any]) -> str:
    """Return a word on shapes that are near, but not supervised fine-tuning."""
    keys = set(record)
    if {"chosen", "rejected"} <= keys:
        return "; chosen/rejected pairs are for preference training"
    if "prompt" in keys:
        return "; these are prompts without completions, nothing can be learnt from them"
    return ""


def _pair_reader(prompt: str, completion: str) -> Convert:
    """Rows of two texts, or of two lists of messages (TRL's conversational form)."""

    def read(record: dict[str, Any], place: str) -> Example:
        start, end = record[prompt], record[completion]
        if isinstance(start, list) or isinstance(end, list):
            messages = [*_as_messages(start, "user", place), *_as_messages(end, "assistant", place)]
            return Example(messages=tuple(messages), where=place)
        return Example(_checked(start, prompt, place), _checked(end, completion, place), where=place)

    return read


def _gold_reader(record: dict[str, Any], place: str) -> Example:
    """Return a row of a gold set: a prompt, and an answer where there is one."""
    answer = next((record[k] for k in ("completion", "references", "answer", "output") if record.get(k)), "")
    first = answer[0] if isinstance(answer, list) and answer else answer
    prompt = record["prompt"]
    if isinstance(prompt, list):
        return Example(
            messages=(*_messages(prompt, "prompt", place), {"role": "assistant", "content": str(first)}), where=place
        )
    return Example(_checked(prompt, "prompt", place), first if isinstance(first, str) else str(first), where=place)


def _messages_reader(column: str) -> Convert:
    """Rows of one list of messages."""
    return lambda record, place: Example(messages=_messages(record[column], column, place), where=place)


def _alpaca_reader(record: Mapping[str, Any]) -> Convert:
    """Alpaca's three columns, joined by its own template."""
    output = "output" if "output" in record else "response"

    def read(row: dict[str, Any], place: str) -> Example:
        instruction = _text(row, "instruction", place)
        given = row.get("input")
        extra = _checked(given, "input", place) if given is not None else ""
        template = ALPACA_WITH_INPUT if extra.strip() else ALPACA
        return Example(template.format(instruction=instruction, input=extra), _text(row, output, place), where=place)

    return read


def _question_reader(record: Mapping[str, Any]) -> Convert:
    """Question and answer."""
    return lambda row, place: Example(
        QUESTION.format(question=_text(row, "question", place)), _text(row, "answer", place), where=place
    )


_READERS: Mapping[str, Callable[[dict[str, Any]], Convert]] = {
    "prompt+completion": lambda record: _pair_reader("prompt", "completion"),
    "messages": lambda record: _messages_reader(
        _first(record, ("messages", "conversations", "conversation"), "messages")
    ),
    "alpaca": _alpaca_reader,
    "question+answer": _question_reader,
    "text": lambda record: lambda row, place: Example(text=_text(row, "text", place), where=place),
}


def _first(record: Mapping[str, Any], names: tuple[str, ...], otherwise: str) -> str:
    """Return the first of several column names that a record has."""
    return next((name for name in names if name in record), otherwise)


def _text(record: Mapping[str, Any], column: str, place: str) -> str:
    """Return a column that must hold text."""
    return _checked(record[column], column, place)


def _checked(value: Any, column: str, place: str) -> str:
    """Text as it is, a number as its digits; anything else is refused."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    found = "nothing (null)" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
    raise DataError(f"{place}: column {column!r} must be text, found {found}")


def _as_messages(value: Any, role: str, place: str) -> tuple[Message, ...]:
    """One half of a conversational prompt and completion."""
    return ({"role": role, "content": value},) if isinstance(value, str) else _messages(value, role, place)


def _messages(value: Any, column: str, place: str) -> tuple[Message, ...]:
    """Return a list of messages in the form of chat templates."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # CSV holds them as text
            value = json.loads(value)
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{place}: column {column!r} must be a list of messages, found {type(value).__name__} {str(value)[:40]!r}"
        )
    return tuple(_message(item, i, place) for i, item in enumerate(value))


def _message(item: Any, index: int, place: str) -> Message:
    """One message; ``from``/``value`` of other formats become ``role``/``content``."""
    if not isinstance(item, dict):
        raise DataError(
            f"{place}: message {index + 1} must be an object with role and content, found {str(item)[:40]!r}"
        )
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if not isinstance(role, str) or not (isinstance(content, str | list) or item.get("tool_calls")):
        raise DataError(
            f"{place}: message {index + 1} needs role and content, found {', '.join(sorted(map(str, item)))}"
        )
    extra = {k: v for k, v in item.items() if k not in ("role", "from", "content", "value") and v is not None}
    return {"role": ROLES.get(role, role), "content": content, **extra}


def _names(record: Mapping[str, Any]) -> str:
    """Return the columns of a record, for a message."""
    return ", ".join(map(str, list(record)[:12])) or "none"
