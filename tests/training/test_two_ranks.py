"""Two gloo ranks: stopping, saving and evaluating are decided once and reach both at one event, and nobody hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sightline.journal import reader

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, random, sys
from pathlib import Path
from sightline.decisions import Verdict
from sightline.journal import Recorder
from sightline.runs import Action, Decision, Diagnosis, Phase
from sightline.training import callback as module
from sightline.training.continuation import Continuation
from sightline.training.interrupts import Interrupts
from sightline.training.keeping import KeepBest, Rotation
from sightline.training.ranks import Ranks
from sightline.training.saving import save_checkpoint
from tests.training.tiny import tiny_trainer

rank, folder, runs = int(os.environ["RANK"]), Path(sys.argv[1]), int(sys.argv[2])
judged = module.judge_run
for number in range(runs):
    chance = random.Random(number)  # the same on both ranks
    stop_at, signal_rank, signal_step = chance.choice([6, 9, 99]), chance.choice([0, 1]), chance.choice([4, 7, 99])

    def stops(run, policy, stop_at=stop_at):
        verdict = judged(run, policy)
        assert rank == 0, "only rank 0 judges"
        step = int(run.eval_loss.steps[-1])
        action = Action.STOP if step >= stop_at else Action.CONTINUE
        return Verdict(run, verdict.diagnosis, Decision(action, None, None, "enough"))

    class Signalled(Interrupts):
        def on_step_begin(self, args, state, control, **kwargs):
            if rank == signal_rank and state.global_step == signal_step:
                self.signal_name = "SIGTERM"  # as its handler would set it, on one rank only

    module.judge_run = stops
    watcher = module.SightlineCallback(stop_early=True)
    trainer = tiny_trainer(
        folder / str(number), callbacks=[watcher, KeepBest(watcher), Rotation(watcher), Signalled()],
    )
    saving = Ranks()
    trainer._save_checkpoint = lambda model, trial, t=trainer, r=saving: save_checkpoint(t, r, lambda aside: None)
    trainer.train()
    checkpoints = sorted(p.name for p in (folder / str(number)).glob("checkpoint-*"))
    expected = min(stop_at, signal_step + 1, 12)
    with (folder / f"rank{rank}.txt").open("a") as out:
        out.write(f"{number} {trainer.state.global_step} {expected} {checkpoints}\\n")
"""


@pytest.mark.parametrize("runs", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_no_decision_is_heard_by_one_rank_only(tmp_path, trials, runs):
    """Both ranks end every run at the step decided on one of them, and the checkpoint of that step is whole."""
    tally = trials("H4", "runs on two ranks: stop, save and evaluation reach both at one event, none hangs")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    _launch([str(script), str(tmp_path), str(runs)], patience_s=180 + 10 * runs)
    told = [(tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    for number in range(runs):
        first, second = told[0][number].split(maxsplit=3), told[1][number].split(maxsplit=3)
        kept = f"checkpoint-{first[1]}'" in first[3]
        one_journal = len(reader.read(tmp_path / str(number)).segments) == 1
        tally.count(first[:3] == second[:3] and first[1] == first[2] and kept and one_journal, f"{first} {second}")
    tally.check()


@pytest.mark.slow
def test_a_run_of_two_ranks_killed_while_saving_goes_on_as_if_nothing_had_happened(tmp_path, trials):
    """SIGKILL to both ranks in the middle of a save of the second epoch: every later loss is bit-equal."""
    from sightline.training.saving import ASIDE

    from .small_runs import points, settings, write_demo_rows

    tally = trials("C2", "runs of two ranks killed while saving, resumed, bit-equal to the unbroken run")
    data = write_demo_rows(tmp_path)
    wishes = {
        "per_device_train_batch_size": 4, "max_steps": 16, "eval_steps": 8, "logging_steps": 1, "save_strategy": "steps",
        "save_steps": 2, "train_sampling_strategy": "group_by_length",
    }  # fmt: skip
    command = ["-m", "sightline", "train"]
    _launch([*command, *settings(data, tmp_path / "unbroken", **wishes)], patience_s=240)
    folder = tmp_path / "run"
    process = _start([*command, *settings(data, folder, **wishes)])
    aside = folder / f"{ASIDE}checkpoint-14"
    end = time.monotonic() + 240
    while not aside.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.0005)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    for pid in children:
        os.kill(pid, 9)
    process.communicate(timeout=240)
    _launch([*command, *settings(data, folder, **wishes), "--resume"], patience_s=240)
    once, twice = reader.read(tmp_path / "unbroken"), reader.read(folder)
    tally.count(points(once) == points(twice) and len(twice.segments) == 2, "two ranks")
    tally.check()


def _start(words: list[str]) -> subprocess.Popen[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*launch, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip


def _launch(words: list[str], patience_s: float) -> None:
    process = _start(words)
    try:
        _, err = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail("a rank hangs")
    assert process.returncode == 0, err[-3000:]
