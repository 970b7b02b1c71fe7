"""A judgement in words and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sightline.gold.scoring import METRICS
from sightline.runs import Finding, perplexity
from sightline.runs.gold import Choice, Comparison, Flip, Forgetting, GoldAnswer, Judgement, StepScore

VERSION = 1
ANSWER_WORDS = {
    GoldAnswer.BETTER: "better than the base model",
    GoldAnswer.WORSE: "worse than the base model",
    GoldAnswer.NOT_SHOWN: "not shown to be better or worse than the base model",
}


def judgement_as_json(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as `sightline judge --json` prints it; unknown is None, never absent.

    Non-finite numbers become the strings "NaN", "Infinity", "-Infinity".
    """
    return {
        "sightline": VERSION,
        "gold": judgement.gold,
        "n": judgement.n,
        "base": judgement.base,
        "answer": judgement.answer.value,
        "results": [_comparison(c, judgement.metric_why) for c in judgement.comparisons],
        "forgetting": [_forgetting(f) for f in judgement.forgetting],
        "by_step": [_step(s) for s in judgement.by_step],
        "keep": None if judgement.choice is None else _choice(judgement.choice),
        "flips": [_flip(f) for f in judgement.flips],
        "findings": [_finding(f) for f in judgement.findings],
        "predictions": judgement.predictions,
    }


def judgement_paragraph(judgement: Judgement) -> str:
    """Say in one paragraph what came out: the answer, its interval, what was forgotten, which checkpoint to keep."""
    if not judgement.comparisons:
        return f"{judgement.gold}: nothing was compared."
    sentences = [comparison_sentence(c) for c in deciding(judgement)]
    kept = None if judgement.choice is None else judgement.choice.checkpoint
    forgot = [f for f in judgement.forgetting if kept in (None, f.checkpoint)] or list(judgement.forgetting)
    if forgot:
        sentences.append(forgetting_sentence(forgot[-1]))
    if judgement.choice is not None:
        sentences.append(f"Keep {judgement.choice.checkpoint}: {judgement.choice.why}.")
    return " ".join(sentences)


def comparison_sentence(c: Comparison) -> str:
    """Say how one tuned model compares by one metric."""
    rows = f"of them {c.wins} won, {c.losses} lost, {c.ties} the same"
    name = c.tuned.checkpoint or "tuned"
    sentence = (
        f"{name} is {ANSWER_WORDS[c.answer]}: {c.metric} {value_text(c.metric, c.base.value)} → "
        f"{value_text(c.metric, c.tuned.value)} on {c.base.n} rows ({rows}; {difference_text(c)}; {p_text(c)})."
    )
    if c.answer is GoldAnswer.NOT_SHOWN and c.detectable < 1e9:
        sentence += f" So many rows show a true difference of about {size_text(c.metric, c.detectable)}."
    return sentence


def forgetting_sentence(f: Forgetting) -> str:
    """Say what became of the loss on general text."""
    verb = {
        GoldAnswer.WORSE: "It forgot: its loss on general text rose",
        GoldAnswer.BETTER: "It forgot nothing: its loss on general text fell",
        GoldAnswer.NOT_SHOWN: "Forgetting is not shown: its loss on general text went",
    }[f.answer]
    return (
        f"{verb} from {f.base_loss:.3f} to {f.tuned_loss:.3f} nats per token (perplexity "
        f"{_perplexity(f.base_loss)} → {_perplexity(f.tuned_loss)}; {f.difference:+.3f}, {100 * f.confidence:.0f} % "
        f"interval {f.low:+.3f} to {f.high:+.3f}; {f.texts} texts)."
    )


def value_text(metric: str, value: float) -> str:
    """Return a score in its unit: a share as a percentage, a loss with three decimals."""
    unit = unit_of(metric)
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "points":
        return f"{value:.1f}"
    return f"{value:.3f}" if unit else f"{value:.4g}"


def size_text(metric: str, difference: float) -> str:
    """Return the size of a difference in its metric's unit: points for shares."""
    unit = unit_of(metric)
    scaled = 100 * difference if unit == "%" else difference
    name = {"%": " points", "points": " points", "nats/token": " nats"}.get(unit, "")
    return f"{scaled:.1f}{name}" if unit in ("%", "points") else f"{scaled:.3g}{name}"


