"""Hand-made verdicts: what the pages are drawn from, whatever the diagnosis of the day says."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from sightline.decisions import Verdict
from sightline.runs import (
    Action,
    Best,
    Checkpoint,
    Decision,
    Diagnosis,
    Finding,
    Onset,
    Phase,
    RunBuilder,
    Severity,
    Status,
)
from sightline.runs.gold import Choice, Comparison, Forgetting, GoldAnswer, GoldScore, Judgement, StepScore

TEXTBOOK_EVALS = (2.61, 2.24, 1.98, 1.83, 1.75, 1.72, 1.74, 1.79, 1.86, 1.93, 2.01, 2.08, 2.16, 2.24, 2.31)


def _builder(name: str, **fields: object) -> RunBuilder:
    return RunBuilder(Path(f"outputs/{name}"), "journal", name, **fields)  # type: ignore[arg-type]


def healthy() -> Verdict:
    builder = _builder("healthy", max_steps=1000, status=Status.FINISHED)
    for step in range(20, 1001, 20):
        metrics = {"loss": 0.9 + 2.1 * math.exp(-step / 250) + 0.03 * math.sin(step)}
        if step % 100 == 0:
            metrics |= {"eval_loss": 1.1 + 1.9 * math.exp(-step / 240), "probe_loss": 1.0 + 1.9 * math.exp(-step / 250)}
            builder.checkpoint(Checkpoint(step, Path(f"outputs/healthy/checkpoint-{step}")))
        builder.log(step, metrics)
    run = builder.build()
    best = Best(1000, 1.1 + 1.9 * math.exp(-1000 / 240), (900, 1000))
    why = "the validation loss has settled and nothing was lost"
    return Verdict(
        run, Diagnosis(Phase.HEALTHY, 0.93, best=best), Decision(Action.CONTINUE, 1000, "checkpoint-1000", why)
    )


def textbook() -> Verdict:
    builder = _builder("textbook", max_steps=1500, status=Status.RUNNING)
    for i, loss in enumerate(TEXTBOOK_EVALS, start=1):
        builder.log(100 * i, {"loss": 2.6 * 0.88**i, "eval_loss": loss})
        builder.checkpoint(
            Checkpoint(100 * i, Path(f"outputs/textbook/checkpoint-{100 * i}"), deleted=i not in (6, 15))
        )
    finding = Finding(
        "overfitting",
        Severity.WARNING,
        "the validation loss has risen by 34 % since step 600 while the training loss fell on; train about 600 steps",
        600,
        1500,
        0.98,
        {"rise": 0.59, "noise": 0.011, "evaluations": 9, "test": "paired"},
    )
    diagnosis = Diagnosis(
        Phase.OVERFITTING, 0.98, (finding,), Onset(600, 500, 700), Best(600, 1.72, (500, 600, 700)), 0.6
    )
    decision = Decision(Action.STOP, 600, "checkpoint-600", "the validation loss rises beyond its noise")
    return Verdict(builder.build(), diagnosis, decision)


def diverged() -> Verdict:
    builder = _builder("diverged", status=Status.FAILED, end_reason="RuntimeError: loss is NaN")
    for step in range(10, 301, 10):
        builder.log(step, {"loss": 3.0 - 0.008 * step if step < 180 else math.nan, "learning_rate": 1e-2})
    builder.log(100, {"eval_loss": 2.4})
    builder.log(200, {"eval_loss": math.nan})
    builder.log(300, {"eval_loss": math.inf})
    finding = Finding(
        "non_finite_loss",
        Severity.CRITICAL,
        "the training loss is NaN since step 180; lower the learning rate and start again",
        180,
        300,
        None,
        {"points": 13, "learning_rate": 1e-2},
    )
    diagnosis = Diagnosis(Phase.DIVERGED, 0.99, (finding,), best=Best(100, 2.4, (100,)))
    return Verdict(
        builder.build(), diagnosis, Decision(Action.STOP, 100, None, "the training loss is NaN since step 180")
    )


def undecided() -> Verdict:
    builder = _builder("undecided")
    for step in range(5, 31, 5):
        builder.log(step, {"loss": 2.0 - step / 40})
    finding = Finding(
        "too_few_evaluations",
        Severity.INFO,
        "no evaluation at all: set eval_strategy='steps'",
        evidence={"evaluations": 0},
    )
    why = "without evaluations nobody can say"
    return Verdict(
        builder.build(), Diagnosis(Phase.UNDECIDED, None, (finding,)), Decision(Action.CONTINUE, None, None, why)
    )


def no_train_loss() -> Verdict:
    builder = _builder("no-train", step_unit="epoch", eval_metric="val_loss")
    for epoch, loss in enumerate((0.9, 0.5, 0.4, 0.38), start=1):
        builder.log(epoch, {"val_loss": loss})
    best = Best(4, 0.38, (3, 4))
    why = "both losses were still falling"
    return Verdict(
        builder.build(), Diagnosis(Phase.UNDERFITTING, 0.7, best=best), Decision(Action.CONTINUE, 4, None, why)
    )


def million() -> Verdict:
    builder = _builder("million")
    steps = np.arange(1, 1_000_001)
    values = 0.5 + 2.0 * np.exp(-steps / 2e5) + 0.2 * np.sin(steps * 0.7)
    values[123_456] = 40.0
    builder.extend("loss", steps.tolist(), values.tolist())
    evals = steps[9_999::10_000]
    builder.extend("eval_loss", evals.tolist(), (0.8 + 2.0 * np.exp(-evals / 2e5)).tolist())
    best = Best(1_000_000, float(0.8 + 2.0 * math.exp(-5)), tuple(range(960_000, 1_000_001, 10_000)))
    why = "still falling, and slower and slower"
    return Verdict(
        builder.build(), Diagnosis(Phase.HEALTHY, 0.8, best=best), Decision(Action.CONTINUE, 1_000_000, None, why)
    )


def hostile() -> Verdict:
    """Every text of the log tries to steer the terminal."""
    evil = "\x1b[2J\x1b]0;owned\x07[bold red]x[/]\u202eabc\u2066\nnew\r\tline\udcff\x9b31m"
    builder = RunBuilder(
        Path(f"outputs/{evil}"),
        evil,
        evil,
        status=Status.FAILED,
        end_reason=evil,
        eval_metric="eval_loss",
        train_metric=evil,
        damage=[evil, "b"],
    )
    for step in (10, 20, 30):
        builder.log(step, {evil: 2.0, "eval_loss": 2.0 + step / 100})
    builder.checkpoint(Checkpoint(10, Path(f"outputs/{evil}")))
    finding = Finding(evil, Severity.CRITICAL, evil, 10, 20, None, {evil: evil, "n": 3})
    diagnosis = Diagnosis(Phase.OVERFITTING, 0.9, (finding,), Onset(10, 10, 20), Best(10, 2.1, (10,)), 0.66)
    return Verdict(builder.build(), diagnosis, Decision(Action.STOP, 10, evil, evil))


def judged() -> Verdict:
    """Return the textbook run, which a gold set sees otherwise than the loss."""
    verdict = textbook()
    run = replace(
        verdict.run, name="judged", path=Path("outputs/judged"), status=Status.FINISHED, judgements=(_judgement(),)
    )
    why = "the gold set speaks for checkpoint-1500"
    return Verdict(run, verdict.diagnosis, Decision(Action.STOP, 1500, "checkpoint-1500", why))


def _judgement() -> Judgement:
    checkpoints = (("checkpoint-600", 600, 0.21, GoldAnswer.BETTER), ("checkpoint-1500", 1500, 0.4, GoldAnswer.BETTER))
    comparisons = tuple(
        Comparison(
            "exact_match", answer, GoldScore("exact_match", 0.01, 200, step=0),
            GoldScore("exact_match", score, 200, name, step), score - 0.01, score - 0.07, score + 0.05, 0.95, 1e-6,
            2e-6, "mcnemar_exact", round(200 * score), 2, 198 - round(200 * score), 0.08,
        )
        for name, step, score, answer in checkpoints
    )  # fmt: skip
    steps = [StepScore(0, "base", 0.01, 3.1)]
    steps += [StepScore(600, "checkpoint-600", 0.21, 1.72), StepScore(1500, "checkpoint-1500", 0.4, 2.31)]
    why = "exact_match 40.0 % against 21.0 % at the lowest validation loss (checkpoint-600): the gold score decides"
    forgot = Forgetting(
        GoldAnswer.WORSE, "checkpoint-1500", 1500, 1.5, 2.6, 1.1, 1.0, 1.2, 0.95, 1e-4, 1e-4, 156, 30_000
    )
    choice = Choice("checkpoint-1500", 1500, why, "checkpoint-600", 80)
    return Judgement(
        "gold.jsonl", 200, "models/base", comparisons, forgetting=(forgot,), by_step=tuple(steps), choice=choice
    )


ALL = {
    "healthy": healthy,
    "textbook": textbook,
    "diverged": diverged,
    "undecided": undecided,
    "no_train_loss": no_train_loss,
    "million": million,
    "hostile": hostile,
    "judged": judged,
}
