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
    """Folder name of the saved checkpoint to keep, for example ``checkpoint-600``: that of ``keep_step``, or, of a run that
    is over and did not save it, the best of those that cannot be told apart from it; None if there is neither."""
    why: str
    """One sentence."""
