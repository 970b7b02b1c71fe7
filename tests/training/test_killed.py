"""Runs that are killed, broken off or run out of disk, and go on with --resume as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sightline.checkpoints import verify
from sightline.errors import UsageError
from sightline.journal import reader
from sightline.runs import Status
from sightline.training.resuming import find_resume_point
from sightline.training.saving import ASIDE

from .children import finish, start, wait_until
from .small_runs import points, settings, write_demo_rows

STEPS = 10
SAVED_EACH_STEP = {
    "max_steps": STEPS, "eval_steps": 5, "logging_steps": 1, "save_strategy": "steps", "save_steps": 1,
    "save_total_limit": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Eighty training and twenty validation rows of the demo."""
    return write_demo_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert finish(start(settings(data, folder, **SAVED_EACH_STEP), folder.with_suffix(".log"))) == 0
    return folder


def is_the_same(folder: Path, unbroken: Path) -> bool:
    """Whether a run has every loss of the unbroken one, its best weights, and is finished."""
    run = reader.read(folder)
    a, b = (load_file(path / "best" / "adapter_model.safetensors") for path in (folder, unbroken))
    same_weights = a.keys() == b.keys() and all((a[key] == b[key]).all() for key in a)
    return run.status is Status.FINISHED and points(run) == points(reader.read(unbroken)) and same_weights


def goes_on(data: Path, folder: Path, unbroken: Path, **changes: object) -> bool:
    """Resume; it must go on from the newest verified checkpoint and end like the unbroken run."""
    newest = find_resume_point(folder, None)
    words = [*settings(data, folder, **(SAVED_EACH_STEP | changes)), "--resume"]
    if finish(start(words, folder.with_suffix(".resumed.log"))) != 0:
        return False
    return reader.read(folder).segments[-1].from_step == newest.step and is_the_same(folder, unbroken)


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_runs_killed_while_saving_go_on_as_if_nothing_had_happened(data, unbroken, tmp_path, trials, kills):
    """SIGKILL at a random moment of a random save: every later loss and the best weights are bit-equal."""
    tally = trials("C2", "runs killed by SIGKILL while saving, resumed, bit-equal to the unbroken run")
    chance = random.Random(kills)
    left = 0
    for number in range(kills):
        folder = tmp_path / f"run{number}"
        process = start(settings(data, folder, **SAVED_EACH_STEP), folder.with_suffix(".log"))
        aside = folder / f"{ASIDE}checkpoint-{chance.randint(2, STEPS)}"
        began = wait_until(aside.exists, process)
        time.sleep(chance.uniform(0, 0.06))
        process.kill()
        assert began and finish(process) == -signal.SIGKILL, folder.with_suffix(".log").read_text()[-2000:]
        left += aside.exists()
        tally.count(goes_on(data, folder, unbroken), f"killed after {aside.name} appeared, kill {number}")
        tally.count(not list(folder.glob(f"{ASIDE}*")), "leftovers")
        shutil.rmtree(folder)
    assert kills < 20 or left, "no kill came in the middle of a save"
    tally.check()


FAULTS = ["SIGTERM", "SIGINT", "SIGKILL", "RuntimeError", "OutOfMemoryError"]


@pytest.mark.parametrize(
    ("kind", "times"), [("RuntimeError", 1), *(pytest.param(kind, 20, marks=pytest.mark.slow) for kind in FAULTS)]
)
def test_runs_broken_off_at_any_time_lose_one_interval_at_most(data, unbroken, tmp_path, trials, kind, times):
    """Signals and errors at random moments: the newest verified checkpoint is fresh, and the end is the same."""
    tally = trials("C7", f"runs ended by {kind}, last verified checkpoint one interval old at most, bit-equal resumed")
    chance = random.Random(kind)
    for number in range(times):
        folder, step = tmp_path / f"run{number}", chance.randint(2, STEPS - 2)
        fault = None if kind.startswith("SIG") else f"{kind}@{step}"
        process = start(settings(data, folder, **SAVED_EACH_STEP), folder.with_suffix(".log"), fault)
        if fault is None:
            journal = folder / "sightline" / "journal.jsonl"
            wait_until(lambda j=journal, s=step: j.exists() and f'"step":{s},'.encode() in j.read_bytes(), process)
            time.sleep(chance.uniform(0, 0.1))
            os.kill(process.pid, getattr(signal, kind))
        code = finish(process)
        if reader.read(folder).status is Status.FINISHED:  # the signal came when the last step was done
            tally.count(is_the_same(folder, unbroken), f"{kind} {number} at the very end")
            continue
        reached = reader.read(folder).last_step
        newest = find_resume_point(folder, None)
        expected = {"SIGTERM": 143, "SIGINT": 130, "SIGKILL": -9}.get(kind, 3)
        told = folder.with_suffix(".log").read_text()[-500:]
        tally.count(code == expected and newest.is_verified, f"{kind} {number}: ended with {code}: {told}")
        tally.count(reached - newest.step <= (0 if code > 100 else 1), f"{reached} reached, {newest.step} verified")
        tally.count(goes_on(data, folder, unbroken), f"{kind} {number} resumed")
        shutil.rmtree(folder)
    tally.check()


