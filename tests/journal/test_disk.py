"""A disk that is full, read-only, gone or failing: training goes on, order is kept, what was accepted is found."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sightline.journal import Recorder, read, read_lines, writer
from sightline.journal.framing import encode
from sightline.runs import Checkpoint, Evaluation, ExampleLosses, Status

from .comparing import plain

METRICS = {f"metric_{i}": 0.123456789 * i for i in range(8)}
ROWS = ExampleLosses(np.linspace(1.0, 90.0, 50), np.arange(1, 51))


def journal(output_dir: Path) -> Path:
    return output_dir / "sightline" / "journal.jsonl"


@pytest.fixture
def at_once(monkeypatch):
    """Try again at every call instead of once a second."""
    monkeypatch.setattr(writer, "RETRY_S", 0.0)


class Disk:
    """A disk that can be told to refuse: writes to the files of a run folder fail, or stop after some bytes."""

    def __init__(self, monkeypatch, folder: Path) -> None:
        self.folder, self.error, self.room = folder, 0, 0
        self._write, self._open = os.write, os.open
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "open", self.open)

    def refuse(self, error: int, room: int = 0) -> None:
        """Refuse with an error after so many bytes; 0 is no error."""
        self.error, self.room = error, room

    def write(self, fd: int, data: bytes) -> int:
        if not self.error or not Path(f"/proc/self/fd/{fd}").resolve().is_relative_to(self.folder):
            return self._write(fd, data)
        if self.room <= 0:
            raise OSError(self.error, os.strerror(self.error))
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written

    def open(self, path, flags, mode=0o777, **kwargs) -> int:
        if self.error and not self.room and flags & os.O_RDWR and Path(path).is_relative_to(self.folder):
            raise OSError(self.error, os.strerror(self.error), str(path))
        return self._open(path, flags, mode, **kwargs)


@pytest.fixture
def disk(monkeypatch, tmp_path) -> Disk:
    """Return the disk under tmp_path."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    return Disk(monkeypatch, tmp_path)


ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.EACCES]


@pytest.mark.parametrize("error", ERRORS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("room", [0, 1, 100, 150, 700])
def test_what_waits_is_written_in_order_when_the_disk_is_back(tmp_path, disk, at_once, error, room):
    """Refused at any byte of any kind of line: the file is afterwards what it would have been."""
    problems: list[str] = []
    recording = Recorder.open(tmp_path, on_problem=problems.append)
    recording.log(1, METRICS)
    assert recording.problem is None
    disk.refuse(error, room)
    for step in range(2, 40):
        recording.log(step, METRICS)
        if step % 10 == 0:
            recording.evaluation(Evaluation(step, 1.5, ROWS, ROWS))
            recording.checkpoint(Checkpoint(step, tmp_path / f"checkpoint-{step}"), "saved")
    assert recording.problem is not None and len(problems) == 1
    assert os.strerror(error) in problems[0] and str(tmp_path) in problems[0]
    live = plain(recording.run())
    disk.refuse(0)
    recording.log(40, METRICS)
    assert recording.problem is None
    recording.end(Status.FINISHED)
    recording.close()
    run = read(tmp_path)
    if error in (errno.ENOSPC, errno.EDQUOT):
        assert run.damage == () and run.evaluations[2].losses is not None
    assert [line.seq for line in read_lines(tmp_path)] == list(range(len(list(read_lines(tmp_path)))))
    assert plain(run)["curves"]["metric_3"] == plain(recording.run())["curves"]["metric_3"]
    assert live["curves"]["metric_3"][0] == list(range(1, 40))
    assert [c.step for c in run.checkpoints] == [10, 20, 30] and len(run.evaluations) == 3


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENOTDIR])
def test_a_folder_that_cannot_be_opened_gets_everything_later(tmp_path, disk, at_once, error):
    """The run begins in memory; from the first line on it is written when the disk is back."""
    disk.refuse(error)
    with pytest.warns(RuntimeWarning, match=os.strerror(error)):
        recording = Recorder.open(tmp_path / "run", config={"lr": 0.1})
    for step in range(1, 10):
        recording.log(step, METRICS)
    recording.evaluation(Evaluation(9, 1.5, ROWS))
    assert recording.problem and not journal(tmp_path / "run").exists()
    disk.refuse(0)
    recording.log(10, METRICS)
    recording.end(Status.FINISHED)
    recording.close()
    run = read(tmp_path / "run")
    assert plain(run) == plain(recording.run()) and run.damage == () and run.config == {"lr": 0.1}


