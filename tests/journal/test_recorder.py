"""The recorder: what it takes and how it is written, and what it leaves out."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.journal import Recorder, read, read_lines
from sightline.journal.lines import AlertLine
from sightline.runs import (
    Checkpoint,
    Evaluation,
    ExampleLosses,
    Status,
)

from .comparing import EVALUATION, FINDING, journal, plain


def test_a_line_is_there_when_log_returns(tmp_path):
    """Nothing waits in a buffer: another reader sees the event at once, one line each."""
    recording = Recorder.open(tmp_path)
    for step in range(1, 20):
        before = journal(tmp_path).read_bytes()
        recording.log(step, {"loss": 1.0})
        grown = journal(tmp_path).read_bytes()
        assert grown.startswith(before) and grown[len(before) :].count(b"\n") == 1
        assert read(tmp_path).last_step == step
    recording.close()


def test_each_line_is_one_write(tmp_path, monkeypatch):
    """So that no other process ever sees half of one."""
    recording = Recorder.open(tmp_path)
    written = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(bytes(data)) or write(fd, data))
    recording.log(1, {"loss": 1.0})
    recording.alert(1, FINDING)
    recording.checkpoint(Checkpoint(1, tmp_path / "checkpoint-1"), "saved")
    assert [line.count(b"\n") for line in written] == [1, 1, 1] and all(line.endswith(b"\n") for line in written)
    monkeypatch.undo()
    recording.close()


@pytest.mark.parametrize("kind", ["evaluation", "checkpoint", "end", "open"])
def test_what_must_survive_power_loss_waits_for_the_disk(tmp_path, monkeypatch, kind):
    """Evaluations, checkpoints and ends are synced; logs are not, for that would cost milliseconds."""
    synced: list[Path] = []
    fsync = os.fsync

    def counted(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").resolve())
        fsync(fd)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    if kind == "open":
        monkeypatch.setattr(os, "fsync", counted)
    recording = Recorder.open(tmp_path)
    monkeypatch.setattr(os, "fsync", counted)
    if kind == "open":
        assert {journal(tmp_path), tmp_path, tmp_path / "sightline"} <= set(synced)
    else:
        recording.log(1, {"loss": 1.0})
        assert synced == []
        if kind == "evaluation":
            recording.evaluation(EVALUATION)
            assert synced[:2] == [tmp_path / "sightline" / "examples.f32", journal(tmp_path)]
        elif kind == "checkpoint":
            recording.checkpoint(Checkpoint(1, tmp_path / "checkpoint-1"), "saved")
        else:
            recording.end(Status.FINISHED)
        assert journal(tmp_path) in synced
    recording.close()


def test_what_is_no_number_is_left_out_and_noted_once(tmp_path):
    """The rest of the event is recorded; one note a name says what is missing, and no exception."""
    recording = Recorder.open(tmp_path)
    metrics = {"loss": np.float32(0.5), "n": 3, "ok": True, "none": None, "text": "abc", "two": np.ones(2), "c": 1j}
    for step in (1, 2):
        recording.log(step, metrics)
    recording.log(3, {"text": "only this"})
    with pytest.warns(RuntimeWarning, match="text is no number"):
        recording.log("three", {"loss": 1.0})
    recording.log(np.int64(4), {"loss": math.nan, 5: 1.0, "\ud800": 2.0})
    recording.close()
    run = read(tmp_path)
    assert {name: curve.steps.tolist() for name, curve in run.curves.items()} == {
        "loss": [1, 2, 4],
        "n": [1, 2],
        "ok": [1, 2],
        "5": [4],
        "\\ud800": [4],
    }
    notes = [line.finding.message for line in read_lines(tmp_path) if isinstance(line, AlertLine)]
    assert len(notes) == 3 and [name for name in ("text", "two", "c") if f"metric {name} " in " ".join(notes)]
    assert plain(run) == plain(recording.run())


def test_rows_that_do_not_fit_together_are_left_out(tmp_path):
    """The loss itself is recorded all the same."""
    recording = Recorder.open(tmp_path)
    for losses in (
        ExampleLosses(np.ones(3), np.ones(2, np.int64)),
        ExampleLosses(np.ones((2, 2)), np.ones((2, 2), np.int64)),
        ExampleLosses(np.ones(1), np.array([2**40])),
        ExampleLosses(np.ones(1), np.array([-1])),
    ):
        recording.evaluation(replace(EVALUATION, losses=losses))
    with pytest.warns(RuntimeWarning, match="without eval_loss"):
        recording.evaluation(Evaluation(3, None))  # type: ignore[arg-type]
    recording.close()
    run = read(tmp_path)
    assert run.evaluations[0].losses is None and run.evaluations[0].eval_loss == 1.5 and run.damage == ()
    assert [evaluation.step for evaluation in run.evaluations] == [2]


def test_token_counts_are_written_once(tmp_path):
    """A thousand evaluations of the same rows hold the counts of those rows once, across a resume too."""
    recording = Recorder.open(tmp_path)
    for step in (1, 2):
        recording.evaluation(replace(EVALUATION, step=step, probe=EVALUATION.losses))
    recording.close()
    recording = Recorder.open(tmp_path, resume=True, from_step=2)
    recording.evaluation(replace(EVALUATION, step=3))
    other = ExampleLosses(np.ones(4), np.ones(4, np.int64))
    recording.evaluation(replace(EVALUATION, step=4, losses=other))
    recording.close()
    rows = 2 * (2 + 2) + 2 + 4
    counts = 2 + 2 + 4
    assert (tmp_path / "sightline" / "examples.f32").stat().st_size == 4 * (rows + counts)
    assert plain(read(tmp_path)) == plain(recording.run())
