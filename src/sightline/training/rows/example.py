"""Example: one row as it was written, whatever shape its file has."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

Message = dict[str, Any]
"""``{"role": …, "content": …}`` as chat templates take it."""


class Example(NamedTuple):
    """One row: a prompt with its completion, a text, or messages whose last assistant turn is the completion."""

    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    where: str = ""
    """File and line, for messages to people."""

    @property
    def prompt_text(self) -> str:
        """What stands before the part that is learnt; where nothing does, the part that is learnt itself."""
        if self.prompt is not None:
            return self.prompt if self.prompt.strip() else (self.completion or "")
        if self.text is not None:
            return self.text
        messages = self.messages or ()
        before = messages[: target_turn(messages)]
        return "\n".join(f"{m['role']}: {m.get('content') or ''}" for m in before) if before else self.target_text

    @property
    def target_text(self) -> str:
        """The part that is learnt, as written."""
        if self.completion is not None:
            return self.completion
        if self.text is not None:
            return self.text
        messages = self.messages or ()
        turn = target_turn(messages)
        return str(messages[turn].get("content") or "") if turn < len(messages) else ""


def target_turn(messages: Sequence[Message]) -> int:
    """Return the index of the last assistant message; ``len(messages)`` where there is none."""
    return next((i for i in range(len(messages) - 1, -1, -1) if messages[i]["role"] == "assistant"), len(messages))


def normalised(text: str) -> str:
    """Return text as prompts are compared: NFKC, lower case, runs of white space as one blank, ends trimmed."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def prompt_hash(text: str) -> int:
    """Return 64 bits of the normalised text, the same on every machine."""
    digest = hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
