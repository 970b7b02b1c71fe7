"""Saving whole or not at all, rotation, and what is told of a checkpoint in anyone's script."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sightline.checkpoints import MANIFEST, verify
from sightline.checkpoints.removal import remove_whole
from sightline.errors import CheckpointError
from sightline.journal import Recorder, reader
from sightline.runs import Checkpoint
from sightline.training import saving
from sightline.training.callback import SightlineCallback
from sightline.training.checkpoint_watch import rotation_risks
from sightline.training.keeping import Rotation
from sightline.training.ranks import Ranks
from sightline.training.saving import ASIDE, clear_leftovers, whole_or_not_at_all

from .small_runs import Told, run_of, write_demo_rows
from .tiny import tiny_trainer


def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path):
    """The old folder stays, the half-written one is gone, the error comes through."""
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(OSError, match="full"), whole_or_not_at_all(folder, Ranks()) as aside:
        (aside / "new").write_text("half")
        raise OSError("full")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-5"] and (folder / "old").read_text() == "old"


def test_a_block_that_ends_well_takes_the_place(tmp_path):
    """Nothing that looks like a checkpoint is there before; all of it is there afterwards, and nothing else."""
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "old").write_text("old")
    with whole_or_not_at_all(folder, Ranks()) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "new").write_text("new")
        assert not list(tmp_path.glob("*checkpoint-[0-9]*/inner")) or aside.name.startswith(".")
        assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-5"]
    assert [p.name for p in folder.iterdir()] == ["inner"]


def test_every_byte_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """Each file and folder is synced before the rename, and the parent after it."""
    events: list[str] = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(Path(f"/proc/self/fd/{fd}").readlink().name), sync(fd)))
    monkeypatch.setattr(Path, "rename", lambda path, to: (events.append("rename"), rename(path, to))[1])
    with whole_or_not_at_all(tmp_path / "checkpoint-5", Ranks()) as aside:
        (aside / "a").write_text("a")
        (aside / "b").write_text("b")
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert set(before) == {"a", "b", aside.name} and after == [tmp_path.name]


def test_a_sync_that_fails_is_a_save_that_failed(tmp_path, monkeypatch):
    """A disk that cannot keep what was written is told, and no name is given."""

    def broken(folder):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(saving, "_sync_tree", broken)
    with pytest.raises(OSError, match="Input/output"), whole_or_not_at_all(tmp_path / "checkpoint-5", Ranks()) as aside:
        (aside / "a").write_text("a")
    assert not list(tmp_path.iterdir())


def test_another_rank_that_fails_is_a_save_that_failed(tmp_path):
    """Whoever writes hears of it, and no half of a checkpoint gets its name."""

    class Failing(Ranks):
        """Two ranks of which the other one fails after the block."""

        asked = 0

        def any(self, flag: bool) -> bool:
            self.asked += 1
            return flag or self.asked == 2

    with (
        pytest.raises(CheckpointError, match="another process"),
        whole_or_not_at_all(tmp_path / "checkpoint-5", Failing()) as aside,
    ):
        (aside / "a").write_text("a")
    assert not list(tmp_path.iterdir())


def test_leftovers_are_cleared_and_a_removal_leaves_no_half(tmp_path):
    """What a killed process left behind goes; links are let be."""
    (tmp_path / f"{ASIDE}checkpoint-3").mkdir()
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / f"{ASIDE}link").symlink_to(tmp_path / "checkpoint-2")
    clear_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{ASIDE}link", "checkpoint-2"]
    remove_whole(tmp_path / "checkpoint-2")
    assert [p.name for p in tmp_path.iterdir()] == [f"{ASIDE}link"]


def test_rotation_takes_only_what_the_run_saved(tmp_path, trials):
    """Folders of the user's with any name and any time stay; best and last verified ones stay; the others go."""
    tally = trials("C4", "folders that rotation must leave alone")
    data, folder = write_demo_rows(tmp_path), tmp_path / "run"
    foreign = {"checkpoint-mine": 0, "checkpoint-900": -3600, "checkpoint-best-backup": 365 * 86400}
    for name, seconds in foreign.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "kept.txt").write_text("mine")
        os.utime(folder / name, (time.time() + seconds,) * 2)
    (folder / "checkpoint-1").symlink_to(folder / "checkpoint-mine")
    (folder / "checkpoint-900").rename(tmp_path / "set-aside")  # the run would refuse the folder of another run
    outcome = run_of(data, folder, save_strategy="steps", save_steps=2, save_total_limit=2, max_steps=8, eval_steps=2)
    (tmp_path / "set-aside").rename(folder / "checkpoint-900")
    for name in foreign:
        tally.count((folder / name / "kept.txt").is_file(), name)
    tally.count((folder / "checkpoint-1").is_symlink(), "a link")
    best = outcome.verdict.diagnosis.best.step
    there = {p.name for p in folder.glob("checkpoint-[2-8]")}
    tally.count(there == {"checkpoint-6", "checkpoint-8", f"checkpoint-{best}"} - {"checkpoint-0"}, there)
    tally.count(all(verify(folder / name).hashed for name in there), "verified")
    tally.check()


