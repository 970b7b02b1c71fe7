"""Write the sample of journal format 1: a small run with every kind of line, the same bytes each time.

    python tests/samples/sightline/1/make.py

writes ``run/`` and its ``.golden.json`` anew. Do so only together with a new format version: the sample shows that
journals written long ago still read to the same run.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from sightline.journal import Recorder, read
from sightline.runs import (
    Action,
    Best,
    Checkpoint,
    Decision,
    Diagnosis,
    Evaluation,
    ExampleLosses,
    Finding,
    Onset,
    Phase,
    Run,
    Severity,
    Status,
)
from sightline.runs.gold import Choice, Comparison, Forgetting, GoldAnswer, GoldScore, Judgement, StepScore

HERE = Path(__file__).parent
PROCESS = {"pid": 4242, "host": "example", "boot_id": "a-boot", "pid_namespace": "pid:[1]", "start_ticks": 99}
ENVIRONMENT = {"python": "3.11.9", "host": "example", "pid": 4242, "argv": ["train.py", "--hub_token", "***"]}


def write_sample(output_dir: Path) -> None:
    """Record the sample; clock, process and id are fixed."""
    clock, eighths = itertools.count(1_790_000_000), itertools.count()
    with (
        mock.patch("sightline.journal.recorder.describe", lambda masker: ENVIRONMENT),
        mock.patch("sightline.journal.recorder.identity", lambda: PROCESS),
        mock.patch("sightline.journal.recorder.time.time", lambda: float(next(clock))),
        mock.patch("sightline.journal.recorder.uuid.uuid4", lambda: mock.Mock(hex="0123456789abcdef" * 2)),
        mock.patch("sightline.journal.writer.monotonic", lambda: next(eighths) / 8),
    ):
        recorder = Recorder.open(
            output_dir,
            config={"learning_rate": 2e-4, "hub_token": "hf_" + "x" * 30, "nested": {"seed": 7, "rate": math.inf}},
            name="sample",
            max_steps=60,
            heartbeat_s=1e6,
        )
        steps(recorder, output_dir, 1, 50)
        recorder.end(Status.FAILED, "OutOfMemoryError: no room at step 50")
        recorder.close()
        recorder = Recorder.open(output_dir, resume=True, from_step=40, heartbeat_s=1e6)
        steps(recorder, output_dir, 41, 60)
        recorder.beat(0.0)
        recorder.end(Status.STOPPED, "validation loss has turned up since step 40")
        recorder.gold(judgement())
        recorder.close()
    (output_dir / "sightline" / "history.parquet").unlink()


def steps(recorder: Recorder, output_dir: Path, first: int, last: int) -> None:
    """Record some steps with what belongs to them."""
    if first == 1:
        recorder.evaluation(evaluation(0))
    for step in range(first, last + 1):
        if step % 5 == 0:
            recorder.log(
                step, {"loss": 3.0 / (1 + step / 10), "learning_rate": 2e-4 * (1 - step / 60), "epoch": step / 20}
            )
        if step % 20 == 0:
            recorder.evaluation(evaluation(step))
            checkpoint = Checkpoint(step, output_dir / f"checkpoint-{step}", 1_000_000 + step)
            recorder.checkpoint(checkpoint, "saved")
            recorder.checkpoint(checkpoint, "verified")
            recorder.decision(step, *verdict(step))
        if step == 45:
            recorder.log(step, {"grad_norm": math.nan, "note": math.inf})
            recorder.alert(step, Finding("non_finite", Severity.CRITICAL, "the gradient norm is NaN", step, step))
    if last == 60:
        recorder.checkpoint(Checkpoint(20, output_dir / "checkpoint-20"), "deleted")


def evaluation(step: int) -> Evaluation:
    """Return an evaluation of six rows and a probe of three."""
    counts = np.array([5, 12, 7, 30, 1, 9])
    mean = 2.0 + abs(step - 40) / 40
    losses = ExampleLosses(counts * mean * np.linspace(0.9, 1.1, 6), counts)
    probe = ExampleLosses(counts[:3] * 3.0 / (1 + step / 10), counts[:3])
    return Evaluation(step, losses.loss, losses, probe, mean + 0.01, 0.25)


def verdict(step: int) -> tuple[Diagnosis, Decision]:
    """Return what might be said at a step."""
    if step < 60:
        return Diagnosis(Phase.HEALTHY, 0.9), Decision(Action.CONTINUE, step, f"checkpoint-{step}", "still falling")
    finding = Finding("overfitting", Severity.WARNING, "it rises", 40, 60, 0.98, {"rise": 0.5, "rows": 6, "p": None})
    diagnosis = Diagnosis(Phase.OVERFITTING, 0.98, (finding,), Onset(40, 35, 45), Best(40, 2.0, (40,)), 1 / 3)
    return diagnosis, Decision(Action.STOP, 40, "checkpoint-40", "it rises since step 40")


def judgement() -> Judgement:
    """Return what a gold set says of checkpoint-40."""
    base, tuned = GoldScore("exact_match", 0.0, 60, step=0), GoldScore("exact_match", 0.5, 60, "checkpoint-40", 40)
    numbers = {"difference": 0.5, "low": 0.375, "high": 0.625, "confidence": 0.95, "p_value": 2.0**-29}
    comparison = Comparison(
        metric="exact_match", answer=GoldAnswer.BETTER, base=base, tuned=tuned, **numbers, p_adjusted=2.0**-29,
        test="mcnemar_exact", wins=30, losses=0, ties=30, detectable=0.25,
    )  # fmt: skip
    forgot = Forgetting(GoldAnswer.WORSE, "checkpoint-40", 40, 1.5, 2.5, 1.0, 0.75, 1.25, 0.95, 0.001, 0.001, 9, 900)
    return Judgement(
        gold="gold.jsonl",
        n=60,
        base="base",
        comparisons=(comparison,),
        forgetting=(forgot,),
        by_step=(StepScore(40, "checkpoint-40", 0.5, 2.0), StepScore(60, "checkpoint-60", math.nan, None)),
        choice=Choice("checkpoint-40", 40, "it has the best exact_match", "checkpoint-40", 40),
        findings=(Finding("gold_size", Severity.INFO, "60 rows show a difference of 25 points"),),
        predictions="run/sightline/gold.jsonl",
    )


def golden(run: Run) -> dict[str, Any]:
    """Return everything the sample reads to, floats as their shortest text."""
    return {
        "name": run.name,
        "status": run.status.value,
        "end_reason": run.end_reason,
        "max_steps": run.max_steps,
        "config": dict(run.config),
        "segments": [[segment.from_step, segment.started] for segment in run.segments],
        "curves": {
            name: [[int(step), repr(float(value))] for step, value in zip(curve.steps, curve.values, strict=True)]
            for name, curve in sorted(run.curves.items())
        },
        "evaluations": [
            {
                "step": e.step,
                "eval_loss": repr(e.eval_loss),
                "reported_loss": repr(e.reported_loss),
                "runtime_s": e.runtime_s,
                "losses": None if e.losses is None else [repr(float(value)) for value in e.losses.loss_sums],
                "token_counts": None if e.losses is None else e.losses.token_counts.tolist(),
                "probe": None if e.probe is None else [repr(float(value)) for value in e.probe.loss_sums],
            }
            for e in run.evaluations
        ],
        "judgements": [repr(j) for j in run.judgements],
        "checkpoints": [[c.step, c.path.name, c.size_bytes, c.verified, c.deleted] for c in run.checkpoints],
        "damage": list(run.damage),
    }


if __name__ == "__main__":
    for path in sorted((HERE / "run" / "sightline").glob("*")):
        path.unlink()
    write_sample(HERE / "run")
    content = json.dumps(golden(read(HERE / "run")), indent=1)
    (HERE / "run.golden.json").write_text(content + "\n")
