"""A judgement on a gold set as the journal holds it, both ways.

Groups and the rows that flipped are left out: they follow from the answers, whose file is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.journal.judgement import finding_as_json, finding_of
from sightline.journal.values import (
    from_json_number,
    mapping,
    optional_number,
    optional_text,
    optional_whole_number,
    text,
    to_json_number,
    whole_number,
)
from sightline.runs.gold import (
    Choice,
    Comparison,
    Forgetting,
    GoldAnswer,
    GoldScore,
    Judgement,
    StepScore,
)

_COMPARISON_NUMBERS = ("difference", "low", "high", "confidence", "p_value", "p_adjusted", "detectable")
_FORGETTING_NUMBERS = (
    "base_loss", "tuned_loss", "difference", "low", "high", "confidence", "p_value", "p_adjusted",
)  # fmt: skip


def judgement_as_json(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as the journal holds it."""
    choice = judgement.choice
    return {
        "gold": judgement.gold,
        "n": judgement.n,
        "base": judgement.base,
        "answer": judgement.answer.value,
        "results": [_comparison_as_json(c) for c in judgement.comparisons],
        "forgetting": [_forgetting_as_json(f) for f in judgement.forgetting],
        "by_step": [
            {
                "step": point.step,
                "checkpoint": point.checkpoint,
                "score": to_json_number(point.score),
                "eval_loss": to_json_number(point.eval_loss),
            }
            for point in judgement.by_step
        ],
        "keep": None
        if choice is None
        else {
            "checkpoint": choice.checkpoint,
            "step": choice.step,
            "why": choice.why,
            "by_loss": choice.by_loss,
            "choosing_rows": choice.choosing_rows,
        },
        "findings": [finding_as_json(finding) for finding in judgement.findings],
        "predictions": judgement.predictions,
    }


def judgement_of(payload: Mapping[str, Any]) -> Judgement:
    """Return the judgement that ``judgement_as_json`` wrote, without groups, flips and reasons for metrics."""
    keep = payload["keep"]
    return Judgement(
        gold=text(payload["gold"]),
        n=whole_number(payload["n"]),
        base=text(payload["base"]),
        comparisons=tuple(_comparison_of(mapping(c)) for c in payload["results"]),
        forgetting=tuple(_forgetting_of(mapping(f)) for f in payload["forgetting"]),
        by_step=tuple(
            StepScore(
                whole_number(point["step"]),
                text(point["checkpoint"]),
                from_json_number(point["score"]),
                optional_number(point["eval_loss"]),
            )
            for point in payload["by_step"]
        ),
        choice=None
        if keep is None
        else Choice(
            checkpoint=text(keep["checkpoint"]),
            step=optional_whole_number(keep["step"]),
            why=text(keep["why"]),
            by_loss=optional_text(keep["by_loss"]),
            choosing_rows=whole_number(keep["choosing_rows"]),
        ),
        findings=tuple(finding_of(mapping(finding)) for finding in payload["findings"]),
        predictions=optional_text(payload["predictions"]),
    )


def _comparison_as_json(c: Comparison) -> dict[str, Any]:
    return {
        "metric": c.metric,
        "answer": c.answer.value,
        "checkpoint": c.tuned.checkpoint,
        "step": c.tuned.step,
        "rows": c.base.n,
        "base": to_json_number(c.base.value),
        "tuned": to_json_number(c.tuned.value),
        **{name: to_json_number(getattr(c, name)) for name in _COMPARISON_NUMBERS},
        "test": c.test,
        "wins": c.wins,
        "losses": c.losses,
        "ties": c.ties,
    }


def _comparison_of(payload: Mapping[str, Any]) -> Comparison:
    metric, rows = text(payload["metric"]), whole_number(payload["rows"])
    checkpoint, step = optional_text(payload["checkpoint"]), optional_whole_number(payload["step"])
    return Comparison(
        metric=metric,
        answer=GoldAnswer(payload["answer"]),
        base=GoldScore(metric, from_json_number(payload["base"]), rows, step=0),
        tuned=GoldScore(metric, from_json_number(payload["tuned"]), rows, checkpoint, step),
        **{name: from_json_number(payload[name]) for name in _COMPARISON_NUMBERS},
        test=text(payload["test"]),
        wins=whole_number(payload["wins"]),
        losses=whole_number(payload["losses"]),
        ties=whole_number(payload["ties"]),
        group=None,
        groups=(),
    )


def _forgetting_as_json(f: Forgetting) -> dict[str, Any]:
    return {
        "answer": f.answer.value,
        "checkpoint": f.checkpoint,
        "step": f.step,
        **{name: to_json_number(getattr(f, name)) for name in _FORGETTING_NUMBERS},
        "texts": f.texts,
        "tokens": f.tokens,
    }


def _forgetting_of(payload: Mapping[str, Any]) -> Forgetting:
    return Forgetting(
        answer=GoldAnswer(payload["answer"]),
        checkpoint=text(payload["checkpoint"]),
        step=optional_whole_number(payload["step"]),
        **{name: from_json_number(payload[name]) for name in _FORGETTING_NUMBERS},
        texts=whole_number(payload["texts"]),
        tokens=whole_number(payload["tokens"]),
    )