def test_a_late_opened_folder_of_another_run_is_left_alone(tmp_path, disk, at_once):
    """While we waited somebody else recorded there."""
    disk.refuse(errno.EROFS)
    problems: list[str] = []
    recording = Recorder.open(tmp_path, on_problem=problems.append)
    recording.log(1, METRICS)
    disk.refuse(0)
    other = Recorder.open(tmp_path, name="other")
    other.log(1, {"loss": 1.0})
    recording.log(2, METRICS)
    other.end(Status.FINISHED)
    other.close()
    before = journal(tmp_path).read_bytes()
    recording.log(3, METRICS)
    recording.end(Status.FINISHED)
    recording.close()
    assert journal(tmp_path).read_bytes() == before and read(tmp_path).name == "other"
    assert "never written" in problems[-1]


def test_memory_is_bounded_and_losses_are_counted(tmp_path, disk, at_once, monkeypatch):
    """Past the bound log lines are dropped, the rest is kept, and the journal says how many are gone."""
    monkeypatch.setattr(writer, "WAITING_LIMIT", 50_000)
    recording = Recorder.open(tmp_path, on_problem=lambda problem: None)
    disk.refuse(errno.ENOSPC)
    for step in range(1, 1001):
        recording.log(step, METRICS)
        if step % 100 == 0:
            recording.evaluation(Evaluation(step, 1.5))
    disk.refuse(0)
    recording.log(1001, METRICS)
    recording.end(Status.FINISHED)
    recording.close()
    run = read(tmp_path)
    kept = len(run.curves["metric_1"])
    assert 100 < kept < 300 and len(run.evaluations) == 10
    assert run.damage == (
        f"{1001 - kept:,} lines were dropped: the disk refused them for longer than memory could hold them",
    )
    assert run.curves["metric_1"].steps.tolist() == [*range(1, kept), 1001]


def test_rows_that_cannot_be_written_do_not_hold_up_the_journal(tmp_path, at_once):
    """examples.f32 is a directory: evaluations are recorded without their rows, and it is said."""
    problems: list[str] = []
    recording = Recorder.open(tmp_path, on_problem=problems.append)
    (tmp_path / "sightline" / "examples.f32").mkdir()
    recording.evaluation(Evaluation(1, 1.5, ROWS))
    recording.log(1, {"loss": 1.0})
    run = read(tmp_path)
    assert run.evaluations[0].eval_loss == 1.5 and run.evaluations[0].losses is None and run.last_step == 1
    assert len(problems) == 1 and "examples.f32" in problems[0] and "losses by row" in problems[0]
    (tmp_path / "sightline" / "examples.f32").rmdir()
    recording.evaluation(Evaluation(2, 1.4, ROWS))
    assert read(tmp_path).evaluations[1].losses is not None
    recording.close()


def test_a_full_disk_does_not_make_the_rows_grow(tmp_path, disk, at_once):
    """However often an evaluation is tried again, its rows are there once."""
    recording = Recorder.open(tmp_path, on_problem=lambda problem: None)
    rows = tmp_path / "sightline" / "examples.f32"
    disk.refuse(errno.ENOSPC, room=450)  # the rows and a part of the line
    recording.evaluation(Evaluation(1, 1.5, ROWS))
    for step in range(20):
        recording.log(step, METRICS)
        assert rows.stat().st_size in (0, 400)
    disk.refuse(0)
    recording.log(20, METRICS)
    recording.close()
    assert rows.stat().st_size == 400 and read(tmp_path).evaluations[0].losses is not None
    assert read(tmp_path).damage == ()


@pytest.mark.parametrize("what", ["sightline", "the whole folder"])
def test_a_folder_removed_meanwhile_is_brought_back(tmp_path, what):
    """At the next evaluation, checkpoint, end or heartbeat; not one line is missing, not one row."""
    output_dir = tmp_path / "run"
    recording = Recorder.open(output_dir, on_problem=lambda problem: None)
    recording.log(1, METRICS)
    recording.evaluation(Evaluation(1, 1.5, ROWS))
    shutil.rmtree(output_dir / "sightline" if what == "sightline" else output_dir)
    for step in range(2, 20):
        recording.log(step, METRICS)
    recording.evaluation(Evaluation(19, 1.4, ROWS))
    recording.log(20, METRICS)
    recording.end(Status.FINISHED)
    recording.close()
    run = read(output_dir)
    assert plain(run) == plain(recording.run()) and run.damage == ()
    assert len(pl.read_parquet(output_dir / "sightline" / "history.parquet")) == 8 * 20 + 2


