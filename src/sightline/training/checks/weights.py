"""What a model's weight files say without being loaded: shapes, parameters, single rows of a matrix.

A safetensors file begins with eight bytes of length and a JSON header with the type, shape and place of every tensor
(https://huggingface.co/docs/safetensors). Rows are read through a memory map, so an embedding of a gigabyte costs no
more than the rows asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "tok_embeddings.weight")
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MAX_HEADER = 100 * 2**20


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor stands."""

    shape: tuple[int, ...]
    dtype: str
    """Name of its type in safetensors: ``F32``, ``BF16`` …; empty where it is not known."""
    file: Path | None = None
    start: int = 0
    """Byte of the file at which its values begin."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of a model, none of them loaded."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    def named(self, endings: Sequence[str]) -> Tensor | None:
        """Return the first tensor whose name ends so."""
        return next((t for name, t in self.tensors.items() if name.endswith(tuple(endings))), None)

    def linear(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of the linear layers' matrices: all of two dimensions but embeddings and the head."""
        left_out = (*EMBEDDINGS, *HEADS, "wpe.weight", "embed_positions.weight", "norm.weight")
        return {
            name: tensor.shape
            for name, tensor in self.tensors.items()
            if len(tensor.shape) == 2 and name.endswith(".weight") and not name.endswith(left_out)
        }


def read_weights(folder: Path) -> Weights | None:
    """Read the headers of a folder's safetensors files.

    Parameters
    ----------
    folder : path
        A model in Hugging Face form.

    Returns
    -------
    Weights or None
        None where there is no safetensors file or a header is broken: loading the model will say so better.
    """
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        header = _header(file)
        if header is None:
            return None
        length, entries = header
        for name, entry in entries.items():
            if name != "__metadata__":
                start = 8 + length + int(entry["data_offsets"][0])
                tensors[name] = Tensor(tuple(entry["shape"]), str(entry["dtype"]), file, start)
    return Weights(tensors) if tensors else None


def planned_weights(config: Any) -> Weights | None:
    """Return the shapes a model of this config has, from the model built without memory (torch's meta device)."""
    try:
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception:  # whatever a model class makes of a config; the checks that need shapes are left out then
        return None
    return Weights({name: Tensor(tuple(p.shape), "") for name, p in model.named_parameters()})


def read_rows(tensor: Tensor, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Read rows of a matrix.

    Parameters
    ----------
    tensor : Tensor
        Of two dimensions.
    rows : sequence of int, shape (k,)
        Positions within it.

    Returns
    -------
    ndarray of float32, shape (k, columns), or None
        None where the type is not a plain float or the file is shorter than its header says.
    """
    kind = _NUMPY.get(tensor.dtype)
    if kind is None or tensor.file is None or len(tensor.shape) != 2:
        return None
    try:
        matrix = np.memmap(tensor.file, dtype=kind, mode="r", offset=tensor.start, shape=tensor.shape)
        values = np.array(matrix[np.asarray(rows, dtype=np.int64)])
    except (OSError, ValueError, IndexError):
        return None
    if tensor.dtype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _header(file: Path) -> tuple[int, dict[str, Any]] | None:
    """Return length and entries of a file's header; None where it is broken."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= _MAX_HEADER:
                return None
            entries = orjson.loads(stream.read(length))
        return (length, entries) if isinstance(entries, dict) else None
    except (OSError, orjson.JSONDecodeError):
        return None
