"""The Trainer's state: files, checkpoints, output folders, and what may be wrong with them."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.errors import MalformedLog, UnknownLogFormat, UsageError
from sightline.runs import Status
from sightline.sources import read, read_runs
from sightline.sources.trainer_state import kept_after_rollbacks

Entry = dict[str, Any]


def history(until: int, *, level: float = 3.0, begin: int = 10) -> list[Entry]:
    """Return entries every 10 steps with an evaluation every 50."""
    entries: list[Entry] = []
    for step in range(begin, until + 1, 10):
        entries.append({"epoch": step / 100, "loss": level / step, "learning_rate": 1e-5, "step": step})
        if step % 50 == 0:
            entries.append({"epoch": step / 100, "eval_loss": level / step + 0.1, "eval_runtime": 1.0, "step": step})
    return entries


def write_state(folder: Path, entries: list[Entry], *, mtime: float = 1e9, **fields: Any) -> Path:
    """Write a state as the Trainer does; ``mtime`` in Unix seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"global_step": entries[-1]["step"] if entries else 0, "log_history": entries, **fields}
    path = folder / "trainer_state.json"
    path.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")
    os.utime(path, (mtime, mtime))
    return path


def test_file_gives_all_its_numeric_metrics(tmp_path: Path) -> None:
    """Every numeric key becomes a curve at its steps."""
    run = read(write_state(tmp_path / "out", history(100), max_steps=300, train_batch_size=4))
    assert run.format == "trainer_state"
    assert run.name == "out"
    assert list(run.curves["loss"].steps) == list(range(10, 101, 10))
    assert run.eval_loss is not None and list(run.eval_loss.steps) == [50, 100]
    assert run.eval_loss.at(50) == pytest.approx(0.16)
    assert run.max_steps == 300 and run.config["train_batch_size"] == 4
    assert run.status is Status.UNKNOWN


@pytest.mark.parametrize(("last", "status"), [(100, Status.STOPPED), (300, Status.FINISHED)])
def test_closing_summary_tells_how_the_run_ended(tmp_path: Path, last: int, status: Status) -> None:
    """The Trainer's summary before max_steps is an early stop; its train_loss is no point of the loss curve."""
    summary = {"step": last, "train_loss": 9.0, "train_runtime": 5.0, "total_flos": 1.0}
    run = read(write_state(tmp_path, [*history(last), summary], max_steps=300))
    assert run.status is status
    assert run.train_loss is not None and 9.0 not in run.train_loss.values
    assert run.curves["train_loss"].at(last) == 9.0


def test_train_loss_alone_is_not_a_training_curve(tmp_path: Path) -> None:
    """A run shorter than its logging interval has evaluations and no training curve."""
    run = read(
        write_state(tmp_path, [{"eval_loss": 1.0, "step": 5}, {"train_loss": 2.0, "train_runtime": 1, "step": 6}])
    )
    assert run.train_loss is None
    assert run.eval_loss is not None and len(run.eval_loss) == 1


def test_output_folder_is_one_run_with_its_checkpoints(tmp_path: Path) -> None:
    """Checkpoints are records of the run, not runs; the furthest tells the history."""
    for step in (50, 100, 150):
        write_state(tmp_path / "out" / f"checkpoint-{step}", history(step), mtime=1e9 + step)
    runs, errors = read_runs([tmp_path])
    assert not errors
    [run] = runs
    assert run.path == tmp_path / "out"
    assert [c.step for c in run.checkpoints] == [50, 100, 150]
    assert run.checkpoints[1].path == tmp_path / "out" / "checkpoint-100"
    assert run.last_step == 150 and run.damage == ()


def test_checkpoint_folder_is_the_run_as_it_stood(tmp_path: Path) -> None:
    """Naming a checkpoint reads its own history."""
    for step in (50, 100):
        write_state(tmp_path / "out" / f"checkpoint-{step}", history(step))
    run = read(tmp_path / "out" / "checkpoint-50")
    assert run.last_step == 50 and run.name == "out"
    assert [c.step for c in run.checkpoints] == [50]


def test_newer_history_wins_over_a_longer_stale_one(tmp_path: Path) -> None:
    """After a resume from an older checkpoint the stale ones further on are another history, and are named."""
    write_state(tmp_path / "checkpoint-50", history(50), mtime=1e9)
    write_state(tmp_path / "checkpoint-200", history(200), mtime=1e9 + 100)
    write_state(tmp_path / "checkpoint-100", history(50) + history(100, level=1.0, begin=60), mtime=1e9 + 500)
    run = read(tmp_path)
    assert run.last_step == 100
    assert run.train_loss is not None and run.train_loss.at(60) == pytest.approx(1 / 60)
    assert any("checkpoint-200" in sentence for sentence in run.damage)