def difference_text(c: Comparison) -> str:
    """Return a difference with its interval."""
    scale = 100.0 if unit_of(c.metric) == "%" else 1.0
    form = "+.1f" if unit_of(c.metric) in ("%", "points") else "+.3g"
    low, middle, high = (format(scale * x, form) for x in (c.low, c.difference, c.high))
    return f"{middle}, {100 * c.confidence:.0f} % interval {low} to {high}"


def p_text(c: Comparison) -> str:
    """Return the p-value that decided, after correction."""
    p = c.p_adjusted
    corrected = " corrected" if c.p_adjusted != c.p_value else ""
    return f"p < 0.001{corrected}" if p < 0.001 else f"p = {p:.3f}{corrected}"


def unit_of(metric: str) -> str:
    """Return the unit of a metric, empty for functions of the user's."""
    return METRICS[metric].unit if metric in METRICS else ""


def strict_number(value: float | None) -> float | str | None:
    """Return a number as strict JSON carries it: non-finite ones as strings."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def deciding(judgement: Judgement) -> list[Comparison]:
    """Return the comparisons of the checkpoint that counts: the one to keep, else the last."""
    kept = None if judgement.choice is None else judgement.choice.checkpoint
    named = [c for c in judgement.comparisons if c.tuned.checkpoint == kept]
    last = judgement.comparisons[-1].tuned.checkpoint
    return named or [c for c in judgement.comparisons if c.tuned.checkpoint == last]


def _comparison(c: Comparison, why: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return one comparison; its groups are shaped as it is."""
    return {
        "checkpoint": c.tuned.checkpoint,
        "step": c.tuned.step,
        "metric": c.metric,
        "why": (why or {}).get(c.metric),
        "unit": unit_of(c.metric) or None,
        "group": c.group,
        "answer": c.answer.value,
        "n": c.base.n,
        "base": strict_number(c.base.value),
        "tuned": strict_number(c.tuned.value),
        "difference": strict_number(c.difference),
        "interval": [strict_number(c.low), strict_number(c.high)],
        "confidence": c.confidence,
        "p_value": c.p_value,
        "p_adjusted": c.p_adjusted,
        "test": c.test,
        "wins": c.wins,
        "losses": c.losses,
        "ties": c.ties,
        "detectable": strict_number(c.detectable),
        "groups": [_comparison(g) for g in c.groups],
    }


def _forgetting(f: Forgetting) -> dict[str, Any]:
    return {
        "checkpoint": f.checkpoint,
        "step": f.step,
        "forgot": {GoldAnswer.WORSE: True, GoldAnswer.BETTER: False, GoldAnswer.NOT_SHOWN: None}[f.answer],
        "answer": f.answer.value,
        "base_loss": strict_number(f.base_loss),
        "tuned_loss": strict_number(f.tuned_loss),
        "base_perplexity": strict_number(perplexity(f.base_loss)),
        "tuned_perplexity": strict_number(perplexity(f.tuned_loss)),
        "difference": strict_number(f.difference),
        "interval": [strict_number(f.low), strict_number(f.high)],
        "confidence": f.confidence,
        "p_value": f.p_value,
        "p_adjusted": f.p_adjusted,
        "texts": f.texts,
        "tokens": f.tokens,
    }


def _step(s: StepScore) -> dict[str, Any]:
    return {
        "step": s.step,
        "checkpoint": s.checkpoint,
        "score": strict_number(s.score),
        "eval_loss": strict_number(s.eval_loss),
    }


def _choice(c: Choice) -> dict[str, Any]:
    return {
        "checkpoint": c.checkpoint,
        "step": c.step,
        "by_loss": c.by_loss,
        "choosing_rows": c.choosing_rows,
        "why": c.why,
    }


def _flip(f: Flip) -> dict[str, Any]:
    return {
        "id": f.example.id,
        "group": f.example.group,
        "prompt": f.example.prompt,
        "references": list(f.example.references),
        "checkpoint": f.checkpoint,
        "metric": f.metric,
        "base": {"prediction": f.base.text, "score": strict_number(f.base_score)},
        "tuned": {"prediction": f.tuned.text, "score": strict_number(f.tuned_score)},
    }


def _finding(f: Finding) -> dict[str, Any]:
    return {
        "kind": f.kind,
        "severity": f.severity.value,
        "message": f.message,
        "evidence": {k: strict_number(v) if isinstance(v, float) else v for k, v in f.evidence.items()},
    }


def _perplexity(loss: float) -> str:
    return f"{perplexity(loss):.4g}"
