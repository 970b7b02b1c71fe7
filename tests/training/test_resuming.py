"""`sightline train --resume`: where it goes on, what it says, and that it ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sightline.checkpoints import MANIFEST
from sightline.errors import UsageError
from sightline.journal import Recorder, reader
from sightline.runs import Status
from sightline.training.resuming import find_resume_point

from .small_runs import Told, points, run_of, write_demo_rows

WITHOUT_LORA = {"use_peft": None, "lora_r": None, "lora_dropout": None, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Eighty training and twenty validation rows of the demo."""
    return write_demo_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def interrupted(data, tmp_path_factory) -> Path:
    """A run with checkpoints at 3, 6 and 7, ended by SIGTERM at 7."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    run_of(data, folder, Told(stop_after=7), save_strategy="steps", save_steps=3)
    return folder


CASES = {
    "grouped rows, epoch 2, inside a logging window": (
        {"train_sampling_strategy": "group_by_length", "logging_steps": 4}, 13
    ),
    "at a step that was to be evaluated": ({}, 5),
    "epoch 1, inside a logging window": ({"logging_steps": 5}, 7),
    "accumulation, all weights": ({"gradient_accumulation_steps": 3, "per_device_train_batch_size": 4} | WITHOUT_LORA, 9),
    "random order in epoch 2, a worker": ({"dataloader_num_workers": 1}, 12),
}  # fmt: skip


@pytest.mark.parametrize("name", [next(iter(CASES)), *(pytest.param(n, marks=pytest.mark.slow) for n in [*CASES][1:])])
def test_an_interrupted_run_ends_as_the_unbroken_one(data, tmp_path, trials, name):
    """Every loss, every evaluation and the best weights are bit-equal, and nothing is said to have changed."""
    tally = trials("C6", "`sightline train` interrupted and resumed bit for bit")
    changes, step = CASES[name]
    unbroken = run_of(data, tmp_path / "unbroken", **changes)
    assert run_of(data, tmp_path / "run", Told(stop_after=step), **changes).signal_name == "SIGTERM"
    display = Told()
    resumed = run_of(data, tmp_path / "run", display, resume=True, **changes)
    once, twice = (reader.read(outcome.output_dir) for outcome in (unbroken, resumed))
    same = points(once) == points(twice)
    if unbroken.best_dir is not None:
        weights = next(unbroken.best_dir.glob("*model.safetensors")).name
        a, b = (load_file(outcome.best_dir / weights) for outcome in (unbroken, resumed))
        same &= all((a[key] == b[key]).all() for key in a)
    tally.count(same, name)
    tally.check()
    assert [s.from_step for s in twice.segments] == [0, step] and twice.status is Status.FINISHED
    assert not [notice for notice in display.notices if "not as before" in notice or "another order" in notice]


def test_damaged_checkpoints_are_passed_over_named_and_put_away(data, interrupted, tmp_path):
    """A flipped bit in the newest and a save without its manifest: the run goes on from the one before them."""
    folder = shutil.copytree(interrupted, tmp_path / "run")
    flipped = folder / "checkpoint-7" / "optimizer.pt"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    (folder / "checkpoint-6" / MANIFEST).unlink()
    display = Told()
    run_of(data, folder, display, save_strategy="steps", save_steps=3, resume=True, max_steps=8)
    assert any("checkpoint-7 is passed over" in n and "optimizer.pt" in n for n in display.notices)
    assert any("checkpoint-6 is passed over" in n and "manifest" in n for n in display.notices)
    assert [s.from_step for s in reader.read(folder).segments] == [0, 3]
    names = {p.name for p in folder.iterdir() if "checkpoint" in p.name}
    assert {"quarantined-checkpoint-6", "quarantined-checkpoint-7", "checkpoint-3"} <= names


def test_changes_are_named_before_the_first_step(data, interrupted, tmp_path):
    """What differs or is ignored is told once each, by its own name; other rows are noticed by their hash."""
    folder = shutil.copytree(interrupted, tmp_path / "run")
    rows = (data / "train.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join(reversed(rows)) + "\n")
    display = Told()
    run_of(
        data, folder, display, resume=True, save_strategy="steps", save_steps=3, max_steps=8, learning_rate=1e-3,
        seed=2, per_device_train_batch_size=4, dataset=tmp_path / "train.jsonl", lora_dropout=0.0,
    )  # fmt: skip
    told = "\n".join(display.notices)
    for name in (
        "learning_rate 0.001 is ignored",
        "max_steps was 20",
        "\nnot as before the checkpoint: seed was 1",
        "per_device_train_batch_size was 8",
    ):
        assert told.count(name) == 1, told
    assert "the training rows are not those" in told and "lora_dropout was 0.1" in told
    assert "another order" in told


def test_a_run_cut_off_after_its_last_checkpoint_is_brought_to_its_end(data, tmp_path):
    """Killed before the best weights were written: no step is trained again, and best is there."""
    done = run_of(data, tmp_path / "run", max_steps=6, eval_steps=3)
    shutil.rmtree(done.best_dir)
    lines = (tmp_path / "run" / "sightline" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["kind"] != "end"]
    (tmp_path / "run" / "sightline" / "journal.jsonl").write_bytes(b"".join(kept))
    again = run_of(data, tmp_path / "run", max_steps=6, eval_steps=3, resume=True)
    assert again.best_dir == done.best_dir and (again.best_dir / "README.md").is_file()
    run = reader.read(tmp_path / "run")
    assert run.status is Status.FINISHED and run.last_step == 6


def test_what_came_to_its_end_is_not_gone_on_with(tmp_path):
    """A finished run, and one stopped by its own decision unless early stopping is off."""
    from types import SimpleNamespace

    from sightline.training.output_folder import claim_output_folder

    for name, status, reason in (("done", Status.FINISHED, None), ("decided", Status.STOPPED, "it got worse")):
        recorder = Recorder.open(tmp_path / name)
        recorder.log(1, {"loss": 1.0})
        recorder.end(status, reason)
        recorder.close()
        wish = SimpleNamespace(output_dir=tmp_path / name, resume=True, overwrite=False, early_stopping=True)
        with pytest.raises(UsageError, match="--output_dir NEW"):
            claim_output_folder(wish, Told())


def test_every_write_boundary_is_passed_over(interrupted, tmp_path, trials):
    """Whatever file a save stopped at, the verified checkpoint before it is taken."""
    tally = trials("C1", "write boundaries after which resume takes the checkpoint before")
    names = sorted(p.name for p in (interrupted / "checkpoint-7").iterdir() if p.name != MANIFEST)
    assert len(names) >= 10
    for name in names:
        for damage in ("absent", "empty", "half"):
            folder = shutil.copytree(interrupted, tmp_path / f"{name}-{damage}")
            file = folder / "checkpoint-7" / name
            (folder / "checkpoint-7" / MANIFEST).unlink()
            content = file.read_bytes()
            file.unlink()
            if damage != "absent":
                file.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
            point = find_resume_point(folder, None)
            told = [passed.path.name for passed in point.passed_over]
            tally.count(point.step == 6 and point.is_verified and told == ["checkpoint-7"], f"{name} {damage}")
            shutil.rmtree(folder)
    tally.check()
