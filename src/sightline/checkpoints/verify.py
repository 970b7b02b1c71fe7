"""verify(): whether the bytes of a checkpoint can be trusted, and whether training can go on from it.

Three looks, each finding what the others cannot: structure (headers, shards, the trainer state's step), contents
(values that no healthy training gives, the CRC of every record that ``torch.save`` wrote), and the hash manifest where
Sightline wrote one. Nothing is unpickled, no link is followed, no code runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sightline.checkpoints.contents import look_at_values
from sightline.checkpoints.headers import Header, read_header
from sightline.checkpoints.manifest import MANIFEST, damaged_files, read_manifest
from sightline.checkpoints.parts import ADAPTER_CONFIG, CHECKPOINT_NAME, INDEXES, read_parts, sizes_of, weights_of
from sightline.checkpoints.problem import Problem
from sightline.checkpoints.small_json import CONFIG_BYTES, read_object
from sightline.checkpoints.torch_zip import damaged_records
from sightline.errors import CheckpointError, SourceError
from sightline.sources.files import open_regular

UNWRITTEN_BYTES = 1 << 30
"""A file that is mostly holes, and has more of them than this, was never written."""
_NEVER_OPENED = "training_args.bin"
_MOST_EXTENTS = 4096


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification of one checkpoint found."""

    path: Path
    problems: tuple[Problem, ...]
    """All that was found, damage first."""
    weights_only: bool = False
    """True where training states were left out on purpose (``save_only_model``, dropped by ``prune``)."""
    hashed: bool = False
    """Whether every byte was compared with the hash manifest."""
    notes: tuple[str, ...] = ()
    """What is no problem but worth knowing, a sentence each."""

    @property
    def intact(self) -> bool:
        """Whether what is there can be trusted: nothing is damaged, whatever may be missing."""
        return not any(problem.is_damage for problem in self.problems)

    @property
    def complete(self) -> bool:
        """Whether everything that an exact resume needs is there."""
        return not self.weights_only and not any(problem.kind == "incomplete" for problem in self.problems)


