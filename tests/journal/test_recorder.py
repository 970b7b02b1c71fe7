"""The recorder: what it takes, what it refuses, whose folder it is, and that it never raises into a training loop."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import RunFolderExists, RunFolderInUse, UsageError
from sightline.journal import Recorder, read, read_lines, recorder, writer
from sightline.journal.lines import AlertLine, HeartbeatLine, RunLine
from sightline.runs import (
    Action,
    Checkpoint,
    Decision,
    Diagnosis,
    Evaluation,
    ExampleLosses,
    Finding,
    Phase,
    Severity,
    Status,
)

from .comparing import plain

FINDING = Finding("x", Severity.INFO, "something")
EVALUATION = Evaluation(2, 1.5, ExampleLosses(np.array([3.0, 4.5]), np.array([2, 3])))


def journal(output_dir: Path) -> Path:
    return output_dir / "sightline" / "journal.jsonl"


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


def test_a_silent_run_beats_its_heart_and_a_busy_one_does_not(tmp_path):
    """A line after each pause without a word, none while there is something to say, none after the end."""
    recording = Recorder.open(tmp_path, heartbeat_s=0.1)

    def beats() -> int:
        return sum(isinstance(line, HeartbeatLine) for line in read_lines(tmp_path))

    start = time.monotonic()
    while beats() < 3:
        time.sleep(0.02)
        assert time.monotonic() < start + 20
    assert time.monotonic() - start >= 0.3
    silent, steps, last, longest_pause = beats(), 0, time.monotonic(), 0.0
    while steps < 60:
        steps += 1
        recording.log(steps, {"loss": 1.0})
        longest_pause, last = max(longest_pause, time.monotonic() - last), time.monotonic()
        time.sleep(0.01)
    assert beats() == silent or longest_pause > 0.1
    recording.end(Status.FINISHED)
    lines = len(list(read_lines(tmp_path)))
    time.sleep(0.3)
    assert len(list(read_lines(tmp_path))) == lines
    recording.close()


@pytest.mark.parametrize("goes", ["closed", "forgotten"])
def test_a_recorder_that_goes_stops_its_heart_and_frees_the_folder(tmp_path, goes):
    """No thread, no lock and no open file is left behind."""
    others = set(threading.enumerate())
    recording = Recorder.open(tmp_path, heartbeat_s=0.05)
    (heart,) = set(threading.enumerate()) - others
    if goes == "closed":
        recording.close()
    else:
        time.sleep(0.2)
        del recording
    heart.join(5)
    assert not heart.is_alive()
    Recorder.open(tmp_path, resume=True).close()


def test_threads_record_without_mixing_their_lines(tmp_path):
    """Eight threads, 200 events each: every line intact, every number once."""
    recording = Recorder.open(tmp_path)

    def work(thread: int) -> None:
        for i in range(200):
            recording.log(thread * 1000 + i, {f"loss_{thread}": float(i)})

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recording.close()
    run = read(tmp_path)
    assert run.damage == () and all(len(run.curves[f"loss_{i}"]) == 200 for i in range(8))
    assert [line.seq for line in read_lines(tmp_path)] == list(range(8 * 200 + 3))


@pytest.mark.parametrize("jump_s", [-3600.0, 86400.0, -1.7e9])
def test_the_clock_may_jump(tmp_path, monkeypatch, jump_s):
    """Order is that of the file; seconds come from a clock that never goes back."""
    recording = Recorder.open(tmp_path)
    recording.log(1, {"loss": 1.0})
    real = time.time
    monkeypatch.setattr(time, "time", lambda: max(0.0, real() + jump_s))
    recording.log(2, {"loss": 2.0})
    recording.segment(1)
    recording.log(2, {"loss": 3.0})
    recording.close()
    monkeypatch.undo()
    assert read(tmp_path).curves["loss"].values.tolist() == [1.0, 3.0]
    assert all(line.t >= 0 for line in read_lines(tmp_path))


CALLS = {
    "log": lambda r: r.log(3, {"loss": 1.0}),
    "evaluation": lambda r: r.evaluation(EVALUATION),
    "checkpoint": lambda r: r.checkpoint(Checkpoint(1, Path("checkpoint-1")), "saved"),
    "decision": lambda r: r.decision(1, Diagnosis(Phase.HEALTHY, 0.5), Decision(Action.CONTINUE, 1, None, "why")),
    "alert": lambda r: r.alert(1, FINDING),
    "segment": lambda r: r.segment(1),
    "configure": lambda r: r.configure(config={"a": 1}),
    "end": lambda r: r.end(Status.FINISHED),
    "beat": lambda r: r.beat(0.0),
    "close": lambda r: r.close(),
}


@pytest.mark.parametrize("error", [RuntimeError("no"), MemoryError(), RecursionError(), OSError(5, "I/O"), TypeError()])
@pytest.mark.parametrize("call", CALLS)
def test_an_error_inside_never_comes_out(tmp_path, monkeypatch, call, error):
    """Whatever breaks inside, in whichever call: the caller goes on, and hears of it once."""

    def broken(*args, **kwargs):
        raise error

    problems: list[str] = []
    recording = Recorder.open(tmp_path, on_problem=problems.append)
    monkeypatch.setattr(writer.JournalWriter, "record", broken)
    monkeypatch.setattr(writer.JournalWriter, "record_evaluation", broken)
    monkeypatch.setattr(recorder.JournalWriter, "check", broken)
    for _ in range(3):
        CALLS[call](recording)
    monkeypatch.undo()
    assert len(problems) == 1 and type(error).__name__ in problems[0]
    recording.close()


def test_a_callback_that_fails_and_warnings_made_errors_do_no_harm(tmp_path, capfd):
    """The last resort is a line on stderr."""

    def broken(problem: str) -> None:
        raise ValueError("callback")

    journal(tmp_path / "a").mkdir(parents=True)
    journal(tmp_path / "b").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recorder.open(tmp_path / "a", on_problem=broken).close()
        Recorder.open(tmp_path / "b").close()
    said = capfd.readouterr().err
    assert str(journal(tmp_path / "a")) in said and str(journal(tmp_path / "b")) in said


def test_what_comes_after_close_is_not_recorded_and_said_once(tmp_path):
    """A forgotten reference does no harm."""
    problems: list[str] = []
    recording = Recorder.open(tmp_path, on_problem=problems.append)
    recording.end(Status.FINISHED)
    recording.close()
    recording.close()
    for call in CALLS.values():
        call(recording)
    assert len(problems) == 1 and "closed" in problems[0]
    assert read(tmp_path).status is Status.FINISHED


def test_an_interrupt_is_not_swallowed(tmp_path, monkeypatch):
    """Ctrl-C belongs to the user."""

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    recording = Recorder.open(tmp_path)
    monkeypatch.setattr(writer.JournalWriter, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recording.log(1, {"loss": 1.0})
    monkeypatch.undo()
    recording.close()


def test_logging_costs_little(tmp_path):
    """Eight metrics in about five microseconds on a quiet machine; the bound here is for a busy one."""
    recording = Recorder.open(tmp_path)
    metrics = {f"metric_{i}": 0.1234567 * i for i in range(8)}
    costs = []
    for step in range(5000):
        start = time.perf_counter_ns()
        recording.log(step, metrics)
        costs.append(time.perf_counter_ns() - start)
    recording.close()
    assert sorted(costs)[len(costs) // 2] < 60_000
