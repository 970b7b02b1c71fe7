"""judge(): from what base and tuned models answered to a Judgement. Pure: no model, no file, no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sightline.errors import DataError
from sightline.gold.choosing import choose, split
from sightline.gold.comparison import ALPHA, Contest, compare
from sightline.gold.corpus_scores import token_mean
from sightline.gold.goldset import GoldSet
from sightline.gold.measuring import Measured, Outputs, measure
from sightline.gold.metric_choice import ChosenMetric, choose_metrics
from sightline.gold.models import Candidate
from sightline.runs import ExampleLosses, Finding
from sightline.runs.gold import (
    Choice,
    Comparison,
    Flip,
    Forgetting,
    GoldExample,
    Judgement,
    Prediction,
    StepScore,
)

MOST_FLIPS = 20
"""Rows shown side by side, half of them wins where there are as many losses."""

Generate = Callable[[Sequence[GoldExample]], Sequence[Prediction | str]]
"""Answers prompts, in their order."""


def judge(
    gold: GoldSet,
    chosen: Sequence[ChosenMetric],
    base: Outputs,
    tuned: Sequence[tuple[Candidate, Outputs]],
    *,
    base_name: str = "base",
    keep_by_gold: bool = False,
    base_loss: float | None = None,
    findings: Sequence[Finding] = (),
    alpha: float = ALPHA,
    predictions: str | None = None,
) -> Judgement:
    """Judge tuned models against their base on a gold set.

    Parameters
    ----------
    gold : GoldSet
        What was asked.
    chosen : sequence of ChosenMetric
        The metrics; the first one chooses the checkpoint and shows the flips.
    base : Outputs
        What the base model gave.
    tuned : sequence of (Candidate, Outputs)
        What each tuned model gave.
    base_name : str
        What the report calls the base model.
    keep_by_gold : bool
        Choose a checkpoint by the first metric on a part of the rows set aside for it, and report that checkpoint on
        the others only. Else every checkpoint is reported on all rows.
    base_loss : float, optional
        The base model's validation loss, nats per token.
    findings : sequence of Finding
        What is already known of the gold set and the models.
    alpha : float
        Probability of even one "better" or "worse" where all are equal.
    predictions : str, optional
        The file that holds all answers.

    Returns
    -------
    Judgement

    Raises
    ------
    DataError
        If the set is too small to choose by one part and report the other.
    """
    everything = list(range(len(gold)))
    aside, reported = split(gold) if keep_by_gold else (everything, everything)
    several = len(tuned) > 1
    choice, by_step = _by_step(
        gold, chosen[0], [(Candidate(Path(), "base", 0, base_loss), base), *tuned], set(aside), alpha
    )
    if keep_by_gold:
        choice = replace(choice, choosing_rows=len(aside))
        tuned = [(c, o) for c, o in tuned if c.name == choice.checkpoint]
    contests = [
        contest
        for one in (_only(one, set(reported)) for one in chosen)
        if one.rows
        for contest in _contests(gold, one, base, tuned)
    ]
    comparisons = compare(contests, alpha=alpha)
    return Judgement(
        gold=gold.name,
        n=len(reported),
        base=base_name,
        comparisons=_in_order(comparisons, [c for c, _ in tuned]),
        metric_why={one.metric.name: one.why for one in chosen},
        forgetting=forgetting(base.general, [(c, o.general) for c, o in tuned], alpha=alpha),
        flips=_flips(gold, _only(chosen[0], set(reported)), base, tuned, choice),
        by_step=by_step,
        choice=choice if several or keep_by_gold else None,
        findings=(*gold.findings, *findings),
        predictions=predictions,
    )


def choose_among(
    gold: GoldSet, first: ChosenMetric, tuned: Sequence[tuple[Candidate, Outputs]], aside: Sequence[int], alpha: float
) -> Candidate:
    """Return the checkpoint that the rows set aside choose, by the first metric."""
    one = _only(first, set(aside))
    one = one if one.rows else first
    candidates = [candidate for candidate, _ in tuned]
    choice = choose(candidates, [measure(one, gold.examples, o) for _, o in tuned], one.metric, alpha=alpha)
    return next(c for c in candidates if c.name == choice.checkpoint)


def judge_pair(
    examples: GoldSet | Sequence[GoldExample],
    generate_base: Generate,
    generate_tuned: Generate,
    metric: str | None = None,
    *,
    name: str = "gold set",
    alpha: float = ALPHA,
) -> Judgement:
    """Judge one tuned model against its base, given two functions that answer prompts.

    Parameters
    ----------
    examples : GoldSet or sequence of GoldExample
        The gold set.
    generate_base, generate_tuned : callable
        Take the examples, return their answers in the same order, as Prediction or as text.
    metric : str, optional
        A metric on answers (not on likelihoods); chosen from the data unless given.
    name : str
        What the report calls the gold set, where it has no name of its own.
    alpha : float
        Probability of "better" or "worse" where the two are equal.

    Returns
    -------
    Judgement
        ``judgement.answer`` is the answer, ``sightline.gold.report.judgement_paragraph`` says it in words.

    Raises
    ------
    DataError
        If the set is empty, a function returns another number of answers, or rows have choices (then likelihoods are
        needed).
    UsageError
        If the metric is not known.
    """
    gold = examples if isinstance(examples, GoldSet) else GoldSet(name, tuple(examples))
    if not len(gold):
        raise DataError(f"{gold.name}: no rows")
    chosen = choose_metrics(gold.examples, [metric] if metric else [])
    if any(one.metric.needs != "prediction" for one in chosen):
        named = ", ".join(one.metric.name for one in chosen)
        raise DataError(f"{gold.name}: {named} is measured by likelihood, not on answers; use judge_models")
    outputs = [Outputs(_answers(gold, generate)) for generate in (generate_base, generate_tuned)]
    return judge(gold, chosen, outputs[0], [(Candidate(Path(), "tuned"), outputs[1])], alpha=alpha)


def forgetting(
    base: ExampleLosses | None,
    tuned: Sequence[tuple[Candidate, ExampleLosses | None]],
    *,
    alpha: float = ALPHA,
) -> tuple[Forgetting, ...]:
    """Compare exact losses on a general text, text by text.

    Parameters
    ----------
    base : ExampleLosses or None
        Of the base model; None where no text was scored.
    tuned : sequence of (Candidate, ExampleLosses or None)
        Of each tuned model on the same texts.
    alpha : float
        Probability of even one false "worse" or "better"; Holm's correction is over the tuned models.

    Returns
    -------
    tuple of Forgetting
        In the order given.
    """
    contests = [
        Contest(
            "loss",
            _loss_counts(base),
            _loss_counts(losses),
            token_mean,
            lower_is_better=True,
            checkpoint=candidate.name,
            step=candidate.step,
        )
        for candidate, losses in tuned
        if base is not None and losses is not None
    ]
    return tuple(
        Forgetting(
            answer=c.answer,
            checkpoint=str(c.tuned.checkpoint),
            step=c.tuned.step,
            base_loss=c.base.value,
            tuned_loss=c.tuned.value,
            difference=c.difference,
            low=c.low,
            high=c.high,
            confidence=c.confidence,
            p_value=c.p_value,
            p_adjusted=c.p_adjusted,
            texts=c.base.n,
            tokens=0 if base is None else base.tokens,
        )
        for c in (compare(contests, alpha=alpha) if contests else ())
    )


def _answers(gold: GoldSet, generate: Generate) -> list[Prediction]:
    given = list(generate(gold.examples))
    if len(given) != len(gold):
        raise DataError(f"{gold.name}: {len(given)} answers to {len(gold)} prompts; a function must answer each")
    return [Prediction(a) if isinstance(a, str) else a for a in given]


def _only(one: ChosenMetric, kept: set[int]) -> ChosenMetric:
    """Return a metric on some of the gold set's rows."""
    return ChosenMetric(one.metric, one.why, tuple(i for i in one.rows if i in kept))