def test_clock_of_a_copy_does_not_matter(tmp_path: Path) -> None:
    """A copy writes checkpoint-100 after checkpoint-50 or before: one history, whatever the clock says."""
    write_state(tmp_path / "checkpoint-100", history(100), mtime=1e9)
    write_state(tmp_path / "checkpoint-50", history(50), mtime=1e9 + 900)
    run = read(tmp_path)
    assert run.last_step == 100 and run.damage == ()


def test_lost_beginning_is_taken_from_older_checkpoints(tmp_path: Path) -> None:
    """A history that begins at step 110 is joined with what an older checkpoint knows of the steps before."""
    write_state(tmp_path / "checkpoint-100", history(100), mtime=1e9)
    write_state(tmp_path / "checkpoint-150", history(150, begin=110), mtime=1e9 + 50)
    write_state(tmp_path / "checkpoint-200", history(200, begin=110), mtime=1e9 + 100)
    run = read(tmp_path)
    assert run.train_loss is not None and list(run.train_loss.steps) == list(range(10, 201, 10))


def test_damaged_newest_checkpoint_falls_back(tmp_path: Path) -> None:
    """A checkpoint killed while it was written does not hide the run."""
    write_state(tmp_path / "checkpoint-50", history(50), mtime=1e9)
    write_state(tmp_path / "checkpoint-100", history(100), mtime=1e9 + 9).write_text("")
    run = read(tmp_path)
    assert run.last_step == 50
    assert any("checkpoint-100" in sentence for sentence in run.damage)


def test_rolled_back_steps_are_superseded(tmp_path: Path) -> None:
    """A log that goes back to step 60 keeps the later account of the steps after it."""
    run = read(write_state(tmp_path, history(100) + history(80, level=1.0, begin=60)))
    assert run.train_loss is not None
    assert list(run.train_loss.steps) == list(range(10, 81, 10))
    assert run.train_loss.at(50) == pytest.approx(3 / 50) and run.train_loss.at(70) == pytest.approx(1 / 70)
    assert [segment.from_step for segment in run.segments] == [0, 50]


def test_bare_words_and_numbers_past_float64_are_kept_as_such(tmp_path: Path) -> None:
    """NaN, Infinity, 1e400 and an integer of 5,000 digits do not make a state unreadable."""
    text = '{"log_history": [{"loss": NaN, "x": [NaN], "step": 1}, {"loss": -Infinity, "step": 2}'
    text += ', {"loss": 1e400, "step": 3}, {"loss": 1.5, "big": ' + "9" * 5000 + ', "step": 4}]}'
    (tmp_path / "trainer_state.json").write_text(text)
    run = read(tmp_path / "trainer_state.json")
    assert run.train_loss is not None
    np.testing.assert_array_equal(run.train_loss.values, [math.nan, -math.inf, math.inf, 1.5])
    assert run.curves["big"].at(4) == math.inf


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    """Strings with numbers count, booleans, lists, text and digits of other scripts do not."""
    entry = {"loss": "2.5", "flag": True, "list": [1], "text": "abc", "under": "1_000", "arabic": "١", "none": None}
    run = read(write_state(tmp_path, [{**entry, "step": 1}]))
    assert set(run.curves) == {"loss"}
    assert run.curves["loss"].at(1) == 2.5


def test_entries_without_a_step_belong_to_the_one_before(tmp_path: Path) -> None:
    """predict() logs without a step; its numbers stand at the step they were measured at."""
    run = read(write_state(tmp_path, [{"loss": 1.0, "step": 10}, {"predict_loss": 3.0}, {"loss": 0.5, "step": 20}]))
    assert run.curves["predict_loss"].at(10) == 3.0
    assert list(run.curves["loss"].steps) == [10, 20]


@pytest.mark.parametrize("content", ["[1, 2]", '{"log_history": 3}', '{"log_history": null}', "{", '"log_history"', ""])
def test_what_is_no_state_is_a_typed_error(tmp_path: Path, content: str) -> None:
    """Broken states are refused by name."""
    path = tmp_path / "trainer_state.json"
    path.write_text(content)
    with pytest.raises((MalformedLog, UnknownLogFormat), match="trainer_state"):
        read(path)