def test_what_the_trainers_rotation_would_delete_is_told(tmp_path):
    """Foreign names, and times in the future that make it delete every new checkpoint at once."""
    for name in ("checkpoint-mine", "checkpoint-4"):
        (tmp_path / name).mkdir()
    assert not list(rotation_risks(tmp_path, None, time.time()))
    assert [("checkpoint-mine" in risk) for risk in rotation_risks(tmp_path, 2, time.time())] == [True]
    assert any("checkpoint-4" in risk for risk in rotation_risks(tmp_path, 2, time.time() - 3600))


def test_every_save_of_anyones_script_is_verified_and_hashed(tmp_path):
    """The journal says verified, the manifest is there, and the Trainer's own rotation is not disturbed."""
    trainer = tiny_trainer(
        tmp_path, callbacks=[SightlineCallback()], save_strategy="steps", save_steps=2, save_total_limit=2
    )
    trainer.train()
    left = {p.name for p in tmp_path.glob("checkpoint-*")}
    assert left == {"checkpoint-10", "checkpoint-12"}
    assert all((tmp_path / name / MANIFEST).is_file() for name in left)
    known = {c.path.name: c for c in reader.read(tmp_path).checkpoints}
    assert len(known) == 6 and all(known[name].verified for name in left)


def test_a_bad_save_in_anyones_script_is_told_at_once(tmp_path):
    """Weights that became NaN are told while training goes on, and stand in the journal."""
    trainer = tiny_trainer(
        tmp_path, callbacks=[SightlineCallback()], save_strategy="steps", save_steps=4, learning_rate=1e30,
        max_grad_norm=1e30,
    )  # fmt: skip
    with pytest.warns(RuntimeWarning, match=r"checkpoint-4 cannot be trusted: model.safetensors: .*NaN"):
        trainer.train()
    assert not any(checkpoint.verified for checkpoint in reader.read(tmp_path).checkpoints)


def test_the_best_weights_must_score_what_was_recorded(tmp_path, monkeypatch):
    """Weights that give another loss once loaded are refused, and best is not written."""
    from sightline.training.trainer import WatchedTrainer

    load = WatchedTrainer._load_best_model

    def loads_wrong(self):
        load(self)
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:
                parameter.data.mul_(1.5)

    monkeypatch.setattr(WatchedTrainer, "_load_best_model", loads_wrong)
    with pytest.raises(CheckpointError, match="once loaded, not the"):
        run_of(write_demo_rows(tmp_path), tmp_path / "run", max_steps=6, eval_steps=3)
    assert not (tmp_path / "run" / "best").exists()


def test_merged_weights_give_the_same_loss_without_peft(tmp_path):
    """The folder loads as a plain model; what the user is told are two equal losses."""
    from transformers import AutoModelForCausalLM

    outcome = run_of(write_demo_rows(tmp_path), tmp_path / "run", Told(), max_steps=6, eval_steps=3, merge=True)
    told = next(line for line in outcome.lines if "merged weights" in line)
    merged, adapter = (float(word.strip(":;,")) for word in told.split() if word[:1].isdigit())
    assert merged == pytest.approx(adapter, rel=1e-4)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "merged")
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert "library_name: transformers" in (tmp_path / "run" / "merged" / "README.md").read_text()


def test_rotation_that_comes_late_takes_nothing_newer(tmp_path):
    """A job of an earlier save, still waiting when the next checkpoint is there already, leaves that one alone."""
    watcher = SightlineCallback()
    watcher.recorder = Recorder.open(tmp_path)
    for step in (1, 2, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
        watcher.recorder.checkpoint(
            Checkpoint(step, tmp_path / f"checkpoint-{step}"), "verified" if step < 3 else "saved"
        )
    Rotation(watcher, keep=1)._rotate(2, None)
    watcher.recorder.close()
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
