"""The trainer state: its step and the numbers of that step, from a log of any length, without parsing all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sightline.checkpoints.parts import read_parts
from sightline.checkpoints.state import read_state
from sightline.errors import CheckpointError
from tests.checkpoints.made import history, make_checkpoint


@pytest.mark.parametrize("entries", [1, 100, 30_000])
def test_numbers_of_the_step_whatever_the_log_holds(tmp_path: Path, entries: int) -> None:
    """A short log is parsed, of a long one the end: 30 000 entries are 8 MB."""
    evals = {step: 3.0 - step / 100_000 for step in range(1, entries + 1)}
    folder = make_checkpoint(tmp_path / f"checkpoint-{entries}", entries, history(evals), max_steps=40_000)
    state = read_state(folder)
    assert (state.global_step, state.max_steps, state.save_steps) == (entries, 40_000, 10)
    assert state.metrics["eval_loss"] == evals[entries] and state.metrics["loss"] == 3.0 + 1.0 / entries
    assert read_parts(folder).is_complete


def test_log_without_an_entry_of_the_step(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint-5", 5, history({1: 2.0}))
    assert read_state(folder).metrics == {}


def test_repeated_evaluation_counts_as_it_was_last(tmp_path: Path) -> None:
    folder = make_checkpoint(
        tmp_path / "checkpoint-5", 5, [{"eval_loss": 2.0, "step": 5}, {"eval_loss": 1.0, "step": 5}]
    )
    assert read_state(folder).metrics["eval_loss"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"global_step": "5"}',
        '{"global_step": NaN, "log_history": 3}',
        '{"global_step": 5.5}',
        '{"global_step": true}',
        '{"global_step": 1e400}',
        '{"log_history": [3, null, {"step": []}]}',
    ],
)
def test_odd_states_are_incomplete_and_never_a_traceback(tmp_path: Path, text: str) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint-5", 5)
    (folder / "trainer_state.json").write_text(text)
    assert "trainer state" in read_parts(folder).missing[0]


def test_long_state_cut_within_its_log_is_told(tmp_path: Path) -> None:
    """The cut falls into the log, which is not parsed: its end is missing all the same."""
    folder = make_checkpoint(tmp_path / "checkpoint-30000", 30_000, history(dict.fromkeys(range(1, 30_001), 2.0)))
    path = folder / "trainer_state.json"
    path.write_bytes(path.read_bytes()[:5_000_000])
    with pytest.raises(CheckpointError, match="not laid out"):
        read_state(folder)
    assert not read_parts(folder).is_complete


def test_state_of_another_writer_is_read_too(tmp_path: Path) -> None:
    """Compact JSON with unsorted keys."""
    folder = make_checkpoint(tmp_path / "checkpoint-5", 5)
    told = {"log_history": [{"step": 5, "eval_loss": 1.5}], "global_step": 5, "epoch": 0.5}
    (folder / "trainer_state.json").write_text(json.dumps(told))
    assert read_state(folder).metrics == {"eval_loss": 1.5}
