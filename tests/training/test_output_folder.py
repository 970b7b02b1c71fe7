"""Whose the output folder is, and where a resumed run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from sightline.checkpoints import read_parts
from sightline.errors import CheckpointError, RunFolderExists, UsageError
from sightline.journal import Recorder
from sightline.runs import Checkpoint, Status
from sightline.training.display import Silent
from sightline.training.output_folder import claim_output_folder, clear_output_folder


def checkpoint(folder: Path, step: int) -> Path:
    """Write a checkpoint folder as the Trainer lays it out."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"w": np.ones(3, np.float32)}, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (path / name).write_bytes(b"state")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def recorded(folder: Path, *steps: int, status: Status | None = None) -> None:
    """Record a run with checkpoints at the steps."""
    recorder = Recorder.open(folder)
    recorder.log(1, {"loss": 1.0})
    for step in steps:
        recorder.checkpoint(Checkpoint(step, checkpoint(folder, step)), "saved")
    if status is not None:
        recorder.end(status, None)
    recorder.close()


def recipe(folder: Path, **wishes) -> SimpleNamespace:
    return SimpleNamespace(
        **{"output_dir": folder, "resume": False, "overwrite": False, "early_stopping": True} | wishes
    )


def test_a_fresh_folder_is_taken(tmp_path):
    """Nothing there: nothing to resume, nothing to refuse."""
    assert claim_output_folder(recipe(tmp_path / "new"), Silent()) is None


def test_another_run_is_refused_with_what_to_do(tmp_path):
    """A recorded run, or checkpoints of an unknown one, are never written over unasked."""
    recorded(tmp_path / "a", 2)
    checkpoint(tmp_path / "b", 4)
    for folder in ("a", "b"):
        with pytest.raises(RunFolderExists, match="--resume"):
            claim_output_folder(recipe(tmp_path / folder), Silent())


def test_overwriting_removes_what_the_run_wrote_and_nothing_else(tmp_path):
    """Its checkpoints go, a file of the user's stays, and a foreign checkpoint stops it before anything is gone."""
    recorded(tmp_path, 2, 4)
    (tmp_path / "notes.txt").write_text("mine")
    assert claim_output_folder(recipe(tmp_path, overwrite=True), Silent()) is None
    clear_output_folder(recipe(tmp_path, overwrite=True))
    assert not list(tmp_path.glob("checkpoint-*")) and (tmp_path / "notes.txt").exists()
    recorded(tmp_path / "c", 2)
    checkpoint(tmp_path / "c", 900)
    with pytest.raises(RunFolderExists, match="checkpoint-900"):
        claim_output_folder(recipe(tmp_path / "c", overwrite=True), Silent())
    assert (tmp_path / "c" / "checkpoint-2").is_dir()


def test_resuming_takes_the_newest_complete_checkpoint(tmp_path):
    """A half-written one is passed over, and its lack is told."""
    recorded(tmp_path, 2, 4, 6)
    (tmp_path / "checkpoint-6" / "optimizer.pt").unlink()
    told: list[str] = []
    display = Silent()
    display.notice = lambda text, severity: told.append(text)
    assert claim_output_folder(recipe(tmp_path, resume=True), display).step == 4
    assert "checkpoint-6" in told[0] and "optimizer" in told[0]


def test_a_finished_run_and_an_empty_folder_cannot_be_resumed(tmp_path):
    """Both are a wrong use; a folder with damaged checkpoints only is not."""
    recorded(tmp_path / "done", 2, status=Status.FINISHED)
    with pytest.raises(UsageError, match="finished"):
        claim_output_folder(recipe(tmp_path / "done", resume=True), Silent())
    with pytest.raises(UsageError, match="nothing to resume"):
        claim_output_folder(recipe(tmp_path / "empty", resume=True), Silent())
    recorded(tmp_path / "cut", 2)
    (tmp_path / "cut" / "checkpoint-2" / "trainer_state.json").unlink()
    with pytest.raises(CheckpointError):
        claim_output_folder(recipe(tmp_path / "cut", resume=True), Silent())


def test_a_whole_checkpoint_lacks_nothing(tmp_path):
    """The step, the kind and the size are read from names and headers."""
    parts = read_parts(checkpoint(tmp_path, 7))
    assert parts.is_complete and parts.step == 7 and not parts.is_adapter
