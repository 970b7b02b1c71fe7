"""The hash manifest of a checkpoint: what every file was when it was saved, so that one flipped bit is found later.

Nothing in a checkpoint of the Trainer has a checksum that is verified on loading: a flipped bit or a half of zeros
resumes silently wrong. ``sightline_manifest.json`` lies beside the files and is written last of all, so it is also the
mark of a finished save::

    {"sightline_manifest": 1, "algorithm": "sha256",
     "files": {"model.safetensors": {"size": 538090408, "hash": "9c0e…"}, …}, "dropped": [], "digest": "51ab…"}

``digest`` is the hash of the canonical JSON of ``files`` and ``dropped``, so that a manifest which was damaged itself says so.

SHA-256 because OpenSSL runs it on the processor's own instructions (1.2 to 1.4 GB/s on one core, against 0.5 to 1.0 for
BLAKE2b: `benchmarks/checkpoints.py`), and because ``sha256sum`` and the Hub's own file pages give the same digits.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sightline.checkpoints.problem import Problem
from sightline.errors import CheckpointError, SourceError
from sightline.journal.files import sync_folder
from sightline.sources.files import is_regular, open_regular, read_whole

MANIFEST = "sightline_manifest.json"
ALGORITHM = "sha256"
FORMAT = 1
LIMIT_BYTES = 64 << 20
"""Largest manifest that is read: room for some 300 000 files."""
_CHUNK_BYTES = 1 << 20
_PARTIAL = MANIFEST + ".partial"
_LOADED_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".index.json", ".py")
_LOADED_NAMES = frozenset(
    [
        "config.json",
        "generation_config.json",
        "adapter_config.json",
        "trainer_state.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "processor_config.json",
        "preprocessor_config.json",
    ]
)


@dataclass(frozen=True, slots=True)
class FileHash:
    """One file as it was saved."""

    size_bytes: int
    digest: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every file of a checkpoint as it was when the save was finished."""

    files: Mapping[str, FileHash]
    """By path inside the folder, with forward slashes."""
    algorithm: str = ALGORITHM
    dropped: tuple[str, ...] = ()
    """Files that were saved and later removed on purpose, to save space."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files.values())


def write_manifest(folder: Path) -> Manifest:
    """Hash every regular file of a checkpoint and write the manifest beside them, last of all.

    Each file is brought to the disk before its hash is noted and the manifest after all of them: where a manifest
    stands after a crash or a loss of power, the files stand too. Links are neither followed nor listed.

    Parameters
    ----------
    folder : Path
        The checkpoint; nothing else may write into it meanwhile.

    Returns
    -------
    Manifest
        What was written.

    Raises
    ------
    CheckpointError
        If a file cannot be read or the manifest cannot be written; the old manifest, if any, is as it was.
    """
    try:
        files = {name: _hashed(folder / name, to_disk=True) for name in files_of(folder)}
        for inner in sorted({(folder / name).parent for name in files}):
            sync_folder(inner)
        manifest = Manifest(MappingProxyType(files))
        _write_last(folder, _as_bytes(manifest))
    except (OSError, SourceError) as error:
        raise CheckpointError(f"{folder}: the hash manifest could not be written ({_reason(error)})") from None
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a checkpoint.

    Parameters
    ----------
    folder : Path
        The checkpoint.

    Returns
    -------
    Manifest or None
        None where there is none: the save was never finished, or not made by Sightline.

    Raises
    ------
    CheckpointError
        If there is one that cannot be read, was damaged itself, or is of a newer format.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        told = json.loads(read_whole(path, LIMIT_BYTES))
        if told["sightline_manifest"] != FORMAT:
            raise CheckpointError(f"{path}: format {told['sightline_manifest']!r}, this Sightline knows {FORMAT}")
        manifest = _from_json(told)
    except (SourceError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = _reason(error).removeprefix(f"{path}: ")
        raise CheckpointError(f"{path}: the hash manifest is damaged itself ({reason})") from None
    return manifest


def drop_files(folder: Path, names: Sequence[str]) -> Manifest:
    """Remove files of a checkpoint on purpose, and say so in its manifest, which is written where there was none.

    The manifest comes first: a crash in between leaves files that are there and need not be.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    names : sequence of str
        Paths inside it, with forward slashes.

    Returns
    -------
    Manifest
        Of what is left.

    Raises
    ------
    CheckpointError
        If the manifest is damaged or cannot be written, or a file cannot be removed.
    """
    manifest = read_manifest(folder)
    try:
        if manifest is None:
            left = {name: _hashed(folder / name) for name in files_of(folder) if name not in names}
        else:
            left = {name: file for name, file in manifest.files.items() if name not in names}
        before = () if manifest is None else manifest.dropped
        manifest = Manifest(MappingProxyType(left), dropped=tuple(dict.fromkeys((*before, *names))))
        _write_last(folder, _as_bytes(manifest))
        for name in names:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
    except (OSError, SourceError) as error:
        raise CheckpointError(f"{folder}: {', '.join(names)} could not be dropped ({_reason(error)})") from None
    return manifest


def damaged_files(folder: Path, manifest: Manifest, *, contents: bool = True) -> tuple[Problem, ...]:
    """Compare a checkpoint with its manifest, byte by byte.

    Files are found by walking the folder, links not followed, so no name in a manifest can lead out of it.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    manifest : Manifest
        What was written when it was saved.
    contents : bool
        Compare hashes, for which every byte is read; names and sizes only without.

    Returns
    -------
    tuple of Problem
        By file name; kinds ``missing``, ``size``, ``hash``, ``extra`` (a file that was not saved with the checkpoint
        and that a loader would read), ``unreadable``. Empty when every byte is as it was saved.
    """
    there = set(files_of(folder))
    problems = [_absence(folder, name) for name in manifest.files if name not in there]
    for name in sorted(there):
        told = manifest.files.get(name)
        problem = (
            _extra(name, manifest) if told is None else _difference(folder, name, told, manifest.algorithm, contents)
        )
        problems += [problem] if problem else []
    return tuple(sorted(problems, key=lambda problem: problem.file))


def files_of(folder: Path) -> Iterator[str]:
    """Yield the regular files of a checkpoint in order, the manifest left out; links are not followed.

    Raises
    ------
    OSError
        If a folder may not be listed.
    """

    def refused(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refused, followlinks=False):
        folders.sort()
        inner = Path(parent).relative_to(folder)
        for name in sorted(names):
            path = inner / name
            if path.as_posix() not in (MANIFEST, _PARTIAL) and is_regular(folder / path):
                yield path.as_posix()


def _hashed(path: Path, algorithm: str = ALGORITHM, *, to_disk: bool = False) -> FileHash:
    """Hash a file; its size is the count of the bytes that were hashed."""
    hashed, size, buffer = hashlib.new(algorithm, usedforsecurity=False), 0, memoryview(bytearray(_CHUNK_BYTES))
    with open_regular(path) as file:
        if to_disk:
            os.fsync(file.fileno())
        while count := file.readinto(buffer):  # type: ignore[attr-defined]  # a BufferedReader has it
            hashed.update(buffer[:count])
            size += count
    return FileHash(size, hashed.hexdigest())


def _as_bytes(manifest: Manifest) -> bytes:
    files = {name: {"size": file.size_bytes, "hash": file.digest} for name, file in manifest.files.items()}
    whole = {
        "sightline_manifest": FORMAT,
        "algorithm": manifest.algorithm,
        "files": files,
        "dropped": list(manifest.dropped),
        "digest": _digest_of(manifest.algorithm, files, manifest.dropped),
    }
    return (json.dumps(whole, indent=1) + "\n").encode()


def _from_json(told: Any) -> Manifest:
    algorithm, files, dropped = told["algorithm"], told["files"], told["dropped"]
    if algorithm != ALGORITHM:
        raise ValueError(f"algorithm {algorithm!r}, expected {ALGORITHM}")
    if told["digest"] != _digest_of(algorithm, files, dropped):
        raise ValueError("its own digest does not fit")
    hashes = {str(name): FileHash(int(file["size"]), str(file["hash"])) for name, file in files.items()}
    return Manifest(MappingProxyType(hashes), algorithm, tuple(map(str, dropped)))


def _digest_of(algorithm: str, files: Mapping[str, Any], dropped: Sequence[str]) -> str:
    canonical = json.dumps([algorithm, files, list(dropped)], sort_keys=True, separators=(",", ":")).encode()
    return hashlib.new(algorithm, canonical, usedforsecurity=False).hexdigest()


def _write_last(folder: Path, content: bytes) -> None:
    """Write the manifest aside, bring it to the disk, and give it its name."""
    partial = folder / _PARTIAL
    partial.unlink(missing_ok=True)  # of an interrupted save; a link in its place is not followed
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / MANIFEST)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(folder)


def _absence(folder: Path, name: str) -> Problem:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return Problem("missing", name, "named by the manifest and outside the folder; not looked at")
    if (folder / name).is_symlink():
        return Problem("unreadable", name, "saved as a file, now a link, which is not followed")
    return Problem("missing", name, "was saved and is not there")


def _extra(name: str, manifest: Manifest) -> Problem | None:
    if name in manifest.dropped:  # the removal was interrupted
        return None
    if name.endswith(_LOADED_SUFFIXES) or name in _LOADED_NAMES:
        return Problem("extra", name, "was not saved with this checkpoint, and a loader would read it")
    return None


def _difference(folder: Path, name: str, told: FileHash, algorithm: str, contents: bool) -> Problem | None:
    try:
        size = (folder / name).lstat().st_size
        if size != told.size_bytes:
            return Problem("size", name, f"{size} bytes where {told.size_bytes} were saved")
        if contents and _hashed(folder / name, algorithm).digest != told.digest:
            return Problem("hash", name, "its bytes are not the ones that were saved")
    except (OSError, SourceError) as error:
        return Problem("unreadable", name, _reason(error))
    return None


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error) or type(error).__name__
