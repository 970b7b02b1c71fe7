"""From what a model answered to counts by row: for every metric an array that sums to its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.gold.corpus_scores import bleu, bleu_counts, chrf, chrf_counts, token_mean
from sightline.gold.metric_choice import ChosenMetric
from sightline.gold.scoring import Metric
from sightline.gold.statistics import Aggregate
from sightline.gold.tokens import ScoredRow, Template, scored_row
from sightline.runs import ExampleLosses
from sightline.runs.gold import GoldExample, Prediction


@dataclass(frozen=True, eq=False, slots=True)
class Outputs:
    """Everything one model was asked for."""

    predictions: Sequence[Prediction] = ()
    """Answers in the order of the gold set; empty where no metric looks at them."""
    choices: ExampleLosses | None = None
    """Losses of all choices of all rows, one after the other."""
    targets: ExampleLosses | None = None
    """Losses of the right answers."""
    general: ExampleLosses | None = None
    """Losses of the general text, for the forgetting check."""


@dataclass(frozen=True, eq=False, slots=True)
class Measured:
    """One model by one metric."""

    counts: NDArray[np.float64]
    """Shape (n, k): n rows of the metric."""
    aggregate: Aggregate
    """From sums of rows, shape (..., k), to scores, shape (...)."""

    @property
    def by_row(self) -> NDArray[np.float64]:
        """Score of each row by itself, shape (n,)."""
        return self.aggregate(self.counts)


def measure(chosen: ChosenMetric, examples: Sequence[GoldExample], outputs: Outputs) -> Measured:
    """Score one model by one metric.

    Parameters
    ----------
    chosen : ChosenMetric
        The metric and its rows.
    examples : sequence of GoldExample
        The whole gold set.
    outputs : Outputs
        What the model gave.

    Returns
    -------
    Measured
        The metric's rows in their order.
    """
    metric, rows = chosen.metric, chosen.rows
    if metric.needs == "target":
        assert outputs.targets is not None
        losses = np.stack([outputs.targets.loss_sums, outputs.targets.token_counts.astype(np.float64)], axis=1)
        return Measured(losses[list(rows)], token_mean)
    if metric.needs == "choices":
        assert outputs.choices is not None
        return _means(_right_choices(metric, examples, rows, outputs.choices))
    answers = [outputs.predictions[i].text for i in rows]
    references = [examples[i].references for i in rows]
    if metric.name == "bleu":
        return Measured(bleu_counts(answers, references), bleu)
    if metric.name == "chrf":
        return Measured(chrf_counts(answers, references), chrf)
    assert metric.score is not None
    return _means([metric.score(answer, right) for answer, right in zip(answers, references, strict=True)])


def choice_rows(examples: Sequence[GoldExample], tokenizer: Any, template: Template | None = None) -> list[ScoredRow]:
    """Return every choice of every row after its prompt, without an end token, to be scored by likelihood."""
    return [scored_row(e, choice, tokenizer, template, with_end=False) for e in examples for choice in e.choices]


def target_rows(examples: Sequence[GoldExample], tokenizer: Any, template: Template | None = None) -> list[ScoredRow]:
    """Return the right answer of every row after its prompt, with the end token, to be scored by likelihood."""
    return [scored_row(e, e.target, tokenizer, template) for e in examples]


def text_rows(texts: Sequence[str], tokenizer: Any, max_tokens: int | None = None) -> list[ScoredRow]:
    """Return plain texts with every token scored; longer ones are cut into pieces that the model can read."""
    rows = []
    for text in texts:
        ids: list[int] = tokenizer(text)["input_ids"]
        size = max_tokens or max(1, len(ids))
        pieces = (ids[i : i + size] for i in range(0, len(ids), size))
        rows += [ScoredRow(piece, list(piece)) for piece in pieces if len(piece) > 1]
    return rows


def _means(scores: Sequence[float]) -> Measured:
    values = np.asarray(scores, np.float64)
    return Measured(np.stack([values, np.ones_like(values)], axis=1), token_mean)


def _right_choices(
    metric: Metric, examples: Sequence[GoldExample], rows: Sequence[int], losses: ExampleLosses
) -> list[float]:
    """Return 1.0 for each row whose likeliest choice is right."""
    starts = np.cumsum([0, *(len(e.choices) for e in examples)])
    right = []
    for i in rows:
        choices = examples[i].choices
        part = slice(starts[i], starts[i + 1])
        scored = (losses.token_counts[part] > 0) & ~np.isnan(losses.loss_sums[part])  # else cut off by the context
        own = np.where(scored, losses.loss_sums[part], np.inf)
        if metric.name == "multiple_choice_by_length":
            own = own / np.array([max(1, len(choice)) for choice in choices])
        best = choices[int(np.argmin(own))]
        right.append(float(best in examples[i].references))
    return right
