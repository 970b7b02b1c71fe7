"""Runs of a known course, put together from their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.runs import Curve, Diagnosis, Evaluation, ExampleLosses, Run, Status

SPACING = 20  # optimizer steps between evaluations


def run_of(
    eval_loss: Sequence[float] | np.ndarray,
    loss: Sequence[float] | np.ndarray | None = None,
    *,
    curves: Mapping[str, Curve] | None = None,
    config: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Run:
    """Return a run evaluated every SPACING steps, its training losses spread evenly over the same steps."""
    n = len(eval_loss)
    found = {"eval_loss": Curve.of(SPACING * np.arange(1, n + 1), eval_loss)} if n else {}
    if loss is not None:
        every = max(1, SPACING * n // len(loss)) if n else 10
        found["loss"] = Curve.of(every * np.arange(1, len(loss) + 1), loss)
    return Run(Path("made"), "test", "made", curves={**found, **(curves or {})}, config=config or {}, **fields)


def noisy(shape: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    """Return a shape times exp of independent normal errors."""
    return shape * np.exp(noise * np.random.default_rng(seed).standard_normal(shape.size))


def falling(n: int, floor: float = 1.5) -> np.ndarray:
    """Return a loss that falls and settles."""
    return floor + np.exp(-12.0 * np.arange(1, n + 1) / n)


def turning(n: int, height: float = 0.4, floor: float = 1.5) -> np.ndarray:
    """Return a loss that rises by a share of itself in the second half."""
    done = np.arange(1, n + 1) / n
    return falling(n, floor) * (1.0 + height * np.maximum(done - 0.5, 0.0) / 0.5)


def learnt(n: int) -> np.ndarray:
    """Return a training loss that falls to the end."""
    return 2.0 * np.exp(-1.5 * np.arange(1, n + 1) / n)


def kinds(diagnosis: Diagnosis) -> set[str]:
    """Return the kinds of what was found."""
    return {finding.kind for finding in diagnosis.findings}


def with_rows(run: Run, rows: int, spread: float, seed: int = 0) -> Run:
    """Give a run exact losses row by row, their means its validation losses; rows differ in how they change."""
    rng = np.random.default_rng(seed)
    curve = run.curves["eval_loss"]
    tokens = rng.integers(5, 60, rows)
    level = rng.gamma(4.0, 0.25, rows)
    found = []
    for step, mean in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
        each = level + spread * rng.standard_normal(rows)
        sums = each * tokens
        sums += (mean * tokens.sum() - sums.sum()) * tokens / tokens.sum()
        found.append(Evaluation(step, mean, ExampleLosses(sums, tokens)))
    return replace(run, evaluations=tuple(found))


def live(run: Run) -> Run:
    """Return a run as one that goes on."""
    return replace(run, status=Status.RUNNING)