def test_cut_state_is_read_up_to_the_cut(tmp_path: Path) -> None:
    """What was written before the cut is read, and the damage is named."""
    path = write_state(tmp_path, history(100))
    text = path.read_text()
    path.write_text(text[: text.rfind('"loss"')])
    run = read(path)
    assert run.last_step is not None and run.last_step >= 90
    assert "cut short" in run.damage[0]


@pytest.mark.parametrize("damage", ['"loss"', '{"x": {"y": 1}, "loss" ', "}"])
def test_damaged_state_is_read_up_to_the_damage(tmp_path: Path, damage: str) -> None:
    """A few characters lost in the middle cost what comes after them, and the damage is named."""
    path = write_state(tmp_path, [{"note": "é\u00fc", "step": 1}, *history(100)])
    text = path.read_text()
    middle = text.index("{", len(text) // 2)
    path.write_text(text[:middle] + damage + text[middle + 20 :])
    run = read(path)
    assert run.last_step is not None and 40 <= run.last_step < 100
    assert "damaged" in run.damage[0]


def test_eval_metric_chooses_the_judged_curve(tmp_path: Path) -> None:
    """Several evaluation sets stay several curves; the user may choose."""
    entries = [{"eval_math_loss": 1.0, "eval_code_loss": 2.0, "eval_code_acc": 0.5, "loss": 1.0, "step": 1}]
    path = write_state(tmp_path, entries)
    assert {"eval_math_loss", "eval_code_loss"} <= set(read(path).curves)
    assert read(path).eval_metric == "eval_code_loss"
    assert read(path, eval_metric="eval/math_loss").eval_metric == "eval_math_loss"
    with pytest.raises(UsageError, match="eval_code_loss"):
        read(path, eval_metric="eval_poetry_loss")
    runs, errors = read_runs([path], eval_metric="nope")
    assert not runs and "nope" in errors[0].error


def test_policy_gradient_runs_are_marked(tmp_path: Path) -> None:
    """A GRPO run's loss need not fall: the reader says so, a DPO run's is a loss."""
    grpo = read(write_state(tmp_path / "a", [{"loss": -0.1, "reward": 1.0, "reward_std": 0.1, "step": 1}]))
    dpo = read(write_state(tmp_path / "b", [{"loss": 0.69, "rewards/chosen": 1.0, "rewards/margins": 0.1, "step": 1}]))
    assert "not_a_loss" in grpo.config and "not_a_loss" not in dpo.config


@given(st.lists(st.integers(0, 20), max_size=30))
def test_kept_entries_are_those_no_later_entry_undercuts(steps: list[int]) -> None:
    """An entry counts unless a later one stands at a lower step."""
    kept = kept_after_rollbacks(np.array(steps, dtype=np.int64))
    assert kept.tolist() == [all(later >= step for later in steps[i + 1 :]) for i, step in enumerate(steps)]


VALUES = st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf])


@given(st.lists(st.tuples(st.integers(1, 50), VALUES), min_size=1, max_size=40))
def test_random_histories_are_read_back(points: list[tuple[int, float]]) -> None:
    """Whatever values Python's json writes come back, NaN and infinities among them."""
    steps = np.cumsum([gap for gap, _ in points])
    entries = [{"loss": value, "step": int(step)} for step, (_, value) in zip(steps, points, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        run = read(write_state(Path(folder), entries))
    assert run.train_loss is not None
    np.testing.assert_array_equal(run.train_loss.steps, steps)
    np.testing.assert_array_equal(run.train_loss.values, [value for _, value in points])


def test_another_evaluation_of_a_step_is_kept_beside_the_one_that_counts(tmp_path: Path) -> None:
    """The last one logged counts; equal ones, and those that a resume supersedes, are not told of."""
    twice = [*history(100), {"eval_loss": 9.0, "step": 100}, {"eval_loss": 8.0, "step": 100}]
    curve = read(write_state(tmp_path / "twice", twice)).curves["eval_loss"]
    assert curve.at(100) == 8.0 and curve.replaced is not None
    assert (curve.replaced.steps.tolist(), curve.replaced.values.tolist()) == ([100], [9.0])
    assert curve.until(99).replaced is None
    same = [*history(100), *history(100)[-1:]]
    resumed = [*history(100), *history(150, level=5.0, begin=60)]
    for silent in (same, resumed):
        assert read(write_state(tmp_path / "silent", silent)).curves["eval_loss"].replaced is None
