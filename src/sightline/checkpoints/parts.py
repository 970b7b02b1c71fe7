"""Parts: what a checkpoint folder of the Trainer holds and what it lacks.

The Trainer writes weights, optimizer, scheduler, random states and ``trainer_state.json`` in this order, without a
mark of completeness, and resumes silently wrong when optimizer, scheduler or random states are absent.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import orjson

from sightline.errors import CheckpointError

CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")
WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
INCOMPLETE_MARK = "checkpoint-is-incomplete.txt"
STATE_LIMIT_BYTES = 512 << 20
HEADER_LIMIT_BYTES = 100 << 20
"""The safetensors format's own limit on its header."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What one checkpoint folder holds."""

    step: int
    """``global_step`` by the folder's name."""
    path: Path
    is_adapter: bool
    """True when it holds an adapter, not a whole model."""
    size_bytes: int
    missing: tuple[str, ...]
    """What an exact resume needs and the folder lacks, in words; empty for a complete checkpoint."""

    @property
    def is_complete(self) -> bool:
        """Whether training can go on from here exactly."""
        return not self.missing


def read_parts(folder: Path) -> Parts:
    """Look at a checkpoint folder without loading weights.

    Parameters
    ----------
    folder : Path
        A folder named ``checkpoint-N``.

    Returns
    -------
    Parts
        Its step, kind, size and what is missing.

    Raises
    ------
    CheckpointError
        If the folder is none, or its name has no step.
    """
    matched = CHECKPOINT_NAME.fullmatch(folder.name)
    if matched is None or not folder.is_dir():
        raise CheckpointError(f"{folder}: not a checkpoint folder (expected a folder named checkpoint-N)")
    step = int(matched[1])
    files = {f.name: f.stat().st_size for f in folder.iterdir() if f.is_file()}
    missing = [*_missing_weights(folder, files), *_missing_training_state(folder, files, step)]
    if INCOMPLETE_MARK in files:
        missing.append(f"the save was never finished ({INCOMPLETE_MARK} is there)")
    return Parts(
        step=step,
        path=folder,
        is_adapter="adapter_config.json" in files,
        size_bytes=sum(files.values()),
        missing=tuple(missing),
    )


def _missing_weights(folder: Path, files: dict[str, int]) -> list[str]:
    for index in INDEXES:
        if index in files:
            return _missing_shards(folder, folder / index, files)
    weights = next((name for name in WEIGHTS if name in files), None)
    if weights is None:
        return ["weights"]
    if weights.endswith(".safetensors") and (problem := _safetensors_problem(folder / weights)):
        return [f"whole weights ({weights}: {problem})"]
    return [] if files[weights] else [f"weights ({weights} is empty)"]


def _missing_shards(folder: Path, index: Path, files: dict[str, int]) -> list[str]:
    try:
        shards = set(orjson.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return [f"a readable {index.name} ({error})"]
    lacking: list[str] = []
    for shard in sorted(str(name) for name in shards):
        if Path(shard).name != shard or shard not in files:
            lacking.append(f"weights ({shard} is named by {index.name} and not there)")
        elif shard.endswith(".safetensors") and (problem := _safetensors_problem(folder / shard)):
            lacking.append(f"whole weights ({shard}: {problem})")
    return lacking


def _safetensors_problem(path: Path) -> str | None:
    """Say what is wrong with the layout of a safetensors file: header and size only."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if len(head) < 8:
                return "shorter than its header"
            (length,) = struct.unpack("<Q", head)
            if length > min(HEADER_LIMIT_BYTES, size - 8):
                return f"its header claims {length} bytes"
            header = orjson.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return f"unreadable header ({error})"
    expected = 8 + length + max(ends, default=0)
    return None if expected == size else f"{size} bytes where its header describes {expected}"


def _missing_training_state(folder: Path, files: dict[str, int], step: int) -> list[str]:
    lacking = [
        f"{what} ({name})"
        for what, name in (("the optimizer", "optimizer.pt"), ("the scheduler", "scheduler.pt"))
        if not files.get(name)
    ]
    if not any(name.startswith("rng_state") and size for name, size in files.items()):
        lacking.append("the random states (rng_state.pth)")
    lacking += [
        f"a whole {name}" for name in ("optimizer.pt", "scheduler.pt") if files.get(name) and _is_cut_zip(folder / name)
    ]
    state = folder / "trainer_state.json"
    if not files.get(state.name):
        return [*lacking, "the trainer state (trainer_state.json)"]
    if files[state.name] > STATE_LIMIT_BYTES:
        return [*lacking, f"a trainer state of sensible size (it has {files[state.name]} bytes)"]
    try:
        told = json.loads(state.read_bytes()).get("global_step")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return [*lacking, f"a readable trainer state ({error})"]
    return lacking if told == step else [*lacking, f"a trainer state of this step (it says {told})"]


def _is_cut_zip(path: Path) -> bool:
    """Whether a file written by torch.save ends before its zip directory; old, unzipped files pass."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
        file.seek(max(0, path.stat().st_size - 66_000))
        return b"PK\x05\x06" not in file.read()
