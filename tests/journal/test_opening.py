"""Opening a run folder: fresh, resumed, refused, overwritten, gone or in use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sightline.errors import RunFolderExists, RunFolderInUse, UsageError
from sightline.journal import Recorder, read, read_lines
from sightline.journal.lines import RunLine
from sightline.runs import (
    Checkpoint,
    Status,
)

from .comparing import EVALUATION, journal, plain


def test_a_resume_supersedes_what_came_after_its_step(tmp_path):
    """The points stay in the file and leave the curves; numbers go on; settings are kept or replaced key by key."""
    recording = Recorder.open(tmp_path, config={"lr": 1, "seed": 2}, name="first", max_steps=10)
    for step in range(1, 8):
        recording.log(step, {"loss": float(step)})
    recording.end(Status.FAILED, "out of memory")
    recording.close()
    first_lines = journal(tmp_path).read_bytes()
    recording = Recorder.open(tmp_path, resume=True, from_step=4, config={"lr": 3})
    assert recording.run().status is Status.RUNNING and recording.run().end_reason is None
    recording.log(5, {"loss": 50.0})
    recording.end(Status.FINISHED)
    recording.close()
    assert journal(tmp_path).read_bytes().startswith(first_lines)
    run = read(tmp_path)
    assert run.curves["loss"].values.tolist() == [1, 2, 3, 4, 50]
    assert run.config == {"lr": 3, "seed": 2} and run.name == "first" and run.max_steps == 10
    assert [segment.from_step for segment in run.segments] == [0, 4] and run.damage == ()
    assert [line.seq for line in read_lines(tmp_path)] == list(range(len(list(read_lines(tmp_path)))))
    assert len({line.id for line in read_lines(tmp_path) if isinstance(line, RunLine)}) == 1
    assert plain(run) == plain(recording.run())


def test_a_resume_without_a_step_goes_on_after_the_last(tmp_path):
    """Nothing is superseded."""
    recording = Recorder.open(tmp_path)
    recording.log(7, {"loss": 1.0})
    recording.close()
    recording = Recorder.open(tmp_path, resume=True, from_step=None)
    assert recording.run().segments[-1].from_step == 7 and recording.run().last_step == 7
    recording.close()


def test_resuming_an_empty_folder_is_a_fresh_start(tmp_path):
    """``--resume`` may always be given."""
    recording = Recorder.open(tmp_path / "new" / "folder", resume=True, from_step=0)
    recording.log(1, {"loss": 1.0})
    recording.close()
    assert read(tmp_path / "new" / "folder").last_step == 1


def test_a_folder_with_a_run_is_refused(tmp_path):
    """The line names the folder, what is in it and what to do; nothing is touched."""
    recording = Recorder.open(tmp_path, name="precious")
    recording.log(3, {"loss": 1.0})
    recording.end(Status.FINISHED)
    recording.close()
    before = journal(tmp_path).read_bytes()
    with pytest.raises(RunFolderExists, match=r"'precious' \(finished, last step 3\); resume it, overwrite it"):
        Recorder.open(tmp_path)
    with pytest.raises(UsageError, match="exclude each other"):
        Recorder.open(tmp_path, resume=True, overwrite=True)
    assert journal(tmp_path).read_bytes() == before
    Recorder.open(tmp_path, resume=True, from_step=3).close()


def test_a_journal_of_garbage_is_refused_too(tmp_path):
    """It may have been a run; only overwrite removes it."""
    journal(tmp_path).parent.mkdir()
    journal(tmp_path).write_bytes(b"\0" * 5000)
    with pytest.raises(RunFolderExists, match="without one intact line"):
        Recorder.open(tmp_path)
    recording = Recorder.open(tmp_path, resume=True, from_step=0)
    recording.log(1, {"loss": 1.0})
    recording.close()
    assert read(tmp_path).last_step == 1 and len(read(tmp_path).damage) == 1


def test_overwrite_removes_the_run_and_nothing_else(tmp_path):
    """Checkpoints and foreign files stay."""
    recording = Recorder.open(tmp_path, config={"old": 1})
    recording.evaluation(EVALUATION)
    recording.end(Status.FINISHED)
    recording.close()
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "sightline" / "report.html").write_text("mine")
    recording = Recorder.open(tmp_path, overwrite=True)
    recording.log(1, {"loss": 1.0})
    assert not (tmp_path / "sightline" / "history.parquet").exists()
    recording.close()
    run = read(tmp_path)
    assert run.config == {} and run.evaluations == () and run.last_step == 1 and run.damage == ()
    assert (tmp_path / "checkpoint-2").is_dir() and (tmp_path / "sightline" / "report.html").exists()


def test_a_folder_in_use_is_refused_even_with_overwrite(tmp_path):
    """By this very process, too; the first recording goes on unharmed."""
    recording = Recorder.open(tmp_path)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunFolderInUse, match="this very process"):
            Recorder.open(tmp_path, **options)
    recording.log(1, {"loss": 1.0})
    recording.close()
    assert read(tmp_path).last_step == 1 and read(tmp_path).damage == ()


def test_checkpoints_are_found_where_the_folder_has_gone(tmp_path):
    """Paths inside are relative; those outside stay what they are."""
    recording = Recorder.open(tmp_path / "a")
    inside = Checkpoint(5, tmp_path / "a" / "checkpoint-5", 100)
    recording.checkpoint(inside, "saved")
    recording.checkpoint(replace(inside, verified=True), "verified")
    recording.checkpoint(Checkpoint(6, Path("/elsewhere/checkpoint-6")), "deleted")
    recording.close()
    assert recording.run().checkpoints[0] == replace(inside, verified=True)
    (tmp_path / "a").rename(tmp_path / "b")
    first, second = read(tmp_path / "b").checkpoints
    assert first == replace(inside, path=tmp_path / "b" / "checkpoint-5", verified=True)
    assert second == Checkpoint(6, Path("/elsewhere/checkpoint-6"), deleted=True)


def test_a_relative_folder_is_the_same_folder_later(tmp_path, monkeypatch):
    """The program may change its directory; the record goes on where it began."""
    monkeypatch.chdir(tmp_path)
    recording = Recorder.open(Path("out"))
    recording.checkpoint(Checkpoint(1, Path("out/checkpoint-1")), "saved")
    assert recording.run().checkpoints[0].path == Path("out/checkpoint-1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recording.evaluation(EVALUATION)
    recording.end(Status.FINISHED)
    recording.close()
    assert list(Path().iterdir()) == []
    monkeypatch.chdir(tmp_path)
    assert plain(read(Path("out"))) == plain(recording.run())
    assert Path("out/sightline/history.parquet").exists()
