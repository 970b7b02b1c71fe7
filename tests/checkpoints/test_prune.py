"""Pruning never deletes what the Trainer did not write, nor the best, the newest, or the last that is intact."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from sightline.checkpoints.listing import list_checkpoints
from sightline.checkpoints.manifest import read_manifest, write_manifest
from sightline.checkpoints.prune import Pruning, carry_out, plan_pruning
from sightline.checkpoints.verify import verify
from tests.checkpoints.made import contents, history, make_checkpoint, make_run

EVALS = {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.6, 50: 2.7}
HOUR, YEAR = 3600.0, 365.25 * 86400.0
TRIALS, SAMPLE = 200, 40


def pruned(folder: Path, **options: object) -> Pruning:
    pruning = plan_pruning(list_checkpoints(folder), **options)  # type: ignore[arg-type]
    assert carry_out(pruning) == ()
    return pruning


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_plan_deletes_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", EVALS)
    before = contents(run)
    plan = plan_pruning(list_checkpoints(run))
    assert [listed.step for listed in plan.deleted] == [10, 30, 40]
    assert contents(run) == before


def test_best_and_last_stay(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", EVALS)
    pruned(run)
    assert names(run) == ["checkpoint-20", "checkpoint-50"]


def test_top_and_last_keep_more(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", EVALS)
    pruned(run, top=3, last=1)
    assert names(run) == ["checkpoint-20", "checkpoint-30", "checkpoint-40", "checkpoint-50"]
    pruned(run, top=1, last=2)
    assert names(run) == ["checkpoint-20", "checkpoint-40", "checkpoint-50"]


def test_what_the_trainer_calls_best_stays(tmp_path: Path) -> None:
    """A live Trainer loads its own best at the end."""
    run = make_run(tmp_path / "run", EVALS, best_global_step=30)
    pruned(run)
    assert names(run) == ["checkpoint-20", "checkpoint-30", "checkpoint-50"]


def test_damaged_best_is_not_relied_on(tmp_path: Path) -> None:
    """The next best stays, and the damaged one too: a person should look at it."""
    run = make_run(tmp_path / "run", EVALS)
    weights = run / "checkpoint-20" / "model.safetensors"
    write_manifest(weights.parent)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    pruning = pruned(run)
    assert names(run) == ["checkpoint-20", "checkpoint-30", "checkpoint-50"]
    assert "damaged" in dict(pruning.left_alone)["checkpoint-20"]


def test_incomplete_newest_and_the_last_whole_one_stay(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", EVALS)
    (run / "checkpoint-50" / "trainer_state.json").unlink()
    (run / "checkpoint-50" / "optimizer.pt").unlink()
    pruned(run)
    assert names(run) == ["checkpoint-20", "checkpoint-40", "checkpoint-50"]


def test_without_losses_nothing_is_deleted_unless_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (10, 20, 30):
        make_checkpoint(run / f"checkpoint-{step}", step)
    plan = plan_pruning(list_checkpoints(run))
    assert plan.deleted == () and plan.why_nothing is not None
    pruned(run, last=2)
    assert names(run) == ["checkpoint-20", "checkpoint-30"]


def test_optimizer_states_are_dropped_and_the_rest_still_verifies(tmp_path: Path) -> None:
    """All but the last two lose theirs; what is left is intact, on purpose without them, with or without hashes."""
    run = make_run(tmp_path / "run", EVALS)
    for step in (20, 30):
        write_manifest(run / f"checkpoint-{step}")
    pruned(run, top=5, drop_optimizer=True)
    have = {name: (run / name / "optimizer.pt").exists() for name in names(run)}
    assert have == {f"checkpoint-{step}": step >= 40 for step in EVALS}
    for step in (10, 20, 30):
        manifest = read_manifest(run / f"checkpoint-{step}")
        assert manifest is not None and manifest.dropped == ("optimizer.pt",)
        found = verify(run / f"checkpoint-{step}")
        assert found.problems == () and found.weights_only and found.hashed and not found.complete
    assert [listed.parts.is_weights_only for listed in list_checkpoints(run).checkpoints] == [True] * 3 + [False] * 2
    (run / "checkpoint-10" / "scheduler.pt").unlink()
    found = verify(run / "checkpoint-10")
    assert not found.intact and not found.weights_only  # that one was not dropped


def test_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    """A genuine checkpoint copied from another run: its losses are not those of this run's history."""
    run = make_run(tmp_path / "run", EVALS)
    other = make_run(tmp_path / "other", {step: loss + 1.0 for step, loss in EVALS.items()})
    shutil.rmtree(run / "checkpoint-40")
    shutil.copytree(other / "checkpoint-40", run / "checkpoint-40")
    pruning = pruned(run)
    assert "checkpoint-40" in names(run)
    assert "not the 2.6" in dict(pruning.left_alone)["checkpoint-40"]


