"""compare_weights(): which tensors moved between two checkpoints, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.checkpoints.headers import Tensor, read_header
from sightline.checkpoints.parts import sizes_of, weights_of
from sightline.checkpoints.values import FLOATS, VALUE_BYTES, floats, raw_chunks
from sightline.errors import CheckpointError, SourceError
from sightline.sources.files import open_regular

_VALUES = 1 << 16
"""Values compared at a time: few enough that a float32 sum of their squares is good to six digits."""
_LORA_LIMIT_BYTES = 256 << 20
"""Largest LoRA matrix whose product is compared."""


@dataclass(frozen=True, slots=True)
class TensorChange:
    """How one tensor moved."""

    name: str
    shape: tuple[int, ...]
    relative: float
    """Norm of the difference by the norm of the first: 0 for none, inf where the first is all zero."""
    largest: float
    """Largest absolute difference of a value."""
    share_changed: float
    """Share of the values that are not the same, 0 to 1."""


@dataclass(frozen=True, slots=True)
class WeightDifference:
    """What moved between two checkpoints."""

    first: Path
    second: Path
    changes: tuple[TensorChange, ...]
    """Every tensor that both have in one shape, the one that moved most first."""
    relative: float
    """The same over all of them together."""
    only_first: tuple[str, ...]
    """Tensors that the second has not."""
    only_second: tuple[str, ...]
    reshaped: tuple[str, ...]
    """Tensors whose shapes differ."""
    uncompared: tuple[str, ...]
    """Tensors of a type whose values cannot be read here."""
    adapter_relative: float | None = None
    """How far the product of the LoRA matrices moved, which is what the adapter adds to the base; None without."""

    @property
    def moved(self) -> int:
        """How many tensors are not the same to the last value."""
        return sum(change.share_changed > 0 for change in self.changes)


def compare_weights(first: Path, second: Path) -> WeightDifference:
    """Compare the weights of two checkpoints, piece by piece.

    Parameters
    ----------
    first, second : Path
        Folders with safetensors weights: two whole models, or two adapters.

    Returns
    -------
    WeightDifference

    Raises
    ------
    CheckpointError
        If weights are missing, damaged, or no safetensors, or the two have no tensor in common.
    """
    one, other = _tensors(first), _tensors(second)
    shared = [name for name in one if name in other]
    if not shared:
        raise CheckpointError(f"{first} and {second}: no tensor in common; is one an adapter and one a whole model?")
    comparable = [name for name in shared if one[name][1].shape == other[name][1].shape]
    known = [name for name in comparable if {one[name][1].dtype, other[name][1].dtype} <= VALUE_BYTES.keys()]
    sums, changes = np.zeros(2), []
    with ExitStack() as stack, np.errstate(all="ignore"):  # NaN and overflow are figures here, not accidents
        files = _opened(stack, {path for tensors in (one, other) for path, _ in tensors.values()})
        for name in known:
            change, squares = _change(name, one[name], other[name], files)
            changes.append(change)
            sums += squares
        product = _lora_change(one, other, files)
    return WeightDifference(
        first,
        second,
        tuple(sorted(changes, key=lambda change: (-change.relative, change.name))),
        _ratio(*sums),
        tuple(name for name in one if name not in other),
        tuple(name for name in other if name not in one),
        tuple(name for name in shared if name not in comparable),
        tuple(name for name in comparable if name not in known),
        product,
    )


_Place = tuple[Path, Tensor]


def _tensors(folder: Path) -> dict[str, _Place]:
    """Return every tensor of a checkpoint and where it lies."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    names, missing = weights_of(folder, sizes_of(folder))
    if missing or not names:
        raise CheckpointError(f"{folder}: {'; '.join(missing) or 'weights'} missing, so there is nothing to compare")
    if not all(name.endswith(".safetensors") for name in names):
        raise CheckpointError(
            f"{folder}: {names[0]} is a pickle, which is not opened; save with safetensors to compare"
        )
    places: dict[str, _Place] = {}
    for name in names:
        header = read_header(folder / name)
        places |= {tensor_name: (header.path, tensor) for tensor_name, tensor in header.tensors.items()}
    return places


