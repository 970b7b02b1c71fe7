"""The checkpoint called best has the lowest recorded loss among those saved, and a better one unsaved is told."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from sightline.checkpoints.best import best_saved
from sightline.checkpoints.listing import list_checkpoints
from sightline.runs import Curve, Evaluation, ExampleLosses, Run
from tests.checkpoints.made import history, make_checkpoint, make_run

HISTORIES, SAMPLE = 500, 100


def test_lowest_evaluation_between_two_saves_is_told(tmp_path: Path) -> None:
    """The Trainer's own trap: evaluations 9 8 3 7 at 2 4 6 8, saves at 4 and 8."""
    run = make_run(tmp_path / "run", {2: 9.0, 4: 8.0, 6: 3.0, 8: 7.0}, saved=[4, 8])
    best = list_checkpoints(run).best
    assert best is not None
    assert (best.step, best.eval_loss, best.unsaved_step, best.unsaved_loss) == (8, 7.0, 6, 3.0)


def test_nan_first_does_not_hide_the_best(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {2: math.nan, 4: 2.0, 6: math.nan, 8: 3.0})
    best = list_checkpoints(run).best
    assert best is not None and best.step == 4 and best.unsaved_step is None


def test_run_of_nothing_but_nan_has_no_best(tmp_path: Path) -> None:
    assert list_checkpoints(make_run(tmp_path / "run", {2: math.nan, 4: math.inf})).best is None


def test_of_equal_losses_the_earliest_is_the_best(tmp_path: Path) -> None:
    best = list_checkpoints(make_run(tmp_path / "run", {2: 3.0, 4: 2.0, 6: 2.0})).best
    assert best is not None and best.step == 4
    assert best.equivalent_steps == (4, 6) and best.basis == "equality"


def test_losses_of_rows_decide_what_cannot_be_told_apart() -> None:
    """Paired: a small difference that every row shows is real, a larger one that one row makes is not."""
    rng = np.random.default_rng(0)
    counts = np.full(50, 10)
    rows = rng.normal(20.0, 3.0, 50)
    one_row = np.zeros(50)
    one_row[3] = 30.0
    losses = {10: rows, 20: rows + 0.1 + rng.normal(0, 0.01, 50), 30: rows + one_row}
    evaluations = tuple(
        Evaluation(step, float(sums.sum() / 500), ExampleLosses(sums, counts)) for step, sums in losses.items()
    )
    curve = Curve.of([10, 20, 30], [e.eval_loss for e in evaluations])
    run = Run(Path("run"), "journal", "run", curves={"eval_loss": curve}, evaluations=evaluations)
    best = best_saved({e.step: e.eval_loss for e in evaluations}, run)
    assert best is not None and best.step == 10
    assert best.equivalent_steps == (10, 30) and best.basis == "rows"


def test_base_model_better_than_every_checkpoint_is_told() -> None:
    curve = Curve.of([0, 10, 20, 30], [1.0, 1.5, 1.6, 1.7])
    best = best_saved({10: 1.5, 30: 1.7}, Run(Path("run"), "journal", "run", curves={"eval_loss": curve}))
    assert best is not None and (best.step, best.unsaved_step) == (10, 0)


def random_history(folder: Path, seed: int) -> tuple[Path, dict[int, float], dict[int, float]]:
    """Make a run with NaN, ties, saves between evaluations, a resume, a moved folder.

    Returns
    -------
    folder : Path
    recorded : dict
        Loss of each step as it was last evaluated.
    saved : dict
        Loss of each step that has a checkpoint on the disk, evaluated or not (NaN).
    """
    rng = random.Random(seed)
    run, recorded, on_disk = folder / "run", dict[int, float](), dict[int, float]()
    eval_steps, save_steps = rng.choice((1, 2, 3)), rng.choice((1, 2, 4))
    step, end = 0, rng.randint(4, 14)
    resumed = rng.random() < 0.3
    while step < end:
        step += 1
        if step % eval_steps == 0:
            kind = rng.random()
            value = math.nan if kind < 0.12 else math.inf if kind < 0.15 else rng.uniform(0.5, 4.0)
            if kind > 0.85 and recorded:
                value = rng.choice(list(recorded.values()))
            recorded[step] = value
        if step % save_steps == 0 or step == end:
            shutil.rmtree(run / f"checkpoint-{step}", ignore_errors=True)
            make_checkpoint(run / f"checkpoint-{step}", step, history(recorded), save_steps=save_steps)
            on_disk[step] = recorded.get(step, math.nan)
        if resumed and step == end and on_disk:
            resumed = False
            back = rng.choice(sorted(on_disk))
            recorded = {known: loss for known, loss in recorded.items() if known <= back}
            step, end = back, max(end, back + rng.randint(1, 4))
    for gone in rng.sample(sorted(on_disk), min(len(on_disk) - 1, rng.randint(0, 2))):
        if gone != max(on_disk):  # rotation never takes the newest
            shutil.rmtree(run / f"checkpoint-{gone}")
            del on_disk[gone]
    if rng.random() < 0.3:
        run = run.rename(folder / "moved")
    return run, recorded, on_disk


@pytest.mark.parametrize(
    ("first", "count"), [(0, SAMPLE), pytest.param(SAMPLE, HISTORIES - SAMPLE, marks=pytest.mark.slow)]
)
def test_best_of_random_histories(first: int, count: int, tmp_path: Path, trials) -> None:
    """C5: NaN, ties, a best between saves, a resume, deleted checkpoints, a moved folder."""
    tally = trials("C5", "random histories: the best saved named, and whether a better step was not saved")
    for seed in range(first, first + count):
        folder = tmp_path / str(seed)
        run, recorded, saved = random_history(folder, seed)
        best = list_checkpoints(run).best
        finite = {step: loss for step, loss in saved.items() if math.isfinite(loss)}
        if not finite:
            tally.count(best is None, f"seed {seed}: none expected")
            continue
        lowest = min(finite.values())
        everywhere = [loss for loss in recorded.values() if math.isfinite(loss)]
        missed = bool(everywhere) and min(everywhere) < lowest
        kept = best is not None and finite.get(best.step) == lowest and (best.unsaved_step is not None) == missed
        tally.count(kept, f"seed {seed}: {best}, lowest saved {lowest}, missed {missed}")
        shutil.rmtree(folder)
    tally.check()