def _contests(
    gold: GoldSet, one: ChosenMetric, base: Outputs, tuned: Sequence[tuple[Candidate, Outputs]]
) -> list[Contest]:
    groups = tuple(gold.examples[i].group for i in one.rows)
    base_measured = measure(one, gold.examples, base)
    return [
        Contest(
            one.metric.name,
            base_measured.counts,
            measure(one, gold.examples, outputs).counts,
            base_measured.aggregate,
            is_binary=one.metric.is_binary,
            lower_is_better=one.metric.lower_is_better,
            checkpoint=candidate.name,
            step=candidate.step,
            groups=groups if len(set(groups)) > 1 else (),
        )
        for candidate, outputs in tuned
    ]


def _by_step(
    gold: GoldSet,
    first: ChosenMetric,
    models: Sequence[tuple[Candidate, Outputs]],
    aside: set[int],
    alpha: float,
) -> tuple[Choice, tuple[StepScore, ...]]:
    """Choose a checkpoint, not the base that comes first, and put scores beside losses where steps are known."""
    one = _only(first, aside)
    if not one.rows:
        one = first
    measured = [measure(one, gold.examples, outputs) for _, outputs in models]
    candidates = [candidate for candidate, _ in models]
    choice = choose(candidates[1:], measured[1:], one.metric, alpha=alpha)
    points = [
        StepScore(c.step, c.name, float(m.aggregate(m.counts.sum(axis=0))), c.eval_loss)
        for c, m in zip(candidates, measured, strict=True)
        if c.step is not None
    ]
    if len(points) == 1:  # no tuned model has a step
        points = []
    return choice, tuple(sorted(points, key=lambda point: point.step))


def _in_order(comparisons: Sequence[Comparison], candidates: Sequence[Candidate]) -> tuple[Comparison, ...]:
    """Sort by checkpoint, metrics of one in the order they were chosen."""
    place = {c.name: i for i, c in enumerate(candidates)}
    return tuple(sorted(comparisons, key=lambda c: place[str(c.tuned.checkpoint)]))


def _flips(
    gold: GoldSet,
    one: ChosenMetric,
    base: Outputs,
    tuned: Sequence[tuple[Candidate, Outputs]],
    choice: Choice,
) -> tuple[Flip, ...]:
    """Return the rows whose score changed most under the chosen checkpoint, wins and losses in turn."""
    if one.metric.needs != "prediction" or not one.rows:
        return ()
    candidate, outputs = next(((c, o) for c, o in tuned if c.name == choice.checkpoint), tuned[-1])
    before: Measured = measure(one, gold.examples, base)
    after = measure(one, gold.examples, outputs)
    gains = np.nan_to_num(after.by_row - before.by_row)
    order = np.argsort(-np.abs(gains), kind="stable")
    wins, losses = ([int(at) for at in order if sign * gains[at] > 0] for sign in (1, -1))
    half = MOST_FLIPS // 2
    kept = wins[: max(half, MOST_FLIPS - len(losses))] + losses[: max(half, MOST_FLIPS - len(wins))]
    return tuple(
        Flip(
            gold.examples[one.rows[at]],
            base.predictions[one.rows[at]],
            outputs.predictions[one.rows[at]],
            float(before.by_row[at]),
            float(after.by_row[at]),
            candidate.name,
            one.metric.name,
        )
        for at in kept
    )


def _loss_counts(losses: ExampleLosses) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.stack([losses.loss_sums, losses.token_counts.astype(np.float64)], axis=1)
