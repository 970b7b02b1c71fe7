"""Real gloo processes for the tests: ``on_ranks(work, world_size)`` runs a module-level function on each."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(work: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """Return what ``work(*args)`` returned on each rank, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_one, (work, world_size, folder, args), nprocs=world_size)
        return [pickle.loads((Path(folder) / f"{rank}").read_bytes()) for rank in range(world_size)]  # noqa: S301


def _one(rank: int, work: Callable[..., Any], world_size: int, folder: str, args: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    try:
        (Path(folder) / f"{rank}").write_bytes(pickle.dumps(work(*args)))
        dist.barrier()
    finally:
        dist.destroy_process_group()
