"""Public training histories: every one reads with the counts of their index, or for a reason written here.

The histories lie outside of the project; without them these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.decisions import judge_run
from sightline.runs import Run
from sightline.sources import read_runs

FOLDER = Path(os.environ.get("SIGHTLINE_SHARED", Path(__file__).parents[2] / "../shared")) / "runs"
pytestmark = pytest.mark.skipif(not (FOLDER / "index.jsonl").is_file(), reason="the public histories are not here")

REASONS = {
    "several runs": "the index counts all runs of the log together; here each is a run of its own",
    "repeated step": "a step logged again replaces what stood there: the run was resumed, or two processes wrote",
    "other lines": "the index counts one kind of line only; the log has losses in another kind, or of trainings, too",
}
"""Why a count may differ from the index; ``reason`` finds out which, from the log and not from its name."""


def entries() -> list[dict[str, Any]]:
    """Return the index."""
    if not (FOLDER / "index.jsonl").is_file():
        return []
    return [json.loads(line) for line in (FOLDER / "index.jsonl").read_text().splitlines()]


def counts(run: Run) -> tuple[int, int]:
    """Return the number of training losses and of evaluations."""
    return tuple(0 if curve is None else len(curve) for curve in (run.train_loss, run.eval_loss))  # type: ignore[return-value]


def reason(entry: dict[str, Any], runs: list[Run]) -> str | None:
    """Return why the counts of a log differ from its index, None if nothing explains it."""
    expected = entry["n_train"], entry["n_eval"]
    together = tuple(map(sum, zip(*map(counts, runs), strict=True)))
    if len(runs) > 1 and all(mine <= theirs for mine, theirs in zip(together, expected, strict=True)):
        return "several runs"
    if len(runs) > 1:
        return "other lines" if "evaluations outside of any training were left out" in runs[0].damage[-1] else None
    (run,) = runs
    found = counts(run)
    if any("several processes" in sentence for sentence in run.damage) or len(run.segments) > 1:
        return "repeated step"
    content = (FOLDER / entry["file"]).read_text(errors="replace")
    if all(mine <= theirs for mine, theirs in zip(found, expected, strict=True)):
        lines = [line for line in content.splitlines() if run.last_step is not None and str(run.last_step) in line]
        values = [json.dumps(curve.values[-1]) for curve in (run.train_loss, run.eval_loss) if curve is not None]
        repeated = sum(all(value in line for value in values) for line in lines) > 1
        return "repeated step" if repeated or _has_doubles(entry) else None
    if found[1] == expected[1] and expected[0] == 0 and "train_loss" in content:
        return "other lines"
    return None


def _has_doubles(entry: dict[str, Any]) -> bool:
    """Return whether a table or a JSON list counts one step twice."""
    path = FOLDER / entry["file"]
    if path.suffix == ".csv":
        steps = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
    elif path.suffix == ".json":
        value = json.loads(path.read_text())
        steps = [str(row.get("step")) for row in value] if isinstance(value, list) else []
    else:
        return False
    return len(set(steps)) < len(steps)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry["file"][-60:])
def test_counts_and_minimum(entry: dict[str, Any]) -> None:
    """Training points, evaluations, the lowest validation loss and where it stands are the index's."""
    runs, errors = read_runs([FOLDER / entry["file"]])
    assert not errors and runs
    if len(runs) > 1 or counts(runs[0]) != (entry["n_train"], entry["n_eval"]):
        assert reason(entry, runs) in REASONS
        return
    curve = runs[0].eval_loss
    if not entry["n_eval"] or curve is None or not np.isfinite(curve.values).any():
        return
    lowest = int(np.nanargmin(curve.values))
    assert curve.values[lowest] == pytest.approx(entry["eval_min"], rel=1e-6)
    where = {int(curve.steps[lowest]), lowest}
    epochs = runs[0].curves.get("epoch")
    if epochs is not None and epochs.at(int(curve.steps[lowest])) is not None:
        where.add(epochs.at(int(curve.steps[lowest])))  # type: ignore[arg-type]
    assert entry["eval_min_at"] in where or entry.get("eval_min_index") == lowest


def doubles() -> list[list[str]]:
    """Return the files that tell one and the same run."""
    by_run: dict[str, list[str]] = {}
    for entry in entries():
        by_run.setdefault(entry["run"], []).append(entry["file"])
    return [files for files in by_run.values() if len(files) > 1]


def agree(a: Run, b: Run) -> bool:
    """Return whether two runs tell the same losses at the steps they share, to the digits of the coarser one."""
    shared = 0
    for mine, theirs in ((a.train_loss, b.train_loss), (a.eval_loss, b.eval_loss)):
        if mine is not None and theirs is not None:
            steps = np.intersect1d(mine.steps, theirs.steps).tolist()
            pairs = [(mine.at(step), theirs.at(step)) for step in steps]
            shared += len(pairs)
            if pairs and not np.allclose(*zip(*pairs, strict=True), rtol=2e-3, atol=1e-4, equal_nan=True):
                return False
    return shared > 1


def same_points(a: Run, b: Run) -> bool:
    """Return whether two runs have their training losses and evaluations at the same steps."""
    return all(
        (mine is None and theirs is None)
        or (mine is not None and theirs is not None and np.array_equal(mine.steps, theirs.steps))
        for mine, theirs in ((a.train_loss, b.train_loss), (a.eval_loss, b.eval_loss))
    )


@pytest.mark.parametrize("files", doubles(), ids=lambda files: files[0][-50:])
def test_one_run_in_several_formats(files: list[str]) -> None:
    """Every file of a run agrees with another one of it (a script that trained twice has a state of each training).

    Where both tell the same points they get the same verdict, the best step up to the digits of the coarser.
    """
    read = {file: read_runs([FOLDER / file])[0] for file in files}
    for file, runs in read.items():
        others = [run for other, theirs in read.items() if other != file for run in theirs]
        pairs = [(run, other) for run in runs for other in others if agree(run, other)]
        assert pairs, file
        for run, other in pairs:
            if same_points(run, other):
                mine, theirs = judge_run(run).diagnosis, judge_run(other).diagnosis
                assert mine.phase is theirs.phase
                assert (mine.best is None) == (theirs.best is None)
                if mine.best and theirs.best and run.eval_loss is not None:
                    assert run.eval_loss.at(theirs.best.step) == pytest.approx(mine.best.eval_loss, rel=1e-3)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return what `sightline read --json` prints of the whole folder, through a process."""
    command = [sys.executable, "-m", "sightline", "read", str(FOLDER), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1) and not done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_every_file_is_a_run_or_a_named_error(document: dict[str, Any]) -> None:
    """The command answers for every file of the index, and for none of the folder's that holds no history."""
    told = {Path(each["path"]) for each in (*document["runs"], *document["errors"])}
    missing = [e["file"] for e in entries() if not told & {(p := FOLDER / e["file"]), p.parent}]
    assert missing == [] and document["errors"] == []
