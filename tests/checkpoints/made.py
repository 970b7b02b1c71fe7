"""Checkpoints made without a Trainer and without torch: the same files, small, in a millisecond."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "I64": "<i8"}


def safetensors_bytes(tensors: Mapping[str, tuple[str, np.ndarray]], **header: Any) -> bytes:
    """Return a safetensors file of arrays that already hold the bits of their type; ``header`` overrides entries."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blob = b""
    for name, (dtype, array) in tensors.items():
        raw = np.ascontiguousarray(array, DTYPES[dtype]).tobytes()
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    return file_of(entries | header, blob)


def file_of(header: Any, blob: bytes = b"") -> bytes:
    """Return header length, header and data as a safetensors file has them."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + blob


def weights(step: int = 1, seed: int = 0, scale: float = 0.1) -> dict[str, tuple[str, np.ndarray]]:
    """Return the tensors of a small model that moves a little with every step."""
    start, moved = np.random.default_rng(seed), np.random.default_rng(seed * 1000 + step + 1)
    shapes = {"embed.weight": (12, 4), "layer.weight": (4, 4), "layer.bias": (4,)}
    return {
        name: ("F32", start.normal(size=shape) + scale * step * moved.normal(size=shape))
        for name, shape in shapes.items()
    }


def lora(step: int = 1, zero_b: bool = False) -> dict[str, tuple[str, np.ndarray]]:
    """Return the two matrices of one LoRA module."""
    random = np.random.default_rng(step)
    b = np.zeros((6, 2)) if zero_b else random.normal(size=(6, 2))
    prefix = "base_model.model.layers.0.q_proj."
    return {
        prefix + "lora_A.weight": ("F32", random.normal(size=(2, 5))),
        prefix + "lora_B.weight": ("F32", b),
    }


def history(evals: Mapping[int, float], *, until: int | None = None) -> list[dict[str, float]]:
    """Return a log_history with a training loss and a validation loss at each step."""
    log: list[dict[str, float]] = []
    for step, loss in evals.items():
        if until is None or step <= until:
            log.append({"epoch": step / 10, "loss": 3.0 + 1.0 / step, "learning_rate": 1e-4, "step": step})
            log.append({"epoch": step / 10, "eval_loss": loss, "eval_runtime": 0.5, "step": step})
    return log


def torch_zip(path: Path, seed: int = 0) -> None:
    """Write what torch.save writes, with nothing in it that is a pickle."""
    payload = np.random.default_rng(seed).bytes(500)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in ("archive/data.pkl", "archive/data/0", "archive/version"):
            archive.writestr(name, payload)


def make_checkpoint(
    folder: Path,
    step: int,
    log_history: Sequence[Mapping[str, float]] = (),
    *,
    tensors: Mapping[str, tuple[str, np.ndarray]] | None = None,
    adapter: bool = False,
    max_steps: int = 100,
    save_steps: int = 10,
    **state: Any,
) -> Path:
    """Write one whole checkpoint and return its folder."""
    folder.mkdir(parents=True)
    held = tensors if tensors is not None else lora(step) if adapter else weights(step)
    if adapter:
        config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "revision": None, "r": 2}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(held))
    else:
        (folder / "config.json").write_text('{"model_type": "gpt2"}\n')
        (folder / "model.safetensors").write_bytes(safetensors_bytes(held))
    for i, name in enumerate(("optimizer.pt", "scheduler.pt", "rng_state.pth")):
        torch_zip(folder / name, seed=step * 10 + i)
    told = {
        "best_global_step": None, "best_metric": None, "best_model_checkpoint": None, "epoch": step / 10,
        "eval_steps": 10, "global_step": step, "log_history": list(log_history), "logging_steps": 10,
        "max_steps": max_steps, "num_train_epochs": 10, "save_steps": save_steps, "train_batch_size": 4,
    } | state  # fmt: skip
    (folder / "trainer_state.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
    return folder


def make_run(folder: Path, evals: Mapping[int, float], saved: Sequence[int] | None = None, **options: Any) -> Path:
    """Write the output folder of a run: evaluations at some steps, saves at some of them."""
    for step in evals if saved is None else saved:
        make_checkpoint(folder / f"checkpoint-{step}", step, history(evals, until=step), **options)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, links as where they lead."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
