"""GoldSet: prompts with their right answers, read from records and checked row by row.

Columns understood: ``prompt`` or ``messages``; the right answers in ``references``, ``answers``, ``answer``,
``reference``, ``completion``, ``output``, ``response``, ``target`` or the last assistant message; ``choices`` where the
model is to choose; ``id``, ``group`` and ``metric`` where given. Records come from the caller, with the place of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from sightline.errors import DataError
from sightline.runs import Finding, Severity
from sightline.runs.gold import GoldExample

REFERENCE_COLUMNS = ("references", "answers", "answer", "reference", "completion", "output", "response", "target")
"""Columns that may hold the right answers; the first one that a row has counts."""
COMPLETION_COLUMNS = ("completion", "output", "response", "target")
"""Columns that hold an answer as it is to be written, its reasoning included."""
LIST_COLUMNS = ("references", "answers", "choices")
"""Columns whose text may be a JSON list; elsewhere ``[1, 2]`` is an answer as it stands."""
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}
"""Role names of other formats -> those of chat templates."""

Record = Mapping[str, Any]
PromptOf = Callable[[Record, str], str | None]
"""Makes the prompt of a row that has neither ``prompt`` nor ``messages``, None where it cannot."""


@dataclass(frozen=True, eq=False, slots=True)
class GoldSet:
    """A gold set, ready to be asked."""

    name: str
    examples: tuple[GoldExample, ...]
    """At least one, each with a reference, ids unique."""
    findings: tuple[Finding, ...] = ()
    """What reading it brought up."""

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def digest(self) -> str:
        """Hash of all that is asked and of all right answers, 16 hexadecimal digits."""
        asked = (f"{e.id}\0{e.prompt}\0{e.references}\0{e.choices}\0{e.messages}" for e in self.examples)
        return _digest("\1".join(asked), 8)


def read_gold(records: Iterable[tuple[Record, str]], name: str, *, prompt_of: PromptOf | None = None) -> GoldSet:
    """Read a gold set.

    Parameters
    ----------
    records : iterable of (mapping, str)
        Rows with the place of each (``gold.jsonl, line 3``).
    name : str
        What messages call the set, usually its path.
    prompt_of : callable, optional
        Makes the prompt of rows of another shape (Alpaca's columns, a question), as training makes it.

    Returns
    -------
    GoldSet
        Rows equal to an earlier one and rows without a right answer are left out; its findings say which.

    Raises
    ------
    DataError
        If no row is left, a row has no prompt, a value is of another type than its column needs, or two rows have one
        id. The message names the place.
    """
    kept: dict[str, GoldExample] = {}
    empty: list[str] = []
    again: list[str] = []
    prompts: dict[str, str] = {}
    same_prompt: list[str] = []
    for record, where in records:
        example = _example(record, where, prompt_of)
        if example is None:
            empty.append(where)
            continue
        content = _digest(f"{example.prompt}\0{example.references}\0{example.choices}", 6)
        first = prompts.get(example.prompt)
        if first == content:
            again.append(where)
            continue
        if first is not None:
            same_prompt.append(where)
        prompts.setdefault(example.prompt, content)
        example = example if example.id else replace(example, id=content)
        if example.id in kept:
            raise DataError(
                f"{where}: the id {example.id!r} stands at {kept[example.id].where} too; ids must be unique"
            )
        kept[example.id] = example
    if not kept:
        raise DataError(_nothing_left(name, empty))
    return GoldSet(name, tuple(kept.values()), tuple(_findings(len(kept), empty, again, same_prompt)))


def _example(record: Record, where: str, prompt_of: PromptOf | None) -> GoldExample | None:
    """Return one row, None where it has no right answer."""
    messages = _messages(record, where)
    column = next((name for name in REFERENCE_COLUMNS if record.get(name) is not None), None)
    choices = _texts(_unwrapped(record.get("choices"), "choices"), "choices", where)
    references = _texts(_unwrapped(record.get(column), column), column, where) if column else ()
    if messages and messages[-1]["role"] == "assistant":
        references = references or (str(messages[-1].get("content") or ""),)
        messages = messages[:-1]
    references = tuple(_chosen(r, choices) for r in references)
    references = tuple(dict.fromkeys(r for r in references if r.strip()))
    if not references:
        return None
    completion = next((record[name] for name in COMPLETION_COLUMNS if isinstance(record.get(name), str)), None)
    return GoldExample(
        id=_optional_text(record, "id", where) or "",
        prompt=_prompt(record, where, messages, prompt_of),
        references=references,
        target=completion if completion and completion.strip() and not choices else references[0],
        group=_optional_text(record, "group", where),
        metric=_optional_text(record, "metric", where),
        messages=messages,
        choices=choices,
        where=where,
    )


def _prompt(record: Record, where: str, messages: Sequence[Record], prompt_of: PromptOf | None) -> str:
    """Return what the model is given, as text."""
    prompt = record.get("prompt")
    if isinstance(prompt, str) and prompt:
        return prompt
    if messages:
        return "\n".join(f"{m['role']}: {m.get('content') or ''}" for m in messages)
    if prompt is None and prompt_of is not None and (made := prompt_of(record, where)):
        return made
    if prompt is None:
        columns = ", ".join(map(str, list(record)[:12])) or "none"
        raise DataError(
            f"{where}: no prompt (columns: {columns}); a gold row needs prompt or messages, "
            f"and its right answer in one of {', '.join(REFERENCE_COLUMNS)}"
        )
    found = "empty text" if prompt == "" else f"{type(prompt).__name__} {str(prompt)[:40]!r}"
    raise DataError(f"{where}: prompt must be text, found {found}")


def _messages(record: Record, where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the conversation of a row, empty where it has none; TRL's prompt may be one too."""
    value = next((record[k] for k in ("messages", "conversations") if record.get(k) is not None), None)
    if value is None and isinstance(record.get("prompt"), list):
        value = record["prompt"]
    if isinstance(value, str):
        value = _parsed(value)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(m, Mapping) for m in value):
        raise DataError(f"{where}: messages must be a list of objects with role and content, found {str(value)[:40]!r}")
    return tuple(_message(m, i, where) for i, m in enumerate(value))


