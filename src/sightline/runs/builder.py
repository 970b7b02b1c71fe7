"""RunBuilder: gathers points in the order they come and builds the Run they make.

The live recorder, the journal's reader and the readers of foreign logs share it, so all of them treat a
resume, a duplicated step and a superseded tail alike.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline.runs.checkpoint import Checkpoint
from sightline.runs.curve import Curve
from sightline.runs.evaluation import Evaluation
from sightline.runs.gold import Judgement
from sightline.runs.run import Run, Segment, Status


class _Points:
    """One growing curve; steps may come in any order, the last value of a step counts."""

    __slots__ = ("steps", "values")

    def __init__(self) -> None:
        self.steps = array("q")
        self.values = array("d")

    def curve(self) -> Curve:
        return Curve.of(np.array(self.steps, dtype=np.int64), np.array(self.values, dtype=np.float64))

    def drop_last(self, step: int, value: float) -> None:
        """Drop the last point if it is this one; NaN is NaN here."""
        same = bool(self.steps) and self.steps[-1] == step
        if same and (self.values[-1] == value or (math.isnan(self.values[-1]) and math.isnan(value))):
            del self.steps[-1], self.values[-1]

    def drop_after(self, step: int) -> None:
        if self.steps and self.steps[-1] <= step and len(self.steps) == 1:
            return
        ordered = all(a <= b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if ordered:
            keep = bisect_right(self.steps, step)
            del self.steps[keep:], self.values[keep:]
            return
        kept = [(s, v) for s, v in zip(self.steps, self.values, strict=True) if s <= step]
        self.steps, self.values = array("q", (s for s, _ in kept)), array("d", (v for _, v in kept))


@dataclass(slots=True)
class RunBuilder:
    """A run while it is being read or recorded; the fields are those of Run."""

    path: Path
    format: str
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    status: Status = Status.UNKNOWN
    end_reason: str | None = None
    max_steps: int | None = None
    step_unit: Literal["step", "epoch", "index"] = "step"
    significant_digits: int | None = None
    train_metric: str = "loss"
    eval_metric: str = "eval_loss"
    damage: list[str] = field(default_factory=list)
    _points: dict[str, _Points] = field(default_factory=dict)
    _evaluations: dict[int, Evaluation] = field(default_factory=dict)
    _checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    _judgements: list[Judgement] = field(default_factory=list)
    _segments: list[Segment] = field(default_factory=list)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one step, by canonical name."""
        points = self._points
        for name, value in metrics.items():
            curve = points.get(name)
            if curve is None:
                curve = points[name] = _Points()
            curve.steps.append(step)
            curve.values.append(value)

    def extend(self, name: str, steps: Iterable[int], values: Iterable[float]) -> None:
        """Add many points of one metric at once."""
        curve = self._points.setdefault(name, _Points())
        curve.steps.extend(steps)
        curve.values.extend(values)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Add an exact evaluation; its loss (and the probe's) become points of the curves too.

        Where the Trainer's own number of the same pass was logged before, the exact one takes its place.
        """
        self._evaluations[evaluation.step] = evaluation
        metrics = {self.eval_metric: evaluation.eval_loss}
        if evaluation.reported_loss is not None:
            metrics["eval_loss_reported"] = evaluation.reported_loss
            if own := self._points.get(self.eval_metric):
                own.drop_last(evaluation.step, evaluation.reported_loss)
        if (probe_loss := evaluation.probe_loss) is not None:
            metrics["probe_loss"] = probe_loss
        self.log(evaluation.step, metrics)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, or replace what was known of the one at its step."""
        self._checkpoints[checkpoint.step] = checkpoint

    def judgement(self, judgement: Judgement) -> None:
        """Add what a gold set says."""
        self._judgements.append(judgement)

    def segment(self, segment: Segment) -> None:
        """Begin a start or a resume: points after its step are superseded and leave the curves."""
        for points in self._points.values():
            points.drop_after(segment.from_step)
        self._evaluations = {s: e for s, e in self._evaluations.items() if s <= segment.from_step}
        self._judgements.clear()  # the run goes on: what was said of its checkpoints is to be said anew
        self._segments.append(segment)
        self.status, self.end_reason = Status.UNKNOWN, None

    def build(self) -> Run:
        """Return the run as it stands."""
        return Run(
            path=self.path,
            format=self.format,
            name=self.name,
            curves={name: points.curve() for name, points in self._points.items() if points.steps},
            evaluations=tuple(self._evaluations[s] for s in sorted(self._evaluations)),
            checkpoints=tuple(self._checkpoints[s] for s in sorted(self._checkpoints)),
            judgements=tuple(self._judgements),
            segments=tuple(self._segments),
            config=dict(self.config),
            status=self.status,
            end_reason=self.end_reason,
            max_steps=self.max_steps,
            step_unit=self.step_unit,
            significant_digits=self.significant_digits,
            train_metric=self.train_metric,
            eval_metric=self.eval_metric,
            damage=tuple(self.damage),
        )
