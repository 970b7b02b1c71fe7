"""Training runs of other people, gathered in a folder, as the benchmarks of the verdict use them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rules import Curves
from sightline.runs import Curve, Run
from sightline.sources import read_runs

FEWEST_EVALUATIONS = 10


@dataclass(frozen=True, eq=False, slots=True)
class RealRun:
    """A run with enough evaluations, and who published it."""

    run: Run
    evaluated: Curve
    """The finite validation losses."""
    repository: str

    @property
    def curves(self) -> Curves:
        """The run as the rules see it."""
        steps, values = self.evaluated.steps, self.evaluated.values
        train = self.run.train_loss
        known = np.full(len(steps), np.nan)
        if train is not None and len(train):
            at = np.searchsorted(train.steps, steps, side="right") - 1
            known = np.where(at >= 0, train.values[np.maximum(at, 0)], np.nan)
        log = None if train is None else tuple(zip(train.steps.tolist(), train.values.tolist(), strict=True))
        return Curves(steps, values, known, log)


def folder_of_runs() -> Path:
    """Return the folder to look in: $SIGHTLINE_RUNS, else shared/runs beside the project."""
    told = os.environ.get("SIGHTLINE_RUNS")
    return Path(told) if told else Path(__file__).resolve().parents[2] / "shared" / "runs"


def real_runs(folder: Path) -> list[RealRun]:
    """Read the runs of a folder that have at least ten evaluations of a loss; a run in several files counts once."""
    runs, _ = read_runs([folder])
    owners = _repositories(folder)
    found: dict[tuple[object, ...], RealRun] = {}
    for run in runs:
        curve = run.eval_loss
        if curve is None or run.config.get("not_a_loss") or len(finite := curve.finite()) < FEWEST_EVALUATIONS:
            continue
        if float(finite.values.min()) <= 0.0:
            continue
        key = (len(finite), f"{finite.values[0]:.3g}", f"{finite.values[-1]:.3g}", f"{finite.values.min():.3g}")
        known = found.get(key)
        if known is None or _knowledge(run) > _knowledge(known.run):
            found[key] = RealRun(run, finite, owners.get(_relative(run.path, folder), _owner(run.path, folder)))
    return list(found.values())


def _knowledge(run: Run) -> tuple[bool, int, int]:
    """Prefer the file of a run that knows its plan, then the one with most curves and points."""
    return run.max_steps is not None, len(run.curves), sum(len(curve) for curve in run.curves.values())


def _repositories(folder: Path) -> dict[str, str]:
    index = folder / "index.jsonl"
    if not index.is_file():
        return {}
    entries = (json.loads(line) for line in index.read_text().splitlines() if line.strip())
    return {entry["file"]: entry["repo"] for entry in entries}


def _relative(path: Path, folder: Path) -> str:
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return path.as_posix()


def _owner(path: Path, folder: Path) -> str:
    """Guess the repository from a file name like kind/owner__repository__rest."""
    parts = _relative(path, folder).split("/")
    name = parts[1] if len(parts) > 1 else parts[0]
    return "/".join(name.split("__")[:2])
