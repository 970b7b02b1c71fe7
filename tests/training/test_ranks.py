"""Two processes: rank 0 decides, both stop at the same step, one journal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sightline.journal import reader
from sightline.runs import Status

SCRIPT = """
import os, sys
from pathlib import Path
from sightline.decisions import Verdict
from sightline.runs import Action, Decision, Diagnosis, Phase
from sightline.training import callback as module
from tests.training.tiny import tiny_trainer

folder = Path(sys.argv[1])

def stops_at_six(run, policy):
    assert os.environ["RANK"] == "0", "only rank 0 judges"
    step = int(run.eval_loss.steps[-1])
    action = Action.STOP if step >= 6 else Action.CONTINUE
    return Verdict(run, Diagnosis(Phase.HEALTHY, 0.9), Decision(action, None, None, "enough"))

module.judge_run = stops_at_six
trainer = tiny_trainer(folder, callbacks=[module.SightlineCallback(stop_early=True)])
trainer.train()
(folder / f"rank{os.environ['RANK']}.txt").write_text(str(trainer.state.global_step))
"""


def test_a_decision_reaches_every_rank_at_one_event(tmp_path):
    """In anyone's script under torchrun both ranks end after the same step and nobody waits for anybody."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)],
        cwd=root, capture_output=True, text=True, timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)] == ["6", "6"]
    run = reader.read(tmp_path)
    assert run.status is Status.STOPPED and len(run.segments) == 1 and run.last_step == 6
