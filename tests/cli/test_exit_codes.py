"""Exit codes and messages, through a real process: never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.logs import FALLING, sightline, trainer_state


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    trainer_state(folder / "turned" / "trainer_state.json")
    trainer_state(folder / "fine" / "trainer_state.json", FALLING)
    (folder / "empty.json").write_text("")
    (folder / "notes.txt").write_text("nothing to see here\n")
    (folder / "cut.json").write_text('{"log_history": [{"step": 10, "loss": 2')
    return folder


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["read", "fine"], 0),
        (["fine"], 0),
        (["fine", "--json"], 0),
        (["--json", "fine"], 0),
        (["read", "turned"], 1),
        (["turned/trainer_state.json"], 1),
        (["read", "fine", "turned"], 1),
        (["read", "turned", "--fail-on", "none"], 0),
        (["read", "turned", "--fail-on", "diverged"], 0),
        (["read", "turned", "--fail-on", "diverged, overfitting"], 1),
        (["read", "turned", "--fail-on", "nonsense"], 2),
        (["read", "fine", "--eval-metric", "no_such"], 3),
        (["read"], 2),
        (["read", "--json"], 2),
        (["read", "fine", "--no-such-option"], 2),
        (["read", "fine", "--width", "3"], 2),
        (["reed"], 2),
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        (["read", "--help"], 0),
        (["read", "missing"], 3),
        (["missing.json"], 3),
        (["read", "empty.json"], 3),
        (["read", "notes.txt"], 3),
        (["read", "cut.json"], 3),
        (["read", "fine", "missing"], 3),
        (["read", "turned", "missing"], 1),
    ],
)
def test_exit_code(words, code, logs):
    """Each use of the command line has its exit code, and its message has no traceback."""
    done = sightline(*words, cwd=logs)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if code == 2 and words:
        assert done.stderr.startswith("sightline: ") and done.stderr.count("\n") == 1
    assert "\x1b" not in done.stdout  # no terminal, no colours


def test_a_bad_file_never_hides_the_others(logs):
    """What could be read is shown, what could not is named."""
    done = sightline("read", "fine", "missing", "notes.txt", cwd=logs)
    assert "Could not be read" in done.stdout and "missing" in done.stdout and "notes.txt" in done.stdout
    assert "validation loss" in done.stdout


def test_mistyped_command_is_told_the_right_one(logs):
    """`sightline reed` is no path, and looks like a command."""
    assert "did you mean `sightline read`" in sightline("reed", cwd=logs).stderr


def test_a_folder_called_like_nothing_is_read(logs):
    """A word that is a path is a path."""
    assert sightline("fine", cwd=logs).returncode == 0


def test_a_reader_that_goes_away_is_no_error(logs):
    """`sightline read … | head -c 1` prints no complaint and exits as a program killed by SIGPIPE does."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "sightline", "read", "turned"],
        cwd=logs,
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(write_end)
    assert done.returncode == 141 and done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(logs):
    """Output that cannot be written gives one line and exit code 3."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sightline", "read", "turned", "--json"],
            cwd=logs, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 3 and done.stderr == "sightline: No space left on device\n"


def test_closed_output_is_no_error(logs):
    """`sightline read … >&-` still gives its exit code."""
    command = f"exec {sys.executable} -m sightline read turned >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], cwd=logs, timeout=60).returncode == 1


def test_ctrl_c_exits_130(tmp_path):
    """Interrupted while it waits for a pipe to be written: one line, no traceback."""
    fifo = tmp_path / "sitecustomize.py"
    fifo.write_text("import sightline.cli as c, time\nc._dispatch = lambda words: time.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "sightline", "read", "x"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and error == "sightline: interrupted\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16", "cp437"])
def test_any_encoding_of_the_output(encoding, logs):
    """What the encoding lacks is written out; never an encoding error."""
    done = subprocess.run(
        [sys.executable, "-m", "sightline", "read", "turned"],
        cwd=logs, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=60,
    )  # fmt: skip
    text = done.stdout.decode(encoding)
    assert done.returncode == 1 and done.stderr == b""
    assert "OVERFITTING" in text and ("⣤" in text) == (encoding == "utf-16")


@pytest.mark.skipif(sys.platform == "darwin", reason="file names there are UTF-8")
def test_a_path_that_is_no_utf8(logs, tmp_path):
    """Bytes of a file name that are no UTF-8 are shown escaped, in the page and in the JSON."""
    import json

    folder = tmp_path / os.fsdecode(b"run\xff\x1b[31m")
    trainer_state(folder / "trainer_state.json")
    page = sightline("read", folder)
    assert page.returncode == 1 and "\\xff\\x1b[31m" in page.stdout and "\x1b" not in page.stdout
    document = json.loads(sightline("read", "--json", folder).stdout)
    assert "\\udcff\x1b[31m" in document["runs"][0]["path"]


def test_a_fault_of_ours_is_one_line_too(tmp_path):
    """A bug gives a line that names it, and the traceback only on request."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sightline.cli as c\ndef broken(words): raise TypeError('oh\\x1b[31m')\nc._dispatch = broken\n"
    )
    done = sightline("read", "x", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "a fault of Sightline itself: TypeError: oh\\x1b[31m" in done.stderr
    traced = sightline("read", "x", env={"PYTHONPATH": str(tmp_path), "SIGHTLINE_TRACEBACK": "1"})
    assert "Traceback" in traced.stderr