@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize("there", ["a file", "a directory", "another run", "a run being recorded"])
def test_what_stands_in_a_removed_folders_place_is_not_touched(tmp_path, there, with_rows):
    """Whatever took the place of the journal stays; the recorder says so, goes on, and its lines come when they can."""
    output_dir = tmp_path / "run"
    problems: list[str] = []
    recording = Recorder.open(output_dir, on_problem=problems.append)
    recording.log(1, METRICS)
    if with_rows:
        recording.evaluation(Evaluation(1, 1.5, ROWS))
    shutil.rmtree(output_dir)
    other = None
    if there == "a file":
        output_dir.write_text("a file")
    elif there == "a directory":
        journal(output_dir).mkdir(parents=True)
    else:
        other = Recorder.open(output_dir, name="other")
        other.log(5, {"loss": 1.0})
        if there == "another run":
            other.close()
    for step in range(2, 6):
        recording.log(step, METRICS)
        recording.evaluation(Evaluation(step, 1.5, ROWS))
    assert recording.problem and len(problems) == 1 and "removed" in problems[0]
    if other is not None:
        other.close()
        assert read(output_dir).name == "other" and read(output_dir).damage == ()
        history = (output_dir / "sightline" / "history.parquet").read_bytes()
        recording.end(Status.FINISHED)
        recording.close()
        assert (output_dir / "sightline" / "history.parquet").read_bytes() == history
        assert not (output_dir / "sightline" / "examples.f32").exists()
        return
    if there == "a file":
        assert output_dir.read_text() == "a file"
        output_dir.unlink()
    else:
        journal(output_dir).rmdir()
    recording.evaluation(Evaluation(6, 1.5, ROWS))
    assert recording.problem is None
    recording.close()
    run = read(output_dir)
    assert run.damage == () and run.last_step == 6 and len(run.evaluations) == 5 + with_rows
    if with_rows:
        assert plain(run) == plain(recording.run())


def test_a_moved_folder_is_recorded_where_it_has_gone(tmp_path):
    """The open file goes along."""
    recording = Recorder.open(tmp_path / "a")
    recording.log(1, METRICS)
    (tmp_path / "a").rename(tmp_path / "b")
    recording.log(2, METRICS)
    with pytest.warns(RuntimeWarning, match="no longer beside it; losses by row are not recorded"):
        recording.evaluation(Evaluation(2, 1.5, ROWS))
    assert read(tmp_path / "b").last_step == 2 and not (tmp_path / "a").exists()
    recording.end(Status.FINISHED)
    assert "history.parquet" in str(recording.problem)
    recording.close()
    assert read(tmp_path / "b").status is Status.FINISHED and not (tmp_path / "a").exists()


def test_a_journal_that_somebody_cut_is_still_appended_to_whole_lines(tmp_path):
    """An editor or a sync tool has taken the end away."""
    recording = Recorder.open(tmp_path)
    for step in range(1, 10):
        recording.log(step, METRICS)
    os.truncate(journal(tmp_path), journal(tmp_path).stat().st_size - 50)
    recording.log(10, METRICS)
    recording.close()
    run = read(tmp_path)
    assert run.curves["metric_1"].steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10] and run.damage


def test_the_heart_brings_the_lines_when_nothing_else_does(tmp_path, disk):
    """After a full disk no call comes: within seconds what waits is written all the same."""
    recording = Recorder.open(tmp_path, heartbeat_s=0.2, on_problem=lambda problem: None)
    disk.refuse(errno.ENOSPC)
    recording.log(1, METRICS)
    recording.log(2, METRICS)
    disk.refuse(0)
    deadline = time.monotonic() + 5
    while read(tmp_path).last_step != 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert read(tmp_path).last_step == 2
    recording.close()


def test_a_resume_into_a_folder_that_cannot_be_written_reads_it_and_waits(tmp_path, disk, at_once):
    """The earlier points are known; the new ones follow when the disk allows."""
    recording = Recorder.open(tmp_path)
    for step in range(1, 6):
        recording.log(step, METRICS)
    recording.close()
    disk.refuse(errno.EROFS)
    recording = Recorder.open(tmp_path, resume=True, from_step=3, on_problem=lambda problem: None)
    recording.log(4, {"metric_1": 9.0})
    assert recording.run().curves["metric_1"].steps.tolist() == [1, 2, 3, 4]
    disk.refuse(0)
    recording.log(5, {"metric_1": 9.0})
    recording.close()
    assert plain(read(tmp_path)) == plain(recording.run()) and read(tmp_path).damage == ()


