"""What the ``run`` line tells of machine, versions and command line; starts no process and imports no torch."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sightline.journal.secrets import Masker

_PACKAGES = (
    "sightline",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "unsloth",
    "axolotl",
    "deepspeed",
    "bitsandbytes",
    "flash-attn",
    "liger-kernel",
    "triton",
    "lightning",
)
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TOKENIZERS_PARALLELISM",
    "HF_HUB_OFFLINE",
    "ACCELERATE_MIXED_PRECISION",
    "SLURM_JOB_ID",
    "SLURM_NNODES",
    "SLURM_PROCID",
)


def describe(masker: Masker) -> dict[str, Any]:
    """Return what the ``run`` line tells of the surroundings.

    Parameters
    ----------
    masker : Masker
        Masks the command line.

    Returns
    -------
    dict
        ``python``, ``platform``, ``host``, ``pid``, ``cwd``, ``argv``, ``cpus``, ``memory_bytes``, ``gpus`` (names),
        ``packages`` (name -> version, those installed), ``variables`` (a fixed list of environment variables),
        ``git_commit``. What cannot be told is None.
    """
    return {
        "python": platform.python_version(),
        "platform": _told(_platform),
        "host": _told(platform.node),
        "pid": os.getpid(),
        "cwd": _told(lambda: masker.text(str(Path.cwd()))),
        "argv": _told(lambda: masker.arguments(_command_line())),
        "cpus": _told(_cpus),
        "memory_bytes": _told(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "gpus": _told(_gpus) or [],
        "packages": _told(_packages) or {},
        "variables": {name: masker.text(os.environ[name]) for name in _VARIABLES if name in os.environ},
        "git_commit": _told(_git_commit),
    }


def _told(ask: Callable[[], Any]) -> Any:
    """Return an answer, None where the system has none."""
    try:
        return ask()
    except Exception:
        return None


def _platform() -> str:
    """Return system, release and machine."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def _command_line() -> list[str]:
    """Return the command line, each argument bounded."""
    return [argument[:1000] for argument in sys.argv[:200]]


def _cpus() -> int | None:
    """Return the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _gpus() -> list[str]:
    """Return the names of the GPUs: from torch if it has already started CUDA, else from the driver's own files."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return [str(cuda.get_device_name(i)) for i in range(cuda.device_count())]
    names = []
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in information.read_text().splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names


def _packages() -> dict[str, str]:
    """Return the versions of the installed packages that matter, none of them imported."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _git_commit() -> str | None:
    """Return the commit checked out where the process runs, read from git's files."""
    cwd = Path.cwd()
    for folder in (cwd, *cwd.parents):
        git = folder / ".git"
        if git.is_file():  # a worktree or submodule: "gitdir: <path>"
            git = (folder / git.read_text().partition(":")[2].strip()).resolve()
        if git.is_dir():
            return _head(git)
    return None


def _head(git: Path) -> str | None:
    """Return the commit that HEAD of a git directory names."""
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head
    name = head.partition(":")[2].strip()
    common = git / "commondir"
    shared = (git / common.read_text().strip()) if common.is_file() else git
    for place in (git, shared):
        if (place / name).is_file():
            return (place / name).read_text().strip()
    for line in (shared / "packed-refs").read_text().splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return None
