"""Runs of `sightline train` whose sample of validation rows is widened on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from sightline.decisions import replay
from sightline.journal import reader
from sightline.runs import Run, Status
from sightline.training.evaluation_plan import EvaluationPlan
from sightline.training.planner import Planner

from .small_runs import Told, run_of, write_demo_rows

ROOT = Path(__file__).parents[2]
FEW = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_demo_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Six of twenty rows are all that the time is thought to allow before the first step."""
    monkeypatch.setattr(Planner, "__call__", lambda planner, model: EvaluationPlan(FEW, 4))


def trained(data, folder, display=None, **changes):
    """Train too fast on few rows: the loss rises soon."""
    own = {"eval_steps": None, "evals_per_epoch": 10, "eval_time_budget": 0.95, "learning_rate": 3e-2} | changes
    return run_of(data, folder, display, **own)


def widths(run: Run) -> list[int]:
    return [len(e.losses.loss_sums) for e in run.evaluations]


def test_the_curve_is_one_from_the_journal_alone(data, tmp_path):
    """No jump where rows come in, raw numbers beside it, and the live verdict is that of the file."""
    display = Told()
    outcome = trained(data, tmp_path / "run", display)
    run = reader.read(tmp_path / "run")
    assert outcome.status is Status.FINISHED and widths(run)[0] == FEW < widths(run)[-1]
    for before, now in pairwise(run.evaluations):
        change = now.losses.first(len(before.losses.loss_sums)).loss - before.losses.loss
        assert now.eval_loss - before.eval_loss == pytest.approx(change, abs=1e-5)  # rows are kept in float32
        assert now.loss_of_rows == pytest.approx(now.losses.loss, rel=1e-6)
    assert run.eval_loss.values.tolist() == [e.eval_loss for e in run.evaluations]
    assert run.eval_loss.values.tolist() == outcome.verdict.run.eval_loss.values.tolist()
    assert len(run.config["validation_rows"]) == widths(run)[-1]
    assert any("validation rows are scored from step" in text for text in display.notices)
    assert any("of the run's time" in line for line in outcome.lines)
    assert any(finding.kind == "rows_added" for finding in outcome.verdict.diagnosis.findings)
    moments = replay(run).moments
    assert [m.eval_loss for m in moments] == run.eval_loss.values.tolist()
    for i in (3, len(moments) - 1):  # judged by what was known then
        assert moments[i] == replay(run.until(moments[i].step)).moments[-1]


def test_a_resumed_run_has_the_rows_and_the_level_it_had(data, tmp_path):
    """Cut after the widening, the continuation is the run left alone."""
    trained(data, tmp_path / "whole")
    whole = reader.read(tmp_path / "whole")
    at = next(e.step for e in whole.evaluations if e.measured_loss is not None) + 1
    trained(data, tmp_path / "cut", Told(stop_after=at))
    trained(data, tmp_path / "cut", resume=True)
    cut = reader.read(tmp_path / "cut")
    assert cut.status is Status.FINISHED and len(cut.segments) == 2
    assert [(e.step, e.eval_loss, e.measured_loss) for e in cut.evaluations] == [
        (e.step, e.eval_loss, e.measured_loss) for e in whole.evaluations
    ]
    assert widths(cut) == widths(whole)


RANKS = """
import sys
from pathlib import Path
from sightline.training.evaluation_plan import EvaluationPlan
from sightline.training.planner import Planner
from tests.training.test_widening import FEW, trained
Planner.__call__ = lambda planner, model: EvaluationPlan(FEW, 4)
trained(Path(sys.argv[1]), Path(sys.argv[1]) / "two")
"""


@pytest.mark.slow
def test_two_ranks_add_the_same_rows_at_the_same_step(tmp_path):
    """Rank 0 reads the clock and decides; every rank scores its share of the wider sample, and nobody hangs."""
    script = write_demo_rows(tmp_path) / "ranks.py"
    script.write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    subprocess.run([*command, str(tmp_path)], check=True, timeout=300, env={**os.environ, "PYTHONPATH": path})
    run = reader.read(tmp_path / "two")
    assert run.status is Status.FINISHED and widths(run)[0] == FEW < widths(run)[-1]
    for before, now in pairwise(run.evaluations):
        change = now.losses.first(len(before.losses.loss_sums)).loss - before.losses.loss
        assert now.eval_loss - before.eval_loss == pytest.approx(change, abs=1e-5)