def test_a_failed_fsync_is_told_and_no_more(tmp_path, monkeypatch):
    """The line was written; whether it stands on the disk nobody knows."""

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    problems: list[str] = []
    recording = Recorder.open(tmp_path, on_problem=problems.append)
    monkeypatch.setattr(os, "fsync", failing)
    recording.checkpoint(Checkpoint(1, tmp_path / "checkpoint-1"), "saved")
    assert len(problems) == 1 and "Input/output error" in problems[0]
    monkeypatch.undo()
    recording.close()
    assert read(tmp_path).checkpoints[0].step == 1


def test_history_that_cannot_be_written_fails_alone(tmp_path):
    """The end is recorded first; the copy can be made later."""
    recording = Recorder.open(tmp_path)
    recording.log(1, METRICS)
    (tmp_path / "sightline" / "history.parquet").mkdir()
    with pytest.warns(RuntimeWarning, match=r"history\.parquet: not written .*rebuild"):
        recording.end(Status.FINISHED, "done")
    recording.close()
    assert read(tmp_path).status is Status.FINISHED
    assert [path.name for path in (tmp_path / "sightline").iterdir() if path.name.startswith(".")] == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_costs_nothing_but_the_record(tmp_path):
    """Nothing raises; the count of what is lost is told at the end."""
    tmp_path.chmod(0o500)
    problems: list[str] = []
    recording = Recorder.open(tmp_path / "run", on_problem=problems.append)
    recording.log(1, METRICS)
    recording.end(Status.FINISHED)
    recording.close()
    tmp_path.chmod(0o700)
    assert "Permission denied" in problems[0] and "never written" in problems[-1]


@pytest.fixture
def disk_trials(trials):
    """Open the tally before the disk may be found missing: a skipped promise is told as skipped."""
    return trials("D3", "real disk of 1 MB filled and emptied: what was accepted is found, the rest follows")


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of a megabyte."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("needs mount")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_real_disk_of_a_megabyte_fills_up_and_is_emptied(disk_trials, small_disk, at_once):
    """What was accepted is found; after space is freed the rest follows, nothing is damaged, one problem is told."""
    problems: list[str] = []
    recording = Recorder.open(small_disk / "run", on_problem=problems.append)
    (small_disk / "ballast").write_bytes(bytes(300_000))
    step = 0
    while recording.problem is None:
        step += 1
        recording.log(step, METRICS)
        if step % 100 == 0:
            recording.evaluation(Evaluation(step, 1.0 / step, ROWS, ROWS))
        assert step < 100_000
    full_at = read(small_disk / "run").last_step
    assert full_at >= step - 1
    for later in range(step + 1, step + 500):
        recording.log(later, METRICS)
    assert read(small_disk / "run").last_step >= full_at
    (small_disk / "ballast").unlink()
    recording.log(step + 500, METRICS)
    assert recording.problem is None and len(problems) == 1 and "No space left" in problems[0]
    run = read(small_disk / "run")
    assert run.damage == () and run.curves["metric_1"].steps.tolist() == list(range(1, step + 501))
    assert plain(run) == plain(recording.run())
    recording.close()
    disk_trials.count(True)


def test_a_real_read_only_disk_is_a_problem_not_an_exception(small_disk):
    """Also for the one who may write everywhere."""
    first = Recorder.open(small_disk / "run")
    first.log(1, METRICS)
    first.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    problems: list[str] = []
    recording = Recorder.open(small_disk / "run", resume=True, from_step=1, on_problem=problems.append)
    recording.log(2, METRICS)
    new = Recorder.open(small_disk / "new", on_problem=problems.append)
    new.log(1, METRICS)
    new.end(Status.FINISHED)
    new.close()
    assert recording.problem and "Read-only file system" in problems[0] and recording.run().last_step == 2
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    recording.close()
    assert read(small_disk / "run").last_step == 2


def test_a_line_too_long_to_be_read_is_not_written(tmp_path, monkeypatch):
    """What no reader would take must not stand in the file."""
    monkeypatch.setattr("sightline.journal.framing.LINE_LIMIT", 10_000)
    recording = Recorder.open(tmp_path)
    with pytest.warns(RuntimeWarning, match="longer than"):
        recording.log(1, {f"metric_{i}": 1.0 for i in range(2000)})
    recording.log(2, {"loss": 1.0})
    recording.close()
    assert read(tmp_path).curves["loss"].steps.tolist() == [2]
    assert max(map(len, journal(tmp_path).read_bytes().splitlines())) < 10_000
    with pytest.raises(ValueError, match="longer than"):
        encode({"kind": "x" * 20_000})
