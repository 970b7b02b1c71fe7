"""Searching folders for runs: bounded in depth and number, links and special files passed over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_DEPTH = 8
MAX_FILES = 100_000
_NOT_LOGS = frozenset(
    ending
    for kinds in (
        ".safetensors .bin .pt .pth .ckpt .gguf .onnx .h5 .keras .npy .npz .arrow .parquet .feather .pkl .pickle .f32",
        ".zip .gz .bz2 .xz .zst .tar .tgz .7z .whl .so .dll .exe .o .a .pyc .lock .model .vocab .jinja",
        ".py .ipynb .sh .js .ts .css .html .htm .md .rst .pdf .yaml .yml .toml .ini .cfg",
        ".png .jpg .jpeg .gif .svg .webp .bmp .mp3 .mp4 .wav .flac .ttf .woff .woff2",
    )
    for ending in kinds.split()
)
"""Endings of files that a search never opens; naming such a file on the command line still reads it."""
_NOT_SEARCHED = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder met by a search."""

    path: Path
    files: tuple[Path, ...]
    """Regular files in it that may be logs, by name."""


class TooMany(Exception):
    """The search met more files than it may look at."""


def folders(
    root: Path,
    *,
    max_depth: int = MAX_DEPTH,
    max_files: int = MAX_FILES,
    passed_over: Callable[[Path], bool] = lambda _: False,
) -> Iterator[Folder]:
    """Yield a folder and those below it, by name, depth first.

    Links, hidden folders and what is neither file nor folder are passed over, and folders of which ``passed_over`` says
    so when it is their turn.

    Raises
    ------
    TooMany
        Once more than ``max_files`` directory entries were met.
    """
    met = 0
    pending = [(root, 0)]
    while pending:
        path, depth = pending.pop()
        if path != root and passed_over(path):
            continue
        files: list[str] = []
        below: list[str] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    met += 1
                    if met > max_files:
                        raise TooMany
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    elif entry.is_file(follow_symlinks=False) and _ending(entry.name) not in _NOT_LOGS:
                        files.append(entry.name)
        except OSError:
            continue  # a folder that may not be listed, or that has gone meanwhile, hides nothing else
        yield Folder(path, tuple(path / name for name in sorted(files)))
        if depth < max_depth:
            wanted = (name for name in below if not name.startswith(".") and name not in _NOT_SEARCHED)
            pending.extend((path / name, depth + 1) for name in sorted(wanted, reverse=True))


def _ending(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""
