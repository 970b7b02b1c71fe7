"""Parts: what a checkpoint folder of the Trainer holds and what it lacks.

The Trainer writes weights, optimizer, scheduler, random states and ``trainer_state.json`` in this order, without a
mark of completeness, and resumes silently wrong when optimizer, scheduler or random states are absent. Names, sizes
and headers are looked at; nothing is unpickled and no link is followed.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from sightline.checkpoints.headers import read_header
from sightline.checkpoints.manifest import read_manifest
from sightline.checkpoints.small_json import read_object
from sightline.checkpoints.state import TRAINER_STATE, read_state
from sightline.checkpoints.torch_zip import read_records
from sightline.errors import CheckpointError

CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)", re.ASCII)
WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
INCOMPLETE_MARK = "checkpoint-is-incomplete.txt"
ADAPTER_CONFIG = "adapter_config.json"
MOST_FILES = 20_000
"""Files of a checkpoint folder that are looked at; a sharded optimizer of a large cluster has some thousands."""
_FSDP_WEIGHTS, _FSDP_OPTIMIZER = re.compile(r"pytorch_model_fsdp(_\d+)?"), re.compile(r"optimizer(_\d+)?")
_DEEPSPEED = re.compile(r"global_step\d+")
_RNG = re.compile(r"rng_state(_\d+)?\.pth")


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
    holds: tuple[str, ...] = ()
    """Out of weights, optimizer, scheduler, random states, trainer state; there and, as far as headers tell, whole."""
    weight_files: tuple[str, ...] = ()
    """Files that hold the weights, by name; whether they are whole is another matter."""
    is_weights_only: bool = False
    """Whether it is without training states on purpose: saved with ``save_only_model`` (whole weights, the trainer
    state that is written last, and no trace of the others), or its optimizer was dropped later."""

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
    try:
        files = sizes_of(folder)
    except CheckpointError as error:
        return Parts(step, folder, False, 0, (f"a folder that can be read ({_without(error, folder)})",))
    weight_files, without_weights = weights_of(folder, files)
    lacking = {
        "weights": without_weights,
        "optimizer": _lacking_optimizer(folder, files),
        "scheduler": _lacking_scheduler(folder, files),
        "random states": _lacking_random_states(folder, files),
        "trainer state": _lacking_trainer_state(folder, files, step),
    }
    missing = [lack for lacks in lacking.values() for lack in lacks]
    if INCOMPLETE_MARK in files:
        missing.append(f"the save was never finished ({INCOMPLETE_MARK} is there)")
    return Parts(
        step=step,
        path=folder,
        is_adapter=ADAPTER_CONFIG in files or any(name.startswith("adapter_model.") for name in files),
        size_bytes=sum(files.values()),
        missing=tuple(missing),
        holds=tuple(part for part, lacks in lacking.items() if not lacks),
        weight_files=weight_files,
        is_weights_only=_is_weights_only(folder, files, lacking),
    )


def sizes_of(folder: Path) -> dict[str, int]:
    """Return the sizes of all regular files of a folder by their path inside it; links are left out.

    Raises
    ------
    CheckpointError
        If the folder may not be listed, or has more files than a checkpoint can have.
    """
    sizes: dict[str, int] = {}

    def refused(error: OSError) -> None:
        raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror})") from None

    for parent, _, names in os.walk(folder, onerror=refused):
        inner = Path(parent).relative_to(folder)
        for name in names:
            try:
                status = os.lstat(Path(parent) / name)
            except FileNotFoundError:  # removed since it was listed
                continue
            except OSError as error:
                refused(error)
                continue
            if stat.S_ISREG(status.st_mode):
                sizes[(inner / name).as_posix()] = status.st_size
        if len(sizes) > MOST_FILES:
            raise CheckpointError(f"{folder}: more than {MOST_FILES} files, which no checkpoint has")
    return sizes


def weights_of(folder: Path, files: dict[str, int]) -> tuple[tuple[str, ...], list[str]]:
    """Return the files that hold the weights, and in words what is missing of them.

    Parameters
    ----------
    folder : Path
    files : dict
        `sizes_of` the folder.
    """
    for index in INDEXES:
        if index in files:
            return _shards(folder, folder / index, files)
    weights = next((name for name in WEIGHTS if name in files), None)
    if weights is not None:
        return (weights,), _lacking_file(folder, weights, files, "weights")
    if any(_is_link(folder / name) for name in (*WEIGHTS, *INDEXES)):
        return (), ["weights (a link, which is not followed)"]
    return (), [] if _has_sharded(files, _FSDP_WEIGHTS, "model_states.pt") else ["weights"]


def _shards(folder: Path, index: Path, files: dict[str, int]) -> tuple[tuple[str, ...], list[str]]:
    try:
        named = read_object(index).get("weight_map")
        shards = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
        problem = "" if shards else "it names no files"
    except CheckpointError as error:
        shards, problem = [], _without(error, index)
    if problem:
        return (), [f"a readable {index.name} ({problem})"]
    lacking: list[str] = []
    for shard in shards:
        if Path(shard).name != shard:
            lacking.append(f"weights ({index.name} names {shard!r}, which is not a file of this folder)")
        elif _is_link(folder / shard):
            lacking.append(f"weights ({shard} is a link, which is not followed)")
        elif shard not in files:
            lacking.append(f"weights ({shard} is named by {index.name} and not there)")
        else:
            lacking += _lacking_file(folder, shard, files, "weights")
    return tuple(shard for shard in shards if shard in files), lacking


def _lacking_file(folder: Path, name: str, files: dict[str, int], what: str) -> list[str]:
    """Say what is wrong with a file as far as its header tells."""
    if not files[name]:
        return [f"{what} ({name} is empty)"]
    try:
        if name.endswith(".safetensors"):
            read_header(folder / name)
        elif name.endswith((".pt", ".pth", ".bin")):
            read_records(folder / name)
    except CheckpointError as error:
        whole = f"a whole {what[4:]}" if what in ("the optimizer", "the scheduler") else f"whole {what}"
        return [f"{whole} ({name}: {_without(error, folder / name)})"]
    return []


def _lacking_optimizer(folder: Path, files: dict[str, int]) -> list[str]:
    for name in ("optimizer.pt", "optimizer.bin"):
        if name in files:
            return _lacking_file(folder, name, files, "the optimizer")
    return [] if _has_sharded(files, _FSDP_OPTIMIZER, "optim_states.pt") else ["the optimizer (optimizer.pt)"]


def _lacking_scheduler(folder: Path, files: dict[str, int]) -> list[str]:
    if "scheduler.pt" in files:
        return _lacking_file(folder, "scheduler.pt", files, "the scheduler")
    return [] if _is_deepspeed(files) else ["the scheduler (scheduler.pt)"]  # DeepSpeed keeps it with its own states


def _lacking_random_states(folder: Path, files: dict[str, int]) -> list[str]:
    ranks = sorted(name for name in files if _RNG.fullmatch(name))
    if not ranks:
        return ["the random states (rng_state.pth)"]
    lacking = [lack for name in ranks for lack in _lacking_file(folder, name, files, "random states")]
    if "rng_state.pth" not in ranks:
        of_ranks = {int(name.removeprefix("rng_state_").removesuffix(".pth")) for name in ranks}
        gaps = sorted(set(range(min(max(of_ranks), MOST_FILES))) - of_ranks)
        lacking += [f"the random states of rank {rank} (rng_state_{rank}.pth)" for rank in gaps[:8]]
    return lacking


def _lacking_trainer_state(folder: Path, files: dict[str, int], step: int) -> list[str]:
    if not files.get(TRAINER_STATE):
        return [f"the trainer state ({TRAINER_STATE})"]
    try:
        told = read_state(folder).global_step
    except CheckpointError as error:
        return [f"a readable trainer state ({_without(error, folder / TRAINER_STATE)})"]
    return [] if told == step else [f"a trainer state of this step (it says {told})"]


def _is_weights_only(folder: Path, files: dict[str, int], lacking: dict[str, list[str]]) -> bool:
    if lacking["weights"] or lacking["trainer state"] or INCOMPLETE_MARK in files:
        return False
    if lacking["optimizer"] and not lacking["scheduler"] and not lacking["random states"]:
        return _was_dropped(folder)
    return not any(map(_is_state, files))


def _was_dropped(folder: Path) -> bool:
    """Whether the manifest says that files were removed on purpose."""
    try:
        manifest = read_manifest(folder)
    except CheckpointError:
        return False
    return manifest is not None and bool(manifest.dropped)


def _is_state(name: str) -> bool:
    """Whether a file belongs to a training state other than the trainer's own."""
    return name.startswith(("optimizer", "scheduler", "rng_state", "global_step"))


def _is_deepspeed(files: dict[str, int]) -> bool:
    return any(_DEEPSPEED.match(name) for name in files)


def _has_sharded(files: dict[str, int], fsdp: re.Pattern[str], deepspeed: str) -> bool:
    """Whether a part lies in files of ranks, or in a distributed checkpoint's folder (``.metadata`` written last)."""
    for name, size in files.items():
        top, _, rest = name.partition("/")
        if fsdp.fullmatch(top) and rest == ".metadata" and size:
            return True
        if not rest and size and top.endswith(".bin") and fsdp.fullmatch(top.split("_rank")[0].removesuffix(".bin")):
            return True
        if _DEEPSPEED.fullmatch(top) and rest.endswith(deepspeed) and size:
            return True
    return False


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:  # in a folder that may not be entered
        return False


def _without(error: CheckpointError, path: Path) -> str:
    """Return the text of an error without the path it begins with: the file is named already."""
    return str(error).removeprefix(f"{path}: ")
