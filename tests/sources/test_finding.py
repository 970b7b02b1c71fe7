"""Searching folders: what is found, what is one run, what is bounded, what one bad file does to the others."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from sightline.errors import SourceError, UnknownLogFormat
from sightline.sources import Found, find, read, read_runs
from sightline.sources.cache import SETTLED_NS, Cache, cache_folder
from tests.sources.test_trainer_state import history, write_state
from tests.sources.writers import event, event_file


def test_a_bad_file_hides_no_other(tmp_path: Path) -> None:
    """Every log is read; what cannot be read stands in the errors; what is no log stands nowhere."""
    for i in range(3):
        write_state(tmp_path / f"run{i}", history(50))
    write_state(tmp_path / "broken", history(50)).write_text('{"log_history": 7}')
    (tmp_path / "empty.csv").write_text("step,loss\n")
    (tmp_path / "README.md").write_text("loss: 1\nloss: 2\nloss: 3\n")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"loss": 5}}}')
    runs, errors = read_runs([tmp_path])
    assert [run.name for run in runs] == ["run0", "run1", "run2"]
    assert [error.path.name for error in errors] == ["empty.csv", "broken"]


def test_named_paths_are_answered_each(tmp_path: Path) -> None:
    """A path that is missing or no log is an error of its own, in the order given."""
    (tmp_path / "notes.txt").write_text("nothing here")
    (tmp_path / "nothing").mkdir()
    state = write_state(tmp_path / "run", history(50))
    missing = tmp_path / "missing.log"
    runs, errors = read_runs([missing, state, tmp_path / "notes.txt", tmp_path / "nothing"])
    assert len(runs) == 1
    assert [error.path.name for error in errors] == ["missing.log", "notes.txt", "nothing"]
    with pytest.raises(UnknownLogFormat, match="tried: journal, trainer_state"):
        read(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match="No such file"):
        read(missing)


def test_read_takes_the_longest_and_counts_the_others(tmp_path: Path) -> None:
    """read() gives one run and says that there are more."""
    write_state(tmp_path / "a", history(50))
    write_state(tmp_path / "b", history(100))
    run = read(tmp_path)
    assert run.name == "b" and "1 more runs" in run.damage[-1]


def test_logs_of_one_run_are_told_once(tmp_path: Path) -> None:
    """Event files and a captured terminal below an output folder are its run, and bring the points it lacks."""
    write_state(tmp_path / "out" / "checkpoint-50", history(50))
    points = [(e["step"], e["loss"]) for e in history(80) if "loss" in e]
    event_file(tmp_path / "out/runs/x/events.out.tfevents.1.h", [event(s, {"train/loss": v}) for s, v in points])
    event_file(tmp_path / "out/runs/y/events.out.tfevents.2.h", [event(s, {"train/loss": 9.0}) for s, _ in points])
    runs, errors = read_runs([tmp_path])
    assert not errors
    assert [(run.format, run.last_step) for run in runs] == [("trainer_state", 80), ("tensorboard", 80)]
    assert runs[0].curves["loss"].steps.tolist() == list(range(10, 81, 10))


def test_runs_side_by_side_are_not_joined(tmp_path: Path) -> None:
    """Copies of one log in unrelated places stay two runs: only an output folder's own logs are its run."""
    write_state(tmp_path / "a", history(50))
    write_state(tmp_path / "b", history(50))
    assert len(read_runs([tmp_path])[0]) == 2


def test_search_is_bounded(tmp_path: Path) -> None:
    """Depth and number of entries are limits; the second is reported."""
    deep = tmp_path
    for i in range(12):
        deep = deep / f"d{i}"
    write_state(deep, history(50))
    assert len(read_runs([tmp_path])[0]) == 0
    assert len(read_runs([tmp_path], max_depth=20)[0]) == 1
    for i in range(30):
        (tmp_path / f"f{i}.txt").write_text("x")
    runs, errors = read_runs([tmp_path], max_files=20)
    assert not runs and "more than 20 files" in errors[0].error


def test_links_are_followed_only_when_named(tmp_path: Path) -> None:
    """A search does not leave its folder through links, not even in circles; a named link leads to its target."""
    state = write_state(tmp_path / "outside", history(50))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "state.json").symlink_to(state)
    (inside / "loop").symlink_to(inside)
    (inside / "broken").symlink_to(tmp_path / "nowhere")
    assert read_runs([inside])[0] == []
    assert read(inside / "state.json").last_step == 50
    runs, errors = read_runs([inside / "broken", inside / "loop"])
    assert not runs and "leads nowhere" in errors[0].error


