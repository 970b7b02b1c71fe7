"""Checkpoint: a saved state of the model, as the run's history knows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state of the model."""

    step: int
    """``global_step`` of the weights."""
    path: Path
    """Its folder, for example ``outputs/checkpoint-500``."""
    size_bytes: int | None = None
    """Bytes on disk, None where nobody measured."""
    verified: bool = False
    """True once its files were compared with what was written."""
    deleted: bool = False
    """True when rotation has removed it since."""