def _opened(stack: ExitStack, paths: set[Path]) -> dict[Path, Any]:
    try:
        return {path: stack.enter_context(open_regular(path)) for path in paths}
    except SourceError as error:
        raise CheckpointError(str(error)) from None


def _change(
    name: str, one: _Place, other: _Place, files: Mapping[Path, Any]
) -> tuple[TensorChange, NDArray[np.float64]]:
    """Return how a tensor moved, and the squared norms of its difference and of its first value."""
    squares, largest, changed, count = np.zeros(2), 0.0, 0, math.prod(one[1].shape)
    try:
        for before, after in zip(_values(one, files), _values(other, files), strict=True):
            difference = after - before
            squares += (_squared(difference), _squared(before))
            largest = max(largest, float(difference.max(initial=0.0)), -float(difference.min(initial=0.0)))
            changed += int(np.count_nonzero(difference))
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read ({error.strerror or error})") from None
    return TensorChange(name, one[1].shape, _ratio(*squares), largest, changed / count if count else 0.0), squares


def _values(place: _Place, files: Mapping[Path, Any]) -> Any:
    """Yield the values of a tensor, as many at a time as the processor keeps at hand."""
    path, tensor = place
    for chunk in raw_chunks(files[path], tensor, _VALUES * VALUE_BYTES[tensor.dtype]):
        yield floats(chunk, tensor.dtype)


def _squared(values: NDArray[Any]) -> float:
    """Return the sum of squares: of few float32 as they are, else, or where they overflow, in float64."""
    total = float(values @ values)
    if math.isfinite(total):
        return total
    wide = values.astype(np.float64)
    return float(wide @ wide)


def _ratio(difference: float, first: float) -> float:
    """Return the ratio of two norms from their squares; NaN stays NaN."""
    if first == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return math.sqrt(difference / first)


def _lora_change(one: Mapping[str, _Place], other: Mapping[str, _Place], files: Mapping[Path, Any]) -> float | None:
    """Return how far B A moved over all modules, from products of r by r matrices: B A itself is never built.

    ||B2 A2 - B1 A1||^2 is the sum over i, j of +-1 times the elementwise product of B_i' B_j and A_i A_j'.
    """
    total = np.zeros(2)
    for name_a in one:
        name_b = name_a.replace("lora_A", "lora_B")
        if name_b == name_a or name_b not in one or not {name_a, name_b} <= other.keys():
            continue
        pairs = [(_matrix(side[name_a], files), _matrix(side[name_b], files)) for side in (one, other)]
        if any(a is None or b is None or a.shape[0] != b.shape[1] for a, b in pairs):
            continue
        inner = [[_inner(pairs[i], pairs[j]) for j in range(2)] for i in range(2)]
        total += (max(0.0, inner[0][0] + inner[1][1] - 2.0 * inner[0][1]), inner[0][0])
    return _ratio(*total) if total.any() else None


def _inner(one: Any, other: Any) -> float:
    """Return the sum of the elementwise product of B1 A1 and B2 A2."""
    return float(((one[1].T @ other[1]) * (one[0] @ other[0].T)).sum())


def _matrix(place: _Place, files: Mapping[Path, Any]) -> NDArray[np.float64] | None:
    path, tensor = place
    if len(tensor.shape) != 2 or tensor.dtype not in FLOATS or tensor.size_bytes > _LORA_LIMIT_BYTES:
        return None
    pieces = [floats(chunk, tensor.dtype).astype(np.float64) for chunk in raw_chunks(files[path], tensor)]
    return np.concatenate(pieces).reshape(tensor.shape) if pieces else np.zeros(tensor.shape)
