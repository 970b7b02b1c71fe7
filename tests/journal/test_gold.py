"""What a gold set says, written into the journal and read again."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest

from sightline.errors import RunFolderInUse, SourceError
from sightline.journal import Recorder, add_judgement, read, record
from sightline.runs import Finding, Severity, Status
from sightline.runs.gold import (
    Choice,
    Comparison,
    Forgetting,
    GoldAnswer,
    GoldScore,
    Judgement,
    StepScore,
)

JUDGEMENT = Judgement(
    gold="gold.jsonl",
    n=60,
    base="base",
    comparisons=(
        Comparison(
            metric="exact_match",
            answer=GoldAnswer.BETTER,
            base=GoldScore("exact_match", 0.0, 60, step=0),
            tuned=GoldScore("exact_match", 0.5, 60, "checkpoint-20", 20),
            difference=0.5,
            low=0.4,
            high=0.6,
            confidence=0.95,
            p_value=1e-9,
            p_adjusted=1e-9,
            test="mcnemar_exact",
            wins=30,
            losses=0,
            ties=30,
            detectable=math.inf,
        ),
    ),
    forgetting=(
        Forgetting(GoldAnswer.WORSE, "checkpoint-20", 20, 1.5, 2.5, 1.0, 0.9, 1.1, 0.95, 1e-4, 1e-4, 12, 3456),
    ),
    by_step=(StepScore(10, "checkpoint-10", math.nan, None), StepScore(20, "checkpoint-20", 0.5, 1.25)),
    choice=Choice("checkpoint-20", 20, "it has the best exact_match", "checkpoint-10", 40),
    findings=(Finding("gold_size", Severity.INFO, "60 rows show 20 points", evidence={"rows": 60}),),
    predictions="run/sightline/gold.jsonl",
)


def test_a_judgement_is_read_as_it_was_recorded(tmp_path):
    """Also after the end of the run, whose status it leaves alone."""
    recorder = Recorder.open(tmp_path)
    recorder.log(20, {"loss": 1.0})
    recorder.end(Status.STOPPED, "enough")
    recorder.gold(JUDGEMENT)
    recorder.close()
    run = read(tmp_path)
    assert repr(run.judgements) == repr((JUDGEMENT,))  # repr, for NaN equals nothing
    assert repr(recorder.run().judgements) == repr(run.judgements)
    assert (run.status, run.end_reason) == (Status.STOPPED, "enough")
    assert run.damage == ()


def test_a_judgement_is_added_to_a_run_that_is_over(tmp_path):
    """The last one counts; curves, segments and end stay."""
    with record(tmp_path) as run:
        run.log(20, loss=1.0)
    before = read(tmp_path)
    add_judgement(tmp_path, JUDGEMENT)
    add_judgement(tmp_path, replace(JUDGEMENT, n=61))
    after = read(tmp_path)
    assert [j.n for j in after.judgements] == [60, 61]
    assert (after.status, after.segments, after.damage) == (before.status, before.segments, ())


def test_a_torn_last_line_is_mended_first(tmp_path):
    """The judgement stands on a line of its own."""
    with record(tmp_path) as run:
        run.log(20, loss=1.0)
    with (tmp_path / "sightline" / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"kind":"log","se')
    add_judgement(tmp_path, JUDGEMENT)
    assert len(read(tmp_path).judgements) == 1


def test_a_resumed_run_is_to_be_judged_anew(tmp_path):
    """What was said of checkpoints that may no longer be there is void."""
    with record(tmp_path) as run:
        run.log(20, loss=1.0)
    add_judgement(tmp_path, JUDGEMENT)
    with record(tmp_path, resume=True) as run:
        run.log(30, loss=0.9)
    assert read(tmp_path).judgements == ()


def test_a_run_that_is_being_recorded_is_left_alone(tmp_path):
    """And so is a folder without a run."""
    with record(tmp_path) as run:
        run.log(1, loss=1.0)
        with pytest.raises(RunFolderInUse):
            add_judgement(tmp_path, JUDGEMENT)
    with pytest.raises(SourceError, match="holds no run"):
        add_judgement(tmp_path / "other", JUDGEMENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    """The judgement is not silently lost."""
    with record(tmp_path) as run:
        run.log(1, loss=1.0)
    journal = tmp_path / "sightline" / "journal.jsonl"
    journal.chmod(0o444)
    with pytest.raises(SourceError):
        add_judgement(tmp_path, JUDGEMENT)
