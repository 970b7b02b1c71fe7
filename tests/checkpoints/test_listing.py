"""The list: numbers of the journal before the Trainer's, the run's own saves, the base, the disk, other layouts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sightline.checkpoints import forecast
from sightline.checkpoints.forecast import forecast_disk
from sightline.checkpoints.listing import list_checkpoints
from sightline.checkpoints.prune import plan_pruning
from sightline.errors import CheckpointError
from sightline.journal import Recorder
from sightline.runs import Checkpoint, Evaluation, ExampleLosses, Status
from tests.checkpoints.made import make_checkpoint, make_run

TRAINERS = {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.6}
"""What the Trainer logged as eval_loss: its best is step 20."""
EXACT = {10: 2.9, 20: 2.3, 30: 2.1, 40: 2.4}
"""The exact losses of the same steps: the best is step 30."""


def recorded(run: Path, *, saved: tuple[int, ...] = tuple(EXACT), config: dict[str, Any] | None = None) -> Path:
    """Record a journal beside the checkpoints: the base model, exact losses by row, and some saves."""
    counts, rows = np.full(40, 5), np.random.default_rng(0).normal(0, 1e-3, 40)
    recorder = Recorder.open(run, name="run")
    recorder.configure(config=config or {}, max_steps=100)
    for step, loss in {0: 3.5, **EXACT}.items():
        sums = np.full(40, loss * 5) + rows * step
        recorder.evaluation(Evaluation(step, float(sums.sum() / 200), ExampleLosses(sums, counts)))
        if step in saved:
            recorder.checkpoint(Checkpoint(step, run / f"checkpoint-{step}", 1), "saved")
    recorder.end(Status.FINISHED)
    recorder.close()
    return run


def test_exact_losses_of_the_journal_come_before_the_trainers(tmp_path: Path) -> None:
    listing = list_checkpoints(recorded(make_run(tmp_path / "run", TRAINERS)))
    assert [round(listed.eval_loss, 2) for listed in listing.checkpoints] == list(EXACT.values())
    assert all(listed.is_exact for listed in listing.checkpoints)
    assert listing.best is not None and listing.best.step == 30 and listing.best.basis == "rows"


def test_checkpoint_without_an_exact_loss_is_not_ranked_among_exact_ones(tmp_path: Path) -> None:
    """Step 50 has the Trainer's own loss only, and it is lower than every exact one."""
    run = recorded(make_run(tmp_path / "run", TRAINERS | {50: 0.5}))
    listing = list_checkpoints(run)
    assert listing.best is not None and listing.best.step == 30
    assert not listing.checkpoints[-1].is_exact and listing.checkpoints[-1].eval_loss == 0.5


def test_save_that_the_journal_does_not_know_is_left_alone(tmp_path: Path) -> None:
    run = recorded(make_run(tmp_path / "run", TRAINERS), saved=(20, 30, 40))
    plan = plan_pruning(list_checkpoints(run))
    assert [listed.step for listed in plan.deleted] == [20]
    assert dict(plan.left_alone) == {"checkpoint-10": "the journal of this run knows no save at this step"}


@pytest.mark.parametrize(("name", "same"), [("org/base", True), ("org/other", False)])
def test_base_of_an_adapter_is_compared_with_the_run(tmp_path: Path, name: str, same: bool) -> None:
    run = recorded(make_run(tmp_path / "run", TRAINERS, adapter=True), config={"model_name_or_path": name})
    assert {listed.base.is_same for listed in list_checkpoints(run).checkpoints if listed.base} == {same}


def test_one_adapter_alone_cannot_tell_whether_its_base_is_the_same(tmp_path: Path) -> None:
    (listed,) = list_checkpoints(make_run(tmp_path / "run", {10: 2.0}, adapter=True)).checkpoints
    assert listed.base is not None and listed.base.is_same is None


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_disk_is_forecast_from_what_is_still_to_be_saved(tmp_path: Path, monkeypatch) -> None:
    """Saves at 50, 60, 70, 80, 90 and 95 are to come; the disk has room for three and a half."""
    run = make_run(tmp_path / "run", TRAINERS, max_steps=95)
    listing = list_checkpoints(run)
    each = listing.checkpoints[-1].parts.size_bytes
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda path: Usage(10 * each, 0, int(3.5 * each)))
    told = forecast_disk(listing)
    assert told is not None
    assert (told.each_bytes, told.saves_to_come, told.full_at_step) == (each, 6, 80)
    freed = forecast_disk(listing, 3 * each)
    assert freed is not None and freed.full_at_step is None


def test_ended_run_needs_no_disk(tmp_path: Path) -> None:
    assert forecast_disk(list_checkpoints(recorded(make_run(tmp_path / "run", TRAINERS)))) is None
    assert forecast_disk(list_checkpoints(make_run(tmp_path / "other", TRAINERS, max_steps=40))) is None


def test_second_name_of_a_file_frees_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TRAINERS)
    weights = run / "checkpoint-10" / "model.safetensors"
    before = list_checkpoints(run).checkpoints[0].frees_bytes
    (tmp_path / "kept").hardlink_to(weights)
    assert list_checkpoints(run).checkpoints[0].frees_bytes == before - weights.stat().st_size


def sharded(folder: Path, names: dict[str, str]) -> Path:
    """Turn a checkpoint into one of a distributed engine: ``names`` are files to make, the old ones go."""
    for old in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / old).unlink()
    for name, content in names.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return folder


FSDP = {
    "pytorch_model_fsdp_0/.metadata": "m", "pytorch_model_fsdp_0/__0_0.distcp": "w", "optimizer_0/.metadata": "m",
    "optimizer_0/__0_0.distcp": "o", "scheduler.pt": "s", "rng_state_0.pth": "r", "rng_state_1.pth": "r",
}  # fmt: skip
DEEPSPEED = {
    "global_step10/mp_rank_00_model_states.pt": "w", "global_step10/zero_pp_rank_0_mp_rank_00_optim_states.pt": "o",
    "latest": "global_step10", "zero_to_fp32.py": "", "rng_state_0.pth": "r", "rng_state_1.pth": "r",
}  # fmt: skip


@pytest.mark.parametrize("names", [FSDP, DEEPSPEED], ids=["fsdp", "deepspeed"])
def test_distributed_checkpoints_are_complete(tmp_path: Path, names: dict[str, str]) -> None:
    """As accelerate's FSDP and DeepSpeed write them; each without its last file is not."""
    folder = sharded(make_checkpoint(tmp_path / "checkpoint-10", 10), names)
    (listed,) = list_checkpoints(tmp_path).checkpoints
    assert listed.parts.is_complete, listed.parts.missing
    cut = [name for name in names if name.endswith((".metadata", "_states.pt", "rng_state_0.pth"))]
    for name in cut:
        (folder / name).rename(tmp_path / "kept")
        assert not list_checkpoints(tmp_path).checkpoints[0].parts.is_complete, name
        (tmp_path / "kept").rename(folder / name)


def test_linked_checkpoint_is_not_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TRAINERS)
    shutil.move(run / "checkpoint-40", tmp_path / "elsewhere")
    (run / "checkpoint-40").symlink_to(tmp_path / "elsewhere")
    assert [listed.step for listed in list_checkpoints(run).checkpoints] == [10, 20, 30]


def test_folder_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        list_checkpoints(tmp_path)
