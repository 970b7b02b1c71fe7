"""The values of a checkpoint's weights: what no healthy training gives, and what has not moved since the last save."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sightline.checkpoints.headers import Header, Tensor, read_header
from sightline.checkpoints.parts import sizes_of, weights_of
from sightline.checkpoints.problem import Problem
from sightline.checkpoints.values import FLOATS, ValueCount, count_values, raw_chunks
from sightline.errors import CheckpointError, SourceError
from sightline.sources.files import open_regular

_SHOWN = 3
_LORA_STARTS_AT_ZERO = ("lora_B", "lora_embedding_A")
_LORA_NEVER_ZERO = ("lora_A", "lora_embedding_B")


@dataclass(frozen=True, slots=True)
class _Seen:
    """One tensor after it was read."""

    file: str
    name: str
    tensor: Tensor
    count: ValueCount

    @property
    def is_lora_b(self) -> bool:
        """Whether it is the half of a LoRA that starts at zero: B, of an embedding A."""
        return any(part in _LORA_STARTS_AT_ZERO for part in self.name.split("."))

    @property
    def may_be_zero(self) -> bool:
        """Whether zeros are no sign of damage: most kinds of adapters start with a matrix of them."""
        never = any(part in _LORA_NEVER_ZERO for part in self.name.split("."))
        return self.file.startswith("adapter_model") and not never


def look_at_values(headers: Sequence[Header], previous: Path | None) -> tuple[list[Problem], tuple[str, ...]]:
    """Read the weights once, piece by piece, and say what is wrong with their values.

    Parameters
    ----------
    headers : sequence of Header
        The safetensors files of one checkpoint.
    previous : Path, optional
        The checkpoint before it.

    Returns
    -------
    problems : list of Problem
        NaN, infinite values and matrices of zeros are damage; a LoRA that still does nothing, and weights that are
        the same as in the checkpoint before, are not.
    notes : tuple of str
        What may be meant so: vectors of zeros, single tensors that have not moved.
    """
    problems: list[Problem] = []
    seen: list[_Seen] = []
    for header in headers:
        try:
            with open_regular(header.path) as file:
                seen += [
                    _Seen(header.path.name, name, tensor, count_values(file, tensor))
                    for name, tensor in header.tensors.items()
                ]
        except (OSError, SourceError) as error:
            problems.append(Problem("unreadable", header.path.name, str(error).removeprefix(f"{header.path}: ")))
    problems += [*_not_finite(seen), *_zero_matrices(seen), *_untrained_lora(seen)]
    notes = _notes_on_zeros(seen)
    if previous is not None and headers:
        unmoved, of = _unmoved(headers, previous)
        if of and len(unmoved) == of:
            problems.append(Problem("unlearned", "", f"every weight is the same as in {previous.name}"))
        elif unmoved:
            notes.append(f"{len(unmoved)} of {of} tensors have not moved since {previous.name}: {_list(unmoved)}")
    return problems, tuple(notes)


def _not_finite(seen: Sequence[_Seen]) -> Iterator[Problem]:
    for file, tensors in _by_file(s for s in seen if s.count.nan or s.count.infinite).items():
        nan, infinite = sum(s.count.nan for s in tensors), sum(s.count.infinite for s in tensors)
        found = " and ".join(f"{n} {what}" for n, what in ((nan, "NaN"), (infinite, "infinite values")) if n)
        yield Problem("contents", file, f"{found} in {_list([s.name for s in tensors])}")


def _zero_matrices(seen: Sequence[_Seen]) -> Iterator[Problem]:
    for file, tensors in _by_file(s for s in seen if _is_zero_matrix(s) and not s.may_be_zero).items():
        yield Problem("contents", file, f"nothing but zeros in {_list([s.name for s in tensors])}")


def _untrained_lora(seen: Sequence[_Seen]) -> Iterator[Problem]:
    all_b = [s for s in seen if s.is_lora_b]
    if all_b and all(s.count.is_zero for s in all_b):
        yield Problem("unlearned", all_b[0].file, f"all {len(all_b)} lora_B are still zero: the adapter does nothing")


def _notes_on_zeros(seen: Sequence[_Seen]) -> list[str]:
    notes = []
    all_b = [s for s in seen if s.is_lora_b]
    still_zero = [s.name for s in all_b if s.count.is_zero]
    if still_zero and len(still_zero) < len(all_b):
        notes.append(f"{len(still_zero)} of {len(all_b)} lora_B are still zero: {_list(still_zero)}")
    vectors = [s.name for s in seen if s.count.is_zero and len(s.tensor.shape) == 1 and s.tensor.dtype in FLOATS]
    others = [s.name for s in seen if _is_zero_matrix(s) and s.may_be_zero and not s.is_lora_b]
    if others:
        notes.append(f"{len(others)} matrices of the adapter are nothing but zeros: {_list(others)}")
    if vectors:
        notes.append(
            f"{len(vectors)} vectors are nothing but zeros, as biases that were never trained: {_list(vectors)}"
        )
    return notes


def _is_zero_matrix(seen: _Seen) -> bool:
    shape = seen.tensor.shape
    return seen.count.is_zero and len(shape) > 1 and seen.tensor.size_bytes > 0 and seen.tensor.dtype in FLOATS


def _unmoved(headers: Sequence[Header], previous: Path) -> tuple[list[str], int]:
    """Name the tensors whose bytes are the same in two checkpoints, and count those that both have."""
    earlier: dict[str, tuple[Path, Tensor]] = {}
    try:
        for name in weights_of(previous, sizes_of(previous))[0]:
            if name.endswith(".safetensors"):
                before = read_header(previous / name)
                earlier |= {tensor_name: (before.path, tensor) for tensor_name, tensor in before.tensors.items()}
    except CheckpointError:
        return [], 0  # the checkpoint before is damaged itself, which is its own verification's to say
    unmoved, compared = [], 0
    for header in headers:
        for name, tensor in header.tensors.items():
            path, other = earlier.get(name, (None, None))
            if path is None or other is None or (other.dtype, other.shape) != (tensor.dtype, tensor.shape):
                continue
            compared += 1
            if _same_bytes(header.path, tensor, path, other):
                unmoved.append(name)
    return unmoved, compared


def _same_bytes(path: Path, tensor: Tensor, other_path: Path, other: Tensor) -> bool:
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(open_regular(p)) for p in (path, other_path)]
            if any(os.path.samestat(os.fstat(files[0].fileno()), os.fstat(f.fileno())) for f in files[1:]):
                return True
            pairs = zip(raw_chunks(files[0], tensor), raw_chunks(files[1], other), strict=True)
            return all(one == two for one, two in pairs)
    except (OSError, SourceError):
        return False


def _by_file(seen: Iterator[_Seen]) -> Mapping[str, list[_Seen]]:
    files: dict[str, list[_Seen]] = {}
    for tensor in seen:
        files.setdefault(tensor.file, []).append(tensor)
    return files


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
