"""Growing logs: new points, torn lines, rotation, truncation and rewriting, for every format that can be followed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import UsageError
from sightline.sources import follow as follow_module
from sightline.sources.follow import Follower, liveliest
from tests.sources.test_trainer_state import history, write_state
from tests.sources.writers import WandbLog, event, file_version


def console_line(step: int) -> bytes:
    """Return a printed line."""
    return f"step {step}: train loss {1 / step:.6f}, val loss {2 / step:.6f}\n".encode()


def jsonl_line(step: int) -> bytes:
    """Return a JSON line."""
    return (json.dumps({"step": step, "loss": 1 / step, "eval_loss": 2 / step}) + "\n").encode()


def csv_line(step: int) -> bytes:
    """Return a CSV row, after the header."""
    return f"{step},{1 / step},{2 / step}\n".encode()


def event_record(step: int) -> bytes:
    """Return a record of an event file."""
    return event(step, {"train/loss": 1 / step, "eval/loss": 2 / step})


def wandb_records() -> Iterator[bytes]:
    """Yield what a wandb run appends for each step from 1 on."""
    log = WandbLog()
    written = len(log.content)
    step = 0
    while True:
        step += 1
        log.history(step, {"train/loss": 1 / step, "eval/loss": 2 / step, "train/global_step": step})
        yield bytes(log.content[written:])
        written = len(log.content)


_WANDB: list[bytes] = []


def wandb_record(step: int) -> bytes:
    """Return what a wandb run appends for a step."""
    if len(_WANDB) < step:
        records = wandb_records()
        _WANDB[:] = [next(records) for _ in range(200)]
    return _WANDB[step - 1]


FORMATS: dict[str, tuple[str, bytes, Callable[[int], bytes]]] = {
    "console": ("train.log", b"starting\n", console_line),
    "jsonl": ("log.jsonl", b"", jsonl_line),
    "csv": ("metrics.csv", b"step,train_loss,val_loss\n", csv_line),
    "tensorboard": ("events.out.tfevents.1.h", file_version(), event_record),
    "wandb": ("run-a.wandb", b":W&B\xe1\xbe\x00", wandb_record),
}


@pytest.fixture(params=FORMATS)
def growing(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bytes, Callable[[int], bytes]]:
    """Return a log's path, its beginning, and what it gains at each step."""
    name, start, line = FORMATS[request.param]
    return tmp_path / name, start, line


def append(path: Path, content: bytes) -> None:
    """Append to a file."""
    with path.open("ab") as file:
        file.write(content)


def steps(growth: Any, name: str = "eval_loss") -> list[int]:
    """Return the steps of the new points of a metric."""
    return growth.new[name].steps.tolist() if name in growth.new else []


