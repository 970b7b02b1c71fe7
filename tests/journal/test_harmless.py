"""A recorder beside a training: its heart, threads, clocks and errors never reach the loop."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path

import pytest

from sightline.journal import Recorder, read, read_lines, recorder, writer
from sightline.journal.lines import HeartbeatLine
from sightline.runs import (
    Action,
    Checkpoint,
    Decision,
    Diagnosis,
    Phase,
    Status,
)

from .comparing import EVALUATION, FINDING, journal


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
