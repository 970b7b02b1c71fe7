"""A model of the Hugging Face hub: its ``trainer_state.json`` files and event files, never its weights."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from sightline.errors import MissingExtra, SourceError
from sightline.runs import Run

NAME = "hub"
_ID = re.compile(r"(?:hf://|https://huggingface\.co/)?([A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95})/?", re.ASCII)
_SCHEME = re.compile(r"^(hf:|https:)/{1,3}")
_WANTED = re.compile(r"trainer_state\.json|events\.out\.tfevents\.[^/]{1,200}|trainer_log\.jsonl")
_MAX_FILES = 200
_CONNECT_S = 3.0
_MAX_BYTES = 256 << 20


class Hub(Protocol):
    """What is used of ``huggingface_hub.HfApi``."""

    def list_repo_tree(self, repo_id: str, *, recursive: bool) -> Any:
        """Return the files of a repository, each with ``path`` and ``size``."""
        ...

    def hf_hub_download(self, repo_id: str, filename: str) -> str:
        """Return the local path of one file."""
        ...


def model_id(text: str) -> str | None:
    """Return the id of a model that a text names (``owner/name``, with or without ``hf://``), None if it names none.

    Examples
    --------
    >>> model_id("hf://org/model"), model_id("https://huggingface.co/org/model"), model_id("a/b/c")
    ('org/model', 'org/model', None)
    """
    match = _ID.fullmatch(text)
    return match[1] if match else None


def names_a_model(path: str | Path) -> str | None:
    """Return the id of a model if a path that is nothing on this machine may be one.

    ``hf://owner/name`` always is; ``owner/name`` only where no folder ``owner`` lies here, so that a mistyped path of
    this machine is not looked up on the network.
    """
    text = _SCHEME.sub(r"\1//", str(path))  # a Path has lost one of the slashes
    found = model_id(text)
    if found is None or "//" in text:
        return found
    return None if Path(found.split("/")[0]).exists() else found


def read_all(path: str | Path, hub: Hub | None = None) -> tuple[Run, ...]:
    """Read the training runs in a model's repository.

    Parameters
    ----------
    path : str or Path
        The model's id, with or without ``hf://``.
    hub : Hub, optional
        ``huggingface_hub.HfApi()`` unless told.

    Returns
    -------
    tuple of Run
        Their paths begin with ``hf://owner/name``.

    Raises
    ------
    SourceError
        If huggingface_hub is not installed, the repository cannot be reached, or no file in it tells a training run.
    """
    from sightline.sources.finding import Found, find  # they know every format, this one among them

    model = names_a_model(path) or str(path)
    if hub is None:
        hub = _hub(model)
        _check_reachable(model)
    names = _wanted(model, hub)
    if not names:
        raise SourceError(f"hf://{model}: no trainer_state.json and no event files in this repository")
    with tempfile.TemporaryDirectory(prefix="sightline-hub-") as folder:
        root = Path(folder)
        for name in names:
            _fetch(model, name, root, hub)
        runs: list[Run] = []
        errors: list[str] = []
        for found in find([root]):
            here, failed = found.read() if isinstance(found, Found) else ([], [found])
            runs += here
            errors += [str(error).replace(str(root), f"hf://{model}") for _, error in failed]
        if not runs:
            raise SourceError(errors[0] if errors else f"hf://{model}: no training run in its files")
        return tuple(_as_remote(run, root, model, errors) for run in runs)


def read(path: str | Path) -> Run:
    """Read the longest training run in a model's repository."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))


def recognises(path: Path) -> bool:
    """Return whether a path that is nothing on this machine names a model."""
    return not path.exists() and names_a_model(path) is not None


def _fetch(model: str, name: str, root: Path, hub: Hub) -> None:
    """Copy one file of a repository below a folder."""
    target = root.joinpath(*PurePosixPath(name).parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(hub.hf_hub_download(model, name), target)
    except Exception as error:  # the client has many errors and promises none
        raise SourceError(f"hf://{model}/{name}: cannot be fetched ({_first_line(error)})") from None


def _hub(model: str) -> Hub:
    try:
        module = import_module("huggingface_hub")
    except ImportError:
        needed = MissingExtra("a model of the hub", "huggingface_hub", "train")
        raise SourceError(f"{model}: nothing of this name on this machine, and {needed}") from None
    hub: Hub = module.HfApi()
    return hub


def _check_reachable(model: str) -> None:
    """Raise at once where there is no network: the client would try again for half a minute."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE")):
        return
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{model}: nothing of this name on this machine, and {address.hostname} cannot be asked for it ({error})"
        ) from None


def _wanted(model: str, hub: Hub) -> list[str]:
    """Return the names of the files that tell training runs, small enough to fetch."""
    try:
        entries = list(hub.list_repo_tree(model, recursive=True))
    except Exception as error:  # the client has many errors and promises none
        raise SourceError(
            f"{model}: nothing of this name on this machine, and no model that can be reached ({_first_line(error)})"
        ) from None
    names: list[str] = []
    total = 0
    for entry in entries:
        name, size = str(getattr(entry, "path", "")), getattr(entry, "size", None) or 0
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or parts[0] == "/" or not _WANTED.fullmatch(parts[-1]):
            continue
        total += size
        if len(names) < _MAX_FILES and total <= _MAX_BYTES:
            names.append(name)
    return names


def _as_remote(run: Run, root: Path, model: str, errors: list[str]) -> Run:
    """Return a run with the places it has on the hub instead of those it was read from."""
    return replace(
        run,
        path=_remote(run.path, root, model),
        name=model.rsplit("/", 1)[-1] if run.path == root or run.name == root.name else run.name,
        checkpoints=tuple(replace(each, path=_remote(each.path, root, model)) for each in run.checkpoints),
        damage=(*(sentence.replace(str(root), f"hf://{model}") for sentence in run.damage), *errors),
    )


def _remote(path: Path, root: Path, model: str) -> Path:
    return Path(f"hf://{model}") / path.relative_to(root) if path.is_relative_to(root) else path


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
