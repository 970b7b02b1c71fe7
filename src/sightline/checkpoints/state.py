"""trainer_state.json: the little of it that tells what a checkpoint is, without parsing a long log.

The Trainer writes it last, with sorted keys and two blanks of indentation, and puts the whole ``log_history`` into it:
a hundred thousand entries are 14.5 MB. Everything else stands before or after that list, so the list is cut out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.checkpoints.small_json import parsed, read_object
from sightline.errors import CheckpointError, SourceError
from sightline.runs.names import canonical
from sightline.sources.files import open_regular

TRAINER_STATE = "trainer_state.json"
STATE_LIMIT_BYTES = 512 << 20
_END_BYTES = 1 << 20
_SMALL_BYTES = 2 << 20
_LOG_BEGINS, _LOG_ENDS, _ENTRY_BEGINS = b'\n  "log_history": [\n', b"\n  ],\n", b"\n    {\n"


@dataclass(frozen=True, slots=True)
class StateBrief:
    """What a trainer state tells of its checkpoint."""

    global_step: int | None
    epoch: float | None
    max_steps: int | None
    save_steps: int | None
    best_global_step: int | None
    """What the Trainer itself calls best; it loads that one at its end where asked to."""
    metrics: Mapping[str, float]
    """What was logged at this very step, by canonical name: the numbers that belong to these weights."""


def read_state(folder: Path) -> StateBrief:
    """Read the trainer state of a checkpoint; of a long log only the end.

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
            told = read_object(path) if size <= _SMALL_BYTES else parsed(_without_early_log(path, file, size), path)
    except SourceError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(told, dict):
        raise CheckpointError(f"{path}: holds {type(told).__name__}, expected an object")
    epoch, step = told.get("epoch"), _whole(told.get("global_step"))
    return StateBrief(
        global_step=step,
        epoch=float(epoch) if isinstance(epoch, int | float) and math.isfinite(epoch) else None,
        max_steps=_whole(told.get("max_steps")),
        save_steps=_whole(told.get("save_steps")),
        best_global_step=_whole(told.get("best_global_step")),
        metrics=_logged_at(step, told.get("log_history")),
    )


def _logged_at(step: int | None, log: Any) -> dict[str, float]:
    """Return the numbers of the entries of a step; of several the last, as a repeated evaluation leaves them."""
    metrics: dict[str, float] = {}
    for entry in log if isinstance(log, list) else []:
        if isinstance(entry, dict) and step is not None and _whole(entry.get("step")) == step:
            for name, value in entry.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("step", "epoch"):
                    metrics[canonical(str(name))] = float(value)
    return metrics


def _without_early_log(path: Path, file: Any, size: int) -> bytes:
    """Return the document with the end of the log in place of the whole."""
    head = file.read(_END_BYTES)
    file.seek(max(len(head), size - _END_BYTES))
    tail = file.read(_END_BYTES)
    begins, ends = head.find(_LOG_BEGINS), tail.rfind(_LOG_ENDS)
    if begins < 0 or ends < 0:
        raise CheckpointError(f"{path}: {size} bytes and not laid out as the Trainer writes it")
    entry = tail.find(_ENTRY_BEGINS, 0, ends)
    return bytes(head[: begins + len(_LOG_BEGINS)] + tail[entry if entry >= 0 else ends :])


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 2**53:
        return None
    return int(value) if value == int(value) else None
