"""trainer_state.json: the little of it that tells what a checkpoint is, without parsing a long log.

The Trainer writes it last, with sorted keys and two blanks of indentation, and puts the whole ``log_history`` into it:
a hundred thousand entries are 14.5 MB. Everything else stands before or after that list, so the list is cut out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.checkpoints.small_json import parsed, read_object
from sightline.errors import CheckpointError, SourceError
from sightline.sources.files import open_regular

TRAINER_STATE = "trainer_state.json"
STATE_LIMIT_BYTES = 512 << 20
_END_BYTES = 1 << 20
_SMALL_BYTES = 2 << 20
_LOG_BEGINS, _LOG_ENDS = b'\n  "log_history": [\n', b"\n  ],\n"


@dataclass(frozen=True, slots=True)
class StateBrief:
    """What a trainer state tells of its checkpoint."""

    global_step: int | None
    epoch: float | None
    max_steps: int | None
    save_steps: int | None


def read_state(folder: Path) -> StateBrief:
    """Read the trainer state of a checkpoint, its log left out where the file is long.

    Raises
    ------
    CheckpointError
        If it cannot be read, or is no JSON object.
    """
    path = folder / TRAINER_STATE
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size > STATE_LIMIT_BYTES:
                raise CheckpointError(f"{path}: {size} bytes, more than a trainer state can have")
            told = read_object(path) if size <= _SMALL_BYTES else parsed(_without_log(path, file, size), path)
    except SourceError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(told, dict):
        raise CheckpointError(f"{path}: holds {type(told).__name__}, expected an object")
    epoch = told.get("epoch")
    return StateBrief(
        global_step=_whole(told.get("global_step")),
        epoch=float(epoch) if isinstance(epoch, int | float) and math.isfinite(epoch) else None,
        max_steps=_whole(told.get("max_steps")),
        save_steps=_whole(told.get("save_steps")),
    )


def _without_log(path: Path, file: Any, size: int) -> bytes:
    """Return the document with an empty log in place of the long one."""
    head = file.read(_END_BYTES)
    file.seek(max(len(head), size - _END_BYTES))
    tail = file.read(_END_BYTES)
    begins, ends = head.find(_LOG_BEGINS), tail.rfind(_LOG_ENDS)
    if begins < 0 or ends < 0:
        raise CheckpointError(f"{path}: {size} bytes and not laid out as the Trainer writes it")
    return bytes(head[: begins + len(_LOG_BEGINS)] + tail[ends:])


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 2**53:
        return None
    return int(value) if value == int(value) else None
