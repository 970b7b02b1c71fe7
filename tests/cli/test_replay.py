"""`sightline replay`: causal, strict, and what the table says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sightline.cli.replay import as_document
from sightline.decisions import judge_run
from sightline.sources import read
from tests.cli.logs import EVALS, FALLING, sightline, trainer_state


@pytest.fixture
def turned(tmp_path) -> Path:
    return trainer_state(tmp_path / "trainer_state.json")


def test_the_document_has_every_evaluation(turned):
    """One entry an evaluation, in order, and what would have come of obeying."""
    done = sightline("replay", turned, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(document) == {
        "sightline",
        "path",
        "step_unit",
        "evals",
        "stop_step",
        "judged_by",
        "best_step",
        "regret",
        "spent_fraction",
    }
    assert [entry["eval_loss"] for entry in document["evals"]] == list(EVALS)
    assert [entry["step"] for entry in document["evals"]] == list(range(100, 1501, 100))
    assert document["best_step"] == 600 and document["regret"] == 0.0
    first_stop = next(entry["step"] for entry in document["evals"] if entry["action"] == "stop")
    assert document["stop_step"] == first_stop > 600
    assert document["spent_fraction"] == pytest.approx(first_stop / 1500)


def test_no_verdict_uses_what_comes_later(turned, tmp_path):
    """The entries of a run cut off anywhere are the first entries of the whole run."""
    whole = as_document(read(turned))["evals"]
    for n in (1, 4, 9, 14):
        cut = trainer_state(tmp_path / f"{n}" / "trainer_state.json", EVALS[:n], max_steps=1500)
        assert as_document(read(cut))["evals"] == whole[:n]


def test_the_last_entry_is_the_verdict_of_the_running_run(turned):
    """At its last evaluation a replay says what judge_run says of the run so far."""
    run = read(turned)
    last = as_document(run)["evals"][-1]
    verdict = judge_run(run.until(1500))
    assert (last["phase"], last["keep_step"]) == (verdict.diagnosis.phase.value, verdict.decision.keep_step)


def test_a_run_that_is_not_stopped(tmp_path):
    """A falling run is let go on while there is something to gain, and nothing worth a percent is lost."""
    document = as_document(read(trainer_state(tmp_path / "trainer_state.json", FALLING)))
    assert document["spent_fraction"] > 0.9 and document["regret"] < 0.01 * min(FALLING)


def test_a_run_without_evaluations(tmp_path):
    """There is nothing to replay, and that is said."""
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": [{"step": 10, "loss": 2.0}], "global_step": 10, "max_steps": 10}))
    document = json.loads(sightline("replay", path, "--json").stdout)
    assert document["evals"] == [] and document["regret"] is None and document["best_step"] is None
    assert "no evaluation to replay" in sightline("replay", path).stdout


def test_the_table_is_printed(turned):
    """A line an evaluation, and where it would have stopped."""
    done = sightline("replay", turned, "--width", "70")
    assert done.returncode == 0 and "stop here" in done.stdout
    assert "Sightline would have stopped it at step" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 70


@pytest.mark.parametrize(("words", "code"), [((), 2), (("missing",), 3), (("a", "b"), 2)])
def test_wrong_use(words, code, tmp_path):
    """One line and the exit code."""
    done = sightline("replay", *words, cwd=tmp_path)
    assert done.returncode == code and done.stderr.startswith("sightline: ") and "Traceback" not in done.stderr
