"""The ``.wandb`` file: records over blocks, damage, cut tails, configuration and restarts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import MalformedLog
from sightline.runs import Status
from sightline.sources import read, read_runs
from sightline.sources.wandb import Parser
from tests.sources.writers import WandbLog, field, varint


def log_of(steps: range, padding: int = 0) -> WandbLog:
    """Return a log of a Trainer's run with an evaluation every fifth step."""
    log = WandbLog()
    for i, step in enumerate(steps):
        log.history(i, {"train/loss": 2.0 / (i + 1), "train/global_step": step, "note": f'"{"x" * padding}"'})
        if i % 5 == 4:
            log.history(i, {"eval/loss": 1.0, "train/global_step": step})
    return log


def written(tmp_path: Path, log: WandbLog, name: str = "run-a.wandb") -> Path:
    """Write a log into a file."""
    path = tmp_path / name
    path.write_bytes(bytes(log.content))
    return path


def test_history_over_many_blocks(tmp_path: Path) -> None:
    """Records that span blocks of 32 KiB are put together; the Trainer's own steps count, not wandb's."""
    run = read(written(tmp_path, log_of(range(10, 1010, 10), padding=2000)))
    assert run.format == "wandb" and run.damage == ()
    assert run.curves["loss"].steps.tolist() == list(range(10, 1010, 10))
    assert run.curves["eval_loss"].steps.tolist() == list(range(50, 1010, 50))


def test_pieces_of_any_size_read_the_same(tmp_path: Path) -> None:
    """How a file is cut into pieces does not matter."""
    path = written(tmp_path, log_of(range(100), padding=3000))
    content = path.read_bytes()
    for size in (1000, 7777, 32768, 40000):
        parser = Parser(path)
        for begin in range(0, len(content), size):
            parser.feed(content[begin : begin + size])
        (run,) = parser.runs()
        assert run.curves["loss"].steps.tolist() == list(range(100)) and not run.damage


def test_a_damaged_block_hides_no_other(tmp_path: Path) -> None:
    """A bad checksum costs the block it stands in; blocks before and after are read."""
    path = written(tmp_path, log_of(range(200), padding=2000))
    content = bytearray(path.read_bytes())
    content[40_000] ^= 0xFF
    path.write_bytes(bytes(content))
    run = read(path)
    steps = run.curves["loss"].steps.tolist()
    assert 200 - 18 <= len(steps) < 200 and steps[0] == 0 and steps[-1] == 199
    assert any("damaged" in sentence for sentence in run.damage)


def test_cut_file(tmp_path: Path) -> None:
    """A file cut inside a record is read up to it."""
    path = written(tmp_path, log_of(range(50)))
    path.write_bytes(path.read_bytes()[:-10])
    run = read(path)
    assert run.last_step == 49 and any("cut short" in sentence for sentence in run.damage)


def test_configuration_and_end(tmp_path: Path) -> None:
    """Plain settings, the name and the exit code are kept; what looks like a secret is not."""
    log = log_of(range(3))

    def item(name: str, text: str) -> bytes:
        return field(1, field(1, name.encode()) + varint(16 << 3 | 2) + varint(len(text)) + text.encode())

    log.record(field(17, field(8, b"my-run") + field(4, item("max_steps", "30") + item("hub_token", '"hf_x"'))))
    log.record(field(18, b"\x08\x01"))
    run = read(written(tmp_path, log))
    assert run.name == "my-run" and run.max_steps == 30
    assert run.config == {"max_steps": 30}
    assert run.status is Status.FAILED


def test_two_trainers_in_one_run_are_two(tmp_path: Path) -> None:
    """A script that trains twice inside one wandb run made two; an evaluation before the second is the second's."""
    log = log_of(range(10, 60, 10))
    log.history(99, {"eval/loss": 5.0, "train/global_step": 0})
    for step in range(10, 80, 10):
        log.history(100 + step, {"train/loss": 9.0, "train/global_step": step})
    runs, _ = read_runs([written(tmp_path, log)])
    assert [run.curves["loss"].steps.tolist()[-1] for run in runs] == [50, 70]
    assert runs[1].curves["eval_loss"].steps.tolist() == [0]


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    """Histograms, texts and booleans are no metrics; NaN in a string is NaN."""
    log = WandbLog()
    log.history(0, {"loss": '"NaN"', "h": '{"_type": "histogram"}', "t": '"text"', "b": "true", "u": "1_0"})
    log.history(1, {"loss": "1.5"})
    run = read(written(tmp_path, log))
    assert set(run.curves) == {"loss"} and str(run.curves["loss"].values.tolist()) == "[nan, 1.5]"


def test_a_run_folder_is_one_run(tmp_path: Path) -> None:
    """The copy of the console below a run's folder is not another run."""
    folder = tmp_path / "run-20250101_000000-abc"
    (folder / "files").mkdir(parents=True)
    written(folder, log_of(range(10, 60, 10)), "run-abc.wandb")
    (folder / "files" / "output.log").write_text("{'loss': 1.0, 'epoch': 0.1}\n" * 5)
    (run,), errors = read_runs([tmp_path])
    assert not errors and run.format == "wandb" and run.path == folder


@pytest.mark.parametrize("content", [b":W&B\xe1\xbe\x00", b":W&B\xe1\xbe\x00" + b"\xff" * 100])
def test_a_file_without_history_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    """A file that holds no metric says so."""
    path = tmp_path / "run.wandb"
    path.write_bytes(content)
    with pytest.raises(MalformedLog, match="no logged metric"):
        read(path)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.integers(0, 5000)), min_size=1, max_size=30))
def test_random_runs_are_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, int]]) -> None:
    """Whatever JSON numbers are logged come back, however long the records beside them are."""
    log = WandbLog()
    for i, (value, padding) in enumerate(rows):
        log.history(i, {"train/loss": repr(value), "text": '"' + "x" * padding + '"'})
    run = read(written(tmp_path_factory.mktemp("wandb"), log))
    assert run.curves["loss"].values.tolist() == [value for value, _ in rows]
