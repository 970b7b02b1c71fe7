"""The header of a safetensors file: names, types, shapes and places of its tensors, nothing of their values.

A file is eight bytes of header length, a JSON header, and the tensors back to back. The format promises no overlap, no
gap and no byte after the last tensor [1]_; all of it is checked, because a file cut short, two files mixed, or a header
somebody made up break one of these first.

References
----------
.. [1] https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.checkpoints.small_json import parsed
from sightline.errors import CheckpointError, SourceError
from sightline.sources.files import open_regular

FORMAT_LIMIT_BYTES = 100_000_000
"""The format's own limit on a header."""
HEADER_LIMIT_BYTES = 16 << 20
"""Largest header that is read: room for some 75 000 tensors in one file."""
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of one value by type."""
_MOST_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies."""

    dtype: str
    """As the header names it: ``F32``, ``BF16``, …"""
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte in the file."""
    end: int
    """Offset after its last byte."""

    @property
    def size_bytes(self) -> int:
        """Bytes it takes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says it holds."""

    path: Path
    tensors: Mapping[str, Tensor]
    """In the order they lie in the file."""
    metadata: Mapping[str, str]

    @property
    def parameters(self) -> int:
        """Values of all tensors together."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file; tensors are not read, links not followed.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Header

    Raises
    ------
    CheckpointError
        If the file cannot be opened, its header is not as the format wants it, or the file is not as long as it says.
    """
    try:
        with open_regular(path) as file:
            size = path.lstat().st_size
            head = file.read(8)
            length = _header_length(path, head, size)
            raw = file.read(length)
    except SourceError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(raw) < length:
        raise CheckpointError(f"{path}: ends within its header")
    told = parsed(raw, path)
    if not isinstance(told, dict):
        raise CheckpointError(f"{path}: its header is no object of tensors")
    metadata = told.pop("__metadata__", None)
    if raw.count(b'"data_offsets"') > len(told):
        raise CheckpointError(f"{path}: its header names a tensor twice")
    tensors = {str(name): _tensor(path, str(name), entry, 8 + length) for name, entry in told.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))
    _check_places(path, ordered, 8 + length, size)
    return Header(path, ordered, metadata if isinstance(metadata, dict) else {})


def _header_length(path: Path, head: bytes, size: int) -> int:
    if len(head) < 8:
        raise CheckpointError(f"{path}: {size} bytes, too few for a safetensors header")
    length: int = struct.unpack("<Q", head)[0]
    if length > FORMAT_LIMIT_BYTES:
        raise CheckpointError(f"{path}: its header claims {length} bytes, the format allows {FORMAT_LIMIT_BYTES}")
    if length > size - 8:
        raise CheckpointError(f"{path}: its header claims {length} bytes, the file has {size}")
    if length > HEADER_LIMIT_BYTES:
        raise CheckpointError(
            f"{path}: its header has {length} bytes, more than the {HEADER_LIMIT_BYTES} that are read"
        )
    return length


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, start, end)) and len(shape) <= _MOST_DIMENSIONS
    except (TypeError, KeyError, ValueError, IndexError, AttributeError):
        whole, dtype, shape, start, end = False, None, (), 0, 0
    if not whole or not isinstance(shape, list):
        raise CheckpointError(f"{path}: {_short(name)}: no dtype, shape and data_offsets as the format wants them")
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise CheckpointError(f"{path}: {_short(name)}: unknown type {_short(str(dtype))}")
    expected = -(-math.prod(shape) * bits // 8)
    if end - start != expected:
        raise CheckpointError(
            f"{path}: {_short(name)}: {end - start} bytes where {dtype} of shape {_short(str(shape))} takes {_short(str(expected))}"
        )
    return Tensor(dtype, tuple(shape), data_start + start, data_start + end)


def _check_places(path: Path, tensors: Mapping[str, Tensor], data_start: int, size: int) -> None:
    """Check that the tensors lie back to back from the header to the end of the file."""
    end = data_start
    for name, tensor in tensors.items():
        if tensor.start != end:
            what = "overlaps the tensor before it" if tensor.start < end else "leaves a gap before it"
            raise CheckpointError(f"{path}: {_short(name)}: {what} (starts at {tensor.start}, expected {end})")
        end = tensor.end
    if end != size:
        what = "cut short" if size < end else "with bytes that belong to no tensor"
        raise CheckpointError(f"{path}: {what}: {size} bytes where its header describes {end}")


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."