def _message(message: Mapping[str, Any], index: int, where: str) -> Mapping[str, Any]:
    """Return one message; ``from`` and ``value`` of other formats become ``role`` and ``content``."""
    role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if not isinstance(role, str) or not isinstance(content, str | list):
        raise DataError(f"{where}: message {index + 1} needs role and content, found {', '.join(map(str, message))}")
    rest = {k: v for k, v in message.items() if k not in ("role", "from", "content", "value") and v is not None}
    return {"role": ROLES.get(role, role), "content": content, **rest}


def _unwrapped(value: Any, column: str | None) -> Any:
    """Return the list inside what other data sets wrap answers in: ``{"text": [...]}``, or JSON in a CSV cell."""
    if isinstance(value, str) and column in LIST_COLUMNS and value.lstrip().startswith("["):
        parsed = _parsed(value)
        return parsed if isinstance(parsed, list) else value
    if isinstance(value, Mapping) and "text" in value:
        return value["text"]
    return value


def _texts(value: Any, column: str | None, where: str) -> tuple[str, ...]:
    """Return one or several texts."""
    if value is None:
        return ()
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        value = [item.get("content", item.get("text")) for item in value]  # TRL's completion, SQuAD's answers
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(_text(item, column, where) for item in values)


def _text(value: Any, column: str | None, where: str) -> str:
    """Return text as it is and a number as its digits; refuse anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(
        f"{where}: {column} must be text or a list of texts, found {type(value).__name__} {str(value)[:40]!r}"
    )


def _optional_text(record: Record, column: str, where: str) -> str | None:
    value = record.get(column)
    return None if value is None or value == "" else _text(value, column, where)


def _chosen(reference: str, choices: tuple[str, ...]) -> str:
    """Return the choice that a reference names by itself, by its index from 0, or by its letter from A."""
    if not choices or reference in choices:
        return reference
    if reference.strip().isdigit() and int(reference) < len(choices):
        return choices[int(reference)]
    letter = reference.strip().upper()
    place = ord(letter) - ord("A") if len(letter) == 1 else -1
    return choices[place] if 0 <= place < len(choices) else reference


def _parsed(text: str) -> Any:
    """Return JSON as its value, any other text as it is."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _nothing_left(name: str, empty: Sequence[str]) -> str:
    if empty:
        columns = ", ".join(REFERENCE_COLUMNS)
        no_row = "its only row has no" if len(empty) == 1 else f"none of its {len(empty)} rows has a"
        return f"{name}: {no_row} right answer; each needs one of {columns}"
    return f"{name}: no rows; a gold set needs a prompt and its right answers in each row"


def _findings(kept: int, empty: list[str], again: list[str], same_prompt: list[str]) -> Iterator[Finding]:
    """Yield what reading the rows brought up."""
    if empty:
        message = f"{_rows(empty)} without a right answer left out; {kept} rows are judged"
        yield Finding("gold_no_reference", Severity.WARNING, message, evidence={"rows": len(empty), "kept": kept})
    if again:
        message = f"{_rows(again)} equal to an earlier row left out: the same question asked twice shows nothing more"
        yield Finding("gold_duplicate", Severity.WARNING, message, evidence={"rows": len(again), "kept": kept})
    if same_prompt:
        message = (
            f"{_rows(same_prompt)} with the prompt of an earlier row but other right answers: "
            "put all right answers of a prompt into the references of one row"
        )
        yield Finding("gold_same_prompt", Severity.WARNING, message, evidence={"rows": len(same_prompt)})


def _rows(places: Sequence[str]) -> str:
    """Return "3 rows (gold.jsonl, line 2; …)"."""
    more = "; …" if len(places) > 3 else ""
    return f"{len(places)} row{'s' if len(places) > 1 else ''} ({'; '.join(places[:3])}{more})"


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()