def verify(folder: Path, *, previous: Path | None = None, contents: bool = True) -> Verification:
    """Verify one checkpoint.

    Parameters
    ----------
    folder : Path
        A folder named ``checkpoint-N``, or one that holds a model or an adapter only.
    previous : Path, optional
        The checkpoint before it: weights that are the same to the last bit have learned nothing since.
    contents : bool
        Read the weights and every byte that has a checksum; without it names, headers and sizes only.

    Returns
    -------
    Verification
        Problems name the file and what is wrong with it.

    Raises
    ------
    CheckpointError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    try:
        files = sizes_of(folder)
    except CheckpointError as error:
        return Verification(folder, (Problem("unreadable", "", _without(error, folder)),))
    problems, weights_only = _lacking(folder, files)
    headers, broken = _headers(folder, weights_of(folder, files)[0])
    problems += broken + _unfit_index(folder, files, headers) + _unfit_json(folder, files)
    unwritten = _unwritten(folder, files)
    problems += unwritten
    notes: tuple[str, ...] = ()
    against_manifest, hashed = _against_manifest(folder, contents and not unwritten)
    problems += against_manifest
    if contents:
        skipped = {problem.file for problem in unwritten}
        seen, notes = look_at_values([h for h in headers.values() if h.path.name not in skipped], previous)
        problems += seen
        if not hashed:
            damaged, unchecked = _damaged_zips(folder, files, skipped)
            problems += damaged
            notes += unchecked
    return Verification(folder, _sorted(problems), weights_only, hashed, notes)


def _lacking(folder: Path, files: Mapping[str, int]) -> tuple[list[Problem], bool]:
    """Return what a checkpoint lacks, and whether it is meant to hold weights only."""
    if CHECKPOINT_NAME.fullmatch(folder.name) is None:
        lacks = weights_of(folder, dict(files))[1]
        return [Problem("incomplete", "", f"lacks {lack}") for lack in lacks], True
    parts = read_parts(folder)
    if parts.is_weights_only:
        return [], True
    return [Problem("incomplete", "", f"lacks {lack}") for lack in parts.missing], False


def _headers(folder: Path, weight_files: tuple[str, ...]) -> tuple[dict[str, Header], list[Problem]]:
    headers, problems = {}, []
    for name in weight_files:
        if not name.endswith(".safetensors"):
            continue
        try:
            headers[name] = read_header(folder / name)
        except CheckpointError as error:
            problems.append(Problem("structure", name, _without(error, folder / name)))
    return headers, problems


def _unfit_index(folder: Path, files: Mapping[str, int], headers: Mapping[str, Header]) -> list[Problem]:
    """Compare the index of a sharded model with what its shards hold."""
    index = next((name for name in INDEXES if name in files and ".safetensors" in name), None)
    if index is None:
        return []
    try:
        told = read_object(folder / index).get("weight_map")
    except CheckpointError as error:
        return [Problem("structure", index, _without(error, folder / index))]
    if not isinstance(told, dict) or not all(isinstance(shard, str) for shard in told.values()):
        return [Problem("structure", index, "has no weight_map of tensors to files")]
    held = {name: shard for shard, header in headers.items() for name in header.tensors}
    lost = [name for name, shard in told.items() if shard in headers and held.get(name) != shard]
    unnamed = [name for name in held if name not in told]
    problems = []
    if lost:
        problems.append(Problem("structure", index, f"{len(lost)} tensors are not in the shard it names: {lost[0]}, …"))
    if unnamed:
        problems.append(
            Problem("structure", index, f"{len(unnamed)} tensors of the shards are not in it: {unnamed[0]}, …")
        )
    return problems


def _unfit_json(folder: Path, files: Mapping[str, int]) -> list[Problem]:
    """Check that the small JSON files are whole; large tokenizers are only looked at from both ends."""
    problems = []
    for name, size in files.items():
        if not name.endswith(".json") or "/" in name or name in (*INDEXES, MANIFEST, "trainer_state.json"):
            continue
        if name not in ("config.json", "generation_config.json", ADAPTER_CONFIG) and not name.startswith("tokenizer"):
            continue
        problem = _broken_json(folder / name, size)
        problems += [Problem("structure", name, problem)] if problem else []
    return problems


def _broken_json(path: Path, size: int) -> str | None:
    if size <= CONFIG_BYTES // 16:
        try:
            read_object(path)
        except CheckpointError as error:
            return _without(error, path)
        return None
    try:
        with open_regular(path) as file:
            start = file.read(64).lstrip()
            file.seek(-64, os.SEEK_END)
            whole = start.startswith(b"{") and file.read().rstrip().endswith(b"}")
    except (OSError, SourceError) as error:
        return _without(error, path)
    return None if whole else "cut short: no whole JSON object"


def _unwritten(folder: Path, files: Mapping[str, int]) -> list[Problem]:
    """Find large files that are mostly holes: their zeros were never written, and are not worth an hour of reading."""
    problems = []
    for name, size in files.items():
        if size <= UNWRITTEN_BYTES:
            continue
        try:
            written = _written_bytes(folder / name, size)
        except (OSError, SourceError):
            continue  # what cannot be opened is told of elsewhere
        if size - written > max(UNWRITTEN_BYTES, size // 2):
            problems.append(
                Problem("structure", name, f"{size} bytes, of which {size - written} were never written to the disk")
            )
    return problems


def _written_bytes(path: Path, size: int) -> int:
    """Count the bytes of a file that are not holes; all of them where the system cannot tell."""
    if not hasattr(os, "SEEK_HOLE"):
        return size
    written, at = 0, 0
    with open_regular(path) as file:
        for _ in range(_MOST_EXTENTS):
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole from here on
                return written
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            written += at - start
            if at >= size:
                return written
    return size


def _against_manifest(folder: Path, contents: bool) -> tuple[list[Problem], bool]:
    """Compare a checkpoint with its manifest if it has one; also return whether every byte was hashed."""
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return [], False
        return list(damaged_files(folder, manifest, contents=contents)), contents
    except CheckpointError as error:
        return [Problem("structure", MANIFEST, _without(error, folder / MANIFEST))], False
    except OSError as error:
        return [Problem("unreadable", "", error.strerror or str(error))], False


def _damaged_zips(folder: Path, files: Mapping[str, int], skipped: set[str]) -> tuple[list[Problem], tuple[str, ...]]:
    """Check the CRC of every record that torch.save wrote, which nobody else does; note what has none."""
    problems, notes = [], []
    for name in files:
        if not name.endswith((".pt", ".pth", ".bin")) or name in skipped or Path(name).name == _NEVER_OPENED:
            continue
        try:
            records = damaged_records(folder / name)
        except CheckpointError as error:
            problems.append(Problem("structure", name, _without(error, folder / name)))
            continue
        if records is None and files[name]:
            notes.append(f"{name} is a bare pickle, as torch wrote before 1.6: it has no checksum")
        elif records:
            problems.append(
                Problem("contents", name, f"{len(records)} of its records do not fit their checksum: {records[0]}, …")
            )
    return problems, tuple(notes)


def _sorted(problems: list[Problem]) -> tuple[Problem, ...]:
    """Put damage first, and say once what two looks found of the same file."""
    unique = dict.fromkeys(problems)
    return tuple(sorted(unique, key=lambda problem: (not problem.is_damage, problem.file)))


def _without(error: Exception, path: Path) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).removeprefix(f"{path}: ")
