"""The run folder: one JSON line a record, appended, each with its CRC; and losses by row beside it.

Names are imported when first used, so that reading a journal does not load what writing one needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline.journal.afterwards import add_judgement
    from sightline.journal.history import rebuild
    from sightline.journal.lines import FORMAT
    from sightline.journal.plain import PlainRun, record
    from sightline.journal.reader import JournalFollower, read, read_lines, recognises
    from sightline.journal.recorder import Recorder
    from sightline.journal.secrets import Masker

__all__ = [
    "FILE_NAME",
    "FOLDER",
    "FORMAT",
    "NAME",
    "JournalFollower",
    "Masker",
    "PlainRun",
    "Recorder",
    "add_judgement",
    "read",
    "read_lines",
    "rebuild",
    "recognises",
    "record",
]

NAME = "journal"
"""Name of the format, as Run.format has it."""
FOLDER = "sightline"
"""Name of the folder beside the checkpoints."""
FILE_NAME = "journal.jsonl"

_HOMES = {
    "add_judgement": "afterwards",
    "rebuild": "history",
    "FORMAT": "lines",
    "PlainRun": "plain",
    "record": "plain",
    "JournalFollower": "reader",
    "read": "reader",
    "read_lines": "reader",
    "recognises": "reader",
    "Recorder": "recorder",
    "Masker": "secrets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
