"""kill -9 at random moments: not one acknowledged event is lost, none is there twice, nothing is damaged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sightline.journal import Recorder, read, read_lines
from sightline.journal.lines import LogLine
from sightline.runs import Run, Status

KILLS = "`kill -9` while recording: no acknowledged event lost, none twice, no gap"
CHILD = """
import os, sys
from pathlib import Path
import numpy as np
from sightline.journal import Recorder
from sightline.runs import Evaluation, ExampleLosses

output_dir, pause_s, first = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
recorder = Recorder.open(output_dir, resume=True, from_step=first - 1, config={"pause_s": pause_s})
rows = np.linspace(1.0, 50.0, 500)
counts = np.arange(500) + 1
import time
for step in range(first, 10**9):
    recorder.log(step, {"loss": 1.0 / step, "learning_rate": 1e-4 * step, "grad_norm": 0.5, "epoch": step / 7})
    os.write(1, b"%d\\n" % step)  # acknowledged
    if step % 25 == 0:
        recorder.evaluation(Evaluation(step, 2.0 / step, ExampleLosses(rows / step, counts)))
        os.write(1, b"-%d\\n" % step)
    if pause_s:
        time.sleep(pause_s)
"""


def killed_at(output_dir: Path, after_s: float, pause_s: float, first: int) -> list[int]:
    """Record in another process, kill it after a while, and return what it was acknowledged: steps, -evaluations."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(output_dir), str(pause_s), str(first)],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    acknowledged = child.stdout.readline()
    time.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    acknowledged += child.stdout.read()
    assert child.wait() == -signal.SIGKILL
    return [int(line) for line in acknowledged.split(b"\n")[:-1]]


def check(run: Run, steps: list[int], evaluated: list[int]) -> int:
    """Compare a run with what was acknowledged; return how many events it has beyond, at most one was in the making."""
    curve = run.curves["loss"]
    missing = set(steps) - set(curve.steps.tolist())
    assert not missing, f"lost {len(missing)} of {len(steps)} acknowledged events"
    assert curve.steps.tolist() == list(range(1, int(curve.steps[-1]) + 1)), "a gap"
    assert curve.values.tolist() == [1.0 / step for step in curve.steps.tolist()]
    assert set(evaluated) <= {evaluation.step for evaluation in run.evaluations}
    assert all(evaluation.losses is not None for evaluation in run.evaluations)
    assert run.damage == (), run.damage
    assert run.status is Status.FAILED and "died" in str(run.end_reason)
    return len(curve) - len(steps)


def kill_and_check(output_dir: Path, seed: int, pause_s: float, kills: int = 1) -> tuple[int, int]:
    """Kill a run, resume it, kill it again; return acknowledged events and those found beyond them."""
    draw = random.Random(seed)
    steps: list[int] = []
    evaluated: list[int] = []
    beyond = 0
    for _ in range(kills):
        got = killed_at(output_dir, draw.uniform(0.0, 0.4), pause_s, first=(steps[-1] if steps else 0) + 1)
        new_steps = [step for step in got if step > 0]
        steps, evaluated = steps + new_steps, evaluated + [-step for step in got if step < 0]
        beyond = check(read(output_dir), steps, evaluated)
        assert 0 <= beyond <= 1
        if beyond:
            steps.append(steps[-1] + 1)
    logged = [line.step for line in read_lines(output_dir) if isinstance(line, LogLine)]
    assert len(logged) == len(set(logged)), "an event twice"
    return len(steps), beyond


@pytest.mark.parametrize("seed", range(5))
def test_nothing_acknowledged_is_lost_at_full_speed(tmp_path, seed, trials):
    """As fast as it goes, killed twice: the second time in a resumed segment."""
    tally = trials("D1", KILLS)
    kill_and_check(tmp_path, seed, pause_s=0.0, kills=2)
    for _ in range(2):
        tally.count(True)


def test_a_killed_run_can_be_gone_on_with_at_once(tmp_path):
    """Its lock goes with it."""
    killed_at(tmp_path, 0.05, 0.0, 1)
    recorder = Recorder.open(tmp_path, resume=True, from_step=None)
    recorder.end(Status.FINISHED)
    recorder.close()
    assert read(tmp_path).status is Status.FINISHED


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_two_hundred_kills(tmp_path, trials):
    """With the ten above: half at full speed, half at 200 events a second, each at a random moment."""
    tally, total = trials("D1", KILLS), 0
    for seed in range(190):
        events, _ = kill_and_check(tmp_path / str(seed), seed, pause_s=0.0 if seed % 2 else 0.005)
        total += events
        tally.count(True)
    print(f"0 of {total:,} acknowledged events lost in 190 kills")
