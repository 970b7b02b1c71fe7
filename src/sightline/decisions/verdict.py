"""Verdict: a run with its diagnosis and its decision, and the stable JSON of `sightline read`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sightline.decisions.decide import decide
from sightline.decisions.policy import Policy
from sightline.decisions.rising import rising_rows
from sightline.diagnosis import diagnose
from sightline.runs import Curve, Decision, Diagnosis, Run, perplexity
from sightline.runs.gold import GoldAnswer, Judgement


@dataclass(frozen=True, eq=False, slots=True)
class Verdict:
    """A run, what the tests saw in it and what to do about it."""

    run: Run
    diagnosis: Diagnosis
    decision: Decision


def judge_run(run: Run, policy: Policy | None = None) -> Verdict:
    """Diagnose a run and decide what to do with it."""
    policy = policy or Policy()
    diagnosis = diagnose(run, false_alarm=policy.false_alarm, worthwhile_gain=policy.worthwhile_gain)
    return Verdict(run, diagnosis, decide(run, diagnosis, policy))


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    """Return one entry of ``runs`` in the JSON of `sightline read`; unknown is None, never absent.

    Non-finite numbers become the strings "NaN", "Infinity", "-Infinity".
    """
    run, diagnosis, decision = verdict.run, verdict.diagnosis, verdict.decision
    best, onset = diagnosis.best, diagnosis.onset
    loss, eval_loss = _last(run.train_loss), _last(run.eval_loss)
    probe = _last(run.curves.get("probe_loss"))
    shown_train = loss if probe is None else probe
    gap = None if eval_loss is None or shown_train is None else eval_loss - shown_train
    return {
        "path": str(run.path),
        "format": run.format,
        "name": run.name,
        "n_train": 0 if run.train_loss is None else len(run.train_loss),
        "n_eval": 0 if run.eval_loss is None else len(run.eval_loss),
        "last_step": run.last_step,
        "step_unit": run.step_unit,
        "status": run.status.value,
        "phase": diagnosis.phase.value,
        "confidence": number(diagnosis.confidence),
        "onset": None if onset is None else {"step": onset.step, "low": onset.low, "high": onset.high},
        "best": None
        if best is None
        else {
            "step": best.step,
            "eval_loss": number(best.eval_loss),
            "perplexity": number(perplexity(best.eval_loss)),
            "equivalent_steps": list(best.equivalent_steps),
        },
        "last": {
            "loss": number(loss),
            "eval_loss": number(eval_loss),
            "perplexity": None if eval_loss is None else number(perplexity(eval_loss)),
            "gap": number(gap),
        },
        "wasted_fraction": number(diagnosis.wasted_fraction),
        "decision": {
            "action": decision.action.value,
            "keep_step": decision.keep_step,
            "keep_checkpoint": decision.keep_checkpoint,
            "why": decision.why,
        },
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity.value,
                "from_step": finding.from_step,
                "to_step": finding.to_step,
                "message": finding.message,
                "evidence": {
                    name: number(value) if isinstance(value, float) else value
                    for name, value in finding.evidence.items()
                },
            }
            for finding in diagnosis.findings
        ],
        "gold": _gold(run.judgements[-1]) if run.judgements else None,
        "rising_rows": _rising(run, diagnosis),
    }


def _rising(run: Run, diagnosis: Diagnosis) -> dict[str, Any] | None:
    """Return the rows that memorising costs most; a row that broke contributes the string "Infinity"."""
    found = rising_rows(run, diagnosis)
    if found is None:
        return None
    return {
        "from_step": found.from_step,
        "to_step": found.to_step,
        "rise": number(found.changes.total),
        "rows": [
            {"place": place, "contribution": number(share), "per_token": number(change), "tokens": tokens}
            for place, share, change, tokens in found.worst()
        ],
        "rows_for_half": len(found.changes.drivers()),
        "rows_of": len(found.changes.rows),
    }


def _gold(judgement: Judgement) -> dict[str, Any]:
    """Return the answer of a gold set in brief: by its first metric, for the checkpoint that counts."""
    told = judgement.deciding
    return {
        "answer": judgement.answer.value,
        "gold": judgement.gold,
        "rows": judgement.n,
        "checkpoint": None if told is None else told.tuned.checkpoint,
        "step": None if told is None else told.tuned.step,
        "metric": None if told is None else told.metric,
        "base": None if told is None else number(told.base.value),
        "tuned": None if told is None else number(told.tuned.value),
        "interval": None if told is None else [number(told.low), number(told.high)],
        "p_value": None if told is None else number(told.p_adjusted),
        "forgot": next((f.answer is GoldAnswer.WORSE for f in reversed(judgement.forgetting)), None),
    }


def number(value: float | None) -> float | str | None:
    """Return a float as strict JSON can carry it: non-finite ones as strings."""
    if value is None or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _last(curve: Curve | None) -> float | None:
    return None if curve is None or not len(curve) else float(curve.values[-1])
