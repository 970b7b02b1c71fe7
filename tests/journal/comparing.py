"""Runs made comparable: records hold arrays, and NaN equals nothing; where their journal lies, and what is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sightline.runs import Evaluation, ExampleLosses, Finding, Run, Severity

FINDING = Finding("x", Severity.INFO, "something")
EVALUATION = Evaluation(2, 1.5, ExampleLosses(np.array([3.0, 4.5]), np.array([2, 3])))


def plain(run: Run) -> dict[str, Any]:
    """Return everything a run holds as plain values, floats as their exact text."""
    return {
        "name": run.name,
        "format": run.format,
        "config": dict(run.config),
        "max_steps": run.max_steps,
        "curves": {
            name: (curve.steps.tolist(), [float(value).hex() for value in curve.values])
            for name, curve in sorted(run.curves.items())
        },
        "evaluations": [_evaluation(evaluation) for evaluation in run.evaluations],
        "checkpoints": [(c.step, str(c.path), c.size_bytes, c.verified, c.deleted) for c in run.checkpoints],
        "judgements": repr(run.judgements),
        "segments": [(segment.from_step, segment.started) for segment in run.segments],
        "status": run.status.value,
        "end_reason": run.end_reason,
        "damage": list(run.damage),
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "step": evaluation.step,
        "eval_loss": float(evaluation.eval_loss).hex(),
        "reported_loss": _hex(evaluation.reported_loss),
        "runtime_s": _hex(evaluation.runtime_s),
        "losses": _rows(evaluation.losses),
        "probe": _rows(evaluation.probe),
    }


def _rows(losses: ExampleLosses | None) -> Any:
    if losses is None:
        return None
    return ([float(value).hex() for value in losses.loss_sums], losses.token_counts.tolist())


def _hex(value: float | None) -> str | None:
    return None if value is None else float(value).hex()


def journal(output_dir: Path) -> Path:
    """Return the journal of a run folder."""
    return output_dir / "sightline" / "journal.jsonl"