def test_each_poll_brings_what_was_appended(growing: tuple[Path, bytes, Callable[[int], bytes]]) -> None:
    """A log that does not exist yet, then grows line by line, with a line torn in two."""
    path, start, line = growing
    follower = Follower(path)
    assert not follower.poll() and follower.run is None
    append(path, start + line(1) + line(2))
    assert steps(follower.poll()) == [1, 2]
    assert not follower.poll()
    for step in range(3, 40):
        content = line(step)
        append(path, content[: len(content) // 2])
        assert steps(follower.poll()) == []
        append(path, content[len(content) // 2 :])
        assert steps(follower.poll()) == [step]
    assert follower.run is not None and follower.run.curves["loss"].steps.tolist() == list(range(1, 40))


def test_only_what_was_appended_is_read(growing: tuple[Path, bytes, Callable[[int], bytes]], monkeypatch: Any) -> None:
    """A poll reads the new bytes and a few in front of them, not the file."""
    path, start, line = growing
    append(path, start + b"".join(line(step) for step in range(1, 150)))
    follower = Follower(path)
    follower.poll()
    size = path.stat().st_size
    append(path, line(150))
    read_bytes = []
    real = follow_module.open_regular

    def counting(file: Path) -> Any:
        stream = real(file)

        class Counting:
            def __enter__(self) -> Counting:
                return self

            def __exit__(self, *_: object) -> None:
                stream.close()

            def read(self, count: int) -> bytes:
                content = stream.read(count)
                read_bytes.append(len(content))
                return content

            def seek(self, place: int) -> int:
                return stream.seek(place)

            def fileno(self) -> int:
                return stream.fileno()

        return Counting()

    monkeypatch.setattr(follow_module, "open_regular", counting)
    assert steps(follower.poll()) == [150]
    assert sum(read_bytes) <= path.stat().st_size - size + 256


def test_truncation_begins_another_run(growing: tuple[Path, bytes, Callable[[int], bytes]]) -> None:
    """A job started again into the same, emptied file is the run that is followed from then on."""
    path, start, line = growing
    append(path, start + b"".join(line(step) for step in range(1, 20)) + line(20)[:5])
    follower = Follower(path)
    follower.poll()
    path.write_bytes(start + line(1) + line(2))
    assert follower.poll() and follower.run is not None
    assert follower.run.curves["loss"].steps.tolist() == [1, 2]
    append(path, line(3))
    assert steps(follower.poll()) == [3]


def test_rotation_goes_on(growing: tuple[Path, bytes, Callable[[int], bytes]]) -> None:
    """A file moved aside and begun anew goes on with the same run, where its lines stand by themselves."""
    path, start, line = growing
    append(path, start + b"".join(line(step) for step in range(1, 10)))
    follower = Follower(path)
    follower.poll()
    path.rename(path.with_name("old"))
    assert not follower.poll()
    if path.suffix == ".wandb":
        return  # a run of its own by its header
    path.write_bytes(start + line(10))
    assert steps(follower.poll()) == [10]
    assert follower.run is not None and len(follower.run.curves["loss"]) == 10


def test_lines_written_just_before_a_rotation_are_not_lost(tmp_path: Path) -> None:
    """What a file gained between the last look and being moved aside is read from where it now lies."""
    path = tmp_path / "train.log"
    append(path, b"".join(console_line(step) for step in range(1, 10)))
    follower = Follower(path)
    follower.poll()
    append(path, console_line(10) + console_line(11))
    path.rename(tmp_path / "train.log.1")
    append(path, console_line(12))
    assert steps(follower.poll()) == [10, 11, 12]


def test_another_run_is_said_to_have_begun(tmp_path: Path) -> None:
    """The first look and a run that follows another begin; what goes on does not."""
    path = tmp_path / "train.log"
    append(path, b"".join(console_line(step) for step in range(1, 10)))
    follower = Follower(path)
    assert follower.poll().begun
    append(path, console_line(10))
    growth = follower.poll()
    assert growth and not growth.begun
    append(path, console_line(1) + console_line(2))
    growth = follower.poll()
    assert growth.begun and steps(growth) == [1, 2]


def test_the_liveliest_log_of_a_folder(tmp_path: Path) -> None:
    """Of several runs the one written last, of its logs one that grows point by point."""
    for i, name in enumerate(("a", "b")):
        state = write_state(tmp_path / name / "checkpoint-50", history(50), mtime=1e9 + i)
        events = tmp_path / name / "runs" / "events.out.tfevents.1.h"
        events.parent.mkdir()
        events.write_bytes(file_version() + event_record(50))
        os.utime(events, (1e9 - 9, 1e9 - 9))
    assert liveliest(tmp_path) == tmp_path / "b" / "runs"
    assert liveliest(state) == state and liveliest(tmp_path / "none") == tmp_path / "none"
    (tmp_path / "empty").mkdir()
    assert liveliest(tmp_path / "empty") == tmp_path / "empty"


def test_a_file_written_over_is_read_anew(growing: tuple[Path, bytes, Callable[[int], bytes]]) -> None:
    """A file whose beginning changed counts from its beginning, however long it is."""
    path, start, line = growing
    if path.suffix == ".wandb":
        return
    append(path, start + b"".join(line(step) for step in range(1, 10)))
    follower = Follower(path)
    follower.poll()
    inode = path.stat().st_ino
    with path.open("r+b") as file:
        file.write(start + b"".join(line(step) for step in range(101, 140)))
    assert path.stat().st_ino == inode
    follower.poll()
    assert follower.run is not None and follower.run.curves["loss"].steps.tolist() == list(range(101, 140))


def test_new_points_come_within_a_second(tmp_path: Path) -> None:
    """A million bytes of log and one more line: the line is there at once."""
    path = tmp_path / "train.log"
    append(path, b"".join(console_line(step) for step in range(1, 20_000)))
    follower = Follower(path)
    follower.poll()
    append(path, console_line(20_000))
    began = time.process_time()
    assert steps(follower.poll()) == [20_000]
    assert time.process_time() - began < 1.0


def test_a_last_line_without_an_end(tmp_path: Path) -> None:
    """When nobody writes any more the last line counts though nothing ends it."""
    path = tmp_path / "train.log"
    append(path, console_line(1) + console_line(2) + console_line(3)[:-1])
    follower = Follower(path)
    assert steps(follower.poll()) == [1, 2]
    assert steps(follower.finish()) == [3]


def test_rolled_back_points_come_again(tmp_path: Path) -> None:
    """A resume replaces points: what follows the place it went back to is new."""
    path = tmp_path / "log.jsonl"
    append(path, b"".join(jsonl_line(step) for step in range(10, 100, 10)))
    follower = Follower(path)
    follower.poll()
    append(path, json.dumps({"step": 60, "loss": 9.0, "eval_loss": 9.5}).encode() + b"\n")
    assert steps(follower.poll()) == [60]
    assert follower.run is not None and follower.run.last_step == 60


def test_output_folder_of_the_trainer(tmp_path: Path) -> None:
    """States are written anew at every checkpoint; half-written ones wait for the next look."""
    write_state(tmp_path / "out" / "checkpoint-50", history(50))
    follower = Follower(tmp_path / "out")
    assert steps(follower.poll(), "loss") == [10, 20, 30, 40, 50]
    assert not follower.poll()
    state = write_state(tmp_path / "out" / "checkpoint-100", history(100), mtime=2e9)
    text = state.read_text()
    state.write_text("")
    assert not follower.poll()
    state.write_text(text)
    os.utime(state, (3e9, 3e9))
    assert steps(follower.poll(), "loss") == [60, 70, 80, 90, 100]
    assert follower.run is not None and [c.step for c in follower.run.checkpoints] == [50, 100]


def test_log_folder_of_tensorboard(tmp_path: Path) -> None:
    """A restart adds another event file; its points go on with the run."""
    first = tmp_path / "events.out.tfevents.100.h"
    append(first, file_version() + event_record(1) + event_record(2))
    follower = Follower(tmp_path)
    assert steps(follower.poll()) == [1, 2]
    append(first, event_record(3))
    assert steps(follower.poll()) == [3]
    append(tmp_path / "events.out.tfevents.200.h", file_version() + event_record(3) + event_record(4))
    assert steps(follower.poll()) == [4]
    assert follower.run is not None and follower.run.curves["loss"].steps.tolist() == [1, 2, 3, 4]


def test_run_folder_of_sightline(tmp_path: Path) -> None:
    """Sightline's own journal is followed too."""
    import sightline

    with sightline.record(tmp_path / "run") as recorder:
        recorder.log(1, loss=2.0)
        follower = Follower(tmp_path / "run")
        seen = steps(follower.poll(), "loss")
        recorder.log(2, loss=1.0)
        seen += steps(follower.poll(), "loss")
    seen += steps(follower.poll(), "loss")
    assert seen == [1, 2]


def test_the_judged_curve_may_be_chosen(tmp_path: Path) -> None:
    """Another evaluation set is judged if the user says so; a name that is none is an error."""
    path = tmp_path / "log.jsonl"
    append(path, b'{"step": 1, "loss": 1.0, "eval_math_loss": 2.0, "eval_code_loss": 3.0}\n' * 2)
    follower = Follower(path, eval_metric="eval_code_loss")
    follower.poll()
    assert follower.run is not None and follower.run.eval_metric == "eval_code_loss"
    with pytest.raises(UsageError, match="eval_math_loss"):
        Follower(path, eval_metric="eval_poetry_loss").poll()