@pytest.fixture
def small_disk(tmp_path, trials):
    """Make a tmpfs of some megabytes; ``resize`` it by calling what is given."""
    mount = tmp_path / "disk"
    mount.mkdir()

    def sized(megabytes: float, *options: str) -> bool:
        size = f"size={int(megabytes * 1024)}k"
        command = ["mount", "-t", "tmpfs", "-o", ",".join([*options, size]), "tmpfs", str(mount)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not sized(64):
        trials("C10", "saves on a full disk: the last good checkpoint stays, nothing half is left, resume is bit-equal")
        pytest.skip("no right to mount a tmpfs")
    yield mount, lambda megabytes: sized(megabytes, "remount")
    subprocess.run(["umount", "-l", str(mount)], check=False)


@pytest.mark.parametrize("room", [2.5, *(pytest.param(r, marks=pytest.mark.slow) for r in (1.6, 2.1, 2.9, 3.3))])
def test_a_full_disk_leaves_the_last_good_checkpoint(data, unbroken, small_disk, trials, room):
    """With room for so many checkpoints the training stops in words; with more room it goes on to the same end."""
    tally = trials(
        "C10", "saves on a full disk: the last good checkpoint stays, nothing half is left, resume is bit-equal"
    )
    mount, resize = small_disk
    one = sum(file.stat().st_size for file in next(unbroken.glob("checkpoint-*")).iterdir()) / 2**20
    assert resize(room * one + 0.5)
    folder = mount / "run"
    wishes = SAVED_EACH_STEP | {"save_total_limit": 8, "force": True}  # the check of the disk would refuse it
    log = folder.parent.parent / "run.log"
    code = finish(start(settings(data, folder, **wishes), log))
    told = log.read_text()
    tally.count(code == 3 and "--resume" in told and "Traceback" not in told, told[-800:])
    tally.count(not list(folder.glob(f"{ASIDE}*")), "half a checkpoint is left")
    whole = [verify(path) for path in folder.glob("checkpoint-*")]
    try:
        newest = find_resume_point(folder, None)
    except UsageError:
        pytest.fail(f"no checkpoint was saved in {room} times its room")
    tally.count(newest.is_verified and not newest.passed_over and all(w.complete for w in whole), str(whole))
    assert resize(64)
    words = [*settings(data, folder, **wishes), "--resume"]
    tally.count(finish(start(words, log)) == 0 and is_the_same(folder, unbroken), log.read_text()[-800:])
    tally.check()


@pytest.mark.slow
def test_training_goes_on_unsaved_where_asked(data, unbroken, small_disk):
    """With on_failed_save: continue the run comes to its end and says what could not be saved."""
    mount, resize = small_disk
    one = sum(file.stat().st_size for file in next(unbroken.glob("checkpoint-*")).iterdir()) / 2**20
    assert resize(3.5 * one + 0.5)
    folder, log = mount / "run", mount.parent / "run.log"
    wishes = SAVED_EACH_STEP | {"save_total_limit": 8, "on_failed_save": "continue", "force": True}
    finish(start(settings(data, folder, **wishes), log))
    run = reader.read(folder)
    assert run.train_loss.steps[-1] == STEPS and "could not be saved, training goes on" in log.read_text()
    assert points(run) == points(reader.read(unbroken))
