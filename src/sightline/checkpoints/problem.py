"""Problem: one thing that is wrong with a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProblemKind = Literal[
    "incomplete", "structure", "contents", "unlearned", "missing", "size", "hash", "extra", "unreadable"
]
"""Where it was seen: ``incomplete`` (a part an exact resume needs is absent or cut), ``structure`` (headers and states
do not fit together), ``contents`` (numbers that no healthy training gives), ``unlearned`` (whole, and no wiser than
before); against the manifest: ``missing``, ``size``, ``hash``, ``extra``; ``unreadable`` (no permission, a link)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a checkpoint."""

    kind: ProblemKind
    file: str
    """Path inside the checkpoint folder with forward slashes, ``""`` for the folder as a whole."""
    message: str
    """What is wrong, without the file's name."""

    @property
    def is_damage(self) -> bool:
        """Whether it makes what is there untrustworthy, rather than incomplete or useless."""
        return self.kind not in ("incomplete", "unlearned")

    def __str__(self) -> str:
        return f"{self.file}: {self.message}" if self.file else self.message
