"""`sightline read --follow`: every point once, as it is written, whatever happens to the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sightline.cli import following, main
from tests.cli.logs import trainer_state


def line(step: int) -> str:
    """Return a printed line; the validation loss turns at step 60."""
    return f"step {step}: train loss {3 / step**0.3:.4f}, val loss {2 + abs(step - 60) / 100:.4f}\n"


def between(monkeypatch: pytest.MonkeyPatch, *events: Callable[[], object]) -> None:
    """Let one thing happen after each look, then the user's Ctrl-C."""
    pending: Iterator[Callable[[], object]] = iter(events)

    def sleep(_: float) -> None:
        event = next(pending, None)
        if event is None:
            raise KeyboardInterrupt
        event()

    monkeypatch.setattr(following.time, "sleep", sleep)


def append(path: Path, text: str) -> None:
    """Append to a file."""
    with path.open("a") as file:
        file.write(text)


def events(text: str) -> list[dict[str, Any]]:
    """Return the JSON events of an output."""
    return [json.loads(each) for each in text.splitlines()]


def test_every_point_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half lines, a rotation and a restart: each point is one event, and a verdict follows each new evaluation."""
    path = tmp_path / "train.log"
    between(
        monkeypatch,
        lambda: append(path, "".join(line(step) for step in range(10, 50, 10)) + line(50)[:9]),
        lambda: append(path, line(50)[9:]),
        lambda: None,
        lambda: [append(path, line(60)), path.rename(tmp_path / "old"), append(path, line(70))],
        lambda: append(path, "".join(line(step) for step in range(80, 160, 10))),
    )
    assert main(["read", "--follow", "--json", str(path)]) == 130
    told = events(capsys.readouterr().out)
    assert [each["event"] for each in told][:2] == ["notice", "begin"] and told[-1]["event"] == "end"
    logs = [each for each in told if each["event"] == "log"]
    assert [each["step"] for each in logs] == list(range(10, 160, 10))
    assert logs[3]["metrics"] == {"loss": pytest.approx(3 / 40**0.3, abs=1e-4), "eval_loss": 2.2}
    assert [each["step"] for each in told if each["event"] == "evaluation"] == [40, 50, 70, 150]
    assert told[-1]["verdict"]["best"]["step"] == 60 and told[1]["max_steps"] is None


def test_a_log_whose_run_has_ended_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends by itself, with the exit code of the verdict."""
    path = trainer_state(tmp_path / "trainer_state.json")
    state = json.loads(path.read_text())
    state["log_history"].append({"step": 1500, "train_runtime": 9.0, "train_loss": 1.0})
    path.write_text(json.dumps(state))
    monkeypatch.setattr(following, "QUIET_S", -1.0)
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.0)
    assert main(["read", "--follow", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "step 1500" in shown and "OVERFITTING" in shown


def test_a_folder_is_followed_at_its_liveliest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is empty at first is followed once a log appears in it."""
    log = tmp_path / "logs" / "a.log"
    log.parent.mkdir()
    between(monkeypatch, lambda: append(log, line(10)), lambda: append(log, line(20) + line(30)))
    assert main(["read", str(tmp_path), "--follow", "--json", "--eval-metric", "loss"]) == 130
    told = events(capsys.readouterr().out)
    assert [each["step"] for each in told if each["event"] == "log"] == [10, 20, 30]
    assert told[-1]["verdict"]["n_eval"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b"], "follows one log, and 2 were named"),
        (["a", "--width", "40"], "--width does not go with --follow"),
        (["hf://org/model"], "does not grow"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be followed is refused at once."""
    assert main(["read", "--follow", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_metric_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The curves there are are named."""
    append(tmp_path / "a.log", line(10) + line(20))
    assert main(["read", "--follow", "--eval-metric", "nope", str(tmp_path / "a.log")]) == 2
    assert "choose one of: eval_loss, loss" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_through_a_process(tmp_path: Path) -> None:
    """A line appended to the file comes out of the pipe, and Ctrl-C ends it in order."""
    path = tmp_path / "train.log"
    append(path, line(10) + line(20))
    command = [sys.executable, "-m", "sightline", "read", "--follow", "--json", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    shown = [json.loads(process.stdout.readline()) for _ in range(4)]
    assert [each["event"] for each in shown] == ["begin", "log", "log", "evaluation"]
    written = time.time()
    append(path, line(30))
    assert (told := json.loads(process.stdout.readline()))["step"] == 30 and told["time"] >= written
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert events(out)[-1]["event"] == "end"
