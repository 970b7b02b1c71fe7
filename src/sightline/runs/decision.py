"""Decision: what to do with a run, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What to do now."""

    CONTINUE = "continue"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a run, and why."""

    action: Action
    keep_step: int | None
    """``global_step`` whose weights to keep; None when no evaluation tells."""
    keep_checkpoint: str | None
    """Folder name of the saved checkpoint that holds them, for example ``checkpoint-600``; None if none was saved."""
    why: str
    """One sentence."""