def test_what_sightline_writes_beside_the_trainer_is_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", EVALS)
    for name in ("sightline_state.json", "sightline_state_1.json"):
        (run / "checkpoint-10" / name).write_text("{}")
    pruned(run)
    assert names(run) == ["checkpoint-20", "checkpoint-50"]


def test_file_that_appears_at_the_last_moment_keeps_its_folder(tmp_path: Path, monkeypatch) -> None:
    """The folder is looked at once more when nobody can find it any more by its name."""
    from sightline.checkpoints import prune

    run = make_run(tmp_path / "run", EVALS)
    set_aside = prune.set_aside

    def late(folder: Path) -> Path:
        (folder / "notes.txt").write_text("mine")
        return set_aside(folder)

    monkeypatch.setattr(prune, "set_aside", late)
    failed = carry_out(plan_pruning(list_checkpoints(run)))
    assert len(failed) == 3 and names(run) == [f"checkpoint-{step}" for step in EVALS]


def plant(run: Path, outside: Path, rng: random.Random) -> set[str]:
    """Put things of the user's into a run's folder; return the paths, relative to it, that must all survive."""
    planted: set[str] = set()

    def owned(path: Path) -> None:
        planted.update(p.relative_to(run).as_posix() for p in ([path] if path.is_symlink() else path.rglob("*")))

    genuine = run / "checkpoint-30"
    for name in rng.sample(("checkpoint-mine", "checkpoint-best-backup", "checkpoint-900", "checkpoint-7b", "best"), 3):
        if name == "checkpoint-900" and rng.random() < 0.5:
            (run / name).mkdir()
            (run / name / "notes.txt").write_text("mine")
        else:
            shutil.copytree(genuine, run / name)
        owned(run / name)
    if rng.random() < 0.7:
        (run / "checkpoint-35").symlink_to(outside)
        planted.add("checkpoint-35")
    if rng.random() < 0.7:
        step = rng.choice((10, 30, 40))
        (run / f"checkpoint-{step}" / rng.choice(("notes.md", "eval.csv", "merged.gguf"))).write_text("mine")
        owned(run / f"checkpoint-{step}")
    if rng.random() < 0.5:
        (run / "checkpoint-10" / "link.safetensors").symlink_to(outside / "model.safetensors")
        owned(run / "checkpoint-10")
    (run / "my_results.json").write_text("{}")
    planted.add("my_results.json")
    return planted


def change_times(run: Path, rng: random.Random) -> None:
    """Set modification times an hour or a year off, all equal, or in reverse."""
    now = 1_700_000_000.0
    way = rng.choice(("hours", "years", "equal", "reverse"))
    for i, entry in enumerate(sorted(run.iterdir())):
        offset = {"hours": rng.uniform(-HOUR, HOUR), "years": rng.uniform(-YEAR, YEAR), "equal": 0.0, "reverse": -i}
        if not entry.is_symlink():
            os.utime(entry, (now + offset[way], now + offset[way]))


@pytest.mark.parametrize(
    ("first", "count"), [(0, SAMPLE), pytest.param(SAMPLE, TRIALS - SAMPLE, marks=pytest.mark.slow)]
)
def test_nothing_foreign_is_deleted_and_the_best_and_last_survive(
    first: int, count: int, tmp_path: Path, trials
) -> None:
    """C4: foreign folders, links and files, changed times and a moved run; pruned with random options."""
    tally = trials("C4", "runs with foreign things pruned: none of them touched, newest, best and last intact kept")
    outside = make_checkpoint(tmp_path / "outside", 35, history(EVALS))
    outside_before = contents(outside)
    for trial in range(first, first + count):
        rng = random.Random(trial)
        losses = {step: rng.uniform(1.0, 4.0) for step in EVALS}
        run = make_run(tmp_path / f"run-{trial}", losses)
        if rng.random() < 0.3:
            run = run.rename(tmp_path / f"moved-{trial}")
        planted = plant(run, outside, rng)
        change_times(run, rng)
        before = contents(run)
        options = {"top": rng.randint(1, 3), "last": rng.choice((None, 1, 2)), "drop_optimizer": rng.random() < 0.5}
        carry_out(plan_pruning(list_checkpoints(run), **options))  # type: ignore[arg-type]
        after = contents(run)
        best = min(losses, key=losses.__getitem__)
        dropped = {name for name in before if options["drop_optimizer"] and name.endswith("optimizer.pt")}
        untouched = all(after.get(name) == before[name] for name in before if name in planted and name not in dropped)
        kept = {f"checkpoint-{best}/model.safetensors", "checkpoint-50/model.safetensors", "checkpoint-50/optimizer.pt"}
        whole = all(after.get(name) == before[name] for name in kept)
        tally.count(untouched and whole and contents(outside) == outside_before, f"seed {trial}")
        shutil.rmtree(run)
    tally.check()
