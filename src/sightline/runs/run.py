"""Run: everything known of one training run, whoever logged it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from sightline.runs.checkpoint import Checkpoint
from sightline.runs.curve import Curve
from sightline.runs.evaluation import Evaluation
from sightline.runs.gold import Judgement


class Status(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    """A living process records it."""
    FINISHED = "finished"
    STOPPED = "stopped"
    """Ended early by a decision or by the user's signal, on purpose."""
    FAILED = "failed"
    """Ended by an error, or its process died without a word."""
    UNKNOWN = "unknown"
    """The log does not say."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A start or a resume of a run."""

    from_step: int
    """``global_step`` it went on from; 0 for a fresh start."""
    started: float | None = None
    """Unix time in seconds."""


@dataclass(frozen=True, eq=False, slots=True)
class Run:
    """Everything known of one training run."""

    path: Path
    """The file or folder it was read from."""
    format: str
    """Name of the reader: ``journal``, ``trainer_state``, ``console``, ``tensorboard``, ``wandb``, ``csv``, …"""
    name: str
    """Short name for people."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Every metric by its canonical name (``sightline.runs.names``)."""
    evaluations: tuple[Evaluation, ...] = ()
    """Evaluations whose losses are known exactly, by ascending step; other logs only have the ``eval_loss`` curve."""
    checkpoints: tuple[Checkpoint, ...] = ()
    """Saved states by ascending step."""
    judgements: tuple[Judgement, ...] = ()
    """What gold sets say of its checkpoints, the newest last."""
    segments: tuple[Segment, ...] = ()
    """Starts and resumes in order."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Training arguments and whatever else the log tells of the set-up."""
    status: Status = Status.UNKNOWN
    end_reason: str | None = None
    """Why it ended, in words."""
    max_steps: int | None = None
    """Optimizer steps planned."""
    step_unit: Literal["step", "epoch", "index"] = "step"
    """What ``steps`` count: optimizer steps, or epochs or log entries where the log has no steps."""
    significant_digits: int | None = None
    """Digits to which the log rounds its values (the Trainer's console: 4); None for full precision."""
    train_metric: str = "loss"
    """Name of the curve judged as training loss."""
    eval_metric: str = "eval_loss"
    """Name of the curve judged as validation loss."""
    damage: tuple[str, ...] = ()
    """What of the log could not be read, a sentence each."""

    @property
    def train_loss(self) -> Curve | None:
        """The logged training loss (Trainer: mean of batch means, in train mode)."""
        return self.curves.get(self.train_metric)

    @property
    def eval_loss(self) -> Curve | None:
        """The validation loss the run is judged by."""
        return self.curves.get(self.eval_metric)

    @property
    def last_step(self) -> int | None:
        """Highest step of any curve, None for a run without points."""
        lasts = [int(curve.steps[-1]) for curve in self.curves.values() if len(curve)]
        return max(lasts, default=None)

    @property
    def has_ended(self) -> bool:
        """Whether the run is over, by its own word or by its plan."""
        last, planned = self.last_step, self.max_steps
        over = planned is not None and last is not None and last >= planned
        return over or self.status in (Status.FINISHED, Status.STOPPED, Status.FAILED)

    def until(self, step: int) -> Run:
        """Return the run as it stood at ``step``: no later point, evaluation or checkpoint, still running."""
        return replace(
            self,
            curves={name: cut for name, curve in self.curves.items() if len(cut := curve.until(step))},
            evaluations=tuple(e for e in self.evaluations if e.step <= step),
            checkpoints=tuple(c for c in self.checkpoints if c.step <= step),
            judgements=(),
            segments=tuple(s for s in self.segments if s.from_step <= step),
            status=Status.RUNNING,
            end_reason=None,
        )