def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    """A pipe, a socket and a device are refused without waiting, by name and in a search."""
    os.mkfifo(tmp_path / "pipe.log")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            listener.bind("socket.log")
        finally:
            os.chdir(here)
        began = time.monotonic()
        runs, errors = read_runs([tmp_path / "pipe.log", tmp_path / "socket.log", Path("/dev/zero"), tmp_path])
        assert time.monotonic() - began < 5
    assert not runs and len(errors) == 4
    assert "pipe, device or socket" in errors[0].error


def test_strange_names(tmp_path: Path) -> None:
    """Names are data: whatever a file is called it is read, and nothing else is touched."""
    state = write_state(tmp_path / "run", history(50)).read_bytes()
    names = ["a b", "ünï", "<img src=x>", "=cmd|x", "\x1b[31m", "CON", "a" * 200, "‮gnp", "%2e%2e%2f", "{{7*7}}"]
    folder = tmp_path / "names"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(state)
    (folder / os.fsdecode(b"\xff\xfe")).write_bytes(state)
    runs, errors = read_runs([folder])
    assert not errors and len(runs) == len(names) + 1


def test_hidden_folders_and_installed_packages_are_passed_over(tmp_path: Path) -> None:
    """A search does not look into .git, caches and installed packages."""
    for name in (".git", "node_modules", "__pycache__", "site-packages"):
        write_state(tmp_path / name, history(50))
    write_state(tmp_path / "run", history(50))
    assert [run.name for run in read_runs([tmp_path])[0]] == ["run"]


def test_unreadable_folder(tmp_path: Path) -> None:
    """A folder that may not be listed hides nothing else."""
    write_state(tmp_path / "run", history(50))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    try:
        assert len(read_runs([tmp_path])[0]) == 1
    finally:
        closed.chmod(0o700)


def old(path: Path) -> None:
    """Make a file look as if it was written a while ago."""
    long_ago = time.time_ns() - 10 * SETTLED_NS
    os.utime(path, ns=(long_ago, long_ago))


def test_cache_remembers_readers_only_of_unchanged_files(tmp_path: Path) -> None:
    """A file is recognised again without being opened while it is the same, and looked at anew when it is not."""
    log = tmp_path / "runs" / "log.txt"
    log.parent.mkdir()
    log.write_text("step 1: train loss 2.0, val loss 2.1\nstep 2: train loss 1.0, val loss 2.0\n")
    old(log)

    def found() -> list[str]:
        with Cache(tmp_path / "cache") as cache:
            return [
                part[0].name
                for each in find([log.parent], cache=cache)
                if isinstance(each, Found)
                for part in each.parts
            ]

    assert found() == ["console"] == found()
    with Cache(tmp_path / "cache") as cache:
        assert cache.reader_name(log) == "console"
        log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
        assert cache.reader_name(log) is None
    assert found() == ["jsonl"]
    with Cache(tmp_path / "cache") as cache:
        assert cache.reader_name(log) is None  # written a moment ago: its next change might not show in its time


def test_cache_answers_by_what_the_files_are(tmp_path: Path) -> None:
    """An answer is found under a key that changes with any file of the run."""
    write_state(tmp_path / "out" / "checkpoint-50", history(50))
    (found,) = [each for each in find([tmp_path / "out"]) if isinstance(each, Found)]
    key = found.key()
    assert key is not None
    with Cache(tmp_path / "cache") as cache:
        cache.remember(key, b"answer", found.newest_ns())
    with Cache(tmp_path / "cache") as cache:
        assert cache.answer(key) == b"answer" and cache.answer(b"other") is None
    write_state(tmp_path / "out" / "checkpoint-100", history(100))
    (again,) = [each for each in find([tmp_path / "out"]) if isinstance(each, Found)]
    assert again.key() != key


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"\xff" * 5000, b"no database at all" * 1000])
def test_a_damaged_cache_is_thrown_away(tmp_path: Path, content: bytes) -> None:
    """A broken cache file costs nothing but the answers."""
    tmp_path.joinpath("files-1.sqlite").write_bytes(content)
    with Cache(tmp_path) as cache:
        assert cache.answer(b"key") is None
        cache.remember(b"key", b"answer", 0)
    with Cache(tmp_path) as cache:
        assert cache.answer(b"key") == b"answer"


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    """A file in place of the cache folder turns it off."""
    (tmp_path / "file").write_text("")
    with Cache(tmp_path / "file" / "below") as cache:
        cache.remember(b"key", b"answer", 0)
        assert cache.answer(b"key") is None


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment moves it or turns it off."""
    monkeypatch.setenv("SIGHTLINE_CACHE", "0")
    assert cache_folder() is None
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SIGHTLINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "sightline"
