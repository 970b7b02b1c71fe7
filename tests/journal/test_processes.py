"""Several processes and one folder: one writes, the others are refused; forks write nothing; ends are recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sightline.errors import RunFolderInUse
from sightline.journal import Recorder, files, read, read_lines
from sightline.journal.process import identity, is_alive
from sightline.runs import Status

OPEN_AND_WAIT = """
import sys
from pathlib import Path
from sightline.journal import Recorder
recorder = Recorder.open(Path(sys.argv[1]), resume=True, from_step=0)
recorder.log(1, {"loss": 1.0})
print("open", flush=True)
sys.stdin.readline()
"""


def started(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python program that says a word when it is ready."""
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"open\n"
    return child


def finished(child: subprocess.Popen[bytes]) -> int:
    """Let it go on to its end."""
    child.communicate(b"\n")
    return child.returncode


def test_a_second_process_is_refused_by_name(tmp_path):
    """It is told which process records there; when that has gone the folder is free."""
    child = started(OPEN_AND_WAIT, str(tmp_path))
    assert read(tmp_path).status is Status.RUNNING
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunFolderInUse, match=f"process {child.pid} records into it"):
            Recorder.open(tmp_path, **options)
    before = (tmp_path / "sightline" / "journal.jsonl").read_bytes()
    assert finished(child) == 0
    assert (tmp_path / "sightline" / "journal.jsonl").read_bytes().startswith(before)
    Recorder.open(tmp_path, resume=True, from_step=1).close()
    assert read(tmp_path).damage == ()


def test_a_second_process_is_refused_without_locks(tmp_path, monkeypatch):
    """On a file system that has no locks, the process that records is looked at."""

    def no_locks(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    child = started(OPEN_AND_WAIT, str(tmp_path))
    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    with pytest.raises(RunFolderInUse, match=f"process {child.pid} records into it"):
        Recorder.open(tmp_path, resume=True)
    child.kill()
    child.communicate()
    recorder = Recorder.open(tmp_path, resume=True, from_step=1)
    recorder.close()
    assert read(tmp_path).last_step == 1


RACE = """
import sys
from pathlib import Path
from sightline.errors import JournalError
from sightline.journal import Recorder
try:
    recorder = Recorder.open(Path(sys.argv[1]))
except JournalError as error:
    print(type(error).__name__)
    raise SystemExit
for step in range(1, 301):
    recorder.log(step, {"loss": float(step)})
print("recorded")
recorder.close()
"""


def test_of_eight_processes_at_once_one_records(tmp_path, trials):
    """The others are refused, and the journal is that of one."""
    tally = trials("D5", "processes that open one run at once: one records, the others are refused")
    children = [subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(8)]
    said = [child.communicate()[0].decode().strip() for child in children]
    assert said.count("recorded") == 1 and set(said) <= {"recorded", "RunFolderInUse", "RunFolderExists"}, said
    run = read(tmp_path)
    assert run.damage == () and len(run.segments) == 1 and len(run.curves["loss"]) == 300
    for _ in said:
        tally.count(True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_write_nothing_and_the_parent_goes_on(tmp_path):
    """50 forks that log, end and close: not one line of theirs, not one of the parent's lost."""
    recorder = Recorder.open(tmp_path, heartbeat_s=0.01)
    for step in range(1, 51):
        recorder.log(step, {"loss": 1.0})
        pid = os.fork()
        if pid == 0:
            recorder.log(1000 + step, {"loss": 9.0})
            recorder.end(Status.FAILED, "in a child")
            recorder.close()
            os._exit(0 if recorder.run().last_step == step else 3)
        assert os.waitpid(pid, 0)[1] == 0
    recorder.end(Status.FINISHED)
    recorder.close()
    run = read(tmp_path)
    assert run.damage == () and run.last_step == 50 and run.status is Status.FINISHED
    assert [line.seq for line in read_lines(tmp_path)] == list(range(len(list(read_lines(tmp_path)))))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_records_does_not_hang(tmp_path):
    """The lock may be held at the moment of the fork; the child does not wait for it."""
    recorder = Recorder.open(tmp_path)
    stop = threading.Event()

    def work() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            recorder.log(step, {"loss": 1.0})
            if step % 50 == 0:
                time.sleep(0.002)  # or a busy machine has the main thread wait

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(15):
        pid = os.fork()
        if pid == 0:
            recorder.log(-1, {"loss": 9.0})
            recorder.run()
            os._exit(0)
        deadline = time.monotonic() + 20
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.001)
    stop.set()
    thread.join()
    recorder.close()
    assert read(tmp_path).damage == () and read(tmp_path).curves["loss"].steps.min() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_lives_on_does_not_hold_the_folder(tmp_path):
    """Workers of a killed training may linger; its folder can be resumed all the same."""
    said = 'print("open", flush=True)'
    code = OPEN_AND_WAIT.replace(said, f"import os, time\nif os.fork() == 0:\n    time.sleep(60)\n{said}")
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"open\n"
    worker = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])
    child.kill()
    child.wait()
    os.kill(worker, 0)
    try:
        Recorder.open(tmp_path, resume=True, from_step=1).close()
    finally:
        os.kill(worker, signal.SIGKILL)


EXITS = {
    "falls off its end": ("", Status.UNKNOWN, "the program ended without saying how the run did"),
    "raises": (f"raise ValueError('bad hf_{'a1' * 17}, sorry')", Status.FAILED, "ValueError: bad hf_***, sorry"),
    "is interrupted": ("raise KeyboardInterrupt", Status.STOPPED, "interrupted by SIGINT (Ctrl-C)"),
    "exits": ("raise SystemExit(3)", Status.UNKNOWN, "the program ended without saying how the run did"),
    "ends it": (
        "from sightline.runs import Status; recorder.end(Status.STOPPED, 'enough'); raise ValueError",
        Status.STOPPED,
        "enough",
    ),
}


@pytest.mark.parametrize("how", EXITS)
def test_a_program_that_ends_says_how(tmp_path, how):
    """Without a word to the recorder: its end, an error nobody caught, Ctrl-C, exit."""
    last, status, reason = EXITS[how]
    code = OPEN_AND_WAIT.replace("sys.stdin.readline()", last)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=False)
    run = read(tmp_path)
    assert (run.status, run.end_reason) == (status, reason) and run.damage == ()
    assert (tmp_path / "sightline" / "history.parquet").exists()


def test_a_process_is_told_from_another_of_its_pid():
    """By its start; a zombie is dead; another machine's cannot be seen."""
    me = identity()
    if me["boot_id"] is None:
        pytest.skip("needs /proc")
    assert is_alive(me) is True
    assert is_alive(me | {"start_ticks": me["start_ticks"] - 1}) is False
    assert is_alive(me | {"pid": 2**22 - 1}) is False
    for elsewhere in ({"boot_id": "x"}, {"pid_namespace": "x"}, {"pid": None}, {"pid": "1"}, {"pid": -1}):
        assert is_alive(me | elsewhere) is None
    assert is_alive({}) is None
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    deadline = time.monotonic() + 20
    while is_alive(me | {"pid": child.pid, "start_ticks": None}) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_alive(me | {"pid": child.pid, "start_ticks": None}) is False  # dead, and not yet waited for
    child.wait()
